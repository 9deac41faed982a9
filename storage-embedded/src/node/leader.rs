//! What the leader does for callers, its own and those of other replicas: it appends commands and confirms reads.
//!
//! Both go through a task that takes up everything which has come while the last batch was under way: one sync of the
//! log, one round to the followers, for all waiting callers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::{
    Instant as _, ReadPolicy,
    async_runtime::watch::WatchReceiver,
    errors::{ClientWriteError, Fatal, LinearizableReadError, RaftError},
    raft::WriteResult,
};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::JoinSet,
    time::Instant,
};

use super::{
    batcher::Batcher,
    members::Changes,
    quota::Quota,
    waiter::{Waiter, answer_all},
    write_queue::{Handover, Write, WriteQueue},
};
use crate::{
    command::Command,
    keys::Leases,
    log::{Log, MAX_ENTRY_BYTES},
    mvcc::{Leading, LeaseClock},
    network::{
        message::{Call, Reply},
        peer::PeerContext,
        server::AnswerCalls,
    },
    raft::{Proposal, TypeConfig},
    state_machine::{Raft, Replica, SharedState},
};

/// How many reads may wait to be confirmed. More readers than this wait their turn, each within its deadline.
const QUEUED_READS: usize = 16 * 1024;

/// How often the leader looks for leases that have run out: they live longer by that.
const LEASES_CHECKED: Duration = Duration::from_millis(200);

/// How long the log of a leader waits for a file until another node is asked to lead, which has one: longer than it takes to fill a file, and
/// than a moment without descriptors lasts.
const HANDS_OVER_AFTER: Duration = Duration::from_secs(2);

/// How often writes are looked for that came to be queued as the log began to wait.
const REFUSED_AGAIN: Duration = Duration::from_millis(50);

/// What this node does for callers while it leads.
#[derive(Clone, Debug)]
pub(crate) struct Leader {
    raft: Raft,
    log: Log,
    peers: Arc<PeerContext>,
    state: SharedState,
    lease_clock: LeaseClock,
    changes: Changes,
    /// A majority, or a member, that has not answered for so long is taken for gone.
    silence: Duration,
    writes: WriteQueue,
    reads: mpsc::Sender<Waiter>,
}

impl Leader {
    /// Starts both tasks on the current runtime.
    pub(crate) fn start(
        raft: Raft,
        log: Log,
        peers: Arc<PeerContext>,
        state: SharedState,
        quota: Quota,
        silence: Duration,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (writes, queued_writes) = WriteQueue::new();
        let (reads, queued_reads) = mpsc::channel(QUEUED_READS);
        tasks.spawn(append(raft.clone(), log.clone(), state.clone(), quota, Arc::clone(&peers), queued_writes));
        tasks.spawn(confirm(raft.clone(), state.clone(), queued_reads));
        let lease_clock = LeaseClock::new(silence);
        let changes = Changes::new(raft.clone(), Arc::clone(&peers), silence);
        let leader = Self { raft, log, peers, state, lease_clock, changes, silence, writes, reads };
        tasks.spawn(leader.clone().keep_house());
        leader
    }

    /// Carries out a call. If the caller stops waiting for a write, `handover` tells whether the command may be in the log.
    pub(crate) async fn call(&self, call: Call, handover: Handover) -> Reply {
        match call {
            Call::Write(command) => self.write(command, handover).await,
            Call::ReadIndex => self.read_index().await,
            // From here on a caller that gives up is told that nobody knows.
            Call::Change(change) if handover.take_up() => self.changes.make(change).await,
            Call::Change(_) => Reply::NotLeader,
            Call::Lease { id, renew } => self.lease(id, renew).await,
        }
    }

    /// How many writes and how many reads wait for this node as the leader.
    pub(crate) fn queued(&self) -> (usize, usize) {
        (self.writes.len(), QUEUED_READS - self.reads.capacity())
    }

    async fn write(&self, command: Bytes, handover: Handover) -> Reply {
        // In the log it would end this node, whoever has called for it.
        if command.len() > MAX_ENTRY_BYTES {
            return Reply::Refused(format!(
                "a command of {} bytes, over the limit of {MAX_ENTRY_BYTES}",
                command.len()
            ));
        }
        // It would wait with the log, in vain if that is for long.
        if let Some(reason) = self.log.waits() {
            return Reply::Refused(reason);
        }
        // A write is dropped without an answer only when the node stops: then nobody knows.
        self.writes.put(command, handover).await.unwrap_or(Reply::Undecided)
    }

    async fn lease(&self, id: u64, renew: bool) -> Reply {
        // The lease is kept alive from when it was asked for, not from when a majority has answered: its holder counts from before that.
        let asked = Instant::now();
        match self.read_index().await {
            // Nobody has led since: the next leader begins to count later, and has the revocations of those before it.
            Reply::ReadIndex(index) => match self.state.wait_applied(index).await {
                // A majority has answered after the question.
                Ok(()) => {
                    let leading = Leading { term: self.term(), heard: Some(asked) };
                    Reply::Lease(self.lease_clock.life(
                        leading,
                        self.leases(),
                        id,
                        renew.then_some(asked),
                        Instant::now(),
                    ))
                }
                Err(_) => Reply::NotLeader,
            },
            reply => reply,
        }
    }

