//! A node: one member of a cluster, running inside this process on a thread of its own.

mod beside;
mod calls;
mod config;
mod gather;
mod leader;
mod leases;
mod members;
mod observed;
mod rows;
mod run;
mod sessions;
mod status;
mod waiter;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use openraft::async_runtime::watch::WatchReceiver;
use storage_core::{Deadline, Error, Result};
use tokio::{runtime::Handle, sync::watch, time::Instant};

pub use beside::SnapshotReader;
pub use config::NodeConfig;
pub use members::NOT_IN_SYNC;
pub use observed::{ConditionalChange, ObservedMembers};
pub use status::{NodeStatus, Role};

use crate::{
    network::{message::MembershipChange, peer::PeerContext},
    raft::TypeConfig,
    snapshot::SnapshotStore,
    state_machine::{SharedState, StateMachine},
};

pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// A running node. Clones are handles to the same node, which stops when [`Node::stop`] is called or the last handle is dropped.
///
/// The node works on a thread and runtime of its own, so that a busy or blocking caller cannot delay its heartbeats, and
/// a sync of its log cannot delay the caller's other tasks. Handles may be used from any tokio runtime.
#[derive(Clone, Debug)]
pub struct Node(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: u64,
    cluster: u128,
    address: SocketAddr,
    raft: Raft,
    state: SharedState,
    snapshots: SnapshotStore,
    log: crate::log::Log,
    leader: leader::Leader,
    sessions: sessions::Sessions,
    callers: calls::Callers,
    peers: Arc<PeerContext>,
    runtime: Handle,
    stopping: watch::Sender<bool>,
    stopped: watch::Receiver<Option<Stopped>>,
}

/// Why a node runs no more.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stopped {
    Asked,
    Failed(String),
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stopping.send_replace(true);
    }
}

impl Node {
    /// Starts a node: recovers its log and state, listens for the other members, and founds the cluster if it is new and
    /// the configuration says how. Returns when the node is up, which does not mean that there is a leader: see [`Node::wait_for_leader`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a configuration that cannot work, or a data directory of another node or cluster or in use;
    /// [`Error::Corrupt`] for a log or snapshot that is damaged, with the file and offset;
    /// [`Error::Unavailable`] if the address cannot be listened on or the directory cannot be written.
    /// Nothing on disk has changed then.
    pub async fn start(config: NodeConfig) -> Result<Self> {
        run::start(config, None).await
    }

    /// Starts a node on a socket that is bound already, so that its address can be told to others beforehand.
    ///
    /// # Errors
    /// Those of [`Node::start`].
    pub async fn start_on(config: NodeConfig, listener: std::net::TcpListener) -> Result<Self> {
        run::start(config, Some(listener)).await
    }

    /// This node's id.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The id of the cluster.
    pub fn cluster(&self) -> u128 {
        self.0.cluster
    }

    /// Where this node listens for the other members.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Which connections with other nodes were refused, by this one or by them.
    pub fn refusals(&self) -> &Arc<crate::Refusals> {
        &self.0.peers.security.refusals
    }

    /// Whether the nodes talk with TLS.
    pub fn is_encrypted(&self) -> bool {
        self.0.peers.security.is_encrypted()
    }

    /// What this node knows of itself and the cluster.
    pub fn status(&self) -> NodeStatus {
        let Inner { raft, log, state, snapshots, leader, .. } = &*self.0;
        status::of(raft, log, state, snapshots, leader)
    }

    /// Waits until this node knows a leader, and returns its id.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the time is over, [`Error::Closed`] when the node has stopped.
    pub async fn wait_for_leader(&self, timeout: Duration) -> Result<u64> {
        let deadline = Deadline::after(timeout).at();
        let mut metrics = self.0.raft.server_metrics();
        loop {
            if let Some(leader) = metrics.borrow_and_update().current_leader {
                return Ok(leader);
            }
            match tokio::time::timeout_at(deadline, metrics.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(self.stopped_error()),
                Err(_) => return Err(Error::unavailable(format!("no leader was elected within {timeout:?}"))),
            }
        }
    }

    /// Takes a node into the cluster that receives the log but does not vote. Returns when the cluster knows it, not when it has caught up.
    /// May be called on any member.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the change is refused, [`Error::Unavailable`] if there is no leader within `timeout`,
    /// [`Error::UnknownOutcome`] if the leader was lost meanwhile: look at [`Node::status`]. So for the other changes of membership.
    pub async fn add_learner(&self, id: u64, member: crate::Member, timeout: Duration) -> Result<()> {
        self.change(MembershipChange::AddLearner { id, member }, timeout).await
    }

    /// Makes learners voters, in one joint change: a majority of the old and of the new voters agrees to it.
    ///
    /// # Errors
    /// See [`Node::add_learner`].
    pub async fn promote(&self, learners: impl Into<Vec<u64>>, timeout: Duration) -> Result<()> {
        self.change(MembershipChange::Promote(learners.into()), timeout).await
    }

    /// Makes a learner a voter if it has caught up, so that the cluster does not come to need one that is far behind or not there.
    ///
    /// # Errors
    /// See [`Node::add_learner`]; [`Error::InvalidArgument`] with [`crate::NOT_IN_SYNC`] if it has not.
    pub async fn promote_in_sync(&self, learner: u64, timeout: Duration) -> Result<()> {
        self.change(MembershipChange::PromoteInSync(learner), timeout).await
    }

