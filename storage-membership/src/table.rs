//! The table of the cluster, kept in the cluster: who takes part, who is heard of, which nodes there were.
//!
//! It stands in [`Rows`], under the id of the cluster as its API shows it. Each row is a proof by the token, a blank, and JSON. A row without its proof
//! counts as absent and is named in [`Contents::unproved`]: in an etcd, clients can write what they like.
//!
//! A row is a word and no evidence. That one says something, or is missing, makes no node delete anything and no member a stranger: see
//! [`View::include_unclaimed`](crate::decide::View::include_unclaimed), and how a replica finds out that its node was removed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use storage_core::{Error, Result};
use storage_embedded::RowChange;

use crate::{
    contents::{ChangeRow, Contents, LeavingRow, NodeRow, ReplicaRow},
    ids::{ClusterId, NodeId, ReplicaId},
    leader_report::LeaderReport,
    proof,
    rows::Rows,
    token::Token,
};

/// So many nodes that are gone are remembered, of which an id is recognized that comes again. Embedded nodes have 4,096 rows in all.
const GONE_REMEMBERED: usize = 1000;

/// The table, through the rows of its cluster.
#[derive(Clone, Debug)]
pub struct Table {
    pub(crate) rows: Arc<dyn Rows>,
    pub(crate) prefix: String,
    pub(crate) token: Token,
    pub(crate) timeout: Duration,
}

/// So many nodes are said to be gone, and as many forgotten, by one change; the next goes on. A transaction of an etcd has 128 operations.
const GONE_AT_ONCE: usize = 50;

impl Table {
    /// The table of the cluster with this id, as the etcd API shows it.
    pub fn new(rows: Arc<dyn Rows>, api_cluster: u64, token: Token, timeout: Duration) -> Self {
        Self { rows, prefix: format!("{api_cluster:016x}/"), token, timeout }
    }

    /// The id of the cluster, if it grows by itself and has this token.
    ///
    /// # Errors
    /// Those of the rows; [`Error::PermissionDenied`] if it has another token.
    pub async fn cluster(&self) -> Result<Option<ClusterId>> {
        let contents = self.read().await?;
        if contents.cluster.is_none() && contents.unproved.contains(CLUSTER) {
            return Err(Error::PermissionDenied { source: "the cluster there has another token".into() });
        }
        Ok(contents.cluster)
    }

    /// Writes down that the cluster has this id, unless it stands there. Whoever has a node of it knows that.
    ///
    /// # Errors
    /// Those of the rows; [`Error::Corrupt`] if it has another.
    pub async fn found(&self, id: ClusterId, seen: &Contents) -> Result<()> {
        let written = match seen.cluster {
            Some(there) => there == id,
            None => self.write(seen, [CLUSTER], [(CLUSTER, self.prove_row(CLUSTER, &id))]).await?,
        };
        if written || self.cluster().await? == Some(id) {
            return Ok(());
        }
        Err(Error::corrupt("the cluster was founded with another id"))
    }

    /// Reads all of it, linearizably.
    ///
    /// # Errors
    /// Those of the rows.
    pub async fn read(&self) -> Result<Contents> {
        let mut contents = Contents::default();
        for (full, row) in self.rows.all(&self.prefix, self.timeout).await? {
            let name = self.short(&full).map_or_else(|| String::from_utf8_lossy(&full).into_owned(), str::to_owned);
            if self.take(&name, &row, &mut contents).is_none() {
                contents.unproved.insert(name.clone());
            }
            contents.rows.insert(name, row);
        }
        Ok(contents)
    }

    /// `None`: the row is not proved.
    fn take(&self, name: &str, row: &Bytes, contents: &mut Contents) -> Option<()> {
        match name.split_once('/') {
            Some(("replica", id)) => drop(contents.replicas.insert(id.parse().ok()?, self.open(name, row)?)),
            Some(("leaving", id)) => {
                let (id, asked): (ReplicaId, LeavingRow) = (id.parse().ok()?, self.open(name, row)?);
                contents.leaving.extend(asked.leaves.then_some(id));
            }
            Some(("node", id)) => {
                contents.nodes.insert(NodeId::from_str_radix(id, 16).ok()?, self.open(name, row)?);
            }
            None if name == CLUSTER => contents.cluster = Some(self.open(name, row)?),
            None if name == CHANGE => contents.change = Some(self.open(name, row)?),
            None if name == REPORT => contents.report = Some(self.open(name, row)?),
            _ => return None,
        }
        Some(())
    }

    /// Writes a replica's row, if it is as it was read.
    ///
    /// # Errors
    /// Those of the rows. `false`: another has written it.
    pub async fn beat(&self, id: ReplicaId, row: &ReplicaRow, seen: &Contents) -> Result<bool> {
        let name = format!("replica/{id}");
        self.write(seen, [&*name], [(&*name, self.prove_row(&name, row))]).await
    }

