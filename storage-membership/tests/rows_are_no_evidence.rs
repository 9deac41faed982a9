//! Whatever rows say, and when all of them are gone, a replica keeps its node and its data. Only the committed members decide.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use storage_core::{Error, MemoryStore, Result, ScanOptions, Store, StoreExt as _};
use storage_embedded::{Restored, Salvage};
use storage_membership::{
    AnswerQuestion, Bootstrap, ClusterId, Engine, Listener, MemberChange, MemberIds, Members, Node, NodeId, NodeStart,
    NodeStatus, NodeUrl, Participant, Proved, Replica, Rows, Settings, StoreRows, Table, Timing, decide::Changes,
};
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(60);
const API_CLUSTER: u64 = 7;

/// What one etcd would be that a client can write to, and what its members are by consensus.
#[derive(Debug)]
struct World {
    memory: MemoryStore,
    members: Mutex<MemberIds>,
    node: Mutex<Option<NodeId>>,
    /// What the own node can reach.
    is_cut_off: Mutex<bool>,
}

#[derive(Debug)]
struct FakeEngine(Arc<World>);

#[derive(Debug)]
struct FakeNode(Arc<World>, NodeId);

/// Rows that cannot be read while the node is cut off.
#[derive(Debug)]
struct OwnRows(Arc<World>, StoreRows);

#[async_trait]
impl Rows for OwnRows {
    async fn all(&self, prefix: &str, timeout: Duration) -> Result<BTreeMap<bytes::Bytes, bytes::Bytes>> {
        if *self.0.is_cut_off.lock().unwrap() {
            return Err(Error::unavailable("cut off"));
        }
        self.1.all(prefix, timeout).await
    }

    async fn change(&self, change: storage_embedded::RowChange, timeout: Duration) -> Result<bool> {
        self.1.change(change, timeout).await
    }
}

#[async_trait]
impl Engine for FakeEngine {
    async fn start(&self, start: NodeStart) -> Result<Arc<dyn Node>> {
        fs::write(start.data_dir.join("data"), start.node.to_string()).unwrap();
        *self.0.node.lock().unwrap() = Some(start.node);
        self.0.members.lock().unwrap().voters.insert(start.node);
        Ok(Arc::new(FakeNode(Arc::clone(&self.0), start.node)))
    }
    fn joins_by_others(&self) -> bool {
        false
    }
    fn rows(&self, store: &Arc<dyn Store>, _: &[NodeUrl]) -> Result<Arc<dyn Rows>> {
        Ok(Arc::new(StoreRows(Arc::clone(store))))
    }
    fn keeps_rows_apart(&self) -> bool {
        false
    }
    fn api_cluster(&self, _: ClusterId) -> Option<u64> {
        Some(API_CLUSTER)
    }
    async fn connect(&self, _: &[NodeUrl]) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(self.0.memory.handle()))
    }
    async fn status(&self, _: &NodeUrl, _: Duration) -> Result<NodeStatus> {
        let node = self.0.node.lock().unwrap().ok_or_else(|| Error::unavailable("nobody listens there"))?;
        Ok(NodeStatus { node, cluster: API_CLUSTER, leader: Some(node), term: 1, log_index: 1 })
    }
    async fn members(&self, _: &[NodeUrl], _: Duration) -> Result<MemberIds> {
        Ok(self.0.members.lock().unwrap().clone())
    }
    async fn ask(&self, _: &Replica, _: Proved, _: Duration) -> Result<Proved> {
        panic!("it founds by itself")
    }
    async fn listen(&self, _: AnswerQuestion) -> Result<Box<dyn Listener>> {
        panic!("it founds by itself")
    }
    fn restore(&self, _: &Salvage, _: &NodeStart, _: u64) -> Result<Restored> {
        panic!("nothing is recovered")
    }
}

