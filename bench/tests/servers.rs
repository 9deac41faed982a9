//! Real servers are started, measured, verified, and gone with what they kept.
#![cfg(any(feature = "etcd", feature = "consul", feature = "zk"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use bench::{Amount, BACKENDS, Clients, Comparison, Placement, Workload, compare, default_directory};

#[test]
fn servers_are_compared_in_rounds_and_tell_their_version() {
    let directory = tempfile::tempdir_in(default_directory()).unwrap();
    let backends: Vec<_> = BACKENDS.iter().filter(|backend| !backend.in_process && !backend.needs_snet).collect();
    let comparison = Comparison {
        backends: backends.clone(),
        nodes: vec![1, 3],
        workloads: vec![Workload::Put, Workload::HotCas, Workload::Txn],
        clients: vec![4],
        rates: Vec::new(),
        value_bytes: 128,
        amount: Amount::Iterations(10),
        rounds: 2,
        placement: Placement::Leader,
        kills: 0,
        directory: directory.path().to_owned(),
        command: String::new(),
    };
    let mut steps = Vec::new();
    let clients = Clients::new(2).unwrap();
    let report = compare(&comparison, &clients, |step| steps.push(step.to_owned()));
    let report = report.unwrap_or_else(|error| panic!("{error}"));

    assert_eq!(report.cells.len(), backends.len() * 2 * 3);
    for cell in &report.cells {
        let used = cell.resources.expect("what the servers used");
        assert!(used.memory_bytes > 1 << 20 && used.bytes_written_per_100k > 0.0, "{cell:?}");
        assert!(cell.limit.is_some() && cell.failures.is_empty(), "{cell:?}");
        assert_eq!(cell.rounds.len(), 2, "{cell:?}");
    }
    for backend in &report.backends {
        assert!(backend.durable && backend.version.starts_with(|first: char| first.is_ascii_digit()), "{backend:?}");
    }
    let half = steps.len() / 2;
    assert!(steps[..half].iter().all(|step| step.starts_with("round 1: ")), "{steps:?}");
    assert!(steps[half..].iter().all(|step| step.starts_with("round 2: ")), "{steps:?}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn one_server_of_a_cluster_leads() {
    let clients = Clients::new(1).unwrap();
    for backend in BACKENDS.iter().filter(|backend| !backend.in_process && !backend.needs_snet) {
        let target = clients.block_on(backend.start(3, &default_directory())).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(target.handles(Placement::Spread).len(), 3, "{backend:?}");
        assert_eq!(target.handles(Placement::Leader).len(), 1, "{backend:?}: leader {:?}", target.leader());
        clients.block_on(target.stop());
    }
}
