//! A node: one member of a cluster, running inside this process on a thread of its own. Everything below meets here.
//!
//! - `run` is the life of a node; `config` and `status` say what it is told and what it tells; `bounds` keeps its disk small.
//! - `comparison` sees that its state is that of the others.
//! - `founding` is how it comes to be one of a new cluster, `removal` how it learns that it is none any more; `stopped` is why it runs no more.
//! - `calls` takes a call of this replica's users to whoever leads, through changes of leaders; `request_numbers` sees that it is applied once.
//! - `leader` is the other end: `write_queue`, `batcher` and `waiter` make many writes one sync and many reads one round.
//! - `members` and `observed` change who belongs to the cluster; `rows` and `snapshot_reader` are for those who run it.
//!
//! # Invariants
//! - A call that failed without `UnknownOutcome` has changed nothing and never will.
//! - A node whose disk is empty neither votes nor answers before it is known that it has never run.
//! - A node that was removed remembers it before anything else, and neither votes nor answers again.
//! - A linearizable read waits until the leader has heard from a majority after the read began.
//! - A failed write or sync, of the log or of raft, ends the node with the reason; nothing restarts it from within. A lack of descriptors or space
//!   before that ends nothing: writes are refused while the log waits for a file.
//! - A caller that keeps the future of a call and does not poll it holds back no other.
//!
//! # What it must not do
//! Block its thread with anything but a sync: heartbeats are sent on it.

mod batcher;
mod bounds;
mod calls;
mod comparison;
mod config;
mod founding;
#[cfg(not(simulated))]
#[cfg(test)]
mod hostile_tests;
mod leader;
mod members;
mod observed;
#[cfg(not(simulated))]
#[cfg(test)]
mod peer_port_tests;
#[cfg(simulated)]
mod probe;
mod quota;
mod removal;
mod request_numbers;
mod rows;
mod run;
mod snapshot_reader;
#[cfg(not(simulated))]
mod space;
mod status;
mod stopped;
mod waiter;
mod write_queue;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use openraft::async_runtime::watch::WatchReceiver;
use storage_core::{Deadline, Error, Result};
use tokio::{runtime::Handle, sync::watch, time::Instant};

pub use bounds::Bounds;
pub use config::NodeConfig;
pub use members::{NOT_IN_SYNC, UNHEALTHY};
pub use observed::{ConditionalChange, ObservedMembers};
#[cfg(simulated)]
pub use probe::{Probe, ProbedEntry};
pub use snapshot_reader::SnapshotReader;
pub use status::{NodeStatus, Role};
pub use stopped::{Removed, Stopped};

