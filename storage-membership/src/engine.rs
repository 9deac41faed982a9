//! What nodes are to the membership, whatever they are made of: how one is started, reached, asked and changed.
//!
//! There are two engines, a node inside the process and an etcd that the process keeps; both are on the other side of these traits. Whoever implements
//! them decides nothing: which node runs where is said here, by [`NodeStart`] and [`MemberChange`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use storage_core::{Result, Store};
use storage_embedded::{Restored, Salvage};

use crate::{
    decide::Changes,
    ids::{ClusterId, NodeId},
    rows::Rows,
    settings::Replica,
    url::NodeUrl,
};

/// The engine of a cluster's nodes, as one replica has it.
#[async_trait]
pub trait Engine: fmt::Debug + Send + Sync {
    /// Starts the node of this replica. It runs when this returns, which does not mean that its cluster serves.
    ///
    /// # Errors
    /// Whatever keeps it from running. What passes is retryable: it is tried again.
    async fn start(&self, start: NodeStart) -> Result<Arc<dyn Node>>;

    /// Whether a node that joins is started with the list of all members, as an etcd is: then [`NodeStart::others`] says whom to ask for it.
    fn joins_by_others(&self) -> bool;

    /// The rows of the cluster by the nodes with these client URLs. An etcd has them in the `store` by these.
    ///
    /// # Errors
    /// Those of [`Engine::connect`].
    fn rows(&self, store: &Arc<dyn Store>, client_urls: &[NodeUrl]) -> Result<Arc<dyn Rows>>;

    /// Whether the rows stand apart from the keys, so that a table of an earlier release may be found among these.
    fn keeps_rows_apart(&self) -> bool;

    /// The 64 bits that a node's API shows of the id of its cluster. `None`: each node says so itself, since it has made its own.
    fn api_cluster(&self, cluster: ClusterId) -> Option<u64>;

    /// A store by the nodes with these client URLs.
    ///
    /// # Errors
    /// Those of opening a store.
    async fn connect(&self, client_urls: &[NodeUrl]) -> Result<Arc<dyn Store>>;

    /// What the node at a client URL says of itself.
    ///
    /// # Errors
    /// [`storage_core::Error::Unavailable`] if none answers in time.
    async fn status(&self, client_url: &NodeUrl, timeout: Duration) -> Result<NodeStatus>;

    /// The members of the cluster with these client URLs, by the latest change of them that is **committed**: a node that was one and is not among
    /// them has been removed for ever.
    ///
    /// # Errors
    /// [`storage_core::Error::Unavailable`] if none answers in time that hears a majority.
    async fn members(&self, client_urls: &[NodeUrl], timeout: Duration) -> Result<MemberIds>;

    /// Asks a replica that has no node yet, at its client URL.
    ///
    /// # Errors
    /// [`storage_core::Error::Unavailable`] if none answers in time, or a node does, which does not know such questions.
    async fn ask(&self, to: &Replica, question: Proved, timeout: Duration) -> Result<Proved>;

    /// Listens at this replica's own client URL, and lets `answer` answer what others [ask](Engine::ask).
    ///
    /// # Errors
    /// [`storage_core::Error::Unavailable`] if it cannot listen there.
    async fn listen(&self, answer: AnswerQuestion) -> Result<Box<dyn Listener>>;

    /// Makes the data of a node that founds a cluster alone, of what a stopped one holds. It blocks.
    ///
    /// # Errors
    /// [`storage_core::Error::InvalidArgument`] for a revision out of range, or an engine whose data these are not; [`storage_core::Error::Unavailable`] if
    /// it cannot be written.
    fn restore(&self, salvage: &Salvage, start: &NodeStart, bump_revision: u64) -> Result<Restored>;
}

/// A node that runs, of either engine.
#[async_trait]
pub trait Node: fmt::Debug + Send + Sync {
    /// The store, through this node. Closing it leaves the node running. An etcd that does not vote yet serves nobody: then the `others` do, at
    /// their client URLs.
    ///
    /// # Errors
    /// Those of opening a store.
    async fn store(&self, others: &[NodeUrl]) -> Result<Arc<dyn Store>>;

    /// The rows of the cluster, through this node. An etcd has them in its `store`.
    fn rows(&self, store: &Arc<dyn Store>) -> Arc<dyn Rows>;

    /// The members of the cluster, if this node leads.
    ///
    /// # Errors
    /// [`storage_core::Error::Unavailable`] if nobody answers.
    async fn members(&self) -> Result<Option<Members>>;

