//! A short soak of each backend: real servers, all classes of faults that the machine permits, every answer checked. Long ones
//! are `cargo xtask soak`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{env, fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use soak::{Soak, Summary, soak};
use storage_testkit::nemesis::{Class, FaultSchedule};
use tokio::sync::{Mutex, MutexGuard};

/// Waits until no other soak runs, one at a time: a machine with two processors has enough to do with one cluster.
async fn run_alone() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::const_new(());
    RUNNING.lock().await
}

/// `SOAK_SEED` repeats the choices of a run that failed.
fn short(backend: &str, workload: &str, seconds: u64) -> Soak {
    let seed = env::var("SOAK_SEED").map_or_else(|_| fastrand::u64(..1 << 32), |text| text.parse().expect("a number"));
    Soak {
        backend: backend.to_owned(),
        nodes: 3,
        time: Duration::from_secs(seconds),
        round: Duration::from_secs(seconds),
        pace: FaultSchedule::PACE,
        // Other tests have the processors meanwhile.
        serves_within: Duration::from_secs(60),
        seed,
        class: Some(Class::Combined),
        workload: Some(workload.to_owned()),
        clients: 6,
        directory: env::temp_dir(),
        out: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
        program: PathBuf::from(env!("CARGO_BIN_EXE_soak")),
    }
}

async fn run(chosen: &Soak) -> Summary {
    println!("SOAK_SEED={}", chosen.seed);
    let summary = soak(chosen, |line| println!("{line}")).await;
    summary.unwrap_or_else(|error| panic!("seed {}: {error}", chosen.seed))
}

/// A machine that stands still for seconds may make a round prove little; it never makes a sound store wrong.
async fn holds(backend: &str, workload: &str) {
    hold(&short(backend, workload, 5)).await;
}

async fn hold(chosen: &Soak) -> Summary {
    let _alone = run_alone().await;
    let summary = run(chosen).await;
    println!("{summary}");
    assert!(!summary.is_violated(), "{summary}");
    let total = summary.total();
    assert!(total.succeeded > 0 && total.rounds > 0, "{summary}");
    // Without root, kill and pause are left.
    assert!(total.faults > 0, "{summary}");
    summary
}

#[cfg(feature = "embedded")]
#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_engine_holds() {
    for workload in ["register", "watch", "payments"] {
        holds("embedded", workload).await;
    }
}

/// Kills that follow each other as fast as nodes start: in the middle of elections, of snapshots, and of the start after another kill.
#[cfg(feature = "embedded")]
#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_write_is_lost_when_nodes_are_killed() {
    let mut kills = 0;
    for workload in ["counter", "register"] {
        let pace = Duration::from_millis(10)..Duration::from_millis(200);
        let chosen = Soak { class: Some(Class::Kill), pace, ..short("embedded", workload, 15) };
        kills += hold(&chosen).await.total().faults;
    }
    assert!(kills >= LEAST_KILLS, "only {kills} kills");
}

/// Commands, right and wrong, restarts, and files that cannot be read or opened: what would lose the cluster is refused, and what was
/// acknowledged is there.
#[cfg(feature = "embedded")]
#[tokio::test(flavor = "multi_thread")]
async fn no_operator_loses_an_acknowledged_write() {
    let pace = Duration::from_millis(50)..Duration::from_millis(500);
    hold(&Soak { class: Some(Class::Operator), pace, ..short("embedded", "counter", 15) }).await;
}

/// Deletes of everything, writes under every name, calls begun and left, connections that say nothing.
#[cfg(feature = "embedded")]
#[tokio::test(flavor = "multi_thread")]
async fn no_client_harms_another() {
    let pace = Duration::from_millis(50)..Duration::from_millis(1000);
    hold(&Soak { class: Some(Class::Client), pace, ..short("embedded", "bank", 10) }).await;
}

/// A machine that does nothing else sees some times as many.
#[cfg(feature = "embedded")]
const LEAST_KILLS: usize = 20;

/// Clusters that grow by themselves: what an operator does, and disks that are replaced.
#[cfg(all(feature = "embedded", feature = "etcd"))]
#[tokio::test(flavor = "multi_thread")]
async fn no_operator_loses_an_acknowledged_write_of_a_cluster_that_grows() {
    let pace = Duration::from_millis(50)..Duration::from_millis(500);
    hold(&Soak { class: Some(Class::Operator), pace, ..short("growing", "counter", 15) }).await;
}

