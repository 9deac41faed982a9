//! What is counted of calls, and a registry of it for Prometheus.
//!
//! Names and labels are part of what users build on: they only grow. No label has a key in it, so that the number of
//! series stays bounded.

use std::time::Duration;

use prometheus_client::{
    encoding::prometheus_text,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
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
#[derive(Debug)]
pub struct Registry {
    requests: Family<[Label; 2], Counter>,
    durations: Family<[Label; 1], Histogram, fn() -> Histogram>,
    exposed: prometheus_client::registry::Registry,
}

/// A label's name and value.
type Label = (&'static str, &'static str);

/// The upper ends of the buckets, in seconds: from a call in memory to one over two elections.
const BUCKETS: [f64; 14] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

impl Metrics for Registry {
    fn record(&self, operation: Operation, outcome: RequestOutcome, duration: Duration) {
        self.requests.get_or_create(&labels_of(operation, outcome)).inc();
        self.durations.get_or_create(&[operation_label(operation)]).observe(duration.as_secs_f64());
    }
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        let requests = Family::default();
        // By operation alone: with the outcome too, there would be six times as many series, and conflicts take as long as commits.
        let durations = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        let mut exposed = prometheus_client::registry::Registry::default();
        exposed.register("storage_requests", "Calls of the store by how they ended", requests.clone());
        exposed.register("storage_request_duration_seconds", "How long calls of the store took", durations.clone());
        Self { requests, durations, exposed }
    }

    /// How many calls of this operation ended so.
    pub fn count(&self, operation: Operation, outcome: RequestOutcome) -> u64 {
        self.requests.get(&labels_of(operation, outcome)).map_or(0, |counter| counter.get())
    }

    /// All counts in the text format of Prometheus; operations that were never called are left out.
    /// <https://prometheus.io/docs/instrumenting/exposition_formats/>
    pub fn render(&self) -> String {
        let mut text = String::new();
        #[expect(clippy::expect_used, reason = "only what is written to could fail")]
        prometheus_text::encode(&mut text, &self.exposed).expect("a string takes all that is written to it");
        text
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

fn operation_label(operation: Operation) -> Label {
    ("operation", operation.label())
}

fn labels_of(operation: Operation, outcome: RequestOutcome) -> [Label; 2] {
    [operation_label(operation), ("outcome", outcome.label())]
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