    fn leases(&self) -> Leases {
        self.state.read_keys(|keys| keys.leases.clone())
    }

    fn term(&self) -> u64 {
        self.raft.server_metrics().borrow_watched().vote.leader_id.term
    }

    /// When a majority has answered this leader last. A voter that is alone is a majority.
    fn heard(&self) -> Option<Instant> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let mut voters = metrics.membership_config.membership().voter_ids();
        let is_alone = voters.all(|voter| voter == metrics.id);
        if is_alone { Some(Instant::now()) } else { metrics.last_quorum_acked.map(|at| Instant::now() - at.elapsed()) }
    }

    /// Whether a majority follows this node: it leads, and has been answered lately.
    pub(crate) fn is_followed(&self) -> bool {
        self.raft.is_leader() && self.heard().is_some_and(|heard| heard.elapsed() < self.silence)
    }

    /// The leader, if this node has heard from it lately; its own id if a majority follows it.
    pub(crate) fn known(&self) -> Option<u64> {
        let leader = self.raft.server_metrics().borrow_watched().current_leader?;
        let is_there =
            if leader == self.peers.node { self.is_followed() } else { self.peers.hears_leader(self.silence) };
        is_there.then_some(leader)
    }

    /// Ends the leases that have run out and finishes what earlier leaders have left, while this node leads.
    async fn keep_house(self) {
        let mut waits_since = None;
        loop {
            tokio::time::sleep(LEASES_CHECKED).await;
            if !self.raft.is_leader() {
                waits_since = None;
                continue;
            }
            // While the log waits for a file this node takes no writes, and one that has room may lead.
            waits_since = self.log.waits().map(|_| waits_since.unwrap_or_else(Instant::now));
            if waits_since.is_some_and(|since| since.elapsed() > HANDS_OVER_AFTER) {
                self.changes.hand_over().await;
                waits_since = None;
            }
            let leading = Leading { term: self.term(), heard: self.heard() };
            let ends =
                self.lease_clock.ended(leading, self.leases(), Instant::now()).into_iter().map(|(id, granted)| {
                    let call = Call::Write(Command::LeaseExpire { id, granted }.encode());
                    // Whatever becomes of it: while the lease is there, it is tried again.
                    self.call(call, Handover::default())
                });
            futures::future::join_all(ends).await;
            if self.is_followed() {
                self.changes.finish().await;
            }
        }
    }

    async fn read_index(&self) -> Reply {
        let (waiter, answer) = Waiter::new();
        if let Err(TrySendError::Full(waiter)) = self.reads.try_send(waiter) {
            let reads = self.reads.clone();
            // In a task: a caller that is kept and not polled would be given a place and hold up all behind it.
            tokio::spawn(async move { reads.send(waiter).await });
        }
        answer.await.unwrap_or(Reply::NotLeader)
    }
}

impl AnswerCalls for Leader {
    async fn answer(&self, call: Call) -> Reply {
        let reply = self.call(call, Handover::default()).await;
        if let Reply::ReadIndex(index) | Reply::Applied { index, .. } = reply {
            // The replica that asked waits until it has applied this much: tell it what is committed now.
            self.peers.await_commit(index);
        }
        reply
    }
}

async fn append(
    raft: Raft,
    log: Log,
    state: SharedState,
    quota: Quota,
    peers: Arc<PeerContext>,
    mut queue: mpsc::Receiver<Write>,
) {
    let mut batcher = Batcher::default();
    while let Some(first) = queue.recv().await {
        let mut batch = vec![first];
        batcher.fill(&mut batch, &mut queue).await;
        // Appended, they would wait with the log, and nobody would know what becomes of them.
        if let Some(reason) = log.waits() {
            let refused = Reply::Refused(reason);
            answer_all(batch.into_iter().map(|write| (write.waiter, refused.clone())).collect());
            continue;
        }
        let (size, began) = (batch.len(), Instant::now());
        // From here on a caller that gives up is told that nobody knows: its write may be in the log.
        batch.retain(|write| write.handover.take_up());
        if batch.is_empty() {
            continue;
        }
        let alarm_at = quota.alarm_at(&state, batch.iter().map(|write| &write.command));
        let (mut commands, waiting): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|write| (Proposal(write.command), ((write.waiter, write.handover), write.room)))
            .unzip();
        // Their room is free again when they have been answered.
        let (mut waiters, _rooms): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        // Nothing was applied since the state was measured but what is in the batches before this one, which have been answered.
        if let Some(place) = alarm_at {
            tracing::warn!(quota = quota.bytes, "the state is at its quota: what grows is refused from now on");
            let (nobody, _) = Waiter::new();
            commands.insert(place, Proposal(quota.alarm().encode()));
            waiters.insert(place, (nobody, Handover::default()));
        }
        // The next batch is not begun before this one is answered. What comes meanwhile makes it larger, and one sync of each log
        // costs the same for one write as for a thousand.
        match raft.client_write_many(commands).await {
            Ok(results) => {
                let applied = tokio::select! {
                    biased;
                    applied = answer(results, waiters) => applied,
                    () = refuse_while_it_waits(&log, &mut queue) => None,
                };
                // Nothing is about to be sent that would say what is committed: watches on followers shall not wait for it.
                if let Some(index) = applied.filter(|_| size == 1 && queue.is_empty()) {
                    peers.await_commit(index);
                }
            }
            Err(error) => {
                tracing::error!(%error, "raft has stopped");
                return;
            }
        }
        batcher.answered(size + queue.len(), began.elapsed());
    }
}

