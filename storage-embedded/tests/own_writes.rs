//! A replica that has answered a write shows it, though it does not lead and the read asks nobody else. As the leader's answer was passed on,
//! a transaction of two steps through a follower read what was before its own first step.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod freezer;

use std::time::{Duration, Instant};

use storage_core::{Key, Outcome, ReadOptions, Store, StoreExt, Txn, WriteOptions};
use storage_embedded::{
    LocalCluster, Node, NodeConfig,
    mvcc::{self, KeyRange},
};

const SOON: Duration = Duration::from_secs(30);

/// The value of a key as the node itself has it.
async fn local(node: &Node, key: &Key) -> Option<String> {
    let entry = node.store().get(key, ReadOptions::default().stale()).await.unwrap();
    entry.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_answers_a_write_when_it_has_applied_it() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(dir.path(), 3, NodeConfig::fast).await.unwrap();
    let node = cluster.follower().unwrap();
    let (store, mvcc, key) = (node.store(), node.mvcc(), Key::new("key").unwrap());
    for round in 1..=30 {
        let value = round.to_string();
        store.put(&key, value.clone()).await.unwrap();
        assert_eq!(local(node, &key).await, Some(value.clone()), "a put of the contract");

        let lease = 1000 + round;
        mvcc.grant_lease(lease, 600, SOON).await.unwrap();
        let put = mvcc::Put { key: key.clone(), value: Some("leased".into()), lease: Some(lease), previous: false };
        let answer = mvcc.txn(mvcc::Txn::of(mvcc::Op::Put(put)), SOON).await.unwrap();
        assert_eq!(
            (mvcc.revision(), mvcc.lease_keys(lease).unwrap()),
            (answer.revision, vec!["key".into()]),
            "a transaction"
        );

        mvcc.compact(answer.revision, SOON).await.unwrap();
        assert_eq!(mvcc.compacted(), Some(answer.revision), "a compaction");

        mvcc.revoke_lease(lease, SOON).await.unwrap();
        assert_eq!((mvcc.revision(), local(node, &key).await), (answer.revision + 1, None), "the end of a lease");

        let delete = mvcc::Op::Delete(mvcc::Delete { keys: KeyRange::One("none".into()), previous: false });
        store.put(&key, "again").await.unwrap();
        mvcc.txn(mvcc::Txn::of(delete), SOON).await.unwrap();
        assert_eq!(local(node, &key).await.as_deref(), Some("again"), "a transaction that changes nothing");

        node.put_row("row", value.clone(), SOON).await.unwrap();
        assert_eq!(node.row(b"row").unwrap(), value, "a row");
    }
}

/// It is committed, and that is known, whatever this replica hears later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_acknowledged_at_its_deadline_by_a_replica_that_hears_of_it_no_more() {
    let dir = tempfile::tempdir().unwrap();
    // It knows the leader for longer than the write takes.
    let patient = |mut config: NodeConfig| {
        config.election = Duration::from_secs(8)..Duration::from_secs(10);
        config
    };
    let (nodes, frozen) = freezer::start(dir.path(), patient).await;
    let (leader, deaf) = (&nodes[0], &nodes[2]);
    deaf.store().put(&Key::new("before").unwrap(), "1").await.unwrap();
    frozen.send_replace(true);

    let key = Key::new("key").unwrap();
    let deadline = Duration::from_secs(2);
    let began = Instant::now();
    let txn = Txn::new().put(key.clone(), "2");
    let outcome = deaf.store().commit(txn, WriteOptions::default().timeout(deadline)).await.unwrap();
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    assert!(began.elapsed() >= deadline, "it waited for what it could not know to be in vain");
    assert_eq!((local(leader, &key).await.as_deref(), local(deaf, &key).await), (Some("2"), None));
}
