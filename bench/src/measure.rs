//! What a run of a workload gave: counts, latencies, and what is made of them.
//!
//! Latencies are kept in a histogram of bounded size, so that a long run takes no more memory than a short one.
//! Conflicts, failures and iterations that never began are counted apart, since a rate that hides them is no rate.

use std::{collections::BTreeMap, fmt, time::Duration};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest latency that is told apart from a longer one; far beyond every deadline.
const LONGEST: Duration = Duration::from_secs(600);

/// Latencies are kept to three digits.
const DIGITS: u8 = 3;

/// What a run of a workload gave.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// From the moment when all clients set off to the moment when the last one had its last answer.
    pub elapsed: Duration,
    /// Calls of the store that were answered, a conflict included: for a compare-and-swap the read and the swap, as the
    /// published table that this is compared with counts them.
    pub requests: u64,
    /// Iterations of the workload that did what they should.
    pub applied: u64,
    /// Iterations that met a conflict, and so changed nothing.
    pub conflicts: u64,
    /// Iterations that ended with an error, by its kind; `unknown_outcome` may have been applied.
    pub failures: BTreeMap<String, u64>,
    /// Iterations of an open loop that could not begin in twice the time that they were to be begun in.
    pub unserved: u64,
    /// How long iterations took that ended without an error; in an open loop, from when they should have begun.
    pub(crate) latencies: Latencies,
}

impl Measurement {
    pub(crate) fn new() -> Self {
        Self {
            elapsed: Duration::ZERO,
            requests: 0,
            applied: 0,
            conflicts: 0,
            failures: BTreeMap::new(),
            unserved: 0,
            latencies: Latencies::default(),
        }
    }

    /// Requests per second.
    pub fn throughput(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.requests as f64 / seconds } else { 0.0 }
    }

    /// How many iterations ended with an error.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// How long an iteration took.
    pub fn percentiles(&self) -> Percentiles {
        self.latencies.percentiles()
    }

    /// Adds what another client, or another round, counted. The time is left to the caller.
    pub(crate) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.applied += other.applied;
        self.conflicts += other.conflicts;
        self.unserved += other.unserved;
        for (kind, count) in &other.failures {
            *self.failures.entry(kind.clone()).or_default() += count;
        }
        self.latencies.add(&other.latencies);
    }
}

/// A distribution of latencies, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half are no longer.
    pub p50_us: f64,
    /// 90 % are no longer.
    pub p90_us: f64,
    /// 99 % are no longer.
    pub p99_us: f64,
    /// 99.9 % are no longer.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// How long things took: a histogram of nanoseconds.
#[derive(Clone)]
pub struct Latencies(Histogram<u64>);

/// Not its thousands of counts.
impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.percentiles().fmt(f)
    }
}

impl Default for Latencies {
    #[expect(
        clippy::expect_used,
        reason = "the bounds are constants: at least 1, twice it below the highest, 3 digits"
    )]
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, nanos(LONGEST), DIGITS).expect("valid bounds"))
    }
}

impl Latencies {
    /// Counts one more.
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(nanos(latency));
    }

    /// Adds what another one has counted.
    pub fn add(&mut self, other: &Self) {
        // Cannot fail: both have the same bounds.
        let _ = self.0.add(&other.0);
    }

    /// The distribution of all that was counted.
    pub fn percentiles(&self) -> Percentiles {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e3;
        Percentiles {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.0.max() as f64 / 1e3,
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_all_clients_together() {
        let (mut sum, mut other) = (Measurement::new(), Measurement::new());
        for micros in 1..=500 {
            sum.latencies.record(Duration::from_micros(micros));
            other.latencies.record(Duration::from_micros(500 + micros));
        }
        other.failures.insert("unavailable".to_owned(), 2);
        sum.add(&other);
        let percentiles = sum.percentiles();
        assert!((percentiles.p50_us - 500.0).abs() < 1.0, "{percentiles:?}");
        assert!((percentiles.p99_us - 990.0).abs() < 1.0, "{percentiles:?}");
        assert_eq!(sum.failed(), 2);
    }

    #[test]
    fn a_latency_beyond_all_bounds_is_counted_as_the_longest() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_secs(7200));
        assert!(latencies.percentiles().p50_us >= 6e8);
    }
}
