//! How nodes found a cluster together, none of which has run before: docs/decisions/0012-first-start.md.
//!
//! ```text
//! New       asks all others. If one has begun, this node has lost its disk; if none has, it is
//! Prepared, on stable storage. When each of the others has been prepared, or one has begun, it writes the founding entry and has
//! Begun.
//! ```
//!
//! A node that was restored from a snapshot does the same. Its founding entry is in the snapshot, so it votes from then on, and not before.

#[cfg(not(simulated))]
#[cfg(test)]
mod elections;
#[cfg(test)]
mod model;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::join_all;

use crate::{
    log::Phase,
    network::{
        admission::Verdict,
        message::Standing,
        peer::{PeerContext, standing},
    },
    raft::Member,
    state_machine::Raft,
};

/// How long a node waits until it asks the others again.
const ASKED_EVERY: Duration = Duration::from_millis(100);

/// What a founding node knows of the others in this life.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Founding {
    phase: Phase,
    /// The furthest that each of the others has been heard to be.
    others: BTreeMap<u64, Option<Phase>>,
}

/// What a founding node does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Ask the others.
    Ask,
    /// Remember on stable storage that it takes part.
    Prepare,
    /// Write the founding entry, vote and answer from then on.
    Begin,
    /// Stop: this node has begun without it, as it is now.
    Forgot(u64),
}

impl Founding {
    fn new(phase: Phase, others: impl Iterator<Item = u64>) -> Self {
        Self { phase, others: others.map(|id| (id, None)).collect() }
    }

    fn hear(&mut self, from: u64, phase: Phase) {
        assert!(self.others.contains_key(&from), "only the others are asked");
        self.others.entry(from).and_modify(|heard| *heard = (*heard).max(Some(phase)));
    }

    fn step(&self) -> Step {
        assert!(self.phase != Phase::Begun, "a node that has begun founds no more");
        let begun = self.others.iter().find(|(_, heard)| **heard == Some(Phase::Begun)).map(|(id, _)| *id);
        let all = |phase| self.others.values().all(|heard| *heard >= Some(phase));
        match (begun, self.phase) {
            // Nobody begins before this node was prepared. So it was, and what it remembered is gone.
            (Some(by), Phase::New) => Step::Forgot(by),
            (Some(_), _) => Step::Begin,
            (None, Phase::New) if all(Phase::New) => Step::Prepare,
            (None, Phase::Prepared) if all(Phase::Prepared) => Step::Begin,
            _ => Step::Ask,
        }
    }

    /// Those that have not said what this node waits for.
    fn silent(&self) -> impl Iterator<Item = u64> {
        self.others.iter().filter(|(_, heard)| **heard < Some(self.phase)).map(|(id, _)| *id)
    }
}

/// Founds the cluster, however long the others take, or finds out that this node must not.
///
/// # Errors
/// Why the node cannot go on.
pub(super) async fn found(raft: Raft, peers: Arc<PeerContext>, founders: BTreeMap<u64, Member>) -> Result<(), String> {
    let others = founders.keys().copied().filter(|id| *id != peers.node);
    let admission = &peers.admission;
    let mut founding = Founding::new(admission.phase(), others);
    loop {
        #[cfg(simulated)]
        if crate::simulated::is_planted(crate::simulated::Flaw::ForgottenDisk) {
            raft.initialize(founders).await.map_err(|error| error.to_string())?;
            return admission.advance(Phase::Begun).map_err(|error| error.to_string());
        }
        match founding.step() {
            Step::Ask => {
                if let Some(verdict) = ask(&peers, &founders, &mut founding).await {
                    admission.condemn(verdict);
                    return Ok(());
                }
                if founding.step() == Step::Ask {
                    tokio::select! {
                        () = tokio::time::sleep(ASKED_EVERY) => {}
                        () = admission.called.notified() => {}
                    }
                }
            }
            Step::Prepare => {
                let prepared = if founding.others.is_empty() && admission.origin() == 0 {
                    admission.found_alone()
                } else {
                    admission.advance(Phase::Prepared)
                };
                prepared.map_err(|error| error.to_string())?;
                founding.phase = Phase::Prepared;
            }
            Step::Begin => {
                if !admission.is_only_restored() {
                    // Every founder does this with the same members, which is safe: the votes decide who leads.
                    raft.initialize(founders).await.map_err(|error| error.to_string())?;
                }
                assert!(admission.has_data(), "a node that has begun has an entry");
                *admission.waits.lock() = None;
                admission.advance(Phase::Begun).map_err(|error| error.to_string())?;
                raft.runtime_config().elect(true);
                return Ok(());
            }
            Step::Forgot(by) => {
                admission.condemn(Verdict::Forgot { by });
                return Ok(());
            }
        }
    }
}

/// Asks all others how far they are. Gives the verdict, if one was restored and this node is empty, or was restored from something else.
async fn ask(peers: &Arc<PeerContext>, founders: &BTreeMap<u64, Member>, founding: &mut Founding) -> Option<Verdict> {
    let asked = founding
        .others
        .keys()
        .filter_map(|id| founders.get_key_value(id))
        .map(|(id, member)| async move { (*id, standing(peers, *id, &member.peer_address).await) });
    let answers = join_all(asked).await;
    let mut missing = Vec::new();
    for (id, answer) in answers {
        match answer {
            Err(error) => missing.push((id, error)),
            Ok(Standing { phase, origin }) => match peers.admission.compare_origin(id, origin) {
                Ok(()) => founding.hear(id, phase),
                Err(_) if founding.phase == Phase::New && phase == Phase::Begun => founding.hear(id, phase),
                Err(_) if founding.phase == Phase::New && peers.admission.origin() == 0 => {
                    return Some(Verdict::NotRestored { by: id });
                }
                Err(refused) => {
                    let error = refused.into();
                    peers.security.note(None, &error);
                    if peers.admission.was_restored_otherwise(origin) {
                        return Some(Verdict::RestoredOtherwise { by: id });
                    }
                    missing.push((id, error));
                }
            },
        }
    }
    missing.retain(|(id, _)| founding.silent().any(|silent| silent == *id));
    let missing: Vec<_> = missing
        .into_iter()
        .filter_map(|(id, error)| {
            let Member { name, peer_address, .. } = founders.get(&id)?;
            Some(format!("{name} ({peer_address}): {error}"))
        })
        .collect();
    let waits = (!missing.is_empty()).then(|| missing.join("; "));
    let changed = std::mem::replace(&mut *peers.admission.waits.lock(), waits.clone()) != waits;
    if let Some(waits) = waits.filter(|_| changed) {
        tracing::info!(node = peers.node, waits, "founding a cluster takes an answer of each of its nodes");
    }
    None
}
