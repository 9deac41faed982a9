//! What clients do to rows, where they can reach them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use storage_core::{Key, MemoryStore, ReadOptions, Result, Store, StoreExt as _};
use storage_embedded::RowChange;

use crate::{
    contents::{Contents, ReplicaRow},
    ids::ClusterId,
    leader_report::LeaderReport,
    proof,
    rows::{PREFIX, Rows, StoreRows},
    settings::Replica,
    table::Table,
    token::Token,
    url::NodeUrl,
};

const CLUSTER: ClusterId = ClusterId(5);
const SOON: Duration = Duration::from_secs(30);

fn table_of(rows: Arc<dyn Rows>, token: &str) -> Table {
    Table::new(rows, 7, token.parse().unwrap(), SOON)
}

fn table(memory: &MemoryStore) -> Table {
    table_of(Arc::new(StoreRows(Arc::new(memory.handle()))), "t")
}

fn replica_row(id: u64, node: Option<u64>) -> ReplicaRow {
    let replica = Replica {
        id,
        name: format!("n{id}"),
        client_url: NodeUrl::new("127.0.0.1", 1),
        peer_url: NodeUrl::new("127.0.0.1", 2),
    };
    ReplicaRow::of(&replica, 100 + id, 1, true, node)
}

/// A cluster of replicas 1 and 2 with nodes 11 and 12, of which the second was asked to leave and is gone.
async fn filled(memory: &MemoryStore) -> (Table, Contents) {
    let table = table(memory);
    table.found(CLUSTER, &table.read().await.unwrap()).await.unwrap();
    for id in [1, 2] {
        let seen = table.read().await.unwrap();
        assert!(table.assign(10 + id, id, 100 + id, &seen).await.unwrap());
        assert!(table.beat(id, &replica_row(id, Some(10 + id)), &seen).await.unwrap());
    }
    table.leave(2, true).await.unwrap();
    let seen = table.read().await.unwrap();
    assert!(table.announce(11, Some("a change".to_owned()), &[12], &seen).await.unwrap());
    table.report(&LeaderReport::default(), &seen).await.unwrap();
    let contents = table.read().await.unwrap();
    assert_eq!((contents.cluster, contents.replicas.len(), contents.nodes.len()), (Some(CLUSTER), 2, 2));
    assert!(contents.change.is_some() && contents.report.is_some() && contents.leaving.contains(&2));
    assert!(contents.has_node(11) && !contents.has_node(12) && contents.unproved.is_empty());
    (table, contents)
}

fn key(name: &str) -> Key {
    Key::new(format!("{PREFIX}0000000000000007/{name}")).unwrap()
}

async fn value(memory: &MemoryStore, name: &str) -> Bytes {
    memory.get(&key(name), ReadOptions::default()).await.unwrap().unwrap().value
}

/// What is proved in it, without how it stands there.
fn said(contents: &Contents) -> String {
    let Contents { cluster, replicas, leaving, nodes, change, report, .. } = contents;
    format!("{cluster:?} {replicas:?} {leaving:?} {nodes:?} {change:?} {report:?}")
}

#[tokio::test]
async fn rows_of_clients_are_named_and_nothing_else_comes_of_them() {
    let memory = MemoryStore::new();
    let (table, before) = filled(&memory).await;
    // A row of the same table under another name, one that somebody with another token has made, and one without any proof.
    let moved = value(&memory, "node/000000000000000c").await;
    let other = MemoryStore::new();
    let stranger = table_of(Arc::new(StoreRows(Arc::new(other.handle()))), "another word");
    stranger.leave(1, true).await.unwrap();
    let strangers = value(&other, "leaving/1").await;
    let plain = r#"{"replica":1,"incarnation":101,"is_gone":true}"#;
    // The proof of one row before the text of another.
    let mut spliced = moved.to_vec();
    spliced.splice(65.., plain.bytes());
    for (name, forged) in [
        ("node/000000000000000d", moved),
        ("leaving/1", strangers),
        ("node/000000000000000e", plain.into()),
        ("node/000000000000000f", spliced.into()),
        ("node/what", "".into()),
        ("mine", "1".into()),
    ] {
        memory.put(&key(name), forged).await.unwrap();
        let after = table.read().await.unwrap();
        assert_eq!(said(&after), said(&before), "{name}");
        assert!(after.unproved.contains(name), "{name}: {:?}", after.unproved);
    }
}

#[tokio::test]
async fn a_row_that_was_written_over_counts_as_absent_and_is_written_again() {
    let memory = MemoryStore::new();
    let (table, before) = filled(&memory).await;
    for name in ["cluster", "replica/1", "node/000000000000000b"] {
        memory.put(&key(name), "no row").await.unwrap();
    }
    let seen = table.read().await.unwrap();
    assert_eq!((seen.cluster, seen.replicas.len(), seen.has_node(11)), (None, 1, false));
    assert!(table.cluster().await.unwrap_err().to_string().contains("another token"));
    table.found(CLUSTER, &seen).await.unwrap();
    assert!(table.assign(11, 1, 101, &seen).await.unwrap());
    assert!(table.beat(1, &replica_row(1, Some(11)), &seen).await.unwrap());
    assert_eq!(said(&table.read().await.unwrap()), said(&before));
    // Whoever has not seen what stands there now changes nothing.
    assert!(!table.beat(1, &replica_row(1, None), &seen).await.unwrap());
    assert!(!table.assign(11, 2, 102, &table.read().await.unwrap()).await.unwrap(), "the node of another");
}

