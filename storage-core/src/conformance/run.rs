use std::{
    collections::HashMap,
    fmt,
    future::Future,
    io::Write,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use tokio::sync::RwLock;

use super::{
    CASES, Harness, Servers,
    context::Context,
    report,
    stop::{Checked, Stop},
};

/// How long handles may take to close and a namespace to be removed, after the case itself.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(30);

/// One case of the suite.
pub struct Case {
    /// The part of the contract that it is about.
    pub group: &'static str,
    /// What it is called within the group.
    pub name: &'static str,
    /// How it has to be run.
    pub kind: Kind,
    pub(super) run: for<'a> fn(&'a Context<'a>) -> BoxFuture<'a, Checked>,
}

/// How a case has to be run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Beside others.
    Usual,
    /// Beside others; writes so much that it may take longer.
    Slow,
    /// Needs faults, and so runs alone where servers are shared.
    Disruptive,
}

/// How a case ended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Verdict {
    /// The store fulfils this part of the contract.
    Passed,
    /// The case cannot be run here, for this reason.
    Skipped(String),
    /// The store breaks the contract, as this says.
    Failed(String),
}

impl Case {
    /// How long the case may take: far longer than on an idle machine, but not for ever.
    pub fn deadline(&self) -> Duration {
        match self.kind {
            Kind::Usual => Duration::from_secs(60),
            Kind::Slow | Kind::Disruptive => Duration::from_secs(120),
        }
    }
}

/// `group::name`.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.group, self.name)
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Case({self})")
    }
}

impl Verdict {
    /// `passed`, `skipped` or `failed`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Skipped(_) => "skipped",
            Self::Failed(_) => "failed",
        }
    }

    /// Why it was skipped or failed; empty if it passed.
    pub fn reason(&self) -> &str {
        match self {
            Self::Passed => "",
            Self::Skipped(reason) | Self::Failed(reason) => reason,
        }
    }
}

/// Runs one case on a namespace of its own.
pub async fn run(case: &Case, harness: &dyn Harness) -> Verdict {
    run_within(case, harness, case.deadline()).await
}

/// As [`run`], with a deadline other than that of the case.
pub async fn run_within(case: &Case, harness: &dyn Harness, deadline: Duration) -> Verdict {
    let turn = turn(harness);
    if case.kind != Kind::Disruptive || harness.servers() == Servers::Own {
        let _beside_others = turn.read().await;
        return run_in_turn(case, harness, deadline).await;
    }
    // Whether there are faults at all is found out beside the others, so that only cases with faults stop them.
    {
        let _beside_others = turn.read().await;
        match harness.namespace().await {
            Ok(namespace) if namespace.faults().is_none() => return Verdict::Skipped(Context::NO_FAULTS.to_owned()),
            Ok(_) => {}
            Err(error) => return Verdict::Failed(format!("no namespace: {error}")),
        }
    }
    let _alone = turn.write().await;
    run_in_turn(case, harness, deadline).await
}

async fn run_in_turn(case: &Case, harness: &dyn Harness, deadline: Duration) -> Verdict {
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

/// Who may run now, for the harnesses that share servers with this one.
fn turn(harness: &dyn Harness) -> Arc<RwLock<()>> {
    type Turns = HashMap<(String, usize), Arc<RwLock<()>>>;
    static TURNS: LazyLock<Mutex<Turns>> = LazyLock::new(Mutex::default);
    let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(turns.entry((harness.name().to_owned(), harness.nodes())).or_default())
}
