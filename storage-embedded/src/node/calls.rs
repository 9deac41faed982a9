//! How a call of this replica's users gets to the leader, wherever that is, and through a change of leaders.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use openraft::{alias::WatchReceiverOf, async_runtime::watch::WatchReceiver, metrics::RaftServerMetrics};
use parking_lot::Mutex;
use storage_core::{Backoff, Deadline, Error, OperationId, Result, Txn};
use tokio::time::{Instant, timeout_at};

use super::{Node, leader::Claim};
use crate::{
    command::{Command, Request},
    host,
    mvcc::LeaseLife,
    network::{
        calls::Caller,
        handshake::{Channel, Hello},
        message::{Call, MembershipChange, Reply},
    },
    raft::TypeConfig,
    state_machine::Applied,
};

/// The first and the longest wait before a call is tried again when there is no leader or it cannot be reached.
/// A change of leaders is noticed at once; this bounds how often a leader that cannot be reached is tried.
const RETRY_FLOOR: Duration = Duration::from_millis(5);
const RETRY_CEILING: Duration = Duration::from_millis(200);

/// How long a call whose caller has other nodes to ask waits for a leader that it can reach: two elections, with the
/// default timing.
const PATIENCE: Duration = Duration::from_secs(3);

type ServerMetrics = WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>;

/// Open connections for calls to other nodes, by address.
#[derive(Debug, Default)]
pub(crate) struct Callers(Mutex<BTreeMap<String, Caller>>);

/// What is known of a call that has not ended yet.
#[derive(Debug, Default)]
struct Trace {
    /// An attempt may have reached a leader's log, and what became of it there is not known.
    maybe_applied: bool,
    /// The attempt that waits to be taken up by this node's own log.
    waiting: Option<Claim>,
    /// When to give up although there is time left, if no attempt has reached a leader: the caller has other nodes to ask.
    patience: Option<Instant>,
}

impl Trace {
    fn patient(patience: Option<Duration>) -> Self {
        Self { patience: patience.map(|patience| Deadline::after(patience).at()), ..Self::default() }
    }

    /// The caller waits no longer: whether the call may have been, or may yet be, applied.
    fn give_up(&self) -> bool {
        let taken_up = self.waiting.as_ref().is_some_and(|claim| !claim.give_up());
        self.maybe_applied || taken_up
    }
}

impl Node {
    /// Applies a transaction exactly once, however often leaders change meanwhile.
    pub(crate) async fn commit(&self, txn: &Txn, operation: Option<OperationId>, timeout: Duration) -> Result<Applied> {
        self.write_once(|request| Command::encode_txn(txn, operation, Some(request)), timeout, None).await
    }

    /// Applies a command that has no request of its own exactly once, however often leaders change meanwhile. Gives up after
    /// [`PATIENCE`] without a leader.
    pub(crate) async fn apply_once(&self, command: &Command, timeout: Duration) -> Result<Applied> {
        let encoded = command.encode();
        self.write_once(|request| Command::encode_once(&encoded, request), timeout, Some(PATIENCE)).await
    }

    /// Applies a command that is the same however often it is applied.
    pub(crate) async fn apply(&self, command: &Command, timeout: Duration) -> Result<Applied> {
        self.write(command.encode(), &mut Trace::default(), Deadline::after(timeout).at(), timeout).await
    }

    async fn write_once(
        &self,
        encode: impl Fn(Request) -> Bytes,
        timeout: Duration,
        patience: Option<Duration>,
    ) -> Result<Applied> {
        let deadline = Deadline::after(timeout).at();
        loop {
            let Some(numbered) = self.0.sessions.begin() else {
                self.open_session(deadline, timeout, patience).await?;
                continue;
            };
            let session = numbered.request.session;
            let mut trace = Trace::patient(patience);
            let applied = self.write(encode(numbered.request), &mut trace, deadline, timeout).await?;
            if applied != Applied::UnknownSession {
                return Ok(applied);
            }
            self.0.sessions.forget(session);
            if trace.maybe_applied {
                return Err(Error::unknown_outcome("the cluster has forgotten the session of this replica"));
            }
        }
    }

