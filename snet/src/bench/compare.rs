//! `snet bench compare`: what changed between two reports.

use std::{fs, path::PathBuf};

use ::bench::{Changes, FigureChange, Report, Spread, Verdict, changes};
use anyhow::{Context as _, anyhow};

use crate::{
    exit::{Failure, Outcome},
    output::Output,
    table::{Table, thousands},
};

const EXAMPLES: &str = "\
Examples:
  snet bench --backends embedded,etcd --json before.json
  snet bench --backends embedded,etcd --json after.json
  snet bench compare before.json after.json

A figure has changed if all rounds of the one report are above all rounds of the other and the medians differ by 10 % or more; everything
else is noise. Fewer than 3 rounds allow no verdict. Of times without service, the middle half of the kills counts.
Exit codes: 0 nothing is worse, 4 something is worse, 2 a file is no report.";

/// Say what changed between two reports in JSON, and whether it is noise.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The first report, of --json or --output json.
    before: PathBuf,
    /// The second.
    after: PathBuf,
    /// How the changes are printed.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let (before, after) = (read(&arguments.before)?, read(&arguments.after)?);
    let changes = changes(&before, &after);
    arguments.output.print(&changes, table)?;
    match changes.count(Verdict::Worse) {
        0 => Ok(()),
        worse => Err(Failure::No(anyhow!("{worse} of {} figures are worse", changes.changes.len()))),
    }
}

fn read(file: &PathBuf) -> Result<Report, Failure> {
    let name = || file.display().to_string();
    let text = fs::read_to_string(file).with_context(name).map_err(Failure::Missing)?;
    Report::parse(&text).with_context(name).map_err(Failure::Usage)
}

fn table(changes: &Changes) -> String {
    let mut text = String::new();
    for caution in &changes.cautions {
        text += &format!("caution: {caution}\n");
    }
    let mut table = Table::default();
    table.row(["", "nodes", "before", "now", "", "verdict"]);
    for change in &changes.changes {
        table.row([
            format!("{}, {}", change.backend, change.what),
            change.nodes.to_string(),
            figure(&change.before),
            figure(&change.after),
            format!("{:+.0} %", (change.ratio - 1.0) * 100.0),
            verdict(change).to_owned(),
        ]);
    }
    text += &table.to_string();
    let count = |verdict| changes.count(verdict);
    text += &format!(
        "\n{} better, {} worse, {} noise, {} with too few rounds; {} in one report only\n",
        count(Verdict::Better),
        count(Verdict::Worse),
        count(Verdict::Noise),
        count(Verdict::TooFewRounds),
        changes.unmatched
    );
    text
}

fn figure(spread: &Spread) -> String {
    // Times without service are seconds, and few.
    let each = |figure: f64| if figure < 100.0 { format!("{figure:.2}") } else { thousands(figure) };
    format!("{} ({} to {})", each(spread.median), each(spread.min), each(spread.max))
}

fn verdict(change: &FigureChange) -> &'static str {
    match change.verdict {
        Verdict::Better => "better",
        Verdict::Worse => "WORSE",
        Verdict::Noise => "noise",
        Verdict::TooFewRounds => "too few rounds",
    }
}
