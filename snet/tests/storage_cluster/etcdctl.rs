//! `etcdctl` on three command lines.

use super::{common::etcdctl::Etcdctl, endpoint, init, says, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_etcdctl_finds_on_three_command_lines_what_etcd_has() {
    let cluster = start(init("embedded"), 3).await;
    for index in 0..3 {
        says(&cluster, index, "ready: the cluster serves");
    }
    let endpoints = (0..3).map(|index| endpoint(&cluster, index)).collect();
    Etcdctl { endpoints, tls: Vec::new() }.walk(cluster.dir().unwrap());
}

/// The load is 50 clients with 150 writes a second for a minute. How fast they were is not looked at here, since that is the machine's:
/// `docs/operations.md` says how to look at it.
#[tokio::test(flavor = "multi_thread")]
async fn check_perf_runs_through_and_all_its_writes_are_acknowledged() {
    let cluster = start(init("embedded"), 3).await;
    for index in 0..3 {
        says(&cluster, index, "ready: the cluster serves");
    }
    let etcdctl = Etcdctl { endpoints: (0..3).map(|index| endpoint(&cluster, index)).collect(), tls: Vec::new() };
    etcdctl.told(&["put", "a", "beside"]);
    let before = etcdctl.revision();
    let output = etcdctl.run(&["check", "perf", "--load", "s", "--auto-compact", "--auto-defrag"]);
    let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    println!("{printed}");
    for verdict in ["Throughput", "Slowest request", "Stddev", "Compacted with revision"] {
        assert!(printed.contains(verdict), "{verdict} is missing: {printed}");
    }
    // It counts each write that was not acknowledged as an error.
    let errors = ["FAIL: ERROR", "FAIL: too many errors", "Error"];
    let error = printed.split(['\r', '\n']).find(|line| errors.iter().any(|error| line.starts_with(error)));
    assert_eq!(error, None, "{printed}");
    let written = etcdctl.revision() - before;
    assert!(written > 100, "{written} revisions: {printed}");
    assert_eq!(etcdctl.told(&["get", "--prefix", "", "--keys-only"]), "a\n\n", "its keys are gone");
}
