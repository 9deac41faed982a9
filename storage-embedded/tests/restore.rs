//! A new cluster from a snapshot: what is kept to the letter, and which files are refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{fs, path::Path, time::Duration};

use storage_core::{Error, Key, OperationId, ReadOptions, Store, StoreExt, Txn, WriteOptions};
use storage_embedded::{
    LocalCluster, Member, Node, NodeConfig,
    mvcc::{self, KeyRange, KeyValue},
    restore,
};

const SOON: Duration = Duration::from_secs(30);

fn key(name: &str) -> Key {
    Key::try_from(name).unwrap()
}

/// A node alone, in a cluster of its own.
fn config(dir: &Path, cluster: u128) -> NodeConfig {
    let mut config = NodeConfig::new(9, cluster, dir, "127.0.0.1:0").fast();
    let member = Member { name: "new".to_owned(), peer_address: "127.0.0.1:1".to_owned(), ..Member::default() };
    config.founders = [(9, member)].into();
    config
}

async fn all(node: &Node) -> Vec<KeyValue> {
    let range = mvcc::Range::new(KeyRange::From("\0".into()));
    node.mvcc().range(&range, ReadOptions::default().timeout(SOON)).await.unwrap().entries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_revisions_leases_operations_and_the_past_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let old = LocalCluster::start(dir.path().join("old"), 3, NodeConfig::fast).await.unwrap();
    let node = old.node(0).unwrap();
    let store = node.store();
    for value in ["1", "2", "3"] {
        store.put(&key("a"), value).await.unwrap();
    }
    store.put(&key("gone"), "x").await.unwrap();
    store.delete(&key("gone")).await.unwrap();
    node.mvcc().grant_lease(77, 3600, SOON).await.unwrap();
    let leased = mvcc::Put { key: key("leased"), value: Some("v".into()), lease: Some(77), previous: false };
    node.mvcc().txn(mvcc::Txn::of(mvcc::Op::Put(leased)), SOON).await.unwrap();
    let once =
        || (Txn::new().put(key("once"), "first"), WriteOptions::default().operation_id(OperationId(5)).timeout(SOON));
    let (txn, options) = once();
    let applied = store.commit(txn, options).await.unwrap();
    let (before, revision) = (all(node).await, node.mvcc().revision());
    let file = dir.path().join("saved");
    let pieces = node.open_snapshot(SOON).await.unwrap().map(Result::unwrap);
    let bytes: Vec<u8> = pieces.flatten().collect();
    fs::write(&file, &bytes).unwrap();

    let place = dir.path().join("new");
    let restored = restore(&file, &config(&place, 2), 0).unwrap();
    assert_eq!((restored.keys, restored.leases, restored.revision), (3, 1, revision));
    let new = Node::start(config(&place, 2)).await.unwrap();
    new.wait_for_leader(SOON).await.unwrap();
    assert_eq!(all(&new).await, before);
    assert_eq!(before.iter().find(|entry| entry.key == "a").unwrap().version, 3);
    assert_eq!(new.mvcc().lease_keys(77).unwrap(), ["leased"]);
    assert_eq!(new.mvcc().lease(77, SOON).await.unwrap().unwrap().granted_seconds, 3600);
    assert_eq!(new.status().members.keys().collect::<Vec<_>>(), [&9]);
    // The past is there, and goes on.
    let mut range = mvcc::Range::new(KeyRange::One("a".into()));
    range.revision = 3;
    let past = new.mvcc().range(&range, ReadOptions::default()).await.unwrap();
    assert_eq!(past.entries[0].value, "2");
    // A retry that its client began before is not made twice.
    let (txn, options) = once();
    assert_eq!(new.store().commit(txn, options).await.unwrap(), applied);
    assert_eq!(new.mvcc().revision(), revision);
    new.store().put(&key("a"), "4").await.unwrap();
    assert_eq!(new.mvcc().revision(), revision + 1);
    new.mvcc().revoke_lease(77, SOON).await.unwrap();
    assert!(new.store().get(&key("leased"), ReadOptions::default()).await.unwrap().is_none());
    // It is a node like any other after a restart.
    let left = all(&new).await;
    new.stop().await;
    let new = Node::start(config(&place, 2)).await.unwrap();
    assert_eq!(all(&new).await, left);
    new.stop().await;

    // With a bump, what anybody remembers is past.
    let bumped = dir.path().join("bumped");
    assert_eq!(restore(&file, &config(&bumped, 3), 1000).unwrap().revision, revision + 1000);
    let new = Node::start(config(&bumped, 3)).await.unwrap();
    new.wait_for_leader(SOON).await.unwrap();
    assert_eq!((all(&new).await, new.mvcc().compacted()), (before, Some(revision + 1000)));
    new.stop().await;

    // Every byte counts, and what was refused leaves nothing.
    let (damaged, none) = (dir.path().join("damaged"), dir.path().join("none"));
    for offset in (0..bytes.len()).step_by(bytes.len() / 40 + 1).chain([bytes.len() - 1]) {
        let mut flipped = bytes.clone();
        flipped[offset] ^= 1;
        for wrong in [&flipped[..], &bytes[..offset]] {
            fs::write(&damaged, wrong).unwrap();
            let refused = restore(&damaged, &config(&none, 4), 0).unwrap_err();
            assert!(matches!(refused, Error::Corrupt { .. }), "{offset}: {refused}");
        }
    }
    // What an attempt has left that was killed is no hindrance, and what one writes that still runs is left alone.
    let aside = dir.path().join("none.restoring");
    fs::create_dir(&aside).unwrap();
    let lock = fs::File::create(aside.join("LOCK")).unwrap();
    lock.lock().unwrap();
    let refused = restore(&file, &config(&none, 4), 0).unwrap_err();
    assert!(refused.to_string().contains("another restore writes"), "{refused}");
    assert!(aside.join("LOCK").exists() && !none.exists());
    drop(lock);
    restore(&file, &config(&none, 4), 0).unwrap();
    assert!(!aside.exists());
    fs::remove_dir_all(&none).unwrap();
    let refused = restore(&file, &config(&place, 2), 0).unwrap_err();
    assert!(refused.to_string().contains("has something in it"), "{refused}");
    let refused = restore(&file, &config(&none, 4), u64::MAX).unwrap_err();
    assert!(refused.to_string().contains("cannot be raised"), "{refused}");
    let mut stranger = config(&none, 4);
    stranger.id = 8;
    assert!(restore(&file, &stranger, 0).unwrap_err().to_string().contains("not among the founding members"));
    let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["bumped", "damaged", "new", "old", "saved"]);
}
