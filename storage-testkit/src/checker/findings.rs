//! What the checker found, and how people read it.
//!
//! A violation is as small as it gets and names its operations by their places in the history. What could not be
//! decided is said to be so, and is no pass.

use std::fmt;

use storage_core::Key;

use crate::history::{History, Operation, Outcome};

/// What a checker found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Findings {
    /// How many operations the history has.
    pub operations: usize,
    /// How many of them may have been applied or not.
    pub unknown: usize,
    /// How many of them were certainly not applied; they prove nothing and were not looked at.
    pub failed: usize,
    /// How many keys the history has.
    pub keys: usize,
    /// How many keys have no order that explains their answers.
    pub violating_keys: usize,
    /// The violations of the first [`MAX_VIOLATIONS`](super::MAX_VIOLATIONS) of them.
    pub violations: Vec<Violation>,
    /// The keys of which nothing is known since a limit was reached.
    pub undecided: Vec<Undecided>,
}

impl Findings {
    pub(super) fn new(history: &History, keys: usize) -> Self {
        let all = history.operations().iter();
        let unknown = all.clone().filter(|operation| matches!(operation.outcome, Outcome::Unknown)).count();
        let failed = all.filter(|operation| matches!(operation.outcome, Outcome::Failed)).count();
        Self {
            operations: history.operations().len(),
            unknown,
            failed,
            keys,
            violating_keys: 0,
            violations: Vec::new(),
            undecided: Vec::new(),
        }
    }

    /// Whether there is an order for every key.
    #[must_use]
    pub fn is_linearizable(&self) -> bool {
        self.violating_keys == 0 && self.undecided.is_empty()
    }

    /// `linearizable`, `not linearizable`, or `undecided` if neither could be shown.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match (self.violating_keys, self.undecided.len()) {
            (0, 0) => "linearizable",
            (0, _) => "undecided",
            _ => "not linearizable",
        }
    }
}

/// For people: a line, and the violations below it.
impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} operations on {} keys, {} with an unknown outcome, {} that were not applied",
            self.verdict(),
            self.operations,
            self.keys,
            self.unknown,
            self.failed
        )?;
        for violation in &self.violations {
            write!(f, "\n{violation}")?;
        }
        if self.violating_keys > self.violations.len() {
            writeln!(f, "\n{} more keys are not linearizable", self.violating_keys - self.violations.len())?;
        }
        for Undecided { key, operations } in &self.undecided {
            writeln!(f, "\nkey \"{key}\": nothing is known, its {operations} operations took too many configurations")?;
        }
        Ok(())
    }
}

/// A key that was given up: more configurations than permitted, or more than [`MAX_OPEN`](super::MAX_OPEN) open operations.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Undecided {
    /// The key.
    pub key: Key,
    /// How many operations it has.
    pub operations: usize,
}

/// A counterexample, as small as it gets: operations on one key that no order explains, even if every other read of the key
/// had seen what it liked and every other write had taken effect whenever and as often as it liked. None of them can be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// The key.
    pub key: Key,
    /// The operations, in the order of their starts.
    pub operations: Vec<Cited>,
    /// How many operations the key has.
    pub of: usize,
}

/// An operation of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cited {
    /// Its place in the history, from 0: in a file it stands `number + 2` lines from the top, if no line is empty.
    pub number: usize,
    /// What it is. If a write with an id was sent several times, all of them together.
    pub operation: Operation,
}

impl Violation {
    /// `kept` are places in `operations`. `None` if there are none of them, which does not happen.
    pub(super) fn new(operations: &[(usize, &Operation)], kept: &[usize]) -> Option<Self> {
        let cite = |place: &usize| {
            let (number, operation) = operations.get(*place)?;
            Some(Cited { number: *number, operation: (*operation).clone() })
        };
        let mut cited: Vec<Cited> = kept.iter().filter_map(cite).collect();
        cited.sort_by_key(|cited| (cited.operation.start, cited.number));
        let key = cited.first()?.operation.key.clone();
        Some(Self { key, operations: cited, of: operations.len() })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, operations, of } = self;
        match operations.len() {
            1 => writeln!(f, "key \"{key}\": nothing explains this operation of {of}, whatever the others did")?,
            count => writeln!(
                f,
                "key \"{key}\": no order explains these {count} of {of} operations, whatever the others did"
            )?,
        }
        let width = operations.iter().map(|cited| cited.number.to_string().len()).max().unwrap_or(0);
        for Cited { number, operation } in operations {
            let (process, start) = (operation.process, millis(operation.start));
            let end = operation.end.map_or_else(|| "...".to_owned(), millis);
            writeln!(f, "  #{number:<width$}  process {process}  {start} to {end}  {operation}")?;
        }
        Ok(())
    }
}

/// Nanoseconds as milliseconds, to the nanosecond.
pub(super) fn millis(nanos: u64) -> String {
    format!("{}.{:06} ms", nanos / 1_000_000, nanos % 1_000_000)
}
