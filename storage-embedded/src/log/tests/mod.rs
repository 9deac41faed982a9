//! The log on a simulated disk, against a model of what it must hold.

mod bench;
mod bounds;
mod broken;
mod crash;
mod damage;
mod fuzz;
mod golden;
mod liar;
mod lost;
mod room;
mod threads;
mod usual;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use openraft::alias::CommittedLeaderIdOf;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, RaftLogReader};

use super::{Log, LogError, LogOptions};
use crate::raft::{Entry, LogId, Proposal, TypeConfig, Vote};
use crate::simulated::SimDisk;

const DIR: &str = "/node/log";

fn dir() -> &'static Path {
    Path::new(DIR)
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 2048, cache_bytes: 512, background: false, seed: Some(7), ..LogOptions::default() }
}

pub(crate) fn open(disk: &SimDisk) -> Result<Log, LogError> {
    Log::open_in(Arc::new(disk.clone()), dir(), &options(), None)
}

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderIdOf::<TypeConfig>::new(term), index)
}

fn entry(term: u64, index: u64, payload: &[u8]) -> Entry {
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(Proposal(Bytes::copy_from_slice(payload))) }
}

/// Everything happens in the call, since the log has no threads.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a log without threads never waits")
}

pub(crate) fn append(log: &mut Log, entries: Vec<Entry>) -> io::Result<()> {
    let (sender, receiver) = TypeConfig::oneshot();
    let called = now(log.append(entries, IOFlushed::Signal(sender)));
    match receiver.now_or_never() {
        Some(Ok(acknowledged)) => {
            assert_eq!(acknowledged.is_ok(), called.is_ok());
            acknowledged
        }
        _ => Err(called.expect_err("neither acknowledged nor refused")),
    }
}

/// What a log holds, as openraft would see it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Held {
    vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    last: Option<LogId>,
    pub(crate) entries: BTreeMap<u64, Entry>,
}

impl Held {
    pub(crate) fn by(log: &mut Log) -> Self {
        let state = now(log.get_log_state()).unwrap();
        let entries = now(log.try_get_log_entries(..)).unwrap();
        Self {
            vote: now(log.read_vote()).unwrap(),
            purged: state.last_purged_log_id,
            last: state.last_log_id,
            entries: entries.into_iter().map(|entry| (entry.log_id.index, entry)).collect(),
        }
    }

    fn next_index(&self) -> u64 {
        self.last.map_or(0, |id| id.index + 1)
    }
}

/// A call of the log.
#[derive(Debug, Clone)]
enum Call {
    Append(Vec<Entry>),
    Vote(Vote),
    Truncate(Option<LogId>),
    Purge(LogId),
    Commit(LogId),
    Reopen,
}

impl Call {
    /// Any call that raft might make on a log that holds this.
    fn any(held: &Held, term: &mut u64, committed: &mut Option<LogId>, random: &mut fastrand::Rng) -> Self {
        let known = |index: u64| held.entries.get(&index).map(|entry| entry.log_id).or(held.purged);
        let first = held.purged.map_or(0, |id| id.index + 1);
        let uncommitted = first.max(committed.map_or(0, |id| id.index + 1));
        match random.u8(..20) {
            0..10 => {
                let next = held.next_index();
                let mut payload = |_| {
                    let size = if random.u8(..20) == 0 { 3000 } else { random.usize(..120) };
                    vec![random.u8(..); size]
                };
                let payloads: Vec<_> = (0..3).map(&mut payload).collect();
                let count = random.usize(1..4);
                Self::Append((next..).zip(&payloads).take(count).map(|(n, bytes)| entry(*term, n, bytes)).collect())
            }
            10..13 => {
                *term += random.u64(..2);
                let is_committed = random.bool() || held.vote == Some(Vote::new_committed(*term, 1));
                Self::Vote(if is_committed { Vote::new_committed(*term, 1) } else { Vote::new(*term, 1) })
            }
            13..15 if held.next_index() > uncommitted => {
                *term += 1;
                let keep = random.u64(uncommitted..held.next_index());
                Self::Truncate(if keep == first { held.purged } else { known(keep - 1) })
            }
            15..17 if held.next_index() > first => {
                Self::Purge(known(random.u64(first..held.next_index())).expect("an entry"))
            }
            17 => Self::Purge(log_id(*term, held.next_index() + random.u64(..3))),
            18 => {
                *committed = held.last;
                held.last.map_or(Self::Reopen, Self::Commit)
            }
            _ => Self::Reopen,
        }
    }

    fn apply(&self, held: &mut Held) {
        match self {
            Self::Append(entries) => {
                held.last = entries.last().map(|entry| entry.log_id);
                held.entries.extend(entries.iter().map(|entry| (entry.log_id.index, entry.clone())));
            }
            Self::Vote(vote) => held.vote = Some(*vote),
            Self::Truncate(id) => {
                held.entries.retain(|index, _| id.is_some_and(|id| *index <= id.index));
                held.last = *id;
            }
            Self::Purge(id) => {
                held.entries.retain(|index, _| *index > id.index);
                held.purged = Some(*id);
                held.last = held.last.filter(|last| last.index > id.index).or(Some(*id));
            }
            Self::Commit(_) | Self::Reopen => {}
        }
    }

    fn make(&self, log: &mut Log, disk: &SimDisk) -> io::Result<()> {
        match self {
            Self::Append(entries) => append(log, entries.clone()),
            Self::Vote(vote) => now(log.save_vote(vote)),
            Self::Truncate(id) => now(log.truncate_after(*id)),
            Self::Purge(id) => now(log.purge(*id)),
            Self::Commit(id) => now(log.save_committed(Some(*id))),
            Self::Reopen => {
                log.close()?;
                *log = open(disk)?;
                Ok(())
            }
        }
    }
}

/// A sequence of calls, and what the log holds before each and after the last.
fn workload(seed: u64, length: usize) -> Vec<(Held, Call)> {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut held, mut term, mut committed) = (Held::default(), 1, None);
    (0..length)
        .map(|_| {
            let before = held.clone();
            let call = Call::any(&held, &mut term, &mut committed, &mut random);
            call.apply(&mut held);
            (before, call)
        })
        .collect()
}
