//! A short soak of each backend: real servers, all classes of faults that the machine permits, every answer checked. Long ones
//! are `cargo xtask soak`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{env, fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use bench::soak::{Soak, Summary, soak};
use storage_testkit::nemesis::Class;
use tokio::sync::{Mutex, MutexGuard};

/// One at a time: a machine with two processors has enough to do with one cluster.
async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// `SOAK_SEED` repeats the choices of a run that failed.
fn short(backend: &str, workload: &str, seconds: u64) -> Soak {
    let seed = env::var("SOAK_SEED").map_or_else(|_| fastrand::u64(..1 << 32), |text| text.parse().expect("a number"));
    Soak {
        backend: backend.to_owned(),
        nodes: 3,
        time: Duration::from_secs(seconds),
        round: Duration::from_secs(seconds),
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
    let _turn = turn().await;
    let summary = run(&short(backend, workload, 5)).await;
    println!("{summary}");
    assert!(!summary.is_violated(), "{summary}");
    let total = summary.total();
    assert!(total.succeeded > 0 && total.rounds > 0, "{summary}");
    // Without root, kill and pause are left.
    assert!(total.faults > 0, "{summary}");
}

#[cfg(feature = "embedded")]
#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_engine_holds() {
    for workload in ["register", "watch", "payments"] {
        holds("embedded", workload).await;
    }
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
    let _turn = turn().await;
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

/// An empty disk under an old id: it has a vote, and has forgotten what it acknowledged. Operators are told not to; this is why.
#[cfg(feature = "embedded")]
#[tokio::test(flavor = "multi_thread")]
async fn a_node_id_that_is_used_for_a_second_disk_loses_writes_and_that_is_found() {
    use std::{sync::Arc, time::Instant};

    use storage::{Key, ReadOptions, Store, StoreExt, embedded::LocalCluster};
    use storage_testkit::{checker::Checker, history::Recorder};

    let folder = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let mut cluster = LocalCluster::start(folder.path(), 3, |config| config.fast()).await.unwrap();
    let recorder = Recorder::new();
    let key = Key::new("a").unwrap();
    // It lags behind; the two others acknowledge.
    cluster.stop(2).await;
    let store = recorder.wrap(Arc::new(cluster.node(0).unwrap().store()));
    store.put(&key, "acknowledged").await.unwrap();
    cluster.stop(0).await;
    cluster.stop(1).await;
    fs::remove_dir_all(folder.path().join("n1")).unwrap();
    cluster.restart(0).await.unwrap();
    cluster.restart(2).await.unwrap();
    // Two of three: they may serve.
    let store = recorder.wrap(Arc::new(cluster.node(2).unwrap().store()));
    let read = store.get(&key, ReadOptions::default().timeout(Duration::from_secs(30))).await.unwrap();
    assert_eq!(read, None, "the bug is not there");
    let report = Checker::default().check(&recorder.history());
    assert_eq!(report.violating_keys, 1, "{report}");
    println!("node id reuse: found in {:.1} s: {report}", began.elapsed().as_secs_f64());
    cluster.stop_all().await;
}
