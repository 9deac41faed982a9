use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Takes note of each call: what [`Metered`](crate::Metered) tells. [`Registry`] is one; a program with a metrics library of its own has another.
pub trait Metrics: Send + Sync + std::fmt::Debug + 'static {
    /// A call of this operation ended so, after so long.
    fn record(&self, operation: Operation, outcome: RequestOutcome, duration: Duration);
}

/// A named set of values: the variants, all of them in order, and their names as label values.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[non_exhaustive]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// Every one of them.
            pub const ALL: [Self; [$($label),*].len()] = [$(Self::$variant),*];

            /// Its value as a label.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }
    };
}

labels! {
    /// A call of [`Store`](crate::Store): the label `operation`.
    Operation {
        /// `get`
        Get = "get",
        /// `get_many`
        GetMany = "get_many",
        /// `scan`
        Scan = "scan",
        /// `commit`
        Commit = "commit",
        /// `watch`: that it was established
        Watch = "watch",
        /// `ping`
        Ping = "ping",
    }
}

labels! {
    /// How a call ended: the label `outcome`.
    RequestOutcome {
        /// A write was committed.
        Applied = "applied",
        /// A guard did not hold.
        Conflict = "conflict",
        /// A write failed and was certainly not applied.
        NotApplied = "not_applied",
        /// A write failed, or was given up by its caller, and may have been applied.
        Unknown = "unknown",
        /// A read was answered.
        Ok = "ok",
        /// A read failed, or was given up by its caller.
        Failed = "failed",
    }
}

/// Counts calls, and renders the counts for Prometheus:
/// `storage_requests_total{operation,outcome}` and the histogram `storage_request_duration_seconds{operation}`.
#[derive(Debug, Default)]
pub struct Registry {
    operations: [Series; Operation::ALL.len()],
}

#[derive(Debug, Default)]
struct Series {
    outcomes: [AtomicU64; RequestOutcome::ALL.len()],
    /// Calls that took at most so long and longer than the bucket before; the last is for the rest.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
}

/// The upper ends of the buckets, with their labels in seconds: from a call in memory to one over two elections.
const BUCKETS: [(Duration, &str); 14] = [
    (Duration::from_micros(100), "0.0001"),
    (Duration::from_micros(250), "0.00025"),
    (Duration::from_micros(500), "0.0005"),
    (Duration::from_millis(1), "0.001"),
    (Duration::from_micros(2500), "0.0025"),
    (Duration::from_millis(5), "0.005"),
    (Duration::from_millis(10), "0.01"),
    (Duration::from_millis(25), "0.025"),
    (Duration::from_millis(50), "0.05"),
    (Duration::from_millis(100), "0.1"),
    (Duration::from_millis(250), "0.25"),
    (Duration::from_millis(500), "0.5"),
    (Duration::from_secs(1), "1"),
    (Duration::from_secs(5), "5"),
];

impl Metrics for Registry {
    fn record(&self, operation: Operation, outcome: RequestOutcome, duration: Duration) {
        let add =
            |counter: Option<&AtomicU64>, count| counter.map(|counter| counter.fetch_add(count, Ordering::Relaxed));
        let Some(series) = self.operations.get(operation as usize) else { return };
        let bucket = BUCKETS.iter().take_while(|(end, _)| duration > *end).count();
        add(series.outcomes.get(outcome as usize), 1);
        add(series.buckets.get(bucket), 1);
        add(Some(&series.micros), u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many calls of this operation ended so.
    pub fn count(&self, operation: Operation, outcome: RequestOutcome) -> u64 {
        let series = self.operations.get(operation as usize);
        series.and_then(|series| series.outcomes.get(outcome as usize)).map_or(0, load)
    }

    /// All counts in the text format of Prometheus; operations that were never called are left out.
    /// <https://prometheus.io/docs/instrumenting/exposition_formats/>
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        self.render_into(&mut text).ok();
        text
    }

    fn render_into(&self, text: &mut String) -> std::fmt::Result {
        let called = || Operation::ALL.iter().zip(&self.operations).filter(|(_, series)| series.count() > 0);
        writeln!(text, "# HELP storage_requests_total Calls of the store by how they ended.")?;
        writeln!(text, "# TYPE storage_requests_total counter")?;
        for (operation, series) in called() {
            for (outcome, count) in RequestOutcome::ALL.iter().zip(&series.outcomes).filter(|(_, n)| load(n) > 0) {
                let (operation, outcome, count) = (operation.label(), outcome.label(), load(count));
                writeln!(text, "storage_requests_total{{operation=\"{operation}\",outcome=\"{outcome}\"}} {count}")?;
            }
        }
        let name = "storage_request_duration_seconds";
        writeln!(text, "# HELP {name} How long calls of the store took.")?;
        writeln!(text, "# TYPE {name} histogram")?;
        for (operation, series) in called() {
            let operation = operation.label();
            let ends = BUCKETS.iter().map(|(_, label)| *label).chain(["+Inf"]);
            let mut count = 0;
            for (end, bucket) in ends.zip(&series.buckets) {
                count += load(bucket);
                writeln!(text, "{name}_bucket{{operation=\"{operation}\",le=\"{end}\"}} {count}")?;
            }
            let seconds = Duration::from_micros(load(&series.micros)).as_secs_f64();
            writeln!(text, "{name}_sum{{operation=\"{operation}\"}} {seconds}")?;
            writeln!(text, "{name}_count{{operation=\"{operation}\"}} {count}")?;
        }
        Ok(())
    }
}

impl Series {
    fn count(&self) -> u64 {
        self.buckets.iter().map(load).sum()
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_cumulative_buckets_and_one_line_an_outcome() {
        let registry = Registry::new();
        let record = |outcome, micros| registry.record(Operation::Commit, outcome, Duration::from_micros(micros));
        record(RequestOutcome::Applied, 100);
        record(RequestOutcome::Applied, 101);
        record(RequestOutcome::Conflict, 6_000_000);
        let text = registry.render();
        for line in [
            "# TYPE storage_requests_total counter",
            "storage_requests_total{operation=\"commit\",outcome=\"applied\"} 2",
            "storage_requests_total{operation=\"commit\",outcome=\"conflict\"} 1",
            "# TYPE storage_request_duration_seconds histogram",
            "storage_request_duration_seconds_bucket{operation=\"commit\",le=\"0.0001\"} 1",
            "storage_request_duration_seconds_bucket{operation=\"commit\",le=\"0.00025\"} 2",
            "storage_request_duration_seconds_bucket{operation=\"commit\",le=\"5\"} 2",
            "storage_request_duration_seconds_bucket{operation=\"commit\",le=\"+Inf\"} 3",
            "storage_request_duration_seconds_sum{operation=\"commit\"} 6.000201",
            "storage_request_duration_seconds_count{operation=\"commit\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("unknown") && !text.contains("\"get\""), "{text}");
    }

    #[test]
    fn each_pair_has_its_own_counter() {
        let registry = Registry::new();
        for operation in Operation::ALL {
            for outcome in RequestOutcome::ALL {
                assert_eq!(registry.count(operation, outcome), 0, "{operation:?} {outcome:?}");
                registry.record(operation, outcome, Duration::ZERO);
                assert_eq!(registry.count(operation, outcome), 1, "{operation:?} {outcome:?}");
            }
        }
    }
}
