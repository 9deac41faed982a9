//! A state at its quota: the alarm, what goes on meanwhile, and how it ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use storage_core::{Error, Key, OperationId, ReadOptions, Store, StoreExt, Txn, WriteOptions};
use storage_embedded::{
    LocalCluster, Node, NodeConfig,
    mvcc::{self, MvccError, Refused},
    restore,
};

const SOON: Duration = Duration::from_secs(60);
const QUOTA: u64 = 1 << 20;
const VALUE: usize = 8 << 10;

/// One whose leader stays, however busy the machine is.
fn small(config: NodeConfig) -> NodeConfig {
    let mut config = config;
    config.election = Duration::from_secs(5)..Duration::from_secs(8);
    config.bounds.quota_backend_bytes = QUOTA;
    config
}

fn key(name: &str) -> Key {
    Key::try_from(name).unwrap()
}

fn options() -> WriteOptions {
    WriteOptions::default().timeout(SOON)
}

async fn put(node: &Node, name: &str, bytes: usize) -> Result<(), Error> {
    node.store().commit(Txn::new().put(key(name), vec![7; bytes]), options()).await.map(drop)
}

async fn delete(node: &Node, name: &str) {
    assert!(node.store().commit(Txn::new().delete(key(name)), options()).await.unwrap().is_committed());
}

