//! The report in the terminal.

use ::bench::{Cell, Percentiles, Physics, Report, bytes, seconds, shared_syncs};

use crate::table::{Table, millis, thousands};

pub(super) fn table(report: &Report) -> String {
    let amount = match (report.iterations, report.seconds) {
        (Some(iterations), _) => format!("{} iterations of each client", thousands(iterations as f64)),
        (None, seconds) => format!("{} s", seconds.unwrap_or_default()),
    };
    let mut text = format!(
        "clients: {}; {amount}, {}-byte values; medians of {} rounds\n{}\n{}\n",
        report.placement,
        report.value_bytes,
        report.rounds,
        report.machine.line(),
        physics_line(&report.physics),
    );
    if report.on_tmpfs {
        text += "THE DATA WAS IN MEMORY: figures of durable stores say nothing.\n";
    }
    for cells in report.cells.chunk_by(|a, b| a.backend == b.backend) {
        text += &format!("\n{}", block(report, cells));
    }
    if !report.failovers.is_empty() {
        text += &format!("\n{}", failovers(report));
    }
    text
}

pub(super) fn physics_line(physics: &Physics) -> String {
    let each =
        |percentiles: &Percentiles| format!("p50 {}, p99 {}", millis(percentiles.p50_us), millis(percentiles.p99_us));
    format!(
        "fdatasync of an overwrite: {}{}; loopback round trip: {}",
        each(&physics.fdatasync),
        shared_syncs(physics),
        each(&physics.round_trip)
    )
}

/// The table of one backend: a few lines for each load, a column for each size.
fn block(report: &Report, cells: &[Cell]) -> Table {
    let mut table = Table::default();
    let Some(first) = cells.first() else { return table };
    let backend = report.backends.iter().find(|backend| backend.name == first.backend);
    let version = backend.map_or("", |backend| &backend.version);
    let mark = if backend.is_none_or(|backend| backend.durable) { "" } else { " (not durable)" };
    let mut nodes: Vec<_> = cells.iter().map(|cell| cell.nodes).collect();
    nodes.dedup();
    nodes.sort_unstable();
    nodes.dedup();
    let sizes = nodes.iter().map(|nodes| if *nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") });
    table.row(std::iter::once(format!("{} {version}{mark}", first.backend)).chain(sizes));
    let starts = report.clusters.iter().filter(|cluster| cluster.backend == first.backend);
    let starts = starts.map(|cluster| seconds(cluster.start_seconds.median));
    table.row(std::iter::once("start, to the first write".to_owned()).chain(starts));
    let mut seen: Vec<&Cell> = Vec::new();
    for cell in cells {
        let is_same_load =
            |other: &&Cell| (&other.workload, other.clients, other.rate) == (&cell.workload, cell.clients, cell.rate);
        if seen.iter().any(is_same_load) {
            continue;
        }
        seen.push(cell);
        load(&mut table, &cells.iter().filter(is_same_load).collect::<Vec<_>>());
    }
    table
}

/// The lines of one load.
fn load(table: &mut Table, cells: &[&Cell]) {
    let Some(first) = cells.first() else { return };
    let rate = first.rate.map_or_else(String::new, |rate| format!(" at {rate}/s"));
    let name = format!("{}{rate}, {} clients, requests/s", first.workload, first.clients);
    let mut line = |name: &str, figure: &dyn Fn(&Cell) -> String| {
        table.row(std::iter::once(name.to_owned()).chain(cells.iter().map(|cell| figure(cell))));
    };
    let none = || "-".to_owned();
    line(&name, &|cell| thousands(cell.requests_per_second.median));
    line("  lowest to highest", &|cell| {
        format!("{} to {}", thousands(cell.requests_per_second.min), thousands(cell.requests_per_second.max))
    });
    if cells.iter().any(|cell| cell.to_reference.is_some_and(|ratio| cell.backend != "etcd" && ratio > 0.0)) {
        line("  to etcd", &|cell| cell.to_reference.map_or_else(none, |ratio| format!("{ratio:.2} x")));
    }
    line("  p50 / p99 / p99.9", &|cell| {
        let latency = cell.latency;
        format!("{} / {} / {}", millis(latency.p50_us), millis(latency.p99_us), millis(latency.p999_us))
    });
    if cells.iter().any(|cell| cell.limit.is_some()) {
        line("  limit, reached", &|cell| match (cell.limit, cell.fraction_of_limit) {
            (Some(limit), Some(fraction)) => format!("{}, {:.0} %", thousands(limit), fraction * 100.0),
            _ => none(),
        });
    }
    if cells.iter().any(|cell| cell.resources.is_some()) {
        line("  CPU, written per 100k", &|cell| {
            cell.resources.map_or_else(none, |used| {
                format!("{:.1} s, {}", used.cpu_seconds_per_100k, bytes(used.bytes_written_per_100k))
            })
        });
        line("  memory", &|cell| cell.resources.map_or_else(none, |used| bytes(used.memory_bytes as f64)));
    }
    if cells.iter().any(|cell| cell.conflicts > 0) {
        line("  conflicts", &|cell| thousands(cell.conflicts as f64));
    }
    if cells.iter().any(|cell| cell.unserved > 0) {
        line("  unserved", &|cell| thousands(cell.unserved as f64));
    }
    if cells.iter().any(|cell| !cell.failures.is_empty()) {
        line("  FAILED", &|cell| {
            let kinds = cell.failures.iter().map(|(kind, count)| format!("{count} {kind}"));
            kinds.collect::<Vec<_>>().join(", ")
        });
    }
}

fn failovers(report: &Report) -> Table {
    let mut table = Table::default();
    table.row(["time without service", "nodes", "kills", "median", "shortest to longest"]);
    for failover in &report.failovers {
        let spread = failover.seconds;
        table.row([
            failover.backend.clone(),
            failover.nodes.to_string(),
            failover.kills.len().to_string(),
            seconds(spread.median),
            format!("{} to {}", seconds(spread.min), seconds(spread.max)),
        ]);
    }
    table
}