#[cfg(feature = "etcd")]
#[tokio::test(flavor = "multi_thread")]
async fn etcd_holds() {
    holds("etcd", "bank").await;
}

#[cfg(feature = "consul")]
#[tokio::test(flavor = "multi_thread")]
async fn consul_holds() {
    holds("consul", "counter").await;
}

#[cfg(feature = "zk")]
#[tokio::test(flavor = "multi_thread")]
async fn zookeeper_holds() {
    holds("zk", "register").await;
}

/// The nodes are told that their data are synced, and nothing was. strace answers in the kernel's place.
#[cfg(feature = "embedded")]
#[tokio::test(flavor = "multi_thread")]
async fn acknowledging_before_the_sync_is_found_when_the_power_fails() {
    let _alone = run_alone().await;
    let folder = tempfile::tempdir().unwrap();
    let liar = folder.path().join("liar");
    let calls = "fsync,fdatasync,sync_file_range";
    let script = format!(
        "#!/bin/sh\nexec strace -f --seccomp-bpf -qq -o /dev/null -e trace={calls} -e inject={calls}:retval=0 {} \"$@\"\n",
        env!("CARGO_BIN_EXE_soak")
    );
    fs::write(&liar, script).unwrap();
    fs::set_permissions(&liar, fs::Permissions::from_mode(0o755)).unwrap();
    let strace = std::process::Command::new("strace").args(["-f", "--seccomp-bpf", "-o", "/dev/null", "true"]).status();
    if !strace.is_ok_and(|status| status.success()) {
        println!("skipped: strace is not on this machine, or may not be used");
        return;
    }
    let mut chosen = short("embedded", "counter", 8);
    (chosen.class, chosen.program) = (Some(Class::Power), liar);
    let began = std::time::Instant::now();
    let found = soak(&chosen, |line| println!("{line}")).await;
    let seconds = began.elapsed().as_secs_f64();
    match found {
        Ok(summary) if summary.rows.is_empty() => println!("skipped: {}", summary.skipped.join(", ")),
        Ok(summary) => {
            assert!(summary.is_violated(), "{summary}");
            println!("found in {seconds:.1} s: {summary}");
        }
        // Nodes whose logs are not what they were may also refuse to go on.
        Err(error) => println!("found in {seconds:.1} s: {error}"),
    }
}

/// A bug that there was: a folder that cannot be read was taken for lost, and removed.
#[cfg(feature = "embedded")]
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_takes_the_unreadable_for_absent_is_found_by_an_operator() {
    let _alone = run_alone().await;
    let folder = tempfile::tempdir().unwrap();
    let hasty = folder.path().join("hasty");
    // $5 is what --data-dir says.
    let script = format!(
        "#!/bin/sh\nif [ -e \"$5\" -o -L \"$5\" ] && ! find -L \"$5\" -type f -exec cat {{}} + >/dev/null 2>&1; then rm -rf \"$5\"; fi\n\
         exec {} \"$@\"\n",
        env!("CARGO_BIN_EXE_soak")
    );
    fs::write(&hasty, script).unwrap();
    fs::set_permissions(&hasty, fs::Permissions::from_mode(0o755)).unwrap();
    let began = std::time::Instant::now();
    while began.elapsed() < FOUND_WITHIN {
        let pace = Duration::from_millis(50)..Duration::from_millis(300);
        let chosen =
            Soak { class: Some(Class::Operator), pace, program: hasty.clone(), ..short("embedded", "counter", 10) };
        let found = soak(&chosen, |line| println!("{line}")).await;
        let seconds = began.elapsed().as_secs_f64();
        match found {
            Ok(summary) if !summary.is_violated() => {}
            Ok(summary) => return println!("found in {seconds:.1} s: {summary}"),
            // The node whose folder was removed does not come back, which a sound one does.
            Err(error) => return println!("found in {seconds:.1} s: {error}"),
        }
    }
    panic!("a folder that was removed since it could not be read was not found within {FOUND_WITHIN:?}");
}

/// Long enough for an operator to come to any of its acts.
#[cfg(feature = "embedded")]
const FOUND_WITHIN: Duration = Duration::from_secs(300);