    /// Announces a change and says which nodes are gone, the first of them, if nobody has announced one since. Returns whether it may be made.
    ///
    /// # Errors
    /// Those of the rows.
    pub async fn announce(
        &self,
        leader: NodeId,
        what: Option<String>,
        gone: &[NodeId],
        seen: &Contents,
    ) -> Result<bool> {
        let expected = [(self.full(CHANGE), seen.rows.get(CHANGE).cloned())].into();
        let mut next = BTreeMap::new();
        if let Some(what) = what {
            let number = seen.change.as_ref().map_or(1, |change| change.number + 1);
            next.insert(self.full(CHANGE), Some(self.prove_row(CHANGE, &ChangeRow { number, leader, what })));
        }
        let gone_before = seen.nodes.iter().filter(|(_, row)| row.is_gone).map(|(id, _)| *id);
        // The lowest ids are forgotten first. Ids say nothing of their age, and there is no better order.
        let too_many = (gone_before.clone().count() + gone.len()).saturating_sub(GONE_REMEMBERED);
        for id in gone_before.take(too_many.min(GONE_AT_ONCE)) {
            next.insert(self.full(&node_name(id)), None);
        }
        for id in gone.iter().take(GONE_AT_ONCE) {
            if let Some(row) = seen.nodes.get(id) {
                let (name, row) = (node_name(*id), NodeRow { is_gone: true, ..row.clone() });
                next.insert(self.full(&name), Some(self.prove_row(&name, &row)));
            }
        }
        self.rows.change(RowChange { expected, next }, self.timeout).await
    }

    /// Says whose a node is: the leader of one that it has taken in, and a replica of its own if no row does.
    ///
    /// # Errors
    /// Those of the rows. `false`: its id was used for another.
    pub async fn assign(&self, node: NodeId, replica: ReplicaId, incarnation: u64, seen: &Contents) -> Result<bool> {
        let row = NodeRow { replica, incarnation, is_gone: false };
        let is_another = |there: &NodeRow| (there.replica, there.incarnation) != (replica, incarnation);
        if seen.nodes.get(&node).is_some_and(is_another) {
            return Ok(false);
        }
        let name = node_name(node);
        if self.write(seen, [&*name], [(&*name, self.prove_row(&name, &row))]).await? {
            return Ok(true);
        }
        // Perhaps nobody heard that it was done.
        Ok(self.read().await?.nodes.get(&node) == Some(&row))
    }

    /// Says what the leader thinks, unless another has meanwhile.
    ///
    /// # Errors
    /// Those of the rows.
    pub async fn report(&self, report: &LeaderReport, seen: &Contents) -> Result<()> {
        self.write(seen, [REPORT], [(REPORT, self.prove_row(REPORT, report))]).await.map(drop)
    }

    /// Asks a replica to leave for good, or to stay after all.
    ///
    /// # Errors
    /// Those of the rows; [`Error::Unavailable`] if somebody else has asked it something at the same time.
    pub async fn leave(&self, replica: ReplicaId, leaves: bool) -> Result<()> {
        let (seen, name) = (self.read().await?, format!("leaving/{replica}"));
        let before: Option<LeavingRow> = seen.rows.get(&name).and_then(|row| self.open(&name, row));
        let asked = LeavingRow { leaves, number: before.map_or(1, |before| before.number + 1) };
        match self.write(&seen, [&*name], [(&*name, self.prove_row(&name, &asked))]).await? {
            true => Ok(()),
            false => {
                Err(Error::unavailable("somebody else has asked the replica at the same time: look, and ask again"))
            }
        }
    }

    /// Writes rows, if those of `expected` are as they were read.
    async fn write<const E: usize, const N: usize>(
        &self,
        seen: &Contents,
        expected: [&str; E],
        next: [(&str, Bytes); N],
    ) -> Result<bool> {
        let expected = expected.map(|name| (self.full(name), seen.rows.get(name).cloned())).into();
        let next = next.map(|(name, row)| (self.full(name), Some(row))).into();
        self.rows.change(RowChange { expected, next }, self.timeout).await
    }

    /// A row as it stands there: nobody without the token can make one, and one is no proof of another name or of another cluster.
    pub(crate) fn prove_row(&self, name: &str, row: &impl Serialize) -> Bytes {
        let row = proof::to_json(row);
        let proof = proof::prove(&self.token, &[b"row", self.prefix.as_bytes(), name.as_bytes(), &row]);
        [proof::hex(&proof).as_bytes(), b" ", &row].concat().into()
    }

    /// What [`Table::prove_row`] has made; `None`: something else.
    fn open<T: DeserializeOwned>(&self, name: &str, proven: &[u8]) -> Option<T> {
        // A proof is of hexadecimal digits, so that the first blank ends it.
        let at = proven.iter().position(|byte| *byte == b' ')?;
        let (proof, row) = proven.split_at(at);
        let (proof, row) = (proof::unhex(std::str::from_utf8(proof).ok()?)?, row.get(1..)?);
        // Cluster and name are proved with it: a client that may write rows could copy one to another place.
        let parts = [b"row", self.prefix.as_bytes(), name.as_bytes(), row];
        proof::proves(&self.token, &parts, &proof).then(|| proof::from_json(row)).flatten()
    }

    pub(crate) fn full(&self, name: &str) -> Bytes {
        format!("{}{name}", self.prefix).into()
    }

    pub(crate) fn short<'a>(&self, full: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(full).ok()?.strip_prefix(&self.prefix)
    }
}

/// The names of the rows that there is one of.
pub(crate) const CLUSTER: &str = "cluster";
const CHANGE: &str = "change";
const REPORT: &str = "report";

fn node_name(id: NodeId) -> String {
    format!("node/{id:016x}")
}
