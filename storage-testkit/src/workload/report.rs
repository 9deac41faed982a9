//! What a run came to: invariants that broke, what the checker says, and whether the run proves anything.
//!
//! A run that proves nothing is not a pass: too few operations, too many unknown ones, or faults that did not bite.

use std::{fmt, time::Duration};

use crate::{checker, history::History};

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The name of the invariant.
    pub invariant: &'static str,
    /// What was seen instead.
    pub what: String,
}

impl Breach {
    /// A breach of the invariant of this name.
    #[must_use]
    pub fn new(invariant: &'static str, what: impl Into<String>) -> Self {
        Self { invariant, what: what.into() }
    }
}

/// What was found so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Breaches(Vec<Breach>);

impl Breaches {
    /// Breaches are noted up to this number: whoever has some has no need of thousands.
    const MOST: usize = 20;

    pub(super) fn note(&mut self, invariant: &'static str, what: String) {
        if self.0.len() < Self::MOST {
            self.0.push(Breach::new(invariant, what));
        }
    }

    pub(super) fn found(&self) -> Vec<Breach> {
        self.0.clone()
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// Why a run proves nothing, whatever it found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invalid {
    /// A fault that was meant to strike did not.
    DidNotBite(String),
    /// A server ended although nobody stopped it.
    Ended(String),
    /// Fewer operations succeeded than the settings ask for.
    TooFew {
        /// How many succeeded.
        succeeded: usize,
        /// How many were asked for.
        least: usize,
    },
    /// More than [`RunReport::MOST_UNKNOWN_PERCENT`] of the operations have an unknown outcome.
    TooManyUnknown {
        /// How many.
        unknown: usize,
        /// Of how many.
        of: usize,
    },
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DidNotBite(fault) => write!(f, "a fault did not bite: {fault}"),
            Self::Ended(server) => write!(f, "a server is gone: {server}"),
            Self::TooFew { succeeded, least } => write!(f, "{succeeded} operations succeeded, {least} have to"),
            Self::TooManyUnknown { unknown, of } => write!(f, "{unknown} of {of} operations have an unknown outcome"),
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunReport {
    /// The workload's name.
    pub workload: String,
    /// How many operations were answered as asked: done, read, or refused by their guard.
    pub succeeded: usize,
    /// How many operations were certainly not applied.
    pub failed: usize,
    /// How many operations may have been applied or not.
    pub unknown: usize,
    /// How many faults struck.
    pub faults: usize,
    /// How long it took at the most, after faults that leave the servers whole, until they served again.
    pub back: Duration,
    /// Invariants of the workload that did not hold.
    pub breaches: Vec<Breach>,
    /// What the checker says of each key.
    pub linearizability: checker::Findings,
    /// Why the run proves nothing; empty if it does.
    pub invalid: Vec<Invalid>,
    /// How long the clients worked, in seconds.
    pub seconds: f64,
    /// What was done and told, with the faults.
    pub history: History,
}

impl RunReport {
    /// More than so many operations of a hundred without a known outcome, and a run proves nothing.
    pub const MOST_UNKNOWN_PERCENT: usize = 20;

    /// How many operations were made.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.succeeded + self.failed + self.unknown
    }

    /// Whether something is wrong with the store. That holds of an invalid run too.
    #[must_use]
    pub fn is_violated(&self) -> bool {
        !self.breaches.is_empty() || self.linearizability.violating_keys > 0
    }

    /// Whether the run proves something, and nothing was wrong.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        !self.is_violated() && self.invalid.is_empty() && self.linearizability.is_linearizable()
    }

    /// `passed`, `VIOLATION`, `undecided` or `invalid`.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        if self.is_violated() {
            "VIOLATION"
        } else if !self.invalid.is_empty() {
            "invalid"
        } else if !self.linearizability.is_linearizable() {
            "undecided"
        } else {
            "passed"
        }
    }
}

/// For people: a line, and what is wrong below it.
impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} {}: {} operations in {:.1} s ({} ok, {} failed, {} unknown), {} faults, {}",
            self.workload,
            self.verdict(),
            self.operations(),
            self.seconds,
            self.succeeded,
            self.failed,
            self.unknown,
            self.faults,
            self.linearizability.verdict(),
        )?;
        if !self.back.is_zero() {
            writeln!(f, "  served again after {:.1} s at the most", self.back.as_secs_f64())?;
        }
        for breach in &self.breaches {
            writeln!(f, "  {breach}")?;
        }
        for invalid in &self.invalid {
            writeln!(f, "  invalid: {invalid}")?;
        }
        if !self.linearizability.is_linearizable() {
            write!(f, "{}", self.linearizability)?;
        }
        Ok(())
    }
}
