//! How a call of this replica's users gets to the leader, wherever that is, and through a change of leaders.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use openraft::{alias::WatchReceiverOf, async_runtime::watch::WatchReceiver, metrics::RaftServerMetrics};
use parking_lot::Mutex;
use storage_core::{Backoff, Deadline, Error, OperationId, Result, Txn};
use tokio::time::{Instant, timeout_at};

use super::{
    Node,
    request_numbers::{Numbered, RequestNumbers, Session},
    write_queue::Handover,
};
use crate::{
    command::{Applied, Command, Rejection, Request},
    host,
    mvcc::LeaseLife,
    network::{
        calls::{Awaits, Caller},
        message::{Call, MembershipChange, Reply},
    },
    raft::TypeConfig,
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

/// How far a call has come, over all its attempts: what decides which error its caller gets.
#[derive(Debug, Default)]
struct Progress {
    /// An attempt may have reached a leader's log, and what became of it there is not known.
    maybe_applied: bool,
    /// The attempt that waits to be taken up by this node's own log.
    waiting: Option<Handover>,
    /// When to give up although there is time left, if no attempt has reached a leader: the caller has other nodes to ask.
    patience: Option<Instant>,
}

impl Progress {
    fn patient(patience: Option<Duration>) -> Self {
        Self { patience: patience.map(|patience| Deadline::after(patience).at()), ..Self::default() }
    }

    /// The caller waits no longer: whether the call may have been, or may yet be, applied.
    fn give_up(&self) -> bool {
        let taken_up = self.waiting.as_ref().is_some_and(|handover| !handover.give_up());
        self.maybe_applied || taken_up
    }
}

/// What a call sends at each of its attempts.
enum Calling<'a> {
    /// The same each time.
    Same(Call),
    /// A write that has a number of its session as long as one of its attempts may be applied, and no longer: a caller that is
    /// between two attempts, and does not look, holds back nobody.
    Once {
        session: Arc<Session>,
        encode: &'a (dyn Fn(Request) -> Bytes + Send + Sync),
        deadline: Instant,
        sent: Option<(Arc<Numbered>, Bytes)>,
    },
}

