//! How the latest operations of the users went, by their ids.

use imbl::{HashMap, Vector};
use storage_core::{Conflict, Observed, OperationId, Outcome};

use super::digest;
use crate::keys::Digest;

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
    ///
    /// # Panics
    /// For an id that is known: its operation would be applied twice.
    #[expect(clippy::expect_used, reason = "both are written here alone")]
    pub(super) fn remember(&mut self, id: OperationId, outcome: Outcome, digest: &mut Digest) {
        // What the guard saw may be a large value, and would be stale.
        let outcome = match outcome {
            Outcome::Conflict(Conflict { guard, .. }) => {
                Outcome::Conflict(Conflict { guard, current: Observed::Unknown })
            }
            committed @ Outcome::Committed(_) => committed,
        };
        digest.add(digest::operation(id, &outcome));
        let known = self.outcomes.insert(id.0, outcome);
        assert!(known.is_none(), "an operation of a user is applied twice");
        self.order.push_back(id.0);
        // The newest is kept besides those that are promised to be kept behind it.
        if self.order.len() > super::MAX_OPERATIONS + 1 {
            let oldest = self.order.pop_front().expect("more than one is remembered");
            let outcome = self.outcomes.remove(&oldest).expect("each operation in the order has its outcome");
            digest.remove(digest::operation(OperationId(oldest), &outcome));
        }
        assert_eq!(self.order.len(), self.outcomes.len(), "each operation that is remembered stands in the order once");
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// From the oldest to the newest.
    #[expect(clippy::expect_used, reason = "both are written in `remember` alone")]
    pub(super) fn iter(&self) -> impl Iterator<Item = (OperationId, &Outcome)> {
        let outcome = |id| self.outcomes.get(id).expect("each operation in the order has its outcome");
        self.order.iter().map(move |id| (OperationId(*id), outcome(id)))
    }
}
