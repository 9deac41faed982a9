//! The table of the cluster, kept in the cluster: who takes part, who is heard of, which nodes there were.
//!
//! It stands under [`PREFIX`] and the id of the cluster, so that what a snapshot carries into a new cluster is not taken for its table. Rows are
//! JSON. Those of replicas are proved by the token: rows that are not are not looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use storage_core::{
    Entry, Error, Expected, Key, Outcome, ReadOptions, Result, ScanOptions, Store, Txn, Version, WriteOptions,
};

use super::{
    cluster_id::ClusterId,
    decide::{NodeId, ReplicaId},
    report::Report,
    seal,
};
use crate::config::{GrowingReplica, NodeUrl, Token};

/// Keys that begin so are the table's, and nobody else's.
pub const PREFIX: &str = "snet/membership/";

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReplicaRow {
    /// Its data directory.
    pub incarnation: u64,
    /// It rises with each heartbeat.
    pub beat: u64,
    /// The name of its node.
    pub name: String,
    /// Where clients reach its node.
    pub client_url: String,
    /// Where the other nodes reach its node.
    pub peer_url: String,
    /// Its node runs.
    pub runs_node: bool,
    proof: String,
}

/// One node that there is or was. It is never removed from the table, so that no id is used twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeRow {
    /// The replica that it was made for.
    pub replica: ReplicaId,
    /// The data directory that it was made for.
    pub incarnation: u64,
    /// It is a member no more, for ever.
    pub is_gone: bool,
}

/// The latest change. Whoever makes one writes this first, if nobody has since it looked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChangeRow {
    /// How many there were.
    pub number: u64,
    /// The node that made it.
    pub leader: NodeId,
    /// What it was, for people.
    pub what: String,
}

#[derive(Serialize, Deserialize)]
struct ClusterRow {
    id: ClusterId,
    proof: String,
}

/// All of it, at one moment.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Contents {
    /// The replicas.
    pub replicas: BTreeMap<ReplicaId, ReplicaRow>,
    /// Those that were asked to leave for good.
    pub leaving: BTreeSet<ReplicaId>,
    /// All nodes that there ever were.
    pub nodes: BTreeMap<NodeId, NodeRow>,
    /// The latest change.
    pub change: Option<ChangeRow>,
    /// What the leader says.
    pub report: Option<Report>,
    versions: BTreeMap<String, Version>,
}

/// The table, through a store of its cluster.
#[derive(Clone, Debug)]
pub struct Table {
    store: Arc<dyn Store>,
    prefix: String,
    token: Token,
    timeout: Duration,
}

impl Table {
    /// The table of the cluster with this id, as the etcd API shows it.
    pub fn new(store: Arc<dyn Store>, shown_cluster: u64, token: Token, timeout: Duration) -> Self {
        Self { store, prefix: format!("{PREFIX}{shown_cluster:016x}/"), token, timeout }
    }

    /// The id of the cluster, if it grows by itself and has this token.
    ///
    /// # Errors
    /// Those of the store; [`Error::PermissionDenied`] if it has another token.
    pub async fn cluster(&self) -> Result<Option<ClusterId>> {
        let Some(entry) = self.store.get(&self.key("cluster")?, self.reads()).await? else { return Ok(None) };
        let row: ClusterRow = decode(&entry)?;
        let proof = seal::unhex(&row.proof).unwrap_or_default();
        if !seal::proves(&self.token, &[b"cluster", self.prefix.as_bytes(), row.id.to_string().as_bytes()], &proof) {
            return Err(Error::PermissionDenied { source: "the cluster there has another token".into() });
        }
        Ok(Some(row.id))
    }

