//! What has to hold of raft at every tick, seen from outside of all nodes at once.

use std::collections::BTreeMap;

use storage_embedded::{Node, Probe, ProbedEntry, Role};

use crate::event_log::EventLog;

/// What was seen so far of the whole cluster.
#[derive(Debug, Default)]
pub(crate) struct Invariants {
    /// Who led in each term.
    leaders: BTreeMap<u64, u64>,
    /// Whom each node has voted for in each term, over all its lives.
    votes: BTreeMap<(u64, u64), u64>,
    /// The entries that any node has known to be committed.
    committed: BTreeMap<u64, ProbedEntry>,
    /// The hash of the state after each entry, where a node was seen there.
    states: BTreeMap<u64, u64>,
    /// What each node showed last, in this life.
    seen: BTreeMap<u64, Seen>,
    /// Nodes that have been down for so long that every leader knows.
    pub(crate) silent: Vec<u64>,
    /// How often a node was seen at an index where another had been.
    pub(crate) compared: u64,
}

#[derive(Debug)]
struct Seen {
    life: u64,
    probe: Probe,
    /// The last committed entry that was compared.
    checked: u64,
}

impl Invariants {
    /// How many terms had a leader.
    pub(crate) fn terms(&self) -> usize {
        self.leaders.len()
    }

    /// How many entries were committed.
    pub(crate) fn entries(&self) -> usize {
        self.committed.len()
    }

    /// The last entry that was committed.
    pub(crate) fn last(&self) -> u64 {
        self.committed.last_key_value().map_or(0, |(index, _)| *index)
    }

    /// Looks at a node in its `life`-th life.
    ///
    /// # Errors
    /// What does not hold.
    pub(crate) fn look(&mut self, id: u64, life: u64, node: &Node, event_log: &EventLog) -> Result<(), String> {
        let probe = node.probe();
        if self.seen.get(&id).is_some_and(|seen| seen.life == life && seen.probe == probe) {
            return Ok(());
        }
        let before = self.seen.remove(&id).filter(|seen| seen.life == life);
        let Probe { role, vote, committed, applied, digest, .. } = &probe;
        event_log.record(format_args!(
            "n{id} {role:?} vote {vote:?} committed {committed:?} applied {applied:?} {digest:x}"
        ));
        if let Some(seen) = &before
            && seen.probe.committed > probe.committed
        {
            return Err(format!(
                "what node {id} knows to be committed went back from {:?} to {committed:?}",
                seen.probe.committed
            ));
        }
        if let Some(seen) = &before {
            self.change(id, &seen.probe, &probe)?;
        }
        let mut checked = before.as_ref().map_or(0, |seen| seen.checked);
        self.leader(id, &probe)?;
        self.vote(id, &probe)?;
        if let Some((last, _)) = probe.committed {
            let entries = if last > checked { node.probe_entries(checked + 1, last + 1) } else { Vec::new() };
            for entry in entries {
                let known = *self.committed.entry(entry.index).or_insert(entry);
                if known != entry {
                    return Err(format!("node {id} has {entry:?} committed, and {known:?} was committed before"));
                }
                checked = entry.index;
            }
        }
        if let Some((index, term)) = probe.applied {
            if let Some(known) = self.committed.get(&index)
                && known.term != term
            {
                return Err(format!("node {id} has applied {index} of term {term}, and {known:?} was committed"));
            }
            let moved = before.is_none_or(|seen: Seen| seen.probe.applied != probe.applied);
            if moved {
                match self.states.get(&index) {
                    Some(state) if *state != probe.digest => {
                        return Err(format!(
                            "after entry {index} the state of node {id} is {:x}, and that of another {state:x}",
                            probe.digest
                        ));
                    }
                    Some(_) => self.compared += 1,
                    None => drop(self.states.insert(index, probe.digest)),
                }
            }
        }
        self.seen.insert(id, Seen { life, probe, checked });
        Ok(())
    }

    /// One leader a term at the most.
    fn leader(&mut self, id: u64, probe: &Probe) -> Result<(), String> {
        let Some((term, candidate, elected)) = probe.vote else { return Ok(()) };
        let leads = probe.role == Role::Leader && candidate == id;
        if elected || leads {
            let known = *self.leaders.entry(term).or_insert(candidate);
            if known != candidate {
                return Err(format!("nodes {known} and {candidate} lead in term {term}, as node {id} has it"));
            }
        }
        Ok(())
    }

    /// Whoever leads begins no change of members after which the voters that are alive are no majority.
    fn change(&self, id: u64, before: &Probe, probe: &Probe) -> Result<(), String> {
        let led = before.role == Role::Leader && probe.role == Role::Leader && before.vote == probe.vote;
        if !led || probe.voters == before.voters || probe.voters.len() < 2 {
            return Ok(());
        }
        for voters in &probe.voters {
            let alive = voters.iter().filter(|voter| !self.silent.contains(voter)).count();
            if alive * 2 <= voters.len() {
                let silent = &self.silent;
                return Err(format!(
                    "node {id} begins a change to the voters {voters:?}, of which {silent:?} have long been down"
                ));
            }
        }
        Ok(())
    }

    /// One vote a term, whatever has crashed in between.
    fn vote(&mut self, id: u64, probe: &Probe) -> Result<(), String> {
        // Whom others have elected is followed, whomever this one has voted for.
        let Some((term, candidate, false)) = probe.vote else { return Ok(()) };
        let known = *self.votes.entry((id, term)).or_insert(candidate);
        if known != candidate {
            return Err(format!("node {id} votes for {candidate} in term {term}, where it has voted for {known}"));
        }
        Ok(())
    }
}
