//! What a stopped node holds: everything that it was given, and its directory as it was.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use storage_core::{Error, Key, ReadOptions, Store, StoreExt, Txn, WriteOptions};
use storage_embedded::{
    LocalCluster, Member, Node, NodeConfig, Role,
    mvcc::{self, KeyRange, KeyValue},
    restore, salvage,
};

const SOON: Duration = Duration::from_secs(60);

fn key(name: &str) -> Key {
    Key::try_from(name).unwrap()
}

fn fast(config: NodeConfig, snapshot_every: u64) -> NodeConfig {
    let mut config = config.fast();
    config.snapshot_every = snapshot_every;
    config
}

async fn all(node: &Node) -> Vec<KeyValue> {
    let range = mvcc::Range::new(KeyRange::From("\0".into()));
    node.mvcc().range(&range, ReadOptions::default().timeout(SOON)).await.unwrap().entries
}

/// All files below a directory.
fn contents(dir: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(contents(&entry.path()));
        } else {
            found.insert(entry.path(), fs::read(entry.path()).unwrap());
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in contents(from) {
        let path = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// A node alone, in a cluster of its own, of what was salvaged.
async fn restored(file: &Path, dir: &Path) -> Node {
    let mut config = NodeConfig::new(9, 2, dir, "127.0.0.1:0").fast();
    let member = Member { name: "new".to_owned(), peer_address: "127.0.0.1:1".to_owned(), ..Member::default() };
    config.founders = [(9, member)].into();
    restore(file, &config, 0).unwrap();
    let node = Node::start(config).await.unwrap();
    node.wait_for_leader(SOON).await.unwrap();
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_write_of_a_stopped_node_is_there_with_and_without_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    for snapshot_every in [500_000, 40] {
        let place = dir.path().join(snapshot_every.to_string());
        let mut cluster =
            LocalCluster::start(place.join("old"), 3, |config| fast(config, snapshot_every)).await.unwrap();
        let store = cluster.store().unwrap();
        for number in 0..150 {
            store.put(&key(&format!("k/{number:03}")), number.to_string()).await.unwrap();
        }
        store.delete(&key("k/000")).await.unwrap();
        cluster.leader().unwrap().mvcc().grant_lease(77, 3600, SOON).await.unwrap();
        let (before, revision) = {
            let leader = cluster.leader().unwrap();
            (all(leader).await, leader.mvcc().revision())
        };
        // A linearizable read on a node is there when it has applied all.
        for node in cluster.running() {
            assert_eq!(all(node).await, before);
        }
        let running = place.join("old/n1");
        let file = place.join("saved");
        let refused = salvage(&running, &file).unwrap_err();
        assert!(refused.to_string().contains("another node uses"), "{refused}");
        let status: Vec<_> = cluster.running().map(Node::status).collect();
        cluster.stop_all().await;
        for (number, status) in (1..=3).zip(&status) {
            let (node, file) = (place.join(format!("old/n{number}")), place.join(format!("saved{number}")));
            let untouched = contents(&node);
            let found = salvage(&node, &file).unwrap();
            assert_eq!(contents(&node), untouched, "nothing is changed");
            assert_eq!((found.keys, found.leases, found.revision, found.node), (149, 1, revision, number));
            assert!(found.last_index >= status.last_applied.unwrap(), "{found:?} {status:?}");
            assert!(found.committed_index <= found.last_index && found.last_term >= 1, "{found:?}");
            assert_eq!(found.members.len(), 3);
            assert_eq!(found.voter_sets, [[1, 2, 3].into()]);
            let new = restored(&file, &place.join(format!("new{number}"))).await;
            assert_eq!(all(&new).await, before);
            assert_eq!(new.mvcc().lease(77, SOON).await.unwrap().unwrap().granted_seconds, 3600);
            new.stop().await;
            let again = salvage(&node, &file).unwrap_err();
            assert!(matches!(again, Error::InvalidArgument { .. }) && again.to_string().contains("is there already"));
        }
    }
}

/// Two of three are gone: the third has an entry that nobody told it to be committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_are_not_known_to_be_committed_are_salvaged_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = LocalCluster::start(dir.path(), 3, NodeConfig::fast).await.unwrap();
    cluster.store().unwrap().put(&key("acknowledged"), "1").await.unwrap();
    let leader = (0..3).find(|place| cluster.node(*place).unwrap().status().role == Role::Leader);
    let leader = leader.unwrap();
    for place in (0..3).filter(|place| *place != leader) {
        cluster.stop(place).await;
    }
    let node = cluster.node(leader).unwrap().clone();
    let before = node.status().last_log_index.unwrap();
    let alone = {
        let store = node.store();
        tokio::spawn(async move {
            let options = WriteOptions::default().timeout(Duration::from_secs(2));
            store.commit(Txn::new().put(key("alone"), "2"), options).await
        })
    };
    let written = tokio::time::timeout(SOON, async {
        while node.status().last_log_index.unwrap() == before && !alone.is_finished() {
            tokio::task::yield_now().await;
        }
    });
    written.await.unwrap();
    // Nobody acknowledges it.
    assert!(alone.await.unwrap().is_err());
    drop(node);
    cluster.stop(leader).await;
    let (node, file) = (dir.path().join(format!("n{}", leader + 1)), dir.path().join("saved"));
    let found = salvage(&node, &file).unwrap();
    assert!(found.last_index > found.committed_index, "{found:?}");
    let new = restored(&file, &dir.path().join("new")).await;
    let keys: Vec<_> = all(&new).await.into_iter().map(|entry| entry.key).collect();
    assert_eq!(keys, ["acknowledged", "alone"]);
    new.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_or_empty_directory_is_an_error_and_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = LocalCluster::start(dir.path().join("old"), 1, |config| fast(config, 20)).await.unwrap();
    let store = cluster.store().unwrap();
    for number in 0..100 {
        store.put(&key(&format!("k/{number:03}")), "x".repeat(40)).await.unwrap();
    }
    cluster.stop_all().await;
    let (node, damaged, file) = (dir.path().join("old/n1"), dir.path().join("damaged"), dir.path().join("saved"));
    let whole = salvage(&node, &file).unwrap();
    fs::remove_file(&file).unwrap();

    let mut refusals = 0;
    for (path, bytes) in contents(&node) {
        let name = path.strip_prefix(&node).unwrap().to_owned();
        if !name.starts_with("log") && !name.starts_with("snapshots") {
            continue;
        }
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for offset in (0..used).step_by(used / 25 + 1) {
            let _ = fs::remove_dir_all(&damaged);
            copy(&node, &damaged);
            let mut flipped = bytes.clone();
            flipped[offset] ^= 4;
            fs::write(damaged.join(&name), flipped).unwrap();
            match salvage(&damaged, &file) {
                // Damage to what nobody needs.
                Ok(found) => {
                    assert_eq!((found.keys, found.revision), (whole.keys, whole.revision), "{name:?} {offset}");
                    fs::remove_file(&file).unwrap();
                }
                Err(error @ Error::Corrupt { .. }) => {
                    let told = error.to_string();
                    assert!(told.contains(damaged.join(&name).to_str().unwrap()) && told.contains("offset"), "{told}");
                    assert!(!file.exists());
                    refusals += 1;
                }
                Err(other) => panic!("{name:?} {offset}: {other}"),
            }
        }
    }
    assert!(refusals > 10, "{refusals}");
    // The snapshot that the log goes on from.
    let _ = fs::remove_dir_all(&damaged);
    copy(&node, &damaged);
    fs::remove_dir_all(damaged.join("snapshots")).unwrap();
    if let Ok(found) = salvage(&damaged, &file) {
        assert_eq!((found.keys, found.revision), (whole.keys, whole.revision), "the log has all of it");
        fs::remove_file(&file).unwrap();
    }

    // What cannot be opened is there, and so is what another command writes.
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path().join("nowhere"), &link).unwrap();
    let taken = dir.path().join("taken");
    fs::write(dir.path().join("taken.part"), "of another").unwrap();
    for (file, said) in [(&link, "link is there already"), (&taken, "taken.part is there already")] {
        let refused = salvage(&node, file).unwrap_err();
        assert!(matches!(refused, Error::InvalidArgument { .. }) && refused.to_string().contains(said), "{refused}");
    }
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink() && !taken.exists());
    assert_eq!(fs::read_to_string(dir.path().join("taken.part")).unwrap(), "of another");

    let empty = dir.path().join("empty");
    for made in [false, true] {
        if made {
            fs::create_dir(&empty).unwrap();
        }
        let refused = salvage(&empty, &file).unwrap_err();
        assert!(matches!(refused, Error::InvalidArgument { .. }), "{refused}");
        assert!(refused.to_string().contains("has no data of a node"), "{refused}");
        assert_eq!(empty.exists(), made, "nothing is made");
    }
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    assert!(!file.exists() && !dir.path().join("saved.part").exists());
}