    /// Writes down that the cluster has this id, once.
    ///
    /// # Errors
    /// Those of the store; [`Error::Corrupt`] if it has another.
    pub async fn found(&self, id: ClusterId) -> Result<()> {
        let proof = seal::prove(&self.token, &[b"cluster", self.prefix.as_bytes(), id.to_string().as_bytes()]);
        let row = ClusterRow { id, proof: seal::hex(&proof) };
        let key = self.key("cluster")?;
        let txn = Txn::new().guard(key.clone(), Expected::Absent).put(key, seal::to_json(&row));
        match self.store.commit(txn, self.writes()).await? {
            Outcome::Committed(_) => Ok(()),
            Outcome::Conflict(_) if self.cluster().await? == Some(id) => Ok(()),
            Outcome::Conflict(_) => Err(Error::corrupt("the cluster was founded with another id")),
        }
    }

    /// Reads all of it, linearizably.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn read(&self) -> Result<Contents> {
        let mut contents = Contents::default();
        let mut options = ScanOptions { read: self.reads(), ..ScanOptions::default() };
        loop {
            let page = self.store.scan(self.prefix.as_bytes(), options.clone()).await?;
            for entry in &page.entries {
                self.take(entry, &mut contents);
            }
            match page.next {
                Some(next) => options = options.after(next),
                None => return Ok(contents),
            }
        }
    }

    fn take(&self, entry: &Entry, contents: &mut Contents) -> Option<()> {
        let name = std::str::from_utf8(entry.key.as_bytes()).ok()?.strip_prefix(&self.prefix)?;
        contents.versions.insert(name.to_owned(), entry.version);
        match name.split_once('/') {
            Some(("replica", id)) => {
                let (id, row) = (id.parse().ok()?, decode::<ReplicaRow>(entry).ok()?);
                let proof = seal::unhex(&row.proof)?;
                if seal::proves(&self.token, &self.proved(id, &row).each_ref().map(Vec::as_slice), &proof) {
                    contents.replicas.insert(id, row);
                }
            }
            Some(("leaving", id)) => drop(contents.leaving.insert(id.parse().ok()?)),
            Some(("node", id)) => {
                contents.nodes.insert(NodeId::from_str_radix(id, 16).ok()?, decode(entry).ok()?);
            }
            None if name == "change" => contents.change = decode(entry).ok(),
            None if name == "report" => contents.report = decode(entry).ok(),
            _ => {}
        }
        Some(())
    }

    /// Writes a replica's row, if it is as it was read.
    ///
    /// # Errors
    /// Those of the store. `false`: another has written it.
    pub async fn beat(&self, id: ReplicaId, row: ReplicaRow, contents: &Contents) -> Result<bool> {
        let proof = seal::prove(&self.token, &self.proved(id, &row).each_ref().map(Vec::as_slice));
        let row = ReplicaRow { proof: seal::hex(&proof), ..row };
        let name = format!("replica/{id}");
        let txn = self.guard(Txn::new(), &name, contents)?.put(self.key(&name)?, seal::to_json(&row));
        Ok(self.store.commit(txn, self.writes()).await?.is_committed())
    }

    /// Announces a change and says which nodes are gone, if nobody has announced one since. Returns whether it may be made.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn announce(
        &self,
        leader: NodeId,
        what: Option<String>,
        gone: &[NodeId],
        seen: &Contents,
    ) -> Result<bool> {
        let mut txn = self.guard(Txn::new(), "change", seen)?;
        if let Some(what) = what {
            let number = seen.change.as_ref().map_or(1, |change| change.number + 1);
            txn = txn.put(self.key("change")?, seal::to_json(&ChangeRow { number, leader, what }));
        }
        for id in gone {
            if let Some(row) = seen.nodes.get(id) {
                let row = NodeRow { is_gone: true, ..row.clone() };
                txn = txn.put(self.key(&node_name(*id))?, seal::to_json(&row));
            }
        }
        Ok(self.store.commit(txn, self.writes()).await?.is_committed())
    }

    /// Gives a replica its node, whose id was never used.
    ///
    /// # Errors
    /// Those of the store. `false`: it was used.
    pub async fn assign(&self, node: NodeId, replica: ReplicaId, incarnation: u64) -> Result<bool> {
        let key = self.key(&node_name(node))?;
        let row = NodeRow { replica, incarnation, is_gone: false };
        let txn = Txn::new().guard(key.clone(), Expected::Absent).put(key.clone(), seal::to_json(&row));
        match self.store.commit(txn, self.writes()).await? {
            Outcome::Committed(_) => Ok(true),
            // Nobody heard that it was done.
            Outcome::Conflict(_) => {
                let found = self.store.get(&key, self.reads()).await?;
                Ok(found.is_some_and(|entry| decode::<NodeRow>(&entry).is_ok_and(|found| found == row)))
            }
        }
    }

    /// Says what the leader thinks.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn report(&self, report: &Report) -> Result<()> {
        let txn = Txn::new().put(self.key("report")?, seal::to_json(report));
        self.store.commit(txn, self.writes()).await.map(drop)
    }

    /// Asks a replica to leave for good, or to stay after all.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn leave(&self, replica: ReplicaId, leaves: bool) -> Result<()> {
        let key = self.key(&format!("leaving/{replica}"))?;
        let txn = if leaves { Txn::new().put(key, "true") } else { Txn::new().delete(key) };
        self.store.commit(txn, self.writes()).await.map(drop)
    }

    /// What the proof of a replica's row is about: all that stays the same from one heartbeat to the next.
    fn proved(&self, id: ReplicaId, row: &ReplicaRow) -> [Vec<u8>; 6] {
        let text = |text: &str| text.as_bytes().to_vec();
        let numbers = format!("{id} {}", row.incarnation);
        [
            text("replica"),
            text(&self.prefix),
            text(&numbers),
            text(&row.name),
            text(&row.client_url),
            text(&row.peer_url),
        ]
    }

    fn guard(&self, txn: Txn, name: &str, contents: &Contents) -> Result<Txn> {
        let expected = contents.versions.get(name).map_or(Expected::Absent, |version| Expected::Version(*version));
        Ok(txn.guard(self.key(name)?, expected))
    }

    fn key(&self, name: &str) -> Result<Key> {
        Key::new(format!("{}{name}", self.prefix))
    }

    fn reads(&self) -> ReadOptions {
        ReadOptions::default().timeout(self.timeout)
    }

    fn writes(&self) -> WriteOptions {
        WriteOptions::default().timeout(self.timeout)
    }
}