#[async_trait]
impl Node for FakeNode {
    async fn store(&self, _: &[NodeUrl]) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(self.0.memory.handle()))
    }
    fn rows(&self, store: &Arc<dyn Store>) -> Arc<dyn Rows> {
        Arc::new(OwnRows(Arc::clone(&self.0), StoreRows(Arc::clone(store))))
    }
    async fn members(&self) -> Result<Option<Members>> {
        let MemberIds { voters, learners } = self.0.members.lock().unwrap().clone();
        Ok(voters.contains(&self.1).then(|| Members {
            leader: self.1,
            term: 1,
            voter_sets: vec![voters],
            learners,
            is_committed: true,
            last_index: 1,
            matched: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            changes: Changes::Joint,
            observed: None,
        }))
    }
    async fn change(&self, _: &Members, _: MemberChange) -> Result<Option<NodeId>> {
        Err(Error::unavailable("nothing is changed here"))
    }
    async fn stopped(&self) -> Result<()> {
        std::future::pending().await
    }
    async fn stop(&self) {}
}

fn settings(dir: &Path) -> Settings {
    let url = |port| NodeUrl::new("127.0.0.1", port);
    let replica = Replica { id: 1, name: "n1".to_owned(), client_url: url(1), peer_url: url(2) };
    Settings {
        replica: replica.clone(),
        replicas: vec![replica],
        token: "t".parse().unwrap(),
        data_dir: dir.to_path_buf(),
        bootstrap: Bootstrap::New,
        timing: Timing { dead_after: Duration::from_millis(500), rest: Duration::ZERO },
        is_dry_run: false,
    }
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for some heartbeats, so that whatever the replica makes of what it reads has been done.
async fn heartbeats(table: &Table) {
    let beat = async || table.read().await.ok()?.replicas.get(&1).map(|row| row.beat);
    let first = until("a heartbeat", async || beat().await).await;
    until("more heartbeats", async || beat().await.filter(|now| *now > first + 5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_row_and_no_missing_row_makes_a_replica_give_up_its_node() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World {
        memory: MemoryStore::new(),
        members: Mutex::default(),
        node: Mutex::default(),
        is_cut_off: Mutex::default(),
    });
    let engine = Arc::new(FakeEngine(Arc::clone(&world)));
    let participant = Participant::start(settings(dir.path()), engine).await.unwrap();
    let rows = Arc::new(StoreRows(Arc::new(world.memory.handle())));
    let table = Table::new(rows, API_CLUSTER, "t".parse().unwrap(), SOON);
    let node = until("its node stands in the table", async || {
        let contents = table.read().await.unwrap();
        contents.node_of(1).filter(|node| contents.nodes.contains_key(node))
    })
    .await;
    let is_whole = || {
        let names = fs::read_dir(dir.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("node"));
        let data = fs::read_to_string(dir.path().join("node/data")).unwrap();
        assert_eq!((data, names.count()), (node.to_string(), 1), "{:?}", participant.state());
    };
    heartbeats(&table).await;
    is_whole();

    // A leader says that the node is gone, with the token, and it is a member: it says so again.
    until("the row is written", async || {
        table.announce(node, None, &[node], &table.read().await.unwrap()).await.unwrap().then_some(())
    })
    .await;
    heartbeats(&table).await;
    is_whole();
    until("its row is right again", async || (!table.read().await.unwrap().nodes[&node].is_gone).then_some(())).await;

    // A client deletes everything, and writes what it likes, again and again.
    for round in 0..3 {
        for entry in world.memory.scan(b"", ScanOptions::default()).await.unwrap().entries {
            match round {
                0 => world.memory.put(&entry.key, "what I like").await.map(drop).unwrap(),
                _ => world.memory.delete(&entry.key).await.unwrap(),
            }
        }
        heartbeats(&table).await;
        is_whole();
        let contents = until("the table is whole again", async || {
            let contents = table.read().await.unwrap();
            (contents.cluster.is_some() && contents.nodes.contains_key(&node)).then_some(contents)
        })
        .await;
        assert_eq!(contents.node_of(1), Some(node));
    }

    // It is cut off, and a member still.
    *world.is_cut_off.lock().unwrap() = true;
    heartbeats(&table).await;
    is_whole();

    // It is removed, and no row says so: its data are moved aside, and none are deleted.
    *world.members.lock().unwrap() = MemberIds { voters: [node + 1].into(), ..MemberIds::default() };
    until("its data are aside", async || (!dir.path().join("node/data").exists()).then_some(())).await;
    let aside = until("the former data", async || {
        fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("node.2"))
    })
    .await;
    assert_eq!(fs::read_to_string(aside.join("data")).unwrap(), node.to_string());
    participant.stop().await;
}