use crate::{
    disk::DiskSpace,
    network::{message::MembershipChange, peer::PeerContext},
    snapshot::SnapshotStore,
    state_machine::{Raft, SharedState},
};

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
    address: Option<SocketAddr>,
    raft: Raft,
    state: SharedState,
    snapshots: SnapshotStore,
    log: crate::log::Log,
    leader: leader::Leader,
    quota_bytes: u64,
    space: watch::Sender<DiskSpace>,
    request_numbers: Arc<request_numbers::RequestNumbers>,
    callers: calls::Callers,
    peers: Arc<PeerContext>,
    compared: watch::Receiver<Option<u64>>,
    runtime: Handle,
    stopping: watch::Sender<bool>,
    stopped: watch::Receiver<Option<Stopped>>,
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
    /// [`Error::PermissionDenied`] if the node was removed from its cluster, with [`Removed`] as its cause;
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

    /// Where this node listens for the other members. `None`: it is [alone](NodeConfig::alone), and listens for nobody.
    pub fn address(&self) -> Option<SocketAddr> {
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
        let Inner { raft, log, state, snapshots, leader, quota_bytes, space, .. } = &*self.0;
        let room = (*quota_bytes, *space.borrow());
        status::of(raft, log, state, snapshots, leader, room, self.last_compared())
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
                Ok(Err(_)) => {
                    // Raft has ended. Why is known when the node has come down.
                    let stopped = tokio::time::timeout_at(deadline, self.stopped()).await;
                    return Err(stopped.ok().and_then(Result::err).unwrap_or(Error::Closed));
                }
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

    /// Removes members, voters or learners, in one joint change. Their node ids must never be used again. A removed node that runs, or comes back,
    /// learns it from the members that it calls, and stops: see [`Stopped::Removed`].
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

    /// Leaves the cluster in good order: hands over the leadership if this node has it, then removes this node, which stops by itself soon after.
    ///
    /// # Errors
    /// See [`Node::add_learner`]; [`Error::InvalidArgument`] for the only voter.
    pub async fn leave(&self, timeout: Duration) -> Result<()> {
        let deadline = Deadline::after(timeout).at();
        let status = self.status();
        if status.role == Role::Leader {
            // The one that has most of the log is alive, and takes over soonest.
            let others = status.voters.iter().filter(|id| **id != self.id());
            let Some(successor) = others.max_by_key(|id| status.matched.get(id)) else {
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
        // Taken before it is asked for: what is applied meanwhile need not be in it.
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

    /// The last entry after which this node's state was that of a majority; `None`: it has not been compared since the start.
    pub fn last_compared(&self) -> Option<u64> {
        *self.0.compared.borrow()
    }

    /// Changes this replica's state as damage does: for tests.
    #[doc(hidden)]
    pub fn damage_state(&self) {
        self.0.state.damage();
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
    /// [`Error::Corrupt`] with what went wrong; [`Error::PermissionDenied`] if the node was removed from its cluster, with [`Removed`] as its cause.
    pub async fn stopped(&self) -> Result<()> {
        let mut stopped = self.0.stopped.clone();
        match stopped.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(stopped)) => stopped.as_error().map_or(Ok(()), Err),
            _ => Ok(()),
        }
    }

    /// The runtime that the node works on, with one thread. What shares it saves switches of threads, and may never block.
    pub fn runtime(&self) -> &Handle {
        &self.0.runtime
    }

    /// The term, as this node knows it.
    pub fn term(&self) -> u64 {
        self.0.raft.server_metrics().borrow_watched().vote.leader_id.term
    }

    /// The leader, if this node has heard from it lately. A leader that no majority answers names none.
    pub fn leader(&self) -> Option<u64> {
        self.0.leader.known()
    }

    /// Why the node has stopped; `None` while it runs.
    pub fn why_stopped(&self) -> Option<Stopped> {
        self.0.stopped.borrow().clone()
    }

    /// Which founding nodes are waited for, with what is known of each, in words: a cluster is founded by all of them. `None`: for no one.
    pub fn waits_for(&self) -> Option<String> {
        self.0.peers.admission.waits.lock().clone()
    }

    /// Waits until this replica's state has been compared with that of the others since the start: before, nobody is shown any of it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it has not been within `timeout`, [`Error::Closed`] or [`Error::Corrupt`] when the node has stopped.
    pub(crate) async fn compared(&self, timeout: Duration) -> Result<()> {
        self.goes_on()?;
        let mut compared = self.0.compared.clone();
        match tokio::time::timeout_at(Deadline::after(timeout).at(), compared.wait_for(Option::is_some)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(self.stopped_error()),
            Err(_) => Err(self.not_compared()),
        }
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// Those of [`Node::compared`].
    pub(crate) fn is_compared(&self) -> Result<()> {
        self.goes_on()?;
        if self.0.compared.borrow().is_some() { Ok(()) } else { Err(self.not_compared()) }
    }

    fn not_compared(&self) -> Error {
        Error::unavailable(format!(
            "node {} has not yet compared its state with that of a majority since it was started",
            self.id()
        ))
    }

    /// Refuses what is asked of a node that has ended by itself, or is about to: it passes on no call, and shows nothing.
    fn goes_on(&self) -> Result<()> {
        let ended = self.0.stopped.borrow().as_ref().and_then(Stopped::as_error);
        let ends = || Stopped::from(self.0.peers.admission.condemned()?).as_error();
        ended.or_else(ends).map_or(Ok(()), Err)
    }

    /// This replica's own state.
    pub(crate) fn state(&self) -> &SharedState {
        &self.0.state
    }

    /// The error for a call on a node that has stopped.
    fn stopped_error(&self) -> Error {
        self.0.stopped.borrow().as_ref().and_then(Stopped::as_error).unwrap_or(Error::Closed)
    }
}