impl Calling<'_> {
    /// What to send now; `None`: it is too late.
    fn attempt(&mut self) -> Option<(Call, Option<Arc<Numbered>>)> {
        match self {
            Self::Same(call) => Some((call.clone(), None)),
            // Its number ends with the deadline.
            Self::Once { deadline, .. } if Instant::now() >= *deadline => None,
            Self::Once { session, encode, deadline, sent } => {
                let (numbered, command) = sent.get_or_insert_with(|| {
                    let numbered = session.begin(*deadline);
                    let command = encode(numbered.request);
                    (Arc::new(numbered), command)
                });
                Some((Call::Write(command.clone()), Some(Arc::clone(numbered))))
            }
        }
    }

    /// Nothing that was sent is in a log, or will be.
    fn was_not_taken(&mut self) {
        if let Self::Once { sent, .. } = self {
            *sent = None;
        }
    }

    /// What became of a write, if one of its attempts was answered: also one that the caller had given up for the next, whose answer is then only that
    /// the number has ended.
    fn outcome(&self) -> Option<Reply> {
        match self {
            Self::Once { sent: Some((numbered, _)), .. } => numbered.outcome().cloned(),
            Self::Once { .. } | Self::Same(_) => None,
        }
    }

    /// Whether nothing is wrong with making the call again when nobody knows what became of it. A write has a number of its session, or
    /// is the same however often it is applied, and a read changes nothing. A change of members that may have been made is not made again.
    fn may_be_repeated(&self) -> bool {
        !matches!(self, Self::Same(Call::Change(_)))
    }

    fn is_write(&self) -> bool {
        matches!(self, Self::Once { .. } | Self::Same(Call::Write(_)))
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
        let calling = Calling::Same(Call::Write(command.encode()));
        self.write(calling, &mut Progress::default(), Deadline::after(timeout).at(), timeout).await
    }

    async fn write_once(
        &self,
        encode: impl Fn(Request) -> Bytes + Send + Sync,
        timeout: Duration,
        patience: Option<Duration>,
    ) -> Result<Applied> {
        let deadline = Deadline::after(timeout).at();
        loop {
            let Some(session) = self.0.request_numbers.session() else {
                self.open_session(deadline, timeout, patience).await?;
                continue;
            };
            let id = session.id;
            let mut progress = Progress::patient(patience);
            let calling = Calling::Once { session, encode: &encode, deadline, sent: None };
            let unknown = match self.write(calling, &mut progress, deadline, timeout).await? {
                Applied::UnknownSession => {
                    self.0.request_numbers.forget(id);
                    "the cluster has forgotten the session of this replica"
                }
                // An earlier attempt may be at a leader that was lost, and be applied when there is room again.
                Applied::Rejected(Rejection::TooManyRequests) if progress.maybe_applied => {
                    "the session of this replica has too many requests"
                }
                // It was on its way when its deadline passed.
                Applied::Rejected(Rejection::Acknowledged) => return Err(Error::deadline_after_send(timeout)),
                applied => return Ok(applied),
            };
            // Under a new number the write could be applied a second time.
            if progress.maybe_applied {
                return Err(Error::unknown_outcome(unknown));
            }
        }
    }

    /// Waits until this replica has applied everything that was acknowledged before the call.
    pub(crate) async fn read_barrier(&self, timeout: Duration) -> Result<()> {
        self.barrier(timeout, Progress::default()).await
    }

    /// As [`Node::read_barrier`]. Gives up after [`PATIENCE`] without a leader.
    pub(crate) async fn patient_barrier(&self, timeout: Duration) -> Result<()> {
        self.barrier(timeout, Progress::patient(Some(PATIENCE))).await
    }

    async fn barrier(&self, timeout: Duration, mut progress: Progress) -> Result<()> {
        let barrier = async {
            match self.call(&mut Calling::Same(Call::ReadIndex), &mut progress).await? {
                Reply::ReadIndex(index) => self.0.state.wait_applied(index).await.map_err(|_| self.stopped_error()),
                reply => Err(unexpected(&reply)),
            }
        };
        tokio::time::timeout(timeout, barrier).await.unwrap_or_else(|_| Err(self.late(timeout)))
    }

    /// How long a lease lives, as its keeper, the leader, knows it; kept alive from now on if `renew`. `None`: there is none.
    pub(crate) async fn lease(&self, id: u64, renew: bool, timeout: Duration) -> Result<Option<LeaseLife>> {
        let (mut calling, mut progress) = (Calling::Same(Call::Lease { id, renew }), Progress::default());
        match tokio::time::timeout(timeout, self.call(&mut calling, &mut progress)).await {
            Ok(Ok(Reply::Lease(life))) => Ok(life),
            Ok(Ok(reply)) => Err(unexpected(&reply)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(self.late(timeout)),
        }
    }

    pub(crate) async fn change(&self, change: MembershipChange, timeout: Duration) -> Result<()> {
        let (mut calling, mut progress) = (Calling::Same(Call::Change(change)), Progress::default());
        match tokio::time::timeout(timeout, self.call(&mut calling, &mut progress)).await {
            Ok(Ok(Reply::Changed)) => Ok(()),
            Ok(Ok(Reply::Undecided)) => Err(Error::unknown_outcome("the leader changed during the change of members")),
            Ok(Ok(Reply::Refused(reason))) => Err(Error::invalid_argument(reason)),
            Ok(Ok(reply)) => Err(unexpected(&reply)),
            Ok(Err(error)) if progress.maybe_applied => Err(Error::unknown_outcome(error)),
            Ok(Err(error)) => Err(error),
            Err(_) if progress.give_up() => Err(Error::deadline_after_send(timeout)),
            Err(_) => Err(self.late(timeout)),
        }
    }

    /// Opens a session, unless another caller does. In a task: the caller that began it may not look any more.
    async fn open_session(&self, deadline: Instant, timeout: Duration, patience: Option<Duration>) -> Result<()> {
        let opened = async {
            let Some(opening) = RequestNumbers::begin_to_open(&self.0.request_numbers) else {
                self.0.request_numbers.opened_or_failed().await;
                return Ok(());
            };
            if self.0.request_numbers.session().is_some() {
                return Ok(());
            }
            let node = self.clone();
            let opened = tokio::spawn(async move {
                opening.opened(node.ask_for_session(deadline, timeout, patience).await?);
                Ok(())
            });
            opened.await.unwrap_or_else(|_| Err(self.stopped_error()))
        };
        timeout_at(deadline, opened).await.unwrap_or_else(|_| Err(self.late(timeout)))
    }

    async fn ask_for_session(&self, deadline: Instant, timeout: Duration, patience: Option<Duration>) -> Result<u64> {
        // From the system, since two processes with the same nonce would share the session, and the answers in it.
        let nonce = host::random_u64().map_err(Error::unavailable)?;
        let calling = Calling::Same(Call::Write(Command::OpenSession { nonce }.encode()));
        match self.write(calling, &mut Progress::patient(patience), deadline, timeout).await {
            Ok(Applied::Session(id)) => Ok(id),
            Ok(applied) => Err(Error::corrupt(format!("opening a session was answered with {applied}"))),
            // The caller's write has not been sent. A session whose opening was not heard of is never used.
            Err(Error::UnknownOutcome { source }) => Err(Error::Unavailable { source }),
            Err(error) => Err(error),
        }
    }

    /// Sends a command until it is applied, here too, or the deadline passes.
    async fn write(
        &self,
        mut calling: Calling<'_>,
        progress: &mut Progress,
        deadline: Instant,
        timeout: Duration,
    ) -> Result<Applied> {
        match timeout_at(deadline, self.call(&mut calling, progress)).await {
            Ok(Ok(Reply::Applied { index, applied })) => {
                // The leader may be ahead of this replica, whose caller shall never read here what was before its own write. If that takes
                // until the deadline, or the node stops, the write is committed all the same, and that is the answer.
                let _ = timeout_at(deadline, self.0.state.wait_applied(index)).await;
                Ok(applied)
            }
            Ok(Ok(reply)) => Err(unexpected(&reply)),
            Ok(Err(error)) if progress.maybe_applied => Err(Error::unknown_outcome(error)),
            Ok(Err(error)) => Err(error),
            Err(_) if progress.give_up() => Err(Error::deadline_after_send(timeout)),
            Err(_) => Err(self.late(timeout)),
        }
    }

    /// Makes a call to whoever leads, again and again, until a leader has answered it or the node stops.
    async fn call(&self, calling: &mut Calling<'_>, progress: &mut Progress) -> Result<Reply> {
        let mut metrics = self.0.raft.server_metrics();
        let mut backoff = Backoff::new(RETRY_FLOOR, RETRY_CEILING);
        loop {
            if *self.0.stopping.borrow() {
                return Err(self.stopped_error());
            }
            self.goes_on()?;
            let leader = leader(&metrics.borrow_and_update());
            let reply = match leader {
                Some((id, _)) if id == self.0.id => self.call_here(calling, progress).await,
                Some((id, address)) => self.call_there(id, &address, calling, progress, &mut metrics).await,
                None => Reply::NotLeader,
            };
            let reply = calling.outcome().unwrap_or(reply);
            if !progress.maybe_applied && !matches!(reply, Reply::Applied { .. }) {
                calling.was_not_taken();
            }
            match reply {
                Reply::NotLeader | Reply::Changing => {}
                // The leader takes no writes at present. Of one that it may have taken before nobody knows.
                Reply::Refused(reason) if calling.is_write() && !progress.maybe_applied => {
                    return Err(Error::Throttled { retry_after: None, source: reason.into() });
                }
                Reply::Undecided | Reply::Refused(_) if calling.may_be_repeated() => {}
                reply => return Ok(reply),
            }
            if progress.patience.is_some_and(|patience| Instant::now() >= patience) && !progress.maybe_applied {
                return Err(Error::unavailable("no leader can be reached"));
            }
            tokio::select! {
                changed = metrics.changed() => changed.map_err(|_| self.stopped_error())?,
                () = backoff.wait() => {}
            }
        }
    }

    async fn call_here(&self, calling: &mut Calling<'_>, progress: &mut Progress) -> Reply {
        let Some((call, numbered)) = calling.attempt() else { return Reply::NotLeader };
        // Where a caller finds, when its deadline passes, whether the task that appends has its write already.
        let handover = Handover::of(numbered);
        progress.waiting = Some(handover.clone());
        let reply = self.0.leader.call(call, handover).await;
        progress.waiting = None;
        progress.maybe_applied |= reply == Reply::Undecided;
        reply
    }

    async fn call_there(
        &self,
        id: u64,
        address: &str,
        calling: &mut Calling<'_>,
        progress: &mut Progress,
        metrics: &mut ServerMetrics,
    ) -> Reply {
        let caller = match self.caller(id, address).await {
            Ok(caller) => caller,
            Err(error) => {
                tracing::debug!(leader = id, address, %error, "cannot reach the leader");
                return Reply::NotLeader;
            }
        };
        // A write has its number from here on, where nothing is waited for before it is sent.
        let Some((call, numbered)) = calling.attempt() else { return Reply::NotLeader };
        // True before the first byte leaves: this future may be dropped at any await, and what it has sent cannot be called back.
        let before = std::mem::replace(&mut progress.maybe_applied, true);
        let numbered = numbered.map(|numbered| numbered as Arc<dyn Awaits>);
        let reply = tokio::select! {
            reply = caller.call(call, numbered) => reply.unwrap_or(Reply::Undecided),
            // A leader that hangs cannot answer; the next one can.
            _ = metrics.wait_until(|metrics| metrics.current_leader != Some(id)) => Reply::Undecided,
        };
        progress.maybe_applied = before || reply == Reply::Undecided;
        reply
    }

    async fn caller(&self, id: u64, address: &str) -> std::io::Result<Caller> {
        let open = self.0.callers.0.lock().get(address).filter(|caller| !caller.is_closed()).cloned();
        if let Some(caller) = open {
            return Ok(caller);
        }
        let target = address.to_owned();
        // On the caller's runtime and not the node's, whose thread syncs the log of a follower: calls to the leader would wait
        // for that. In a task, so that a caller that gives up leaves the connection to the others.
        let context = self.0.peers.clone();
        let opened = tokio::spawn(async move { Caller::open(context, id, &target).await });
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
