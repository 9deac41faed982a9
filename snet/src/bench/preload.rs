//! `snet bench --preload`: what many channels cost.

use ::bench::Clients;

use super::Arguments;
use crate::exit::Outcome;

#[cfg(not(feature = "embedded"))]
pub(super) fn run(_: &Arguments, _: u64, _: &Clients) -> Outcome {
    let what =
        "--preload measures the embedded engine, which this build does not have: build with the feature `embedded`";
    Err(crate::exit::Failure::Usage(anyhow::anyhow!(what)))
}

#[cfg(feature = "embedded")]
pub(super) fn run(arguments: &Arguments, channels: u64, clients: &Clients) -> Outcome {
    let count = arguments.clients.as_ref().and_then(|clients| clients.first().copied()).unwrap_or(10);
    let amount = match arguments.amount() {
        ::bench::Amount::Iterations(each) => ::bench::Amount::Iterations(each.saturating_mul(count as u64)),
        time @ ::bench::Amount::Time(_) => time,
    };
    let preload = ::bench::Preload {
        channels,
        clients: count,
        value_bytes: arguments.value_bytes,
        amount,
        rounds: arguments.rounds.unwrap_or(3),
        directory: arguments.directory(),
    };
    super::warn_of_memory(&preload.directory)?;
    // Three steps beside the rounds: storing, the snapshot, the restart.
    let mut progress = crate::progress::Progress::new(3 + 2 * preload.rounds);
    let report = ::bench::preload(&preload, clients, |step| progress.step(step))?;
    drop(progress);
    arguments.output.print(&report, table)
}

#[cfg(feature = "embedded")]
fn table(report: &::bench::PreloadReport) -> String {
    use crate::table::{Table, thousands};

    let mut table = Table::default();
    let seconds = |seconds: f64| format!("{seconds:.2} s");
    let speed = |spread: &::bench::Spread| {
        format!("{} ({} to {})", thousands(spread.median), thousands(spread.min), thousands(spread.max))
    };
    let memory = report.memory_bytes_per_channel.map_or_else(|| "unknown".to_owned(), thousands);
    table.row(["channels".to_owned(), thousands(report.channels as f64)]);
    table.row(["bytes of a channel's key and value".to_owned(), report.record_bytes.to_string()]);
    table.row(["bytes of memory for each".to_owned(), memory]);
    table.row(["storing them".to_owned(), seconds(report.load_seconds)]);
    table.row(["writing a snapshot".to_owned(), seconds(report.snapshot_seconds)]);
    table.row(["stopping".to_owned(), seconds(report.stop_seconds)]);
    table.row(["starting, to the first read".to_owned(), seconds(report.restart_seconds)]);
    table.row(["puts/s on an empty node".to_owned(), speed(&report.empty)]);
    table.row(["puts/s beside the channels".to_owned(), speed(&report.full)]);
    table.row(["  of the empty node's".to_owned(), format!("{:.0} %", report.full_to_empty * 100.0)]);
    let mark = if report.on_tmpfs { "THE DATA WAS IN MEMORY: the speeds say nothing.\n" } else { "" };
    format!("{}\n{mark}\n{table}", report.physics)
}
