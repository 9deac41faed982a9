//! What changed between two reports, and whether that is noise.

use serde::{Deserialize, Serialize};

use crate::{Cell, Failover, Percentiles, Report, Spread};

/// A change below this is never told from noise: figures of the same program on the same machine differ as much from day to day.
pub const LEAST_CHANGE: f64 = 0.1;

/// With fewer rounds than this nothing can be said: of two times three rounds, all of the one are above all of the other by mere
/// chance in one of ten cases; of two times two in one of three.
pub const LEAST_ROUNDS: usize = 3;

/// The machine counts as another one if its sync or its round trip became so much slower or faster.
const OTHER_MACHINE: f64 = 0.25;

/// What became of one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Better by at least [`LEAST_CHANGE`], and all rounds are better than all rounds before.
    Better,
    /// Worse, likewise.
    Worse,
    /// The rounds overlap, or the medians differ by less.
    Noise,
    /// One of the reports has fewer than [`LEAST_ROUNDS`] rounds.
    TooFewRounds,
}

/// A figure of both reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FigureChange {
    /// The backend.
    pub backend: String,
    /// How many nodes.
    pub nodes: usize,
    /// The workload with the number of its clients, or `time without service`.
    pub what: String,
    /// The figure of the first report: requests per second, or seconds without service; in an open loop, the 99th percentile of the
    /// latency in microseconds.
    pub before: Spread,
    /// That of the second.
    pub after: Spread,
    /// The median of the second, divided by that of the first.
    pub ratio: f64,
    /// What to make of it.
    pub verdict: Verdict,
}

/// All figures that two reports have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// `snet-bench-compare/1`.
    pub schema: String,
    /// Each figure that both have.
    pub changes: Vec<FigureChange>,
    /// What stands in the way of a comparison: other settings, another machine.
    pub cautions: Vec<String>,
    /// How many figures only one of them has.
    pub unmatched: usize,
}

impl Changes {
    /// The name and version of this format.
    pub const SCHEMA: &str = "snet-bench-compare/1";

    /// How many figures got this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.changes.iter().filter(|change| change.verdict == verdict).count()
    }
}

/// Sets two reports side by side.
pub fn changes(before: &Report, after: &Report) -> Changes {
    let cells = before.cells.iter().filter_map(|old| {
        let new = after.cells.iter().find(|new| new.backend == old.backend && new.is_like(old))?;
        Some(of_cells(old, new))
    });
    let kills = before.failovers.iter().filter_map(|old| {
        let new = after.failovers.iter().find(|new| (&new.backend, new.nodes) == (&old.backend, old.nodes))?;
        Some(of_kills(old, new))
    });
    let changes: Vec<_> = cells.chain(kills).collect();
    let figures = [before, after].map(|report| report.cells.len() + report.failovers.len());
    Changes {
        schema: Changes::SCHEMA.to_owned(),
        cautions: cautions(before, after),
        unmatched: figures.iter().sum::<usize>() - 2 * changes.len(),
        changes,
    }
}

fn of_cells(old: &Cell, new: &Cell) -> FigureChange {
    let what = match old.rate {
        None => format!("{}, {} clients", old.workload, old.clients),
        Some(rate) => format!("{}, {} clients, p99 at {rate}/s", old.workload, old.clients),
    };
    // At a rate that both keep, what differs is how long it takes.
    let figures = |cell: &Cell| -> Vec<f64> {
        let rounds = cell.rounds.iter();
        match cell.rate {
            None => rounds.map(|round| round.requests as f64 / round.seconds.max(f64::MIN_POSITIVE)).collect(),
            Some(_) => rounds.map(|round| round.latency.p99_us).collect(),
        }
    };
    let is_more_better = old.rate.is_none();
    change((&old.backend, old.nodes, what), &figures(old), &figures(new), is_more_better)
}

fn of_kills(old: &Failover, new: &Failover) -> FigureChange {
    // The worst and best of ten always overlap: the middle halves are compared.
    let what = "time without service".to_owned();
    change((&old.backend, old.nodes, what), &middle_half(&old.kills), &middle_half(&new.kills), false)
}

