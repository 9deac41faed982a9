//! What the leader does for callers, its own and those of other replicas: it appends commands and confirms reads.
//!
//! Both go through a task that takes up everything which has come while the last batch was under way: one sync of the
//! log, one round to the followers, for all waiting callers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::{
    ReadPolicy,
    async_runtime::watch::WatchReceiver,
    errors::{ClientWriteError, Fatal, LinearizableReadError, RaftError},
    raft::WriteResult,
};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use super::{
    Raft,
    gather::Gather,
    leases::LeaseClock,
    members,
    members::OneAtATime,
    waiter::{Waiter, answer_all},
};
use crate::{
    network::{
        message::{Call, Reply},
        peer::PeerContext,
        server::AnswerCalls,
    },
    raft::{Proposal, TypeConfig},
    state_machine::SharedState,
};

/// How many writes may wait to be appended. More writers than this wait their turn, each within its deadline.
const QUEUED_WRITES: usize = 16 * 1024;

/// How often the leader looks for leases that have run out: they live longer by that.
const LEASES_CHECKED: Duration = Duration::from_millis(200);

/// What this node does for callers while it leads.
#[derive(Clone, Debug)]
pub(crate) struct Leader {
    raft: Raft,
    peers: Arc<PeerContext>,
    leases: LeaseClock,
    changes: Arc<OneAtATime>,
    writes: mpsc::Sender<Write>,
    reads: mpsc::Sender<Waiter>,
}

#[derive(Debug)]
struct Write {
    command: Bytes,
    claim: Claim,
    waiter: Waiter,
}

/// Decides, between a caller whose deadline passes and the appending task, whether the write is made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claim(Arc<AtomicU8>);