/// Refuses what is queued behind a batch that the log cannot write for want of a file. Never ends.
async fn refuse_while_it_waits(log: &Log, queue: &mut mpsc::Receiver<Write>) {
    loop {
        let reason = log.begins_to_wait().await;
        let queued = std::iter::from_fn(|| queue.try_recv().ok());
        answer_all(queued.map(|write| (write.waiter, Reply::Refused(reason.clone()))).collect());
        // Those that come now are refused before they are queued.
        tokio::time::sleep(REFUSED_AGAIN).await;
    }
}

/// Hands the results of a batch, which come in the order of its writes, to those who wait for them. Gives the index of the last that was applied.
async fn answer(
    results: impl Stream<Item = Result<WriteResult<TypeConfig>, Fatal<TypeConfig>>> + Unpin,
    waiters: Vec<(Waiter, Handover)>,
) -> Option<u64> {
    // It is asked on after its end, which comes early when raft fails.
    let mut results = results.fuse();
    let (mut answers, mut last) = (Vec::with_capacity(waiters.len()), None);
    for (waiter, handover) in waiters {
        let answer = match results.next().await {
            Some(Ok(Ok(written))) => {
                last = Some(written.log_id.index);
                Reply::Applied { index: written.log_id.index, applied: written.response }
            }
            Some(Ok(Err(ClientWriteError::ForwardToLeader(_)))) => Reply::NotLeader,
            // The entry was dropped from this log, may stand in another, or raft has ended.
            Some(Ok(Err(_)) | Err(_)) | None => Reply::Undecided,
        };
        handover.answered(&answer);
        answers.push((waiter, answer));
    }
    answer_all(answers);
    last
}

/// Confirms reads: asks a majority whether this node still leads (Raft thesis, section 6.4).
///
/// A round proves something only for reads that began before it did: a leader that was deposed in the middle of it may have heard from its
/// majority before that. So whoever comes during a round waits for the next one, which all of them share.
async fn confirm(raft: Raft, state: SharedState, mut queue: mpsc::Receiver<Waiter>) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, QUEUED_READS).await > 0 {
        let applied = state.read(Replica::applied_index);
        #[cfg(simulated)]
        if crate::simulated::is_planted(crate::simulated::Flaw::UnconfirmedRead) && raft.is_leader() {
            let index = raft.metrics().borrow_watched().last_applied.map_or(0, |id| id.index);
            answer_all(waiting.drain(..).map(|waiter| (waiter, Reply::ReadIndex(index))).collect());
            continue;
        }
        let reply = match raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(read) => confirmed(read.index(), applied),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => Reply::NotLeader,
            Err(RaftError::APIError(error @ LinearizableReadError::QuorumNotEnough(_))) => {
                Reply::Refused(error.to_string())
            }
            Err(RaftError::Fatal(error)) => {
                tracing::error!(%error, "raft has stopped");
                return;
            }
        };
        answer_all(waiting.drain(..).map(|waiter| (waiter, reply.clone())).collect());
    }
}

/// The answer to reads that began when this node had applied so much. What it has acknowledged is among that.
fn confirmed(index: u64, applied: u64) -> Reply {
    assert!(index >= applied, "a linearizable read is older than what was applied when it began");
    Reply::ReadIndex(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "a linearizable read is older than what was applied when it began")]
    fn a_read_that_would_miss_a_write_ends_the_node() {
        confirmed(7, 8);
    }

    /// What `client_write_many` gives ends so, after the first error of raft. The task that answers panicked.
    #[tokio::test]
    async fn when_raft_fails_in_a_batch_nobody_knows_what_became_of_it() {
        let results = futures::stream::unfold(Some(()), |first| async move {
            let () = first?;
            Some((Err(Fatal::Stopped), None))
        });
        let (waiters, answers): (Vec<_>, Vec<_>) = (0..4).map(|_| Waiter::new()).unzip();
        let waiters = waiters.into_iter().map(|waiter| (waiter, Handover::default())).collect();
        answer(Box::pin(results), waiters).await;
        for answer in answers {
            assert_eq!(answer.await, Ok(Reply::Undecided));
        }
    }
}
