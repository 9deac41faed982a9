//! Whether a [history](crate::history) is linearizable, key by key: own code, so that it can be read with what it judges.
//!
//! A history is linearizable if there is one order of its operations that explains every answer and agrees with the times:
//! an operation that ended before another began comes before it (Herlihy and Wing, 1990). Linearizability is local: a history is
//! linearizable if and only if what was done to each key is, so each key is looked at alone. docs/histories.md tells what that
//! covers, what it does not, and how fast it is.

mod findings;
mod search;
mod shrink;
mod steps;
mod timeline;

use std::{collections::HashMap, fmt};

use storage_core::{Key, OperationId};

pub use findings::{Cited, Findings, Undecided, Violation};

use self::{
    search::{Finding, search},
    steps::KeySteps,
};
use crate::history::{History, Operation, Outcome};

/// The most completed operations that may be open on one key at one time; with more, the key is [`Undecided`].
pub const MAX_OPEN: usize = search::MAX_OPEN;
/// The most violations that are made small and told of, one a key; more are counted. Whoever has eight has no need of a ninth.
pub const MAX_VIOLATIONS: usize = 8;

/// Looks for an order that explains a history.
///
/// Every key is absent at first. A history of a store that was not empty begins with a put for each key that was there.
#[derive(Clone, Copy)]
pub struct Checker<'a> {
    max_configurations: usize,
    progress: Option<&'a dyn Fn(usize)>,
}

impl<'a> Checker<'a> {
    /// The default of [`Checker::max_configurations`]: about 200 MB at the worst, and some seconds.
    pub const MAX_CONFIGURATIONS: usize = 1_000_000;

    /// How many states of knowledge (what is at the key, with the set of open operations that have taken effect) may be held
    /// at one time. Histories of compare-and-swap have a few; blind puts without versions, many. With more, a key is [`Undecided`].
    #[must_use]
    pub fn max_configurations(self, max_configurations: usize) -> Self {
        Self { max_configurations, ..self }
    }

    /// Whom to tell, now and then, of how many operations the fate is known.
    #[must_use]
    pub fn on_progress(self, progress: &'a dyn Fn(usize)) -> Self {
        Self { progress: Some(progress), ..self }
    }

    /// Checks every key of a history.
    #[must_use]
    pub fn check(&self, history: &History) -> Findings {
        let with_id = merged(history.operations());
        let without_id = history.operations().iter().enumerate().filter(|(_, operation)| operation.id.is_none());
        let operations = without_id.chain(with_id.iter().map(|(number, operation)| (*number, operation)));
        let mut keys: HashMap<&Key, usize> = HashMap::new();
        let mut by_key: Vec<Vec<(usize, &Operation)>> = Vec::new();
        for (number, operation) in operations {
            let place = *keys.entry(&operation.key).or_insert(by_key.len());
            if place == by_key.len() {
                by_key.push(Vec::new());
            }
            if let Some(operations) = by_key.get_mut(place) {
                operations.push((number, operation));
            }
        }
        let mut report = Findings::new(history, by_key.len());
        let mut checked = Progress { tell: self.progress, operations: 0 };
        for operations in &by_key {
            self.check_key(operations, &mut checked, &mut report);
        }
        report
    }

    fn check_key(&self, operations: &[(usize, &Operation)], checked: &mut Progress<'_>, report: &mut Findings) {
        let alone: Vec<&Operation> = operations.iter().map(|(_, operation)| *operation).collect();
        let key = KeySteps::new(&alone);
        let wrong = match key.same_version {
            Some((one, other)) => vec![one as usize, other as usize],
            None => match search(&key, &key.steps, self.max_configurations, &mut || checked.one()) {
                Finding::Linearizable => return,
                Finding::Undecided => {
                    let key = alone.first().map(|operation| operation.key.clone());
                    report.undecided.extend(key.map(|key| Undecided { key, operations: alone.len() }));
                    return;
                }
                Finding::Violation { at } if report.violations.len() < MAX_VIOLATIONS => shrink::shrink(&alone, at),
                Finding::Violation { .. } => Vec::new(),
            },
        };
        report.violating_keys += 1;
        if report.violations.len() < MAX_VIOLATIONS {
            report.violations.extend(Violation::new(operations, &wrong));
        }
    }
}

impl Default for Checker<'_> {
    fn default() -> Self {
        Self { max_configurations: Self::MAX_CONFIGURATIONS, progress: None }
    }
}

impl fmt::Debug for Checker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker").field("max_configurations", &self.max_configurations).finish_non_exhaustive()
    }
}

struct Progress<'a> {
    tell: Option<&'a dyn Fn(usize)>,
    operations: usize,
}

impl Progress<'_> {
    /// Often enough for a bar, seldom enough to cost nothing.
    const EVERY: usize = 1 << 16;

    fn one(&mut self) {
        self.operations += 1;
        if let (true, Some(tell)) = (self.operations.is_multiple_of(Self::EVERY), self.tell) {
            tell(self.operations);
        }
    }
}

/// The writes with an id, with their places; those with one id and one answer as one, since a write with an id is applied
/// once, however often it is sent.
fn merged(operations: &[Operation]) -> Vec<(usize, Operation)> {
    let mut merged: Vec<(usize, Operation)> = Vec::new();
    let mut by_id: HashMap<(&Key, OperationId), usize> = HashMap::new();
    for (number, operation) in operations.iter().enumerate() {
        let Some(id) = operation.id else { continue };
        if operation.outcome == Outcome::Failed {
            merged.push((number, operation.clone()));
            continue;
        }
        let first = *by_id.entry((&operation.key, id)).or_insert(merged.len());
        match merged.get_mut(first) {
            Some((_, first)) if is_same_write(first, operation) => merge(first, operation),
            _ => merged.push((number, operation.clone())),
        }
    }
    merged
}

/// Whether one of them can be the other sent again. Two answers that differ are two operations: no order explains both.
fn is_same_write(one: &Operation, other: &Operation) -> bool {
    let same_answer = one.outcome == other.outcome
        || matches!((&one.outcome, &other.outcome), (Outcome::Unknown, _) | (_, Outcome::Unknown))
        || matches!((&one.outcome, &other.outcome), (Outcome::Conflict { .. }, Outcome::Conflict { .. }));
    one.guard == other.guard && one.action == other.action && same_answer
}

/// It took effect after the first call, and before the first answer.
fn merge(first: &mut Operation, other: &Operation) {
    first.start = first.start.min(other.start);
    if first.outcome == Outcome::Unknown {
        (first.outcome, first.end) = (other.outcome.clone(), other.end);
    } else if other.outcome != Outcome::Unknown {
        first.end = first.end.min(other.end);
    }
}