    /// Makes the others reach a member at another address, `host:port`, from their next connection on: for a node that moves. Two
    /// nodes must never run with its id.
    ///
    /// # Errors
    /// See [`Node::add_learner`].
    pub async fn readdress(&self, member: u64, peer_address: String, timeout: Duration) -> Result<()> {
        self.change(MembershipChange::Readdress { id: member, peer_address }, timeout).await
    }

    /// Removes members, voters or learners, in one joint change. Their node ids must never be used again.
    ///
    /// # Errors
    /// See [`Node::add_learner`].
    pub async fn remove(&self, members: impl Into<Vec<u64>>, timeout: Duration) -> Result<()> {
        self.change(MembershipChange::Remove(members.into()), timeout).await
    }

    /// Asks the leader to hand over to another voter, and waits until that has happened.
    ///
    /// # Errors
    /// See [`Node::add_learner`]; [`Error::Unavailable`] if the other voter did not take over within `timeout`.
    pub async fn transfer_leadership(&self, to: u64, timeout: Duration) -> Result<()> {
        let deadline = Deadline::after(timeout).at();
        match self.change(MembershipChange::TransferLeadership(to), timeout).await {
            // The handover may overtake the answer of the leader that made it: who leads in the end tells.
            Ok(()) | Err(Error::UnknownOutcome { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut metrics = self.0.raft.server_metrics();
        loop {
            if metrics.borrow_and_update().current_leader == Some(to) {
                return Ok(());
            }
            match tokio::time::timeout_at(deadline, metrics.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(self.stopped_error()),
                Err(_) => {
                    return Err(Error::unavailable(format!("node {to} did not take over within {timeout:?}")));
                }
            }
        }
    }

    /// Leaves the cluster in good order: hands over the leadership if this node has it, then removes this node. Stop it afterwards.
    ///
    /// # Errors
    /// See [`Node::add_learner`]; [`Error::InvalidArgument`] for the only voter.
    pub async fn leave(&self, timeout: Duration) -> Result<()> {
        let deadline = Deadline::after(timeout).at();
        let status = self.status();
        if status.role == Role::Leader {
            let Some(successor) = status.voters.iter().find(|id| **id != self.id()) else {
                return Err(Error::invalid_argument("the only voter of a cluster cannot leave it"));
            };
            self.transfer_leadership(*successor, timeout).await?;
        }
        self.remove([self.id()], deadline.saturating_duration_since(Instant::now())).await
    }

    /// Writes a snapshot now, whatever the configuration says, and waits until it is on disk.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the time is over, [`Error::Closed`] when the node has stopped.
    pub async fn snapshot(&self, timeout: Duration) -> Result<()> {
        let deadline = Deadline::after(timeout).at();
        let mut metrics = self.0.raft.data_metrics();
        let goal = metrics.borrow_and_update().last_applied.map(|id| id.index);
        self.0.raft.trigger().snapshot().await.map_err(|_| self.stopped_error())?;
        loop {
            if metrics.borrow_and_update().snapshot.map(|id| id.index) >= goal {
                return Ok(());
            }
            match tokio::time::timeout_at(deadline, metrics.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(self.stopped_error()),
                Err(_) => return Err(Error::deadline(timeout)),
            }
        }
    }

    /// Cuts this node off from all others, or lets it reach them again: for tests of partitions.
    #[doc(hidden)]
    pub fn isolate(&self, isolated: bool) {
        self.0.peers.isolated.send_replace(isolated);
    }

    /// Forgets the changes kept for watches on this node, as if there had been very many since: for tests of watches that come too late.
    #[doc(hidden)]
    pub fn forget_history(&self) {
        self.0.state.forget_history();
    }

    /// Stops the node and waits until it is down: its log is synced and closed, its port and directory are free. Stopping twice is fine.
    pub async fn stop(&self) {
        self.0.stopping.send_replace(true);
        let mut stopped = self.0.stopped.clone();
        let _ = stopped.wait_for(Option::is_some).await;
    }

    /// Waits until the node has stopped. `Err` says why, if nobody asked it to: it cannot go on safely, for instance because
    /// a write to its disk failed; the process should end then, and an operator look at it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with what went wrong.
    pub async fn stopped(&self) -> Result<()> {
        let mut stopped = self.0.stopped.clone();
        match stopped.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Stopped::Failed(reason))) => Err(Error::corrupt(reason.clone())),
            _ => Ok(()),
        }
    }

    #[cfg(simulated)]
    pub(crate) fn log(&self) -> &crate::log::Log {
        &self.0.log
    }

    #[cfg(simulated)]
    pub(crate) fn raft(&self) -> &Raft {
        &self.0.raft
    }

    /// This replica's own state.
    pub(crate) fn state(&self) -> &SharedState {
        &self.0.state
    }

    /// The error for a call on a node that has stopped.
    fn stopped_error(&self) -> Error {
        match self.0.stopped.borrow().as_ref() {
            Some(Stopped::Failed(reason)) => Error::corrupt(format!("the node has stopped: {reason}")),
            _ => Error::Closed,
        }
    }
}