impl ReplicaRow {
    /// The row of a replica as its configuration describes it.
    pub(super) fn of(replica: &GrowingReplica, incarnation: u64, beat: u64, runs_node: bool) -> Self {
        Self {
            incarnation,
            beat,
            name: replica.name.clone(),
            client_url: replica.client_url.to_string(),
            peer_url: replica.peer_url.to_string(),
            runs_node,
            proof: String::new(),
        }
    }
}

impl Contents {
    /// The node of a replica's present data directory.
    pub fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        let incarnation = self.replicas.get(&replica)?.incarnation;
        self.node_of_incarnation(replica, incarnation)
    }

    pub(super) fn node_of_incarnation(&self, replica: ReplicaId, incarnation: u64) -> Option<NodeId> {
        let owned = self.nodes.iter().filter(|(_, row)| row.replica == replica && row.incarnation == incarnation);
        owned.filter(|(_, row)| !row.is_gone).map(|(id, _)| *id).next()
    }

    /// Where the nodes that run are reached by clients.
    pub(super) fn running(&self) -> BTreeMap<ReplicaId, NodeUrl> {
        let running = self.replicas.iter().filter(|(_, row)| row.runs_node);
        running.filter_map(|(id, row)| Some((*id, row.client_url.parse().ok()?))).collect()
    }
}

fn node_name(id: NodeId) -> String {
    format!("node/{id:016x}")
}

fn decode<T: DeserializeOwned>(entry: &Entry) -> Result<T> {
    seal::from_json(&entry.value)
        .ok_or_else(|| Error::corrupt(format!("{:?} is no row of the membership table", entry.key)))
}
