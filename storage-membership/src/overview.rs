//! A cluster at a glance, for people.

use std::{collections::BTreeSet, time::Duration};

use serde::Serialize;
use storage_core::{Error, Result, Store as _};

use crate::{
    contents::{ChangeRow, Contents},
    engine::{Engine, MemberIds},
    ids::{ClusterId, NodeId, ReplicaId},
    locate::{Located, Search, locate},
    settings::Settings,
    table::Table,
};

/// A cluster that grows by itself, as its table, its members and its leader tell of it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Overview {
    /// Its id.
    pub cluster: ClusterId,
    /// The leader that has told of it last, as it is shown to people.
    pub leader: Option<String>,
    /// The term in which it has.
    pub term: Option<u64>,
    /// The replicas, in the order of their ids.
    pub replicas: Vec<ReplicaOverview>,
    /// Voters whose replicas have lost them, or are not known.
    pub lost_voters: Vec<String>,
    /// What the leader does next, or why not yet.
    pub intends: Option<String>,
    /// The latest change.
    pub last_change: Option<ChangeRow>,
    /// The names of rows in the table that are not proved by the token, at most `UNPROVED_SHOWN`: nothing is done on their account.
    pub unproved_rows: Vec<String>,
}

/// So many rows are named that are not proved: a client of an etcd can write any number.
const UNPROVED_SHOWN: usize = 20;

/// One replica of it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ReplicaOverview {
    /// Its id.
    pub id: ReplicaId,
    /// The name of its node.
    pub name: String,
    /// voter, learner, spare, or left.
    pub role: &'static str,
    /// Its node, if it has one, in hexadecimal digits.
    pub node: Option<String>,
    /// live, silent, dead, or unknown: what the leader thinks.
    pub state: String,
    /// For how long the leader had not heard of it, in seconds, when that changed last.
    pub silent_seconds: Option<u64>,
    /// It has a node that runs.
    pub runs_node: bool,
    /// It was asked to leave for good.
    pub is_leaving: bool,
    /// Where clients reach its node.
    pub client_url: String,
    /// Where the other nodes reach its node.
    pub peer_url: String,
}

/// The table of the cluster of these replicas.
///
/// # Errors
/// [`Error::Unavailable`] if none of them has a node that answers; those of the store.
pub async fn open_table(settings: &Settings, engine: &dyn Engine, timeout: Duration) -> Result<Table> {
    found(settings, engine, timeout).await.map(|located| located.table)
}

/// Asks a cluster how it is.
///
/// # Errors
/// Those of [`open_table`].
pub async fn overview(settings: &Settings, engine: &dyn Engine, timeout: Duration) -> Result<Overview> {
    let located = found(settings, engine, timeout).await?;
    let contents = located.table.read().await?;
    let members = engine.members(&located.endpoints, timeout).await;
    let _ = located.store.close().await;
    Ok(of(located.cluster, &contents, &members?))
}

fn of(cluster: ClusterId, contents: &Contents, MemberIds { voters, learners }: &MemberIds) -> Overview {
    let report = contents.report.as_ref();
    let replicas = contents.replicas.iter().map(|(id, row)| {
        let node = contents.node_of(*id).filter(|node| voters.contains(node) || learners.contains(node));
        let is_leaving = contents.leaving.contains(id);
        let heard = report.and_then(|report| report.replicas.get(id));
        ReplicaOverview {
            id: *id,
            name: row.name.clone(),
            role: match node {
                Some(node) if voters.contains(&node) => "voter",
                Some(_) => "learner",
                None if is_leaving => "left",
                None => "spare",
            },
            node: node.map(hex),
            state: heard.map_or_else(|| "unknown".to_owned(), |heard| heard.state.clone()),
            silent_seconds: heard.filter(|heard| heard.state != "live").map(|heard| heard.silent_seconds),
            runs_node: row.runs_node,
            is_leaving,
            client_url: row.client_url.clone(),
            peer_url: row.peer_url.clone(),
        }
    });
    let replicas: Vec<_> = replicas.collect();
    let owned: BTreeSet<_> = contents.replicas.keys().filter_map(|id| contents.node_of(*id)).collect();
    Overview {
        cluster,
        leader: report.map(|report| hex(report.leader)),
        term: report.map(|report| report.term),
        replicas,
        lost_voters: voters.difference(&owned).map(|node| hex(*node)).collect(),
        intends: report.map(|report| report.intends.clone()),
        last_change: contents.change.clone(),
        unproved_rows: contents.unproved.iter().take(UNPROVED_SHOWN).cloned().collect(),
    }
}

async fn found(settings: &Settings, engine: &dyn Engine, timeout: Duration) -> Result<Located> {
    match locate(settings, engine, None, timeout).await? {
        Search::Found(located) => Ok(located),
        Search::Nothing(others) if others.is_empty() => Err(Error::unavailable("no node of these replicas answers")),
        Search::Nothing(others) => Err(Error::unavailable(others.join("; "))),
    }
}

fn hex(node: NodeId) -> String {
    format!("{node:x}")
}
