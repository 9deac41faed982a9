//! Runs cases: a deadline over all of one, cleaning up afterwards, and the tests that the macros make.
//!
//! Invariant: a case with faults on shared servers runs alone there. What a case left behind is removed after failures
//! too, or the next would fail for it.

use std::{
    collections::HashMap,
    future::Future,
    io::Write,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::RwLock;

use super::{
    CASES, Harness, Servers,
    case::{Case, Kind, Verdict},
    context::Context,
    report,
    stop::Stop,
};

/// How long handles may take to close and a namespace to be removed, after the case itself.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs one case on a namespace of its own.
pub async fn run(case: &Case, harness: &dyn Harness) -> Verdict {
    run_within(case, harness, case.deadline()).await
}

/// As [`run`], with a deadline other than that of the case.
pub async fn run_within(case: &Case, harness: &dyn Harness, deadline: Duration) -> Verdict {
    let servers = servers_lock(harness);
    if case.kind != Kind::Disruptive || harness.servers() == Servers::Own {
        let _shared = servers.read().await;
        return run_locked(case, harness, deadline).await;
    }
    // Whether there are faults at all is found out beside the others, so that only cases with faults stop them.
    {
        let _shared = servers.read().await;
        match harness.namespace().await {
            Ok(namespace) if namespace.faults().is_none() => return Verdict::Skipped(Context::NO_FAULTS.to_owned()),
            Ok(_) => {}
            Err(error) => return Verdict::Failed(format!("no namespace: {error}")),
        }
    }
    let _exclusive = servers.write().await;
    run_locked(case, harness, deadline).await
}

async fn run_locked(case: &Case, harness: &dyn Harness, deadline: Duration) -> Verdict {
    // One deadline for all of it, so that a namespace that hangs does not get the time of the case on top.
    let started = Instant::now();
    let left = || deadline.saturating_sub(started.elapsed());
    let context = match tokio::time::timeout(left(), Context::new(harness)).await {
        Ok(Ok(context)) => context,
        Ok(Err(error)) => return Verdict::Failed(format!("no namespace: {error}")),
        Err(_) => return Verdict::Failed(format!("no namespace within {deadline:?}")),
    };
    let verdict = match tokio::time::timeout(left(), (case.run)(&context)).await {
        Ok(Ok(())) => Verdict::Passed,
        Ok(Err(Stop::Skipped(reason))) => Verdict::Skipped(reason),
        Ok(Err(Stop::Failed(what))) => Verdict::Failed(what),
        Err(_) => Verdict::Failed(format!("not done within {deadline:?}")),
    };
    // Also after a failure: the next case on the same servers must not find what this one left.
    let cleaned = tokio::time::timeout(CLEANUP_TIMEOUT, context.clean_up()).await;
    match (verdict, cleaned) {
        (Verdict::Passed, Ok(Err(error))) => Verdict::Failed(format!("could not be cleaned up: {error}")),
        (Verdict::Passed, Err(_)) => Verdict::Failed(format!("not cleaned up within {CLEANUP_TIMEOUT:?}")),
        (verdict, _) => verdict,
    }
}

/// The body of a generated test: runs a case on a runtime of its own and reports the verdict.
///
/// # Panics
/// If the case fails: that is how a test says so.
#[doc(hidden)]
#[expect(clippy::panic, reason = "called by generated tests alone, where a panic is the verdict")]
pub fn test<H, F>(group: &str, name: &str, harness: impl FnOnce() -> F)
where
    H: Harness,
    F: Future<Output = H>,
{
    let Some(case) = CASES.iter().find(|case| (case.group, case.name) == (group, name)) else {
        panic!("no case {group}::{name}");
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => panic!("no runtime: {error}"),
    };
    let (verdict, elapsed, backend, nodes) = runtime.block_on(async {
        let harness = harness().await;
        let started = Instant::now();
        let verdict = run(case, &harness).await;
        (verdict, started.elapsed(), harness.name().to_owned(), harness.nodes())
    });
    if let Err(error) = report::append(&backend, nodes, case, &verdict, elapsed) {
        panic!("the report could not be written: {error}");
    }
    match verdict {
        Verdict::Passed => {}
        // Not by a macro: tests that pass have their prints captured, and a skipped case has to be seen.
        Verdict::Skipped(reason) => drop(writeln!(std::io::stderr(), "SKIPPED {case}: {reason}")),
        Verdict::Failed(what) => panic!("{case} on {backend}: {what}"),
    }
}

/// Makes the tests of [`conformance_tests!`](crate::conformance_tests).
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ([$harness:expr] $($group:ident { $($case:ident $(= $kind:ident)?)* })*) => {
        $(mod $group {
            #[allow(unused_imports, reason = "the harness may be named from here or from the crate")]
            use super::*;

            $(
                #[test]
                fn $case() {
                    $crate::conformance::test(stringify!($group), stringify!($case), $harness);
                }
            )*
        })*
    };
}

/// One test for each case of the [conformance suite](crate::conformance), in a module of this name: `etcd::cas::succeeds`.
///
/// The second argument is called for each test: an `async fn() -> impl Harness`, or a closure that gives such a future.
#[macro_export]
macro_rules! conformance_tests {
    ($name:ident, $harness:expr) => {
        mod $name {
            #[allow(unused_imports, reason = "the harness may be named from here or from the crate")]
            use super::*;

            $crate::__conformance_cases!([$crate::__conformance_tests][$harness]);
        }
    };
}

/// Taken by each case on these servers: for reading by those that run side by side, for writing by one whose faults strike all.
fn servers_lock(harness: &dyn Harness) -> Arc<RwLock<()>> {
    type Locks = HashMap<(String, usize), Arc<RwLock<()>>>;
    static LOCKS: LazyLock<Mutex<Locks>> = LazyLock::new(Mutex::default);
    let mut locks = LOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(locks.entry((harness.name().to_owned(), harness.nodes())).or_default())
}