    /// Makes a change of the members, and returns the id of the one that it has taken in. An embedded node makes it only if the members are those
    /// that were seen, and it leads.
    ///
    /// # Errors
    /// [`storage_core::Error::Unavailable`]: it was not made, look again; [`storage_core::Error::InvalidArgument`] if it cannot be made;
    /// [`storage_core::Error::UnknownOutcome`]: look again.
    async fn change(&self, seen: &Members, change: MemberChange) -> Result<Option<NodeId>>;

    /// Waits until the node runs no more. The error says why, if nobody asked it to: the process should end then.
    ///
    /// # Errors
    /// [`storage_core::Error::Corrupt`] with what went wrong; [`storage_core::Error::PermissionDenied`] with [`storage_embedded::Removed`] as its cause, if
    /// the node says that it was removed from its cluster.
    async fn stopped(&self) -> Result<()>;

    /// Stops the node in good order and waits until its ports and directory are free. Stopping twice is fine.
    async fn stop(&self);
}

/// Who a node is that is to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStart {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its own id; an etcd that founds a cluster finds its own by itself.
    pub node: NodeId,
    /// It founds the cluster, alone.
    pub founds: bool,
    /// The directory of its data.
    pub data_dir: PathBuf,
    /// The client URLs of nodes that run, for the first start of one that [joins by them](Engine::joins_by_others); otherwise none.
    pub others: Vec<NodeUrl>,
}

/// What a node says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its id.
    pub node: NodeId,
    /// The id of its cluster, as its API shows it.
    pub cluster: u64,
    /// The leader, as far as it knows one.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// The last entry of its log.
    pub log_index: u64,
}

/// The ids of a cluster's members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberIds {
    /// Those that vote.
    pub voters: BTreeSet<NodeId>,
    /// Those that receive the log and do not vote.
    pub learners: BTreeSet<NodeId>,
}

impl MemberIds {
    /// Whether this node is one of them, with a vote or without.
    pub fn contains(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }
}

/// The members, as the leader sees them at one moment.
#[derive(Clone, Debug)]
pub struct Members {
    /// The leader.
    pub leader: NodeId,
    /// The term in which it leads.
    pub term: u64,
    /// The set of voters; during a joint change both sets.
    pub voter_sets: Vec<BTreeSet<NodeId>>,
    /// Those that do not vote.
    pub learners: BTreeSet<NodeId>,
    /// Whether a majority has this.
    pub is_committed: bool,
    /// How far the leader is.
    pub last_index: u64,
    /// How far each other member is known to be.
    pub matched: BTreeMap<NodeId, u64>,
    /// How long ago each other member has acknowledged something.
    pub acknowledged: BTreeMap<NodeId, Duration>,
    /// How they can be changed.
    pub changes: Changes,
    /// What an embedded leader compares a change with, so that two leaders cannot mix theirs. An etcd has none.
    pub observed: Option<storage_embedded::ObservedMembers>,
}

impl Members {
    /// All voters, during a joint change those of both sets.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.voter_sets.iter().flatten().copied().collect()
    }

    /// All members, whether they vote or not.
    pub fn all(&self) -> BTreeSet<NodeId> {
        self.voters().union(&self.learners).copied().collect()
    }
}

/// A change of the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// Take in a node that does not vote, with an id that was never used.
    AddLearner {
        /// The name of the node.
        name: String,
        /// Where the other nodes reach it.
        peer_url: NodeUrl,
    },
    /// Make these the voters.
    SetVoters(BTreeSet<NodeId>),
    /// Remove members that do not vote.
    RemoveLearners(BTreeSet<NodeId>),
    /// Let another voter lead.
    HandOver(NodeId),
}

/// A text, and the proof by the token of the cluster of who says it to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proved {
    /// The text.
    pub body: Bytes,
    /// The proof.
    pub proof: Bytes,
}

/// Answers a question of another replica. It blocks for as long as a sync of the disk takes.
///
/// [`storage_core::Error::PermissionDenied`] says that the token is another one, [`storage_core::Error::InvalidArgument`] that another replica was meant.
pub type AnswerQuestion = Arc<dyn Fn(Proved) -> Result<Proved> + Send + Sync>;

/// Who listens for questions.
#[async_trait]
pub trait Listener: fmt::Debug + Send {
    /// Ends it. The port is free when this returns.
    async fn stop(self: Box<Self>);
}
