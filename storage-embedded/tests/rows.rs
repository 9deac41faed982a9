//! Rows of the configuration table: all nodes have them, clients do not see them, and a restored cluster begins without any.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{collections::BTreeMap, fs, time::Duration};

use bytes::Bytes;
use futures::StreamExt as _;
use storage_core::{Key, ReadOptions, ScanOptions, Store, StoreExt, WatchOptions};
use storage_embedded::{
    LocalCluster, Member, Node, NodeConfig, RowChange,
    mvcc::{self, KeyRange},
    restore,
};

const SOON: Duration = Duration::from_secs(30);

fn change(
    expected: &[(&'static str, Option<&'static str>)],
    next: &[(&'static str, Option<&'static str>)],
) -> RowChange {
    let rows = |rows: &[(&'static str, Option<&'static str>)]| {
        rows.iter().map(|(name, content)| (Bytes::from(*name), content.map(Bytes::from))).collect()
    };
    RowChange { expected: rows(expected), next: rows(next) }
}

fn rows(of: &[(&'static str, &'static str)]) -> BTreeMap<Bytes, Bytes> {
    of.iter().map(|(name, content)| (Bytes::from(*name), Bytes::from(*content))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_change_through_any_node_and_clients_neither_see_nor_delete_them() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(dir.path(), 3, NodeConfig::fast).await.unwrap();
    let [first, second, third] = [0, 1, 2].map(|index| cluster.node(index).unwrap());
    let watched = first.store().watch(b"", WatchOptions::default()).await.unwrap();
    let made = first.change_rows(change(&[("own/a", None)], &[("own/a", Some("1")), ("own/b", Some("2"))]), SOON);
    assert!(made.await.unwrap());
    // Whoever reads after it was acknowledged sees it, wherever.
    for node in [second, third] {
        assert_eq!(node.rows(b"own/", SOON).await.unwrap(), rows(&[("own/a", "1"), ("own/b", "2")]));
    }
    assert!(!second.change_rows(change(&[("own/a", Some("9"))], &[("own/a", None)]), SOON).await.unwrap());
    assert!(second.change_rows(change(&[("own/a", Some("1"))], &[("own/b", None)]), SOON).await.unwrap());
    assert_eq!(third.rows(b"own/", SOON).await.unwrap(), rows(&[("own/a", "1")]));

    // A client writes a key with the name of the row, and deletes all keys.
    let key = Key::new("own/a").unwrap();
    let store = third.store();
    assert!(store.get(&key, ReadOptions::default()).await.unwrap().is_none());
    assert!(store.scan(b"", ScanOptions::default()).await.unwrap().entries.is_empty());
    store.put(&key, "a client's").await.unwrap();
    let all = mvcc::Delete { keys: KeyRange::From("\0".into()), previous: false };
    third.mvcc().txn(mvcc::Txn::of(mvcc::Op::Delete(all)), SOON).await.unwrap();
    assert!(store.get(&key, ReadOptions::default()).await.unwrap().is_none());
    assert_eq!(first.rows(b"", SOON).await.unwrap(), rows(&[("own/a", "1")]));
    // A watch of everything shows the client's two writes and nothing before them.
    let seen: Vec<_> = tokio::time::timeout(SOON, watched.take(2).collect::<Vec<_>>()).await.unwrap();
    assert!(seen.iter().all(|event| event.as_ref().unwrap().key() == &key), "{seen:?}");
    assert_eq!(first.mvcc().revision(), 3);
}

async fn alone(config: NodeConfig) -> Node {
    let node = Node::start(config).await.unwrap();
    node.wait_for_leader(SOON).await.unwrap();
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_outlive_restarts_by_log_and_by_snapshot_and_a_restored_cluster_has_none() {
    let place = tempfile::tempdir().unwrap();
    let config = |name: &str| {
        let mut config = NodeConfig::new(1, 5, place.path().join(name), "127.0.0.1:0").fast();
        config.founders = [(1, Member { name: "n1".to_owned(), ..Member::default() })].into();
        config
    };
    let node = alone(config("first")).await;
    let key = Key::new("k").unwrap();
    node.store().put(&key, "v").await.unwrap();
    assert!(node.change_rows(change(&[], &[("own/a", Some("1")), ("own/b", Some("2"))]), SOON).await.unwrap());
    node.snapshot(SOON).await.unwrap();
    assert!(
        node.change_rows(change(&[("own/a", Some("1"))], &[("own/a", None), ("own/c", Some("3"))]), SOON)
            .await
            .unwrap()
    );
    node.stop().await;
    let node = alone(config("first")).await;
    assert_eq!(node.rows(b"own/", SOON).await.unwrap(), rows(&[("own/b", "2"), ("own/c", "3")]));
    let saved: Vec<u8> = node.open_snapshot(SOON).await.unwrap().flat_map(|piece| piece.unwrap()).collect();
    node.stop().await;
    let file = place.path().join("saved");
    fs::write(&file, saved).unwrap();
    restore(&file, &config("restored"), 0).unwrap();
    let node = alone(config("restored")).await;
    assert_eq!(node.rows(b"", SOON).await.unwrap(), BTreeMap::new());
    assert_eq!(node.store().get(&key, ReadOptions::default()).await.unwrap().unwrap().value, "v");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_removed_is_not_among_the_committed_members_of_any_node() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(dir.path(), 3, NodeConfig::fast).await.unwrap();
    let (first, second) = (cluster.node(0).unwrap(), cluster.node(1).unwrap());
    for node in [first, second] {
        assert_eq!(node.committed_members(SOON).await.unwrap(), ([1, 2, 3].into(), [1, 2, 3].into()));
    }
    first.remove([3], SOON).await.unwrap();
    for node in [first, second] {
        assert_eq!(node.committed_members(SOON).await.unwrap(), ([1, 2].into(), [1, 2].into()));
    }
    // One that hears no majority cannot tell.
    second.isolate(true);
    assert!(second.committed_members(Duration::from_millis(500)).await.is_err());
}
