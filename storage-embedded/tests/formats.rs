//! What earlier builds have written is read to the letter: the data directory of a node, and a saved snapshot. `formats/README.md` says how they
//! were made. The tests in `golden/` look at single records; these at all that has to fit together when a node starts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use storage_core::{Committed, Key, OperationId, Outcome, ReadOptions, Store, StoreExt, Txn, WriteOptions};
use storage_embedded::{
    ClusterToken, Member, Node, NodeConfig, Salvage, SnapshotFooter,
    mvcc::{self, KeyRange, KeyValue},
    restore,
};

const SOON: Duration = Duration::from_secs(30);
const CLUSTER: u128 = 0xf0_12a7;
const LEASE: u64 = 77;
const LEASE_SECONDS: u64 = 1_000_000;
const OPERATION: OperationId = OperationId(5);

fn formats() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats")
}

fn key(name: &str) -> Key {
    Key::try_from(name).unwrap()
}

fn member(name: &str) -> Member {
    let (peer_address, client_url) = (format!("{name}.invalid:2380"), format!("http://{name}.invalid:2379"));
    Member { name: name.to_owned(), peer_address, client_url }
}

fn config(dir: &Path) -> NodeConfig {
    let mut config = NodeConfig::new(1, CLUSTER, dir, "127.0.0.1:0").fast();
    config.founders = [(1, member("n1"))].into();
    // Of no data, and of those that are not alone at loopback addresses.
    config.token = ClusterToken::new("0123456789abcdef");
    config
}

async fn start(dir: &Path) -> Node {
    let node = Node::start(config(dir)).await.unwrap();
    node.wait_for_leader(SOON).await.unwrap();
    node
}

/// A write that is made once, however often it is sent.
async fn write_once(node: &Node) -> Committed {
    let options = WriteOptions::default().operation_id(OPERATION).timeout(SOON);
    let txn = Txn::new().put(key("once"), "first");
    let Outcome::Committed(committed) = node.store().commit(txn, options).await.unwrap() else { panic!("a conflict") };
    committed
}

/// Three lives of a node, each with a segment of the log; a snapshot in the first, and saved in the last.
async fn write(dir: &Path) {
    let node = start(dir).await;
    for value in ["1", "2", "3"] {
        node.store().put(&key("a"), value).await.unwrap();
    }
    node.store().put(&key("gone"), "x").await.unwrap();
    node.store().delete(&key("gone")).await.unwrap();
    node.mvcc().grant_lease(LEASE, LEASE_SECONDS, SOON).await.unwrap();
    let leased = mvcc::Put { key: key("leased"), value: Some("v".into()), lease: Some(LEASE), previous: false };
    node.mvcc().txn(mvcc::Txn::of(mvcc::Op::Put(leased)), SOON).await.unwrap();
    write_once(&node).await;
    node.mvcc().compact(3, SOON).await.unwrap();
    node.put_row("row", "before the snapshot", SOON).await.unwrap();
    node.add_learner(2, member("n2"), SOON).await.unwrap();
    node.snapshot(SOON).await.unwrap();
    node.store().put(&key("a"), "4").await.unwrap();
    node.stop().await;

    let node = start(dir).await;
    node.put_row("later", "behind the snapshot", SOON).await.unwrap();
    node.store().put(&key("b"), vec![7; 3000]).await.unwrap();
    node.stop().await;

    let node = start(dir).await;
    node.store().delete(&key("b")).await.unwrap();
    node.store().put(&key("b"), "again").await.unwrap();
    node.stop().await;
}