fn middle_half(figures: &[f64]) -> Vec<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let quarter = sorted.len() / 4;
    sorted.iter().skip(quarter).take(sorted.len() - 2 * quarter).copied().collect()
}

fn change(
    (backend, nodes, what): (&str, usize, String),
    old: &[f64],
    new: &[f64],
    is_more_better: bool,
) -> FigureChange {
    let (before, after) = (Spread::of(old.iter().copied()), Spread::of(new.iter().copied()));
    let ratio = after.median / before.median;
    let is_apart = after.min > before.max || after.max < before.min;
    let verdict = if old.len() < LEAST_ROUNDS || new.len() < LEAST_ROUNDS {
        Verdict::TooFewRounds
    } else if !is_apart || (ratio - 1.0).abs() < LEAST_CHANGE {
        Verdict::Noise
    } else if (ratio > 1.0) == is_more_better {
        Verdict::Better
    } else {
        Verdict::Worse
    };
    FigureChange { backend: backend.to_owned(), nodes, what, before, after, ratio, verdict }
}

fn cautions(before: &Report, after: &Report) -> Vec<String> {
    let mut cautions = Vec::new();
    let mut differ = |what: &str, before: &dyn std::fmt::Debug, after: &dyn std::fmt::Debug| {
        let (before, after) = (format!("{before:?}"), format!("{after:?}"));
        if before != after {
            cautions.push(format!("{what}: {before} before, {after} now"));
        }
    };
    differ("the machine", &before.machine.line(), &after.machine.line());
    differ("bytes of a value", &before.value_bytes, &after.value_bytes);
    differ("the placement of clients", &before.placement, &after.placement);
    differ("iterations", &before.iterations, &after.iterations);
    differ("seconds of a round", &before.seconds, &after.seconds);
    for backend in &before.backends {
        if let Some(now) = after.backends.iter().find(|now| now.name == backend.name) {
            differ(&format!("the version of {}", backend.name), &backend.version, &now.version);
        }
    }
    let mut drifted = |what: &str, before: &Percentiles, after: &Percentiles| {
        let ratio = after.p50_us / before.p50_us;
        if (ratio - 1.0).abs() > OTHER_MACHINE {
            cautions.push(format!(
                "{what} took {:.0} us before and takes {:.0} us now: the machine itself has changed",
                before.p50_us, after.p50_us
            ));
        }
    };
    drifted("an fdatasync", &before.physics.fdatasync, &after.physics.fdatasync);
    drifted("a round trip", &before.physics.round_trip, &after.physics.round_trip);
    cautions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_from_noise_by_the_rounds() {
        let cases: [(&[f64], &[f64], bool, Verdict); 8] = [
            (&[100.0, 105.0, 110.0], &[200.0, 210.0, 190.0], true, Verdict::Better),
            (&[100.0, 105.0, 110.0], &[200.0, 210.0, 190.0], false, Verdict::Worse),
            (&[200.0, 210.0, 190.0], &[100.0, 105.0, 110.0], true, Verdict::Worse),
            // One round of the second lies among those of the first.
            (&[100.0, 105.0, 110.0], &[200.0, 210.0, 109.0], true, Verdict::Noise),
            // Apart, but by little.
            (&[100.0, 101.0, 102.0], &[103.0, 104.0, 105.0], true, Verdict::Noise),
            (&[100.0, 100.0, 100.0], &[100.0, 100.0, 100.0], true, Verdict::Noise),
            (&[100.0, 105.0], &[200.0, 210.0, 190.0], true, Verdict::TooFewRounds),
            (&[], &[], true, Verdict::TooFewRounds),
        ];
        for (old, new, is_more_better, verdict) in cases {
            let found = change(("etcd", 3, "put".to_owned()), old, new, is_more_better);
            assert_eq!(found.verdict, verdict, "{old:?} {new:?}");
        }
    }

    #[test]
    fn of_kills_the_middle_half_counts() {
        assert_eq!(middle_half(&[9.0, 1.0, 2.0, 3.0]), [2.0, 3.0]);
        assert_eq!(middle_half(&[3.0, 1.0, 2.0]), [1.0, 2.0, 3.0]);
        assert!(middle_half(&[]).is_empty());
    }
}
