//! Who founds the cluster: single-decree Paxos ("Paxos Made Simple", 2001) among all replicas that are listed, as pure state machines.
//!
//! What is agreed on is one [`Founding`]: a cluster id that was drawn by lot, and the replica that founds it alone. A replica founds only if the
//! majority has accepted it *and* it remembers that it has proposed this very cluster id, so one that has lost its disk never does. Promises are
//! lost with a disk too: whoever has lost one has to be started with the mode `join`, in which it promises nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, ReplicaId};

/// The number of an attempt. Two replicas never have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ballot {
    /// It rises.
    pub round: u64,
    /// Whose it is.
    pub replica: ReplicaId,
}

/// Which cluster there will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Founding {
    /// Its id.
    pub cluster: ClusterId,
    /// Who founds it, alone.
    pub founder: ReplicaId,
}

/// What one replica asks another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Are you there, and without a cluster?
    Hello,
    /// Promise to answer no lower ballot, and tell what you have accepted.
    Prepare(Ballot),
    /// Accept this.
    Accept(Ballot, Founding),
}

/// What it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is there, and has no cluster.
    Hello,
    /// It has promised.
    Promised(Option<(Ballot, Founding)>),
    /// It has accepted.
    Accepted,
    /// It has promised this ballot to another one.
    Refused(Ballot),
    /// There is a cluster.
    Exists(ClusterId),
}

/// What a replica has promised. It is on stable storage before it is answered. The later of two is the higher one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Promises {
    promised: Ballot,
    accepted: Option<(Ballot, Founding)>,
}

impl Promises {
    /// Answers a question of another replica, or of this one. The caller keeps what has changed before it sends the answer.
    pub fn answer(&mut self, question: Question) -> Reply {
        match question {
            Question::Hello => Reply::Hello,
            Question::Prepare(ballot) if ballot > self.promised => {
                self.promised = ballot;
                Reply::Promised(self.accepted)
            }
            Question::Accept(ballot, founding) if ballot >= self.promised => {
                self.promised = ballot;
                self.accepted = Some((ballot, founding));
                Reply::Accepted
            }
            Question::Prepare(_) | Question::Accept(..) => Reply::Refused(self.promised),
        }
    }

    /// The next ballot of a replica, higher than any that it knows.
    pub fn next_ballot(&self, replica: ReplicaId) -> Ballot {
        Ballot { round: self.promised.round + 1, replica }
    }
}

/// Whether so many of all replicas are a majority.
pub fn is_majority(count: usize, of: usize) -> bool {
    count * 2 > of
}

/// What comes of the answers to [`Question::Prepare`]: what may be proposed, which is what was accepted under the highest ballot, if anything was,
/// and otherwise `own`. `None`: no majority has promised.
pub fn to_propose(answers: &BTreeMap<ReplicaId, Reply>, replicas: usize, own: Founding) -> Option<Founding> {
    let promised = answers.values().filter_map(|answer| match answer {
        Reply::Promised(accepted) => Some(*accepted),
        _ => None,
    });
    if !is_majority(promised.clone().count(), replicas) {
        return None;
    }
    let highest = promised.flatten().max_by_key(|(ballot, _)| *ballot);
    Some(highest.map_or(own, |(_, founding)| founding))
}

/// Whether a majority has accepted.
pub fn is_decided(answers: &BTreeMap<ReplicaId, Reply>, replicas: usize) -> bool {
    is_majority(answers.values().filter(|answer| **answer == Reply::Accepted).count(), replicas)
}

/// Whether this replica should try now: it is the lowest of those that answer, or has proposed to found a cluster before, since nobody
/// else can found that one. This is for progress alone: whoever tries, and however many, at most one cluster is founded.
pub fn should_try(own: ReplicaId, has_proposed: bool, greeted: impl IntoIterator<Item = ReplicaId>) -> bool {
    has_proposed || greeted.into_iter().all(|other| own < other)
}
