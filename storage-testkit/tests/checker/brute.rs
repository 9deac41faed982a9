//! What linearizable means, in the plainest way: every order is tried.

use std::collections::BTreeSet;

use bytes::Bytes;
use storage_core::{Expected, Version};
use storage_testkit::history::{Action, Operation, Outcome, Seen};

/// A value, with its version if anybody ever names it.
type Held = Option<(Bytes, Option<Version>)>;

/// Whether some order of some of these operations of one key, all that were answered among them, explains every answer.
pub(crate) fn is_linearizable(operations: &[Operation]) -> bool {
    let named: Vec<Version> = operations.iter().flat_map(versions).collect();
    Brute { operations, named }.some_order(&mut vec![false; operations.len()], &None, &mut BTreeSet::new())
}

struct Brute<'a> {
    operations: &'a [Operation],
    named: Vec<Version>,
}

impl Brute<'_> {
    /// `given` are the versions that were there already: none comes twice.
    fn some_order(&self, placed: &mut [bool], held: &Held, given: &mut BTreeSet<[u8; 16]>) -> bool {
        let waits = |place: usize| !placed[place] && is_answered(&self.operations[place]);
        let waiting: Vec<usize> = (0..self.operations.len()).filter(|place| waits(*place)).collect();
        if waiting.is_empty() {
            return true;
        }
        let soonest = waiting.iter().filter_map(|place| self.operations[*place].end).min().unwrap();
        for (place, operation) in self.operations.iter().enumerate() {
            // Whatever ended before this one began comes first.
            if placed[place] || operation.outcome == Outcome::Failed || operation.start > soonest {
                continue;
            }
            placed[place] = true;
            for (held, version) in self.after(operation, held) {
                if version.is_some_and(|version| !given.insert(version.to_bytes())) {
                    continue;
                }
                let found = self.some_order(placed, &held, given);
                if let Some(version) = version {
                    given.remove(&version.to_bytes());
                }
                if found {
                    return true;
                }
            }
            placed[place] = false;
        }
        false
    }

    /// Every state after the operation, with the version that it gave; none if its answer is wrong here.
    fn after(&self, operation: &Operation, held: &Held) -> Vec<(Held, Option<Version>)> {
        let holds = match (&operation.guard, held) {
            (Expected::Any, _) => true,
            (Expected::Absent, held) => held.is_none(),
            (_, None) => false,
            (Expected::Exists, Some(_)) => true,
            (Expected::Version(wanted), Some((_, version))) => *version == Some(*wanted),
            (Expected::Value(wanted), Some((value, _))) => value == wanted,
        };
        let sees = |seen: &Seen| match (seen, held) {
            (Seen::Untold, _) => true,
            (Seen::Absent, held) => held.is_none(),
            (Seen::Present { .. }, None) => false,
            (Seen::Present { value, version }, Some((current, has))) => {
                value == current && (version.is_none() || version == has)
            }
        };
        let told = match &operation.outcome {
            Outcome::Ok { seen, version } if holds && sees(seen) => *version,
            Outcome::Unknown if holds => None,
            Outcome::Conflict { seen } if !holds && sees(seen) => return vec![(held.clone(), None)],
            _ => return Vec::new(),
        };
        match &operation.action {
            Action::Read => vec![(held.clone(), None)],
            Action::Delete => vec![(None, None)],
            Action::Put(value) => {
                let is = |version: Option<Version>| (Some((value.clone(), version)), version);
                match told {
                    Some(_) => vec![is(told)],
                    None => self.named.iter().map(|version| is(Some(*version))).chain([is(None)]).collect(),
                }
            }
        }
    }
}

fn is_answered(operation: &Operation) -> bool {
    matches!(operation.outcome, Outcome::Ok { .. } | Outcome::Conflict { .. })
}

/// Every version that an operation names.
fn versions(operation: &Operation) -> Vec<Version> {
    let guard = match &operation.guard {
        Expected::Version(version) => Some(*version),
        _ => None,
    };
    let (seen, gave) = match &operation.outcome {
        Outcome::Ok { seen, version } => (Some(seen), *version),
        Outcome::Conflict { seen } => (Some(seen), None),
        Outcome::Failed | Outcome::Unknown => (None, None),
    };
    let seen = match seen {
        Some(Seen::Present { version, .. }) => *version,
        _ => None,
    };
    [guard, gave, seen].into_iter().flatten().collect()
}