const WAITING: u8 = 0;
const APPENDED: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Claim {
    /// The appending task takes the write up, unless the caller has given up.
    fn take_up(&self) -> bool {
        self.0.compare_exchange(WAITING, APPENDED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The caller gives up. True: the write was not taken up and never will be.
    pub(crate) fn give_up(&self) -> bool {
        self.0.compare_exchange(WAITING, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Leader {
    /// Starts both tasks on the current runtime.
    pub(crate) fn start(raft: Raft, peers: Arc<PeerContext>, state: SharedState, tasks: &mut JoinSet<()>) -> Self {
        let (writes, queued_writes) = mpsc::channel(QUEUED_WRITES);
        let (reads, queued_reads) = mpsc::channel(QUEUED_WRITES);
        tasks.spawn(append(raft.clone(), queued_writes));
        tasks.spawn(confirm(raft.clone(), queued_reads));
        let leader = Self { raft, peers, leases: LeaseClock::new(state), changes: Arc::default(), writes, reads };
        tasks.spawn(leader.clone().end_leases());
        leader
    }

    /// Carries out a call. If the caller stops waiting for a write, `claim` tells whether the command may be in the log.
    pub(crate) async fn call(&self, call: Call, claim: Claim) -> Reply {
        match call {
            Call::Write(command) => self.write(command, claim).await,
            Call::ReadIndex => self.read_index().await,
            Call::Change(change) => members::change(&self.raft, &self.peers, &self.changes, change).await,
            Call::Lease { id, renew } => self.lease(id, renew).await,
        }
    }

    /// How many writes and how many reads wait for this node as the leader.
    pub(crate) fn queued(&self) -> (usize, usize) {
        (QUEUED_WRITES - self.writes.capacity(), QUEUED_WRITES - self.reads.capacity())
    }

    async fn write(&self, command: Bytes, claim: Claim) -> Reply {
        let (waiter, answer) = Waiter::new();
        if self.writes.send(Write { command, claim, waiter }).await.is_err() {
            return Reply::Refused("the node is stopping".to_owned());
        }
        // The task drops a write without an answer only when the node stops: then nobody knows.
        answer.await.unwrap_or(Reply::Undecided)
    }

    async fn lease(&self, id: u64, renew: bool) -> Reply {
        let asked = Instant::now();
        match self.read_index().await {
            // Nobody has led since: the next leader begins to count later, and has the revocations of those before it.
            Reply::ReadIndex(index) => match self.leases.state().wait_applied(index).await {
                Ok(()) => Reply::Lease(self.leases.life(self.term(), id, renew.then_some(asked))),
                Err(_) => Reply::NotLeader,
            },
            reply => reply,
        }
    }

    fn term(&self) -> u64 {
        self.raft.server_metrics().borrow_watched().vote.leader_id.term
    }

    /// Ends the leases that have run out, while this node leads.
    async fn end_leases(self) {
        loop {
            tokio::time::sleep(LEASES_CHECKED).await;
            if !self.raft.is_leader() {
                continue;
            }
            let ends = self.leases.ended(self.term()).into_iter().map(|command| {
                let call = Call::Write(command.encode());
                // Whatever becomes of it: while the lease is there, it is tried again.
                self.call(call, Claim::default())
            });
            futures::future::join_all(ends).await;
        }
    }

    async fn read_index(&self) -> Reply {
        let (waiter, answer) = Waiter::new();
        if self.reads.send(waiter).await.is_err() {
            return Reply::NotLeader;
        }
        answer.await.unwrap_or(Reply::NotLeader)
    }
}

impl AnswerCalls for Leader {
    async fn answer(&self, call: Call) -> Reply {
        let reply = self.call(call, Claim::default()).await;
        if let Reply::ReadIndex(_) = reply {
            // The replica that asked waits until it has applied this much: tell it what is committed now.
            self.peers.flush.notify_waiters();
        }
        reply
    }
}

async fn append(raft: Raft, mut queue: mpsc::Receiver<Write>) {
    let mut gather = Gather::default();
    while let Some(first) = queue.recv().await {
        let mut batch = vec![first];
        gather.fill(&mut batch, &mut queue).await;
        let (size, began) = (batch.len(), Instant::now());
        batch.retain(|write| write.claim.take_up());
        if batch.is_empty() {
            continue;
        }
        let (commands, waiters): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|write| (Proposal(write.command), write.waiter)).unzip();
        match raft.client_write_many(commands).await {
            Ok(results) => answer(results, waiters).await,
            Err(error) => {
                tracing::error!(%error, "raft has stopped");
                return;
            }
        }
        gather.answered(size + queue.len(), began.elapsed());
    }
}

async fn answer(
    results: impl Stream<Item = Result<WriteResult<TypeConfig>, Fatal<TypeConfig>>> + Unpin,
    waiters: Vec<Waiter>,
) {
    // It is asked on after its end, which comes early when raft fails.
    let mut results = results.fuse();
    let mut answers = Vec::with_capacity(waiters.len());
    for waiter in waiters {
        let answer = match results.next().await {
            Some(Ok(Ok(written))) => Reply::Applied(written.response),
            Some(Ok(Err(ClientWriteError::ForwardToLeader(_)))) => Reply::NotLeader,
            // The entry was dropped from this log, may stand in another, or raft has ended.
            Some(Ok(Err(_)) | Err(_)) | None => Reply::Undecided,
        };
        answers.push((waiter, answer));
    }
    answer_all(answers);
}

async fn confirm(raft: Raft, mut queue: mpsc::Receiver<Waiter>) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, QUEUED_WRITES).await > 0 {
        #[cfg(simulated)]
        if crate::simulated::is_planted(crate::simulated::Flaw::UnconfirmedRead) && raft.is_leader() {
            let index = raft.metrics().borrow_watched().last_applied.map_or(0, |id| id.index);
            answer_all(waiting.drain(..).map(|waiter| (waiter, Reply::ReadIndex(index))).collect());
            continue;
        }
        let reply = match raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(read) => Reply::ReadIndex(read.index()),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What `client_write_many` gives ends so, after the first error of raft. The task that answers panicked.
    #[tokio::test]
    async fn when_raft_fails_in_a_batch_nobody_knows_what_became_of_it() {
        let results = futures::stream::unfold(Some(()), |first| async move {
            let () = first?;
            Some((Err(Fatal::Stopped), None))
        });
        let (waiters, answers): (Vec<_>, Vec<_>) = (0..4).map(|_| Waiter::new()).unzip();
        answer(Box::pin(results), waiters).await;
        for answer in answers {
            assert_eq!(answer.await, Ok(Reply::Undecided));
        }
    }
}
