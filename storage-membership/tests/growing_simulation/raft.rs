//! The part of Raft that changes of members rest on.

use std::collections::{BTreeMap, BTreeSet};

pub(crate) type NodeId = u64;
type Members = BTreeSet<NodeId>;

/// What stands in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Blank,
    Write(u64),
    Config {
        sets: Vec<Members>,
        learners: Members,
    },
    /// A row of the table: a node is given to a data directory of a replica.
    Assign {
        node: NodeId,
        replica: u64,
        incarnation: u64,
    },
    /// A row of the table: a replica has this data directory, and claims this node.
    Register {
        replica: u64,
        incarnation: u64,
        node: Option<NodeId>,
    },
    /// A client has deleted the rows of the table.
    Clear,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) term: u64,
    pub(crate) kind: Kind,
}

/// A node's disk, and what it knows while it runs.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) term: u64,
    pub(crate) voted_for: Option<NodeId>,
    pub(crate) log: Vec<Entry>,
    /// Volatile: how many entries are known to be committed, whether it leads, and how far the others are.
    pub(crate) commit: usize,
    pub(crate) leads: bool,
    pub(crate) matched: BTreeMap<NodeId, usize>,
    pub(crate) last_len: usize,
}

impl Node {
    pub(crate) fn new(id: NodeId) -> Self {
        Self {
            id,
            term: 0,
            voted_for: None,
            log: Vec::new(),
            commit: 0,
            leads: false,
            matched: BTreeMap::new(),
            last_len: usize::MAX,
        }
    }

    /// The process ends.
    pub(crate) fn crash(&mut self) {
        (self.commit, self.leads) = (0, false);
        self.matched.clear();
    }

    /// The latest configuration, committed or not, and where it stands: the sets of voters, and the learners.
    pub(crate) fn config(&self) -> Option<(usize, &Vec<Members>, &Members)> {
        config(&self.log)
    }

    pub(crate) fn voters(&self) -> BTreeSet<NodeId> {
        self.config().map(|(_, sets, _)| sets.iter().flatten().copied().collect()).unwrap_or_default()
    }

    pub(crate) fn members(&self) -> BTreeSet<NodeId> {
        members(&self.log)
    }

    fn last(&self) -> (u64, usize) {
        (self.log.last().map_or(0, |entry| entry.term), self.log.len())
    }

    /// Begins to stand for election; the caller asks the others.
    pub(crate) fn stand(&mut self) -> (u64, (u64, usize)) {
        self.term += 1;
        self.voted_for = Some(self.id);
        self.leads = false;
        (self.term, self.last())
    }

    pub(crate) fn vote(&mut self, candidate: NodeId, term: u64, last: (u64, usize)) -> bool {
        self.higher(term);
        let free = self.voted_for.is_none_or(|voted| voted == candidate);
        let grants = term == self.term && free && last >= self.last();
        if grants {
            self.voted_for = Some(candidate);
        }
        grants
    }

    /// Whether a majority of each set is among these.
    pub(crate) fn has_majorities(&self, among: &BTreeSet<NodeId>) -> bool {
        self.config().is_some_and(|(_, sets, _)| sets.iter().all(|set| set.intersection(among).count() * 2 > set.len()))
    }

    pub(crate) fn lead(&mut self) {
        self.leads = true;
        self.matched = BTreeMap::new();
        self.last_len = usize::MAX;
        self.append(Kind::Blank);
    }

    pub(crate) fn append(&mut self, kind: Kind) {
        self.log.push(Entry { term: self.term, kind });
    }

    fn higher(&mut self, term: u64) {
        if term > self.term {
            (self.term, self.voted_for, self.leads) = (term, None, false);
        }
    }

    /// A leader sends its whole log. Answers how far this node agrees, or its higher term.
    pub(crate) fn receive(&mut self, term: u64, log: &[Entry], commit: usize) -> Result<usize, u64> {
        self.higher(term);
        if term < self.term {
            return Err(self.term);
        }
        assert!(!self.leads, "two leaders in term {term}");
        let same = self.log.iter().zip(log).take_while(|(own, sent)| own == sent).count();
        if same < log.len() {
            assert!(same >= self.commit, "what is committed would be removed from node {}", self.id);
            self.log.truncate(same);
            self.log.extend_from_slice(&log[same..]);
        }
        self.commit = self.commit.max(commit.min(log.len()));
        Ok(log.len())
    }

    /// Another node has a higher term.
    pub(crate) fn step_down(&mut self, term: u64) {
        self.higher(term);
    }

    /// Commits what majorities have, of this leader's own term.
    pub(crate) fn advance(&mut self) {
        for end in (self.commit + 1..=self.log.len()).rev() {
            if self.log[end - 1].term != self.term {
                return;
            }
            let mut have: BTreeSet<_> =
                self.matched.iter().filter(|(_, matched)| **matched >= end).map(|(id, _)| *id).collect();
            have.insert(self.id);
            if self.has_majorities(&have) {
                self.commit = end;
                return;
            }
        }
    }
}

fn config(log: &[Entry]) -> Option<(usize, &Vec<Members>, &Members)> {
    log.iter().enumerate().rev().find_map(|(at, entry)| match &entry.kind {
        Kind::Config { sets, learners } => Some((at, sets, learners)),
        _ => None,
    })
}

/// Who votes or learns by a log.
pub(crate) fn members(log: &[Entry]) -> BTreeSet<NodeId> {
    config(log).map(|(_, sets, learners)| sets.iter().flatten().chain(learners).copied().collect()).unwrap_or_default()
}
