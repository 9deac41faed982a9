//! What all rounds of a soak came to, as figures and as a table for people.
//!
//! Nothing passes by being left out: a soak without rounds is no pass, and rounds that prove nothing are counted as
//! such.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use crate::Usage;

/// What all rounds of one workload under one class of faults came to.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// How many rounds there were.
    pub rounds: usize,
    /// Operations that were made, all of which were checked.
    pub operations: usize,
    /// Those that were answered as asked.
    pub succeeded: usize,
    /// Those that were certainly not applied.
    pub failed: usize,
    /// Those with an unknown outcome.
    pub unknown: usize,
    /// Faults that struck.
    pub faults: usize,
    /// How long the service was away at the most after faults that leave the servers whole.
    pub back: Duration,
    /// Rounds in which something was wrong with the store.
    pub violations: usize,
    /// Rounds that prove nothing.
    pub invalid: usize,
    /// How long the clients worked, in seconds.
    pub seconds: f64,
}

/// What a soak came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// By class and workload.
    pub rows: BTreeMap<(String, String), Row>,
    /// What could not be done here, with the reasons.
    pub skipped: Vec<String>,
    /// What the servers used after each round, the most of any one of them.
    pub usage: Vec<Usage>,
    /// Histories and drawings of violations.
    pub files: Vec<PathBuf>,
}

impl Summary {
    /// Whether anything was wrong with the store.
    #[must_use]
    pub fn is_violated(&self) -> bool {
        self.rows.values().any(|row| row.violations > 0)
    }

    /// Whether every round proves something and nothing was wrong.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        !self.rows.is_empty() && self.rows.values().all(|row| row.violations == 0 && row.invalid == 0)
    }

    /// All rows together.
    #[must_use]
    pub fn total(&self) -> Row {
        self.rows.values().fold(Row::default(), |total, row| Row {
            rounds: total.rounds + row.rounds,
            operations: total.operations + row.operations,
            succeeded: total.succeeded + row.succeeded,
            failed: total.failed + row.failed,
            unknown: total.unknown + row.unknown,
            faults: total.faults + row.faults,
            back: total.back.max(row.back),
            violations: total.violations + row.violations,
            invalid: total.invalid + row.invalid,
            seconds: total.seconds + row.seconds,
        })
    }
}

/// For people: a table, and below it what else is to be known.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<11} {:<9} {:>6} {:>10} {:>10} {:>8} {:>8} {:>7} {:>8}  verdict",
            "fault", "workload", "rounds", "operations", "ok", "failed", "unknown", "faults", "seconds"
        )?;
        let total = ("total".to_owned(), String::new());
        for ((class, workload), row) in self.rows.iter().chain([(&total, &self.total())]) {
            let verdict = match (row.violations, row.invalid) {
                _ if row.rounds == 0 => "nothing was run".to_owned(),
                (0, 0) => "passed".to_owned(),
                (0, invalid) => format!("{invalid} rounds prove nothing"),
                (violations, _) => format!("{violations} VIOLATIONS"),
            };
            let Row { rounds, operations, succeeded, failed, unknown, faults, seconds, .. } = row;
            writeln!(
                f,
                "{class:<11} {workload:<9} {rounds:>6} {operations:>10} {succeeded:>10} {failed:>8} {unknown:>8} {faults:>7} {seconds:>8.1}  {verdict}"
            )?;
        }
        let back = self.total().back;
        if !back.is_zero() {
            writeln!(
                f,
                "served again after {:.1} s at the most, when operators and clients had ended",
                back.as_secs_f64()
            )?;
        }
        if let (Some(first), Some(last)) = (self.usage.first(), self.usage.last()) {
            let most = self.usage.iter().max_by_key(|usage| usage.memory).unwrap_or(last);
            writeln!(
                f,
                "servers, the largest of them: {first} after the first round; {last} after the last; {most} at the most"
            )?;
        }
        for skipped in &self.skipped {
            writeln!(f, "skipped: {skipped}")?;
        }
        for file in &self.files {
            writeln!(f, "written: {}", file.display())?;
        }
        Ok(())
    }
}