/// Remembers the changes that went through.
#[derive(Debug)]
struct Overheard(StoreRows, Mutex<Vec<RowChange>>);

#[async_trait]
impl Rows for Overheard {
    async fn all(&self, prefix: &str, timeout: Duration) -> Result<BTreeMap<Bytes, Bytes>> {
        self.0.all(prefix, timeout).await
    }

    async fn change(&self, change: RowChange, timeout: Duration) -> Result<bool> {
        self.1.lock().unwrap().push(change.clone());
        self.0.change(change, timeout).await
    }
}

#[tokio::test]
async fn a_change_that_somebody_has_overheard_is_not_made_again() {
    let memory = MemoryStore::new();
    filled(&memory).await;
    let heard = Arc::new(Overheard(StoreRows(Arc::new(memory.handle())), Mutex::default()));
    let table = table_of(Arc::clone(&heard) as Arc<dyn Rows>, "t");
    for leaves in [true, false, true] {
        table.leave(1, leaves).await.unwrap();
    }
    let beat = |beat| ReplicaRow { beat, ..replica_row(1, Some(11)) };
    for number in [2, 3] {
        assert!(table.beat(1, &beat(number), &table.read().await.unwrap()).await.unwrap());
    }
    let now = said(&table.read().await.unwrap());
    let changes = heard.1.lock().unwrap().clone();
    assert_eq!(changes.len(), 5);
    for change in changes {
        assert!(!heard.0.change(change.clone(), SOON).await.unwrap(), "{change:?}");
    }
    assert_eq!(said(&table.read().await.unwrap()), now);
}

/// Rows as an earlier release wrote them, among the keys.
async fn earlier(memory: &MemoryStore, token: &Token) {
    let (prefix, id) = (format!("{PREFIX}0000000000000007/"), CLUSTER.to_string());
    let parts: [&[u8]; 3] = [b"cluster", prefix.as_bytes(), id.as_bytes()];
    let proof = proof::hex(&proof::prove(token, &parts));
    for (name, row) in [
        ("cluster", format!(r#"{{"id":"{CLUSTER}","proof":"{proof}"}}"#)),
        ("replica/1", r#"{"incarnation":101,"beat":5,"name":"n1","client_url":"http://a:1","peer_url":"http://a:2","runs_node":true,"proof":""}"#.to_owned()),
        ("node/000000000000000b", r#"{"replica":1,"incarnation":101,"is_gone":false}"#.to_owned()),
        ("node/000000000000000c", r#"{"replica":2,"incarnation":102,"is_gone":true}"#.to_owned()),
        ("leaving/2", "true".to_owned()),
        ("change", r#"{"number":3,"leader":11,"what":"something"}"#.to_owned()),
    ] {
        memory.put(&key(name), row).await.unwrap();
    }
}

#[tokio::test]
async fn the_table_of_an_earlier_release_is_taken_over_once() {
    let (keys, apart) = (MemoryStore::new(), MemoryStore::new());
    let token: Token = "t".parse().unwrap();
    earlier(&keys, &token).await;
    for name in ["snet/membership/mine", "snet/membership/0000000000000008/cluster"] {
        keys.put(&Key::new(name).unwrap(), "1").await.unwrap();
    }
    let old = StoreRows(Arc::new(keys.handle()));
    let other = table_of(Arc::new(StoreRows(Arc::new(apart.handle()))), "another word");
    other.take_over(&old).await.unwrap();
    assert_eq!(other.read().await.unwrap().cluster, None, "a cluster with another token");
    let table = table(&apart);
    table.take_over(&old).await.unwrap();
    let contents = table.read().await.unwrap();
    assert_eq!((contents.cluster, contents.has_node(11), contents.has_node(12)), (Some(CLUSTER), true, false));
    assert_eq!(
        (contents.nodes.len(), contents.leaving.len(), contents.replicas.len()),
        (2, 1, 0),
        "replicas tell again"
    );
    let left = keys.scan(b"", Default::default()).await.unwrap().entries;
    let left: Vec<_> = left.iter().map(|entry| std::str::from_utf8(entry.key.as_bytes()).unwrap()).collect();
    assert_eq!(
        left,
        ["snet/membership/0000000000000008/cluster", "snet/membership/mine"],
        "what is the clients' stays"
    );
    // A client puts it there again, with a node that would be gone: it is only keys now.
    earlier(&keys, &token).await;
    keys.put(&key("node/000000000000000b"), r#"{"replica":1,"incarnation":101,"is_gone":true}"#).await.unwrap();
    table.take_over(&old).await.unwrap();
    assert_eq!(said(&table.read().await.unwrap()), said(&contents));
}

#[tokio::test]
async fn of_the_nodes_that_are_gone_the_table_remembers_some() {
    let memory = MemoryStore::new();
    let (table, seen) = filled(&memory).await;
    let gone: Vec<u64> = (1000..2010).collect();
    for node in &gone {
        assert!(table.assign(*node, 3, *node, &seen).await.unwrap());
    }
    // As the leader does: whoever is still said to be there, until nobody is.
    loop {
        let seen = table.read().await.unwrap();
        let there: Vec<u64> = gone.iter().copied().filter(|node| seen.has_node(*node)).collect();
        if there.is_empty() {
            break;
        }
        assert!(table.announce(11, None, &there, &seen).await.unwrap());
    }
    let remembered = table.read().await.unwrap().nodes;
    assert_eq!(remembered.values().filter(|row| row.is_gone).count(), 1000);
    assert!(remembered.contains_key(&11) && gone[100..].iter().all(|node| remembered.contains_key(node)));
}
