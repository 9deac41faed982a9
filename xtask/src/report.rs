//! What the conformance suite has written, as a table, and the sums of a test run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context, Result};
use serde_json::Value;

/// The verdicts of the conformance suite: for each case, by backend.
#[derive(Debug, Default)]
pub(crate) struct Report {
    backends: BTreeSet<String>,
    cases: BTreeMap<String, BTreeMap<String, Verdict>>,
}

#[derive(Debug)]
struct Verdict {
    kind: Kind,
    reason: String,
    millis: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Passed,
    Skipped,
    Failed,
}

impl Report {
    /// Reads lines such as `{"backend":"etcd","nodes":3,"case":"cas::succeeds","verdict":"passed","reason":"","millis":12}`.
    pub(crate) fn parse(lines: &str) -> Result<Self> {
        let mut report = Self::default();
        for line in lines.lines().filter(|line| !line.trim().is_empty()) {
            report.add(line).with_context(|| format!("not a line of the conformance report: {line}"))?;
        }
        Ok(report)
    }

    fn add(&mut self, line: &str) -> Result<()> {
        let line: Value = serde_json::from_str(line)?;
        let text = |name: &str| line.get(name).and_then(Value::as_str);
        let kind = match text("verdict").context("no verdict")? {
            "passed" => Kind::Passed,
            "skipped" => Kind::Skipped,
            "failed" => Kind::Failed,
            other => anyhow::bail!("unknown verdict {other}"),
        };
        let backend = text("backend").context("no backend")?;
        let backend = match line.get("nodes").and_then(Value::as_u64) {
            Some(nodes) if nodes > 1 => format!("{backend}({nodes})"),
            _ => backend.to_owned(),
        };
        let verdict = Verdict {
            kind,
            reason: text("reason").unwrap_or_default().to_owned(),
            millis: line.get("millis").and_then(Value::as_u64).unwrap_or_default(),
        };
        self.backends.insert(backend.clone());
        self.cases.entry(text("case").context("no case")?.to_owned()).or_default().insert(backend, verdict);
        Ok(())
    }

    /// How many cases were skipped, over all backends.
    pub(crate) fn skipped(&self) -> u64 {
        self.count(Kind::Skipped)
    }

    /// How many cases failed, over all backends.
    pub(crate) fn failed(&self) -> u64 {
        self.count(Kind::Failed)
    }

    fn count(&self, kind: Kind) -> u64 {
        self.verdicts().filter(|(_, _, verdict)| verdict.kind == kind).map(|_| 1).sum()
    }

    fn verdicts(&self) -> impl Iterator<Item = (&str, &str, &Verdict)> {
        self.cases.iter().flat_map(|(case, verdicts)| {
            verdicts.iter().map(|(backend, verdict)| (case.as_str(), backend.as_str(), verdict))
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cases.is_empty() {
            return writeln!(f, "no conformance case has reported");
        }
        let title = "conformance case";
        let width = self.cases.keys().map(String::len).chain([title.len()]).max().unwrap_or_default();
        write!(f, "{title:width$}")?;
        for backend in &self.backends {
            write!(f, "  {backend:>CELL$}")?;
        }
        writeln!(f)?;
        for (case, verdicts) in &self.cases {
            write!(f, "{case:width$}")?;
            for backend in &self.backends {
                let cell = match verdicts.get(backend) {
                    Some(Verdict { kind: Kind::Passed, millis, .. }) => format!("ok {millis} ms"),
                    Some(Verdict { kind: Kind::Skipped, .. }) => "skipped".to_owned(),
                    Some(Verdict { kind: Kind::Failed, .. }) => "FAILED".to_owned(),
                    None => "-".to_owned(),
                };
                write!(f, "  {cell:>CELL$}")?;
            }
            writeln!(f)?;
        }
        for (title, kind) in [("skipped", Kind::Skipped), ("FAILED", Kind::Failed)] {
            for (case, backend, verdict) in self.verdicts().filter(|(_, _, verdict)| verdict.kind == kind) {
                writeln!(f, "{title}: {backend} {case}: {}", verdict.reason)?;
            }
        }
        Ok(())
    }
}

/// The width of a verdict's column: `ok 99999 ms`, and the names of the backends with their sizes.
const CELL: usize = 12;

/// Sums over all test programs of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Totals {
    /// Adds a line such as `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out`; other lines add
    /// nothing.
    pub(crate) fn add_result_line(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ") else { return };
        let mut before = "";
        for word in counts.split([' ', ';']).filter(|word| !word.is_empty()) {
            let count = before.parse().unwrap_or(0);
            match word {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.skipped += count,
                _ => {}
            }
            before = word;
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"
{"backend":"etcd","nodes":3,"case":"cas::succeeds","verdict":"passed","reason":"","millis":12}
{"backend":"memory","nodes":1,"case":"cas::succeeds","verdict":"failed","reason":"lost","millis":1}
{"backend":"memory","nodes":1,"case":"watch::resumes","verdict":"skipped","reason":"no history","millis":0}
"#;

    #[test]
    fn each_case_has_a_row_and_each_backend_a_column() {
        let report = Report::parse(LINES).unwrap();
        assert_eq!((report.skipped(), report.failed()), (1, 1));
        let expected = "\
conformance case       etcd(3)        memory
cas::succeeds         ok 12 ms        FAILED
watch::resumes               -       skipped
skipped: memory watch::resumes: no history
FAILED: memory cas::succeeds: lost
";
        assert_eq!(report.to_string(), expected);
    }

    #[test]
    fn a_line_that_is_no_verdict_is_an_error() {
        for line in ["{", "{}", r#"{"backend":"a","case":"b","verdict":"great"}"#, r#"{"case":"b","verdict":"passed"}"#]
        {
            assert!(Report::parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn result_lines_are_added_up_with_and_without_colour() {
        let mut totals = Totals::default();
        for line in [
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.27s",
            "test result: \u{1b}[31mFAILED\u{1b}[0m. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
            "test a_test_with_5 passed; ... ok",
        ] {
            totals.add_result_line(line);
        }
        assert_eq!(totals, Totals { passed: 13, failed: 2, skipped: 1 });
        assert_eq!(totals.to_string(), "13 passed, 2 failed, 1 skipped");
    }
}