    /// Waits until this replica has applied everything that was acknowledged before the call.
    pub(crate) async fn read_barrier(&self, timeout: Duration) -> Result<()> {
        self.barrier(timeout, Trace::default()).await
    }

    /// As [`Node::read_barrier`]. Gives up after [`PATIENCE`] without a leader.
    pub(crate) async fn patient_barrier(&self, timeout: Duration) -> Result<()> {
        self.barrier(timeout, Trace::patient(Some(PATIENCE))).await
    }

    async fn barrier(&self, timeout: Duration, mut trace: Trace) -> Result<()> {
        let barrier = async {
            match self.call(&Call::ReadIndex, &mut trace).await? {
                Reply::ReadIndex(index) => self.0.state.wait_applied(index).await.map_err(|_| self.stopped_error()),
                reply => Err(unexpected(&reply)),
            }
        };
        tokio::time::timeout(timeout, barrier).await.unwrap_or_else(|_| Err(self.late(timeout)))
    }

    /// How long a lease lives, as its keeper, the leader, knows it; kept alive from now on if `renew`. `None`: there is none.
    pub(crate) async fn lease(&self, id: u64, renew: bool, timeout: Duration) -> Result<Option<LeaseLife>> {
        let mut trace = Trace::default();
        match tokio::time::timeout(timeout, self.call(&Call::Lease { id, renew }, &mut trace)).await {
            Ok(Ok(Reply::Lease(life))) => Ok(life),
            Ok(Ok(reply)) => Err(unexpected(&reply)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(self.late(timeout)),
        }
    }

    pub(crate) async fn change(&self, change: MembershipChange, timeout: Duration) -> Result<()> {
        let mut trace = Trace::default();
        let call = Call::Change(change);
        match tokio::time::timeout(timeout, self.call(&call, &mut trace)).await {
            Ok(Ok(Reply::Changed)) => Ok(()),
            Ok(Ok(Reply::Undecided)) => Err(Error::unknown_outcome("the leader changed during the change of members")),
            Ok(Ok(Reply::Refused(reason))) => Err(Error::invalid_argument(reason)),
            Ok(Ok(reply)) => Err(unexpected(&reply)),
            Ok(Err(error)) if trace.maybe_applied => Err(Error::unknown_outcome(error)),
            Ok(Err(error)) => Err(error),
            Err(_) if trace.give_up() => Err(Error::deadline_after_send(timeout)),
            Err(_) => Err(self.late(timeout)),
        }
    }

    async fn open_session(&self, deadline: Instant, timeout: Duration, patience: Option<Duration>) -> Result<()> {
        let opening = timeout_at(deadline, self.0.sessions.opening.lock()).await;
        let _one_at_a_time = opening.map_err(|_| self.late(timeout))?;
        if self.0.sessions.begin().is_some() {
            return Ok(());
        }
        // From the system, since two processes with the same nonce would share the session, and the answers in it.
        let nonce = host::random_u64();
        let command = Command::OpenSession { nonce }.encode();
        match self.write(command, &mut Trace::patient(patience), deadline, timeout).await {
            Ok(Applied::Session(id)) => {
                self.0.sessions.opened(id);
                Ok(())
            }
            Ok(applied) => Err(Error::corrupt(format!("opening a session was answered with {applied}"))),
            // The caller's write has not been sent. A session whose opening was not heard of is never used.
            Err(Error::UnknownOutcome { source }) => Err(Error::Unavailable { source }),
            Err(error) => Err(error),
        }
    }

    /// Sends a command until it is applied or the deadline passes.
    async fn write(&self, command: Bytes, trace: &mut Trace, deadline: Instant, timeout: Duration) -> Result<Applied> {
        let call = Call::Write(command);
        match timeout_at(deadline, self.call(&call, trace)).await {
            Ok(Ok(Reply::Applied(applied))) => Ok(applied),
            Ok(Ok(reply)) => Err(unexpected(&reply)),
            Ok(Err(error)) if trace.maybe_applied => Err(Error::unknown_outcome(error)),
            Ok(Err(error)) => Err(error),
            Err(_) if trace.give_up() => Err(Error::deadline_after_send(timeout)),
            Err(_) => Err(self.late(timeout)),
        }
    }

    /// Makes a call to whoever leads, again and again, until a leader has answered it or the node stops.
    async fn call(&self, call: &Call, trace: &mut Trace) -> Result<Reply> {
        let mut metrics = self.0.raft.server_metrics();
        let mut backoff = Backoff::new(RETRY_FLOOR, RETRY_CEILING);
        loop {
            if *self.0.stopping.borrow() {
                return Err(self.stopped_error());
            }
            let leader = leader(&metrics.borrow_and_update());
            let reply = match leader {
                Some((id, _)) if id == self.0.id => self.call_here(call, trace).await,
                Some((id, address)) => self.call_there(id, &address, call, trace, &mut metrics).await,
                None => Reply::NotLeader,
            };
            match (call, reply) {
                (_, Reply::NotLeader | Reply::Changing) => {}
                (Call::Write(_) | Call::ReadIndex | Call::Lease { .. }, Reply::Undecided | Reply::Refused(_)) => {}
                (_, reply) => return Ok(reply),
            }
            if trace.patience.is_some_and(|patience| Instant::now() >= patience) && !trace.maybe_applied {
                return Err(Error::unavailable("no leader can be reached"));
            }
            tokio::select! {
                changed = metrics.changed() => changed.map_err(|_| self.stopped_error())?,
                () = backoff.wait() => {}
            }
        }
    }

    async fn call_here(&self, call: &Call, trace: &mut Trace) -> Reply {
        let claim = Claim::default();
        trace.waiting = Some(claim.clone());
        let reply = self.0.leader.call(call.clone(), claim).await;
        trace.waiting = None;
        trace.maybe_applied |= reply == Reply::Undecided;
        reply
    }

    async fn call_there(
        &self,
        id: u64,
        address: &str,
        call: &Call,
        trace: &mut Trace,
        metrics: &mut ServerMetrics,
    ) -> Reply {
        let caller = match self.caller(id, address).await {
            Ok(caller) => caller,
            Err(error) => {
                tracing::debug!(leader = id, address, %error, "cannot reach the leader");
                return Reply::NotLeader;
            }
        };
        let before = std::mem::replace(&mut trace.maybe_applied, true);
        let reply = tokio::select! {
            reply = caller.call(call.clone()) => reply.unwrap_or(Reply::Undecided),
            // A leader that hangs cannot answer; the next one can.
            _ = metrics.wait_until(|metrics| metrics.current_leader != Some(id)) => Reply::Undecided,
        };
        trace.maybe_applied = before || reply == Reply::Undecided;
        reply
    }

    async fn caller(&self, id: u64, address: &str) -> std::io::Result<Caller> {
        let open = self.0.callers.0.lock().get(address).filter(|caller| !caller.is_closed()).cloned();
        if let Some(caller) = open {
            return Ok(caller);
        }
        let hello = Hello { cluster: self.0.cluster, from: self.0.id, to: id, channel: Channel::Calls };
        let target = address.to_owned();
        // On the caller's runtime and not the node's, whose thread syncs the log of a follower: calls to the leader would wait
        // for that. In a task, so that a caller that gives up leaves the connection to the others.
        let context = self.0.peers.clone();
        let opened = tokio::spawn(async move { Caller::open(&target, hello, context).await });
        let caller = opened.await.map_err(std::io::Error::other)??;
        self.0.callers.0.lock().insert(address.to_owned(), caller.clone());
        Ok(caller)
    }

    /// The error when the deadline of a call passes that certainly had no effect.
    fn late(&self, timeout: Duration) -> Error {
        match self.0.raft.server_metrics().borrow_watched().current_leader {
            Some(_) => Error::deadline(timeout),
            None => Error::unavailable(format!("no leader within {timeout:?}: is a majority of the members up?")),
        }
    }
}

/// Who leads, and where it is.
fn leader(metrics: &RaftServerMetrics<TypeConfig>) -> Option<(u64, String)> {
    let id = metrics.current_leader?;
    let member = metrics.membership_config.membership().get_node(&id)?;
    Some((id, member.peer_address.clone()))
}

fn unexpected(reply: &Reply) -> Error {
    Error::corrupt(format!("a call was answered with something else: {reply:?}"))
}
