//! `snet check-history`

use std::{
    cell::Cell,
    fs::File,
    io::{self, BufReader, Read},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use storage_testkit::{
    checker::{Checker, Findings, Violation},
    history::{History, Operation, ReadError},
};

use crate::{
    exit::{Failure, Outcome},
    output::Output,
};

/// Check that a history of operations on a store is linearizable, and show the smallest contradiction if it is not.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet check-history history.jsonl
  snet check-history history.jsonl --html contradiction.html
  zcat history.jsonl.gz | snet check-history - --output json

A history is JSON lines: docs/histories.md has the format, version 1.

Exit codes:
  0  linearizable: for each key, some order of its operations explains every answer
  1  not linearizable
  2  the file is not a history, or the command line is wrong
  3  the file cannot be opened, or a key could not be decided within the limit")]
pub(crate) struct Arguments {
    /// The history; `-` for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Draw the contradictions on a page of their own, which needs nothing else.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// The most states of knowledge to keep at one time; a key that needs more is not decided.
    #[arg(long, value_name = "NUMBER", default_value_t = Checker::MAX_CONFIGURATIONS)]
    max_configurations: usize,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let bar = Bar::new();
    let history = read(arguments, &bar)?;
    let tell = |operations: usize| bar.show(|| format!("checking: {operations} operations"));
    let report = Checker::default().max_configurations(arguments.max_configurations).on_progress(&tell).check(&history);
    drop(history);
    bar.end();

    if let Some(file) = &arguments.html {
        let written = std::fs::write(file, report.html());
        written.with_context(|| file.display().to_string()).map_err(Failure::Missing)?;
    }
    arguments.output.print(&HistoryReport::from(&report), |_| report.to_string())?;
    match (report.violating_keys, report.undecided.len()) {
        (0, 0) => Ok(()),
        (0, undecided) => Err(Failure::Missing(anyhow!(
            "{undecided} of {} keys could not be decided; `--max-configurations` raises the limit",
            report.keys
        ))),
        (keys, _) => Err(Failure::Wrong(anyhow!("{keys} of {} keys are not linearizable", report.keys))),
    }
}

fn read(arguments: &Arguments, bar: &Bar) -> Result<History, Failure> {
    let (name, from): (_, Box<dyn Read>) = if arguments.file.as_os_str() == "-" {
        ("standard input".to_owned(), Box::new(io::stdin().lock()))
    } else {
        let name = arguments.file.display().to_string();
        let file = File::open(&arguments.file).with_context(|| name.clone()).map_err(Failure::Missing)?;
        (name, Box::new(file))
    };
    let from = BufReader::with_capacity(1 << 20, Counted { from, bytes: 0, bar });
    History::read(from).map_err(|error| match error {
        ReadError::Io { .. } => Failure::Missing(anyhow::Error::new(error).context(name)),
        _ => Failure::Usage(anyhow::Error::new(error).context(name)),
    })
}

/// Tells the bar how much was read.
struct Counted<'a, R> {
    from: R,
    bytes: usize,
    bar: &'a Bar,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.bytes += read;
        self.bar.show(|| format!("reading: {} MB", self.bytes / 1_000_000));
        Ok(read)
    }
}

/// What goes on, for those who have waited for two seconds.
struct Bar {
    bar: ProgressBar,
    began: Instant,
    shown: Cell<bool>,
}

impl Bar {
    const AFTER: Duration = Duration::from_secs(2);

    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {spinner} {msg}") {
            bar.set_style(style);
        }
        Self { bar, began: Instant::now(), shown: Cell::new(false) }
    }

    fn show(&self, what: impl FnOnce() -> String) {
        if self.began.elapsed() < Self::AFTER {
            return;
        }
        if !self.shown.replace(true) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_message(what());
        self.bar.tick();
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

#[derive(Serialize)]
struct HistoryReport<'a> {
    verdict: &'static str,
    operations: usize,
    unknown: usize,
    failed: usize,
    keys: usize,
    violating_keys: usize,
    violations: Vec<Contradiction<'a>>,
    undecided: Vec<Undecided>,
}

#[derive(Serialize)]
struct Contradiction<'a> {
    key: String,
    of: usize,
    operations: Vec<Cited<'a>>,
}

/// An operation as it stands in the history, and its place there, from 0.
#[derive(Serialize)]
struct Cited<'a> {
    number: usize,
    operation: &'a Operation,
}

#[derive(Serialize)]
struct Undecided {
    key: String,
    operations: usize,
}

impl<'a> From<&'a Findings> for HistoryReport<'a> {
    fn from(report: &'a Findings) -> Self {
        let undecided = report.undecided.iter();
        Self {
            verdict: report.verdict(),
            operations: report.operations,
            unknown: report.unknown,
            failed: report.failed,
            keys: report.keys,
            violating_keys: report.violating_keys,
            violations: report.violations.iter().map(Contradiction::from).collect(),
            undecided: undecided
                .map(|one| Undecided { key: one.key.to_string(), operations: one.operations })
                .collect(),
        }
    }
}

impl<'a> From<&'a Violation> for Contradiction<'a> {
    fn from(violation: &'a Violation) -> Self {
        let cited = violation.operations.iter();
        Self {
            key: violation.key.to_string(),
            of: violation.of,
            operations: cited.map(|one| Cited { number: one.number, operation: &one.operation }).collect(),
        }
    }
}