/// What a reader finds of it.
async fn check(node: &Node) {
    let entry = |key: &'static str, value: &'static str, [create_revision, mod_revision, version]: [u64; 3], lease| {
        KeyValue { key: key.into(), value: value.into(), create_revision, mod_revision, version, lease }
    };
    let expected = [
        entry("a", "4", [2, 9, 4], 0),
        entry("b", "again", [12, 12, 1], 0),
        entry("leased", "v", [7, 7, 1], LEASE),
        entry("once", "first", [8, 8, 1], 0),
    ];
    let mut all = mvcc::Range::new(KeyRange::From("\0".into()));
    let mvcc = node.mvcc();
    assert_eq!(mvcc.range(&all, ReadOptions::default().timeout(SOON)).await.unwrap().entries, expected);
    assert_eq!((mvcc.revision(), mvcc.compacted()), (12, Some(3)));
    all.revision = 5;
    let past = mvcc.range(&all, ReadOptions::default()).await.unwrap().entries;
    assert_eq!(past, [entry("a", "3", [2, 4, 3], 0), entry("gone", "x", [5, 5, 1], 0)]);

    let events = mvcc.events(4, |_| true, mvcc::EventLimit { events: 100, bytes: 1 << 20 }).unwrap();
    let events = events.events.iter().map(|event| (event.entry.mod_revision, event.entry.key.as_ref(), event.deleted));
    let expected: [(u64, &[u8], bool); 9] = [
        (4, b"a", false),
        (5, b"gone", false),
        (6, b"gone", true),
        (7, b"leased", false),
        (8, b"once", false),
        (9, b"a", false),
        (10, b"b", false),
        (11, b"b", true),
        (12, b"b", false),
    ];
    assert_eq!(events.collect::<Vec<_>>(), expected);

    assert_eq!(
        (mvcc.leases(ReadOptions::default()).await.unwrap(), mvcc.lease_keys(LEASE).unwrap()),
        (vec![LEASE], vec!["leased".into()])
    );
    assert_eq!(mvcc.lease(LEASE, SOON).await.unwrap().unwrap().granted_seconds, LEASE_SECONDS);

    // It was made already, and so nothing is written now.
    let committed = write_once(node).await;
    assert_eq!((committed.revision.map(|revision| revision.0), mvcc.revision()), (Some(7), 12));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_directory_of_an_earlier_build_is_read() {
    let place = tempfile::tempdir().unwrap();
    if std::env::var_os("WRITE_FORMATS").is_some() {
        let dir = place.path().join("written");
        write(&dir).await;
        trim(&dir, &formats().join("node"));
    }
    let dir = place.path().join("node");
    expand(&formats().join("node"), &dir);

    let salvage = Salvage::open(&dir).unwrap();
    let found = salvage.found();
    assert_eq!((found.cluster, found.node), (CLUSTER, 1));
    assert_eq!((found.keys, found.leases, found.revision), (4, 1, 12));
    assert_eq!((found.last_index, found.last_term, found.committed_index), (LAST.0, LAST.1, LAST.0));
    let members = BTreeMap::from([(1, member("n1")), (2, member("n2"))]);
    assert_eq!((&found.members, found.voter_sets), (&members, vec![BTreeSet::from([1])]));
    drop(salvage);

    let node = start(&dir).await;
    check(&node).await;
    assert_eq!(node.row(b"row").unwrap(), "before the snapshot");
    assert_eq!(node.row(b"later").unwrap(), "behind the snapshot");
    let status = node.status();
    assert_eq!((status.members, status.voters), (members, vec![1]));
    assert!(status.term > LAST.1 && status.last_applied >= Some(LAST.0), "{} {:?}", status.term, status.last_applied);
    if std::env::var_os("WRITE_FORMATS").is_some() {
        save(&node, &formats().join("saved.snapshot")).await;
    }
    node.stop().await;
}

/// The index and the term of the last entry in the log.
const LAST: (u64, u64) = (22, 3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_saved_by_an_earlier_build_is_restored() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("node");
    let file = formats().join("saved.snapshot");
    let restored = restore(&file, &config(&dir), 0).unwrap();
    assert_eq!((restored.keys, restored.leases, restored.revision), (4, 1, 12));
    let bytes = fs::read(&file).unwrap();
    let (mut footer, hash) = (SnapshotFooter::default(), bytes.len() - 32);
    footer.update(&bytes[..hash]);
    assert_eq!(footer.finish(), bytes[hash..], "the hash at its end");

    let node = start(&dir).await;
    check(&node).await;
    node.stop().await;
}

/// Saves what a node has as `snet storage snapshot save` does: a snapshot, and its footer.
async fn save(node: &Node, file: &Path) {
    let mut footer = SnapshotFooter::default();
    let mut bytes = Vec::new();
    for piece in node.open_snapshot(SOON).await.unwrap() {
        let piece = piece.unwrap();
        footer.update(&piece);
        bytes.extend(piece);
    }
    bytes.extend(footer.finish());
    fs::write(file, bytes).unwrap();
}

/// Names the files of a directory that was trimmed, each with its length.
const LENGTHS: &str = "lengths";

/// Copies a data directory without the zeros at the ends of its files, which a log has many of. A file of zeros alone is left out: it
/// waits to become a segment.
fn trim(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let mut lengths = String::new();
    for name in files(from, Path::new("")) {
        let bytes = fs::read(from.join(&name)).unwrap();
        let Some(last) = bytes.iter().rposition(|byte| *byte != 0) else { continue };
        let copy = to.join(&name);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::write(copy, &bytes[..=last]).unwrap();
        lengths.push_str(&format!("{} {}\n", bytes.len(), name.display()));
    }
    fs::write(to.join(LENGTHS), lengths).unwrap();
}

/// The opposite.
fn expand(from: &Path, to: &Path) {
    for line in fs::read_to_string(from.join(LENGTHS)).unwrap().lines() {
        let (length, name) = line.split_once(' ').unwrap();
        let copy = to.join(name);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(from.join(name), &copy).unwrap();
        File::options().write(true).open(&copy).unwrap().set_len(length.parse().unwrap()).unwrap();
    }
}

fn files(top: &Path, below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(top.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = below.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() { found.extend(files(top, &name)) } else { found.push(name) }
    }
    found.sort();
    found
}