fn has_no_space(result: &Result<(), Error>) -> bool {
    matches!(result, Err(error @ Error::Throttled { .. }) if error.to_string().contains("the store has no space"))
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Several clients put, each through a node, until they are told that there is no space. Gives the keys that were acknowledged.
async fn fill(cluster: &LocalCluster, round: &str) -> Vec<String> {
    let clients = (0..6).map(|client| {
        let node = cluster.node(client % cluster.size()).unwrap().clone();
        async move {
            let mut acknowledged = Vec::new();
            loop {
                let name = format!("{round}/{client}/{}", acknowledged.len());
                match put(&node, &name, VALUE).await {
                    Ok(()) => acknowledged.push(name),
                    refused => {
                        assert!(has_no_space(&refused), "{refused:?}");
                        return acknowledged;
                    }
                }
                assert!(acknowledged.len() < 1000, "there is no end of space");
            }
        }
    });
    futures::future::join_all(clients).await.concat()
}

async fn alarms(node: &Node) -> Vec<u64> {
    node.mvcc().alarms(ReadOptions::default().timeout(SOON)).await.unwrap()
}

async fn disarm(node: &Node) {
    for member in alarms(node).await {
        assert!(node.mvcc().disarm(member, SOON).await.unwrap());
    }
}

/// Gives up all that can be given up.
async fn compact(node: &Node) {
    node.mvcc().barrier(SOON).await.unwrap();
    node.mvcc().compact(node.mvcc().revision(), SOON).await.unwrap();
}

/// All replicas have measured the same, and no more than the quota.
async fn assert_measured_alike(cluster: &LocalCluster) {
    for node in cluster.running() {
        node.mvcc().barrier(SOON).await.unwrap();
    }
    let sizes: Vec<_> = cluster.running().map(|node| node.status().state_bytes).collect();
    assert!(sizes.iter().all(|bytes| *bytes == sizes[0] && *bytes <= QUOTA), "{sizes:?}");
}

async fn refuses_growth(node: &Node) {
    assert!(has_no_space(&put(node, "more", 1).await));
    // Through the log, since a write that has a name may have been made before.
    let named = options().operation_id(OperationId(77));
    let refused = node.store().commit(Txn::new().put(key("named"), "1"), named).await.map(drop);
    assert!(has_no_space(&refused), "{refused:?}");
    let lease = node.mvcc().grant_lease(9, 30, SOON).await;
    assert!(matches!(lease, Err(MvccError::Refused(Refused::NoSpace))), "{lease:?}");
    assert_eq!(node.store().get(&key("more"), ReadOptions::default().timeout(SOON)).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filled_past_the_quota_it_reads_and_deletes_and_writes_again_when_it_is_disarmed() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(dir.path(), 3, small).await.unwrap();
    let node = |place: usize| cluster.node(place).unwrap();
    let acknowledged = fill(&cluster, "first").await;
    assert!(acknowledged.len() > 30, "{}", acknowledged.len());
    assert_measured_alike(&cluster).await;
    let leader = cluster.leader().unwrap().id();
    for place in 0..3 {
        assert_eq!((alarms(node(place)).await, node(place).status().alarms), (vec![leader], vec![leader]));
        refuses_growth(node(place)).await;
        // What was acknowledged is there, on each of them.
        for name in &acknowledged {
            let entry = node(place).store().get(&key(name), ReadOptions::default().timeout(SOON)).await.unwrap();
            assert_eq!(entry.unwrap().value.len(), VALUE);
        }
        // The cluster's own table goes on.
        node(place).put_row("row", place.to_string(), SOON).await.unwrap();
        assert_eq!(node(place).row(b"row").unwrap(), place.to_string());
    }
    // Disarmed without room, the alarm is back with the first write that grows, and not with one that does not.
    disarm(node(1)).await;
    delete(node(2), &acknowledged[0]).await;
    assert_eq!(alarms(node(0)).await, []);
    let refused = fill(&cluster, "second").await;
    assert!(refused.len() < 8, "{}", refused.len());
    assert_eq!(alarms(node(0)).await, [leader]);
    // Deletions and compactions make room; the alarm stands until somebody takes it back.
    for name in &acknowledged {
        delete(node(1), name).await;
    }
    compact(node(2)).await;
    assert!(node(2).status().state_bytes < QUOTA / 4, "{}", node(2).status().state_bytes);
    refuses_growth(node(2)).await;
    disarm(node(2)).await;
    assert!(!node(2).mvcc().disarm(leader, SOON).await.unwrap(), "it stands no more");
    for place in 0..3 {
        put(node(place), "again", VALUE).await.unwrap();
    }
    // The write that was refused under its name is made now.
    let named = options().operation_id(OperationId(77));
    assert!(node(0).store().commit(Txn::new().put(key("named"), "1"), named).await.unwrap().is_committed());
    assert_measured_alike(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_survives_restarts_and_a_new_leader_and_not_what_is_restored_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let quick = |config: NodeConfig| {
        let mut config = config.fast();
        config.bounds.quota_backend_bytes = QUOTA;
        config
    };
    let mut cluster = LocalCluster::start(dir.path(), 3, quick).await.unwrap();
    let acknowledged = fill(&cluster, "a").await;
    let raised = alarms(cluster.node(0).unwrap()).await;
    assert_eq!(raised.len(), 1, "{raised:?}");
    // From the log, and from a snapshot.
    for from_snapshot in [false, true] {
        for place in 0..3 {
            if from_snapshot {
                cluster.node(place).unwrap().snapshot(SOON).await.unwrap();
            }
            cluster.stop(place).await;
            cluster.restart(place).await.unwrap();
            cluster.wait_for_leader().await.unwrap();
            let node = cluster.node(place).unwrap();
            assert_eq!(alarms(node).await, raised);
            assert!(has_no_space(&put(node, "more", 1).await));
        }
    }
    assert_measured_alike(&cluster).await;

    // A cluster that is restored begins with its own machines and quota.
    let file = dir.path().join("saved");
    let mut footer = storage_embedded::SnapshotFooter::default();
    let mut saved = Vec::new();
    for piece in cluster.node(0).unwrap().open_snapshot(SOON).await.unwrap() {
        let piece = piece.unwrap();
        footer.update(&piece);
        saved.extend(piece);
    }
    saved.extend(footer.finish());
    std::fs::write(&file, saved).unwrap();
    let bytes = cluster.node(0).unwrap().status().state_bytes;
    let mut config = NodeConfig::alone(1, 7, dir.path().join("restored"));
    config.bounds.quota_backend_bytes = 2 * QUOTA;
    restore(&file, &config, 0).unwrap();
    let node = Node::start(config).await.unwrap();
    node.wait_for_leader(SOON).await.unwrap();
    node.mvcc().barrier(SOON).await.unwrap();
    assert_eq!(node.status().state_bytes, bytes, "it is measured as it was");
    assert_eq!(alarms(&node).await, []);
    put(&node, "more", VALUE).await.unwrap();
    let read = node.store().get(&key(&acknowledged[0]), ReadOptions::default().timeout(SOON)).await.unwrap();
    assert_eq!(read.unwrap().value.len(), VALUE);
    node.stop().await;
}

/// As in etcd, whichever branch is taken: what could grow is refused before anything is compared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_could_grow_is_refused_and_one_that_cannot_is_carried_out() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(dir.path(), 1, small).await.unwrap();
    let node = cluster.node(0).unwrap();
    put(node, "a", 1).await.unwrap();
    node.mvcc().raise_alarm(1, SOON).await.unwrap();
    let put = mvcc::Op::Put(mvcc::Put { key: key("a"), value: Some("2".into()), lease: None, previous: false });
    let delete = || mvcc::Op::Delete(mvcc::Delete { keys: mvcc::KeyRange::One("a".into()), previous: false });
    let either = mvcc::Txn { success: vec![delete()], failure: vec![put], ..mvcc::Txn::default() };
    let refused = node.mvcc().txn(either, SOON).await;
    assert!(matches!(refused, Err(MvccError::Refused(Refused::NoSpace))), "{refused:?}");
    assert!(node.mvcc().txn(mvcc::Txn::of(delete()), SOON).await.unwrap().succeeded);
    assert_eq!(node.store().get(&key("a"), ReadOptions::default().timeout(SOON)).await.unwrap(), None);
    until("the state is measured", || node.status().state_bytes > 0).await;
    node.mvcc().disarm(1, SOON).await.unwrap();
    node.store().put(&key("a"), "3").await.unwrap();
}
