//! The text format of Prometheus: <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::{
    fmt::{Display, Write as _},
    time::Duration,
};

/// What the values of a metric mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only rises, and begins at 0 when the process starts.
    Counter,
    /// It rises and falls.
    Gauge,
    /// Counts of what fell into each of some buckets.
    Histogram,
    /// A number of things and the sum of their values.
    Summary,
}

/// A page of metrics that is being written. All samples of a metric come right after its [`Page::metric`].
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    name: &'static str,
}

/// Names and values of labels.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

impl Page {
    /// Begins a metric.
    pub fn metric(&mut self, name: &'static str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
        };
        self.name = name;
        self.text += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// A value of the metric.
    pub fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.line("", labels, None, value);
    }

    /// A metric with one value and no labels.
    pub fn single(&mut self, name: &'static str, kind: Kind, help: &str, value: impl Display) {
        self.metric(name, kind, help);
        self.sample(&[], value);
    }

    /// The counts of a histogram's buckets, each with its upper end in seconds, those above the last end, and the sum of all.
    pub fn buckets(
        &mut self,
        labels: Labels<'_>,
        buckets: impl IntoIterator<Item = (f64, u64)>,
        above: u64,
        sum: Duration,
    ) {
        let mut count = 0;
        for (end, more) in buckets {
            count += more;
            self.line("_bucket", labels, Some(&end.to_string()), count);
        }
        count += above;
        self.line("_bucket", labels, Some("+Inf"), count);
        self.total(labels, count, sum);
    }

    /// The sum and the number of a summary.
    pub fn total(&mut self, labels: Labels<'_>, count: u64, sum: Duration) {
        self.line("_sum", labels, None, sum.as_secs_f64());
        self.line("_count", labels, None, count);
    }

    /// Text that is in the format already: whole metrics.
    pub fn append(&mut self, metrics: &str) {
        self.text += metrics;
    }

    /// The page.
    pub fn into_text(self) -> String {
        self.text
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, end: Option<&str>, value: impl Display) {
        self.text += self.name;
        self.text += suffix;
        let labels = labels.iter().copied().chain(end.map(|end| ("le", end)));
        for (place, (name, value)) in labels.clone().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.text += if place == 0 { "{" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(self.text, "{name}=\"{value}\"");
        }
        let _ = writeln!(self.text, "{} {value}", if labels.count() > 0 { "}" } else { "" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_as_prometheus_reads_it() {
        let mut page = Page::default();
        page.single("a_total", Kind::Counter, "Things.", 7);
        page.metric("b_seconds", Kind::Histogram, "How long.");
        page.buckets(&[("method", "say \"a\\b\"\n")], [(0.001, 2), (0.5, 3)], 1, Duration::from_millis(2500));
        let expected = r#"# HELP a_total Things.
# TYPE a_total counter
a_total 7
# HELP b_seconds How long.
# TYPE b_seconds histogram
b_seconds_bucket{method="say \"a\\b\"\n",le="0.001"} 2
b_seconds_bucket{method="say \"a\\b\"\n",le="0.5"} 5
b_seconds_bucket{method="say \"a\\b\"\n",le="+Inf"} 6
b_seconds_sum{method="say \"a\\b\"\n"} 2.5
b_seconds_count{method="say \"a\\b\"\n"} 6
"#;
        assert_eq!(page.into_text(), expected);
    }
}
