//! How the latest operations of the users went, by their ids.

use imbl::{HashMap, Vector};
use storage_core::{Conflict, Observed, OperationId, Outcome};

use super::digest::{self, Digest};

/// First in, first out. Of a conflict only its guard is kept: what is at the guard's key is looked up again.
#[derive(Clone, Debug, Default)]
pub(super) struct Operations {
    outcomes: HashMap<u128, Outcome>,
    order: Vector<u128>,
}

impl Operations {
    pub(super) fn get(&self, id: OperationId) -> Option<&Outcome> {
        self.outcomes.get(&id.0)
    }

    /// Remembers a new id, and forgets the oldest if there are too many.
    pub(super) fn remember(&mut self, id: OperationId, outcome: Outcome, digest: &mut Digest) {
        let outcome = match outcome {
            Outcome::Conflict(Conflict { guard, .. }) => {
                Outcome::Conflict(Conflict { guard, current: Observed::Unknown })
            }
            committed @ Outcome::Committed(_) => committed,
        };
        digest.add(digest::operation(id, &outcome));
        self.outcomes.insert(id.0, outcome);
        self.order.push_back(id.0);
        // The newest is kept besides those that are promised to be kept behind it.
        if self.order.len() > super::MAX_OPERATIONS + 1
            && let Some(oldest) = self.order.pop_front()
            && let Some(outcome) = self.outcomes.remove(&oldest)
        {
            digest.remove(digest::operation(OperationId(oldest), &outcome));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// From the oldest to the newest.
    pub(super) fn iter(&self) -> impl Iterator<Item = (OperationId, &Outcome)> {
        self.order.iter().filter_map(|id| Some((OperationId(*id), self.outcomes.get(id)?)))
    }
}
