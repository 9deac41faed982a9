//! What a report has to say, once: Markdown and HTML only dress it.

use super::{bytes, charts, method, millis, seconds, thousands};
use crate::{Cell, Report};

/// A part of the page.
pub(super) struct Section {
    pub(super) title: String,
    pub(super) text: &'static str,
    /// Charts with their captions, for HTML.
    pub(super) charts: Vec<(String, String)>,
    pub(super) tables: Vec<Table>,
    pub(super) points: Vec<String>,
}

/// A table with its head.
pub(super) struct Table {
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    /// With columns that stand below each other, for those who read it as it is.
    pub(super) fn markdown(&self) -> String {
        let lines = || [&self.head].into_iter().chain(&self.rows);
        let width = |place: usize| {
            lines().filter_map(|line| line.get(place)).map(|cell: &String| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let line = |cells: &[String]| {
            let cells = cells.iter().zip(&widths).enumerate().map(|(place, (cell, width))| match place {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
        };
        let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        line(&self.head) + &line(&rule) + &self.rows.iter().map(|row| line(row)).collect::<String>()
    }
}

/// All sections, in order.
pub(super) fn sections(report: &Report) -> Vec<Section> {
    let section = |title: &str, text, tables| Section {
        title: title.to_owned(),
        text,
        charts: Vec::new(),
        tables,
        points: Vec::new(),
    };
    let backends: Vec<&str> = report.backends.iter().map(|backend| backend.name.as_str()).collect();
    let mut sections = Vec::new();
    for cells in loads(report) {
        let charts = vec![
            ("Throughput".to_owned(), charts::throughput(&cells, &backends)),
            (format!("Latency, {}", of_nodes(usual_nodes(&cells))), {
                let usual: Vec<&Cell> =
                    cells.iter().copied().filter(|cell| cell.nodes == usual_nodes(&cells)).collect();
                charts::latency(&usual, &backends)
            }),
        ];
        let tables = vec![by_size(&cells, &backends), speed(&cells), cost(&cells)];
        sections.push(Section { charts, ..section(&title(&cells), "", tables) });
    }
    if !report.failovers.is_empty() {
        let charts = vec![
            ("Time without service, each kill".to_owned(), charts::kills(&report.failovers, &backends)),
            ("Acknowledgements around the median kill".to_owned(), charts::timelines(&report.failovers, &backends)),
        ];
        let text = "The leader is killed with SIGKILL. What was acknowledged is all kept.";
        let title = "Time without service when the leader is killed";
        sections.push(Section { charts, ..section(title, text, vec![failovers(report)]) });
    }
    let text = "From the start of all nodes, without data, to the first acknowledged write.";
    sections.push(section("Start", text, vec![starts(report)]));
    let mut points = method(report);
    points.extend(report.backends.iter().map(|backend| {
        let [name, version, what, durability] = [&backend.name, &backend.version, &backend.what, &backend.durability];
        let mark = if backend.durable { "" } else { " (not durable)" };
        format!("{name} {version}{mark}: {what}. Durability: {durability}.")
    }));
    sections.push(Section { points, ..section("What was measured, and how", "", Vec::new()) });
    sections
}

/// The cells of each workload under each load.
fn loads(report: &Report) -> Vec<Vec<&Cell>> {
    let is_like = |one: &Cell, other: &Cell| {
        (&one.workload, one.clients, one.rate.map(f64::to_bits))
            == (&other.workload, other.clients, other.rate.map(f64::to_bits))
    };
    let mut loads: Vec<Vec<&Cell>> = Vec::new();
    for cell in &report.cells {
        match loads.iter_mut().find(|load| load.first().is_some_and(|first| is_like(first, cell))) {
            Some(load) => load.push(cell),
            None => loads.push(vec![cell]),
        }
    }
    loads
}

fn title(cells: &[&Cell]) -> String {
    cells.first().map_or_else(String::new, |cell| {
        let clients = if cell.clients == 1 { "1 client".to_owned() } else { format!("{} clients", cell.clients) };
        let rate = cell.rate.map_or_else(String::new, |rate| format!(", {rate} a second"));
        format!("{}, {clients}{rate}", cell.workload)
    })
}

fn of_nodes(nodes: usize) -> String {
    if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") }
}

fn sizes(cells: &[&Cell]) -> Vec<usize> {
    let mut sizes: Vec<_> = cells.iter().map(|cell| cell.nodes).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// Three nodes if that was measured, since it is the smallest size that survives a loss.
fn usual_nodes(cells: &[&Cell]) -> usize {
    let sizes = sizes(cells);
    sizes.iter().copied().find(|nodes| *nodes == 3).or(sizes.last().copied()).unwrap_or_default()
}

fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> Table {
    Table { head: head.map(String::from).into(), rows: rows.map(Vec::from).collect() }
}

/// A backend a line, a size a column.
fn by_size(cells: &[&Cell], backends: &[&str]) -> Table {
    let sizes = sizes(cells);
    let head = ["requests/s (p50 / p99), to etcd".to_owned()].into_iter();
    let row = |name: &&str| {
        let at = |nodes: &usize| cells.iter().find(|cell| cell.backend == *name && cell.nodes == *nodes);
        let figures: Vec<_> = sizes.iter().map(at).collect();
        let is_there = figures.iter().any(Option::is_some);
        let figures = figures.into_iter().map(|cell| cell.map_or_else(none, |cell| figure(cell)));
        is_there.then(|| [(*name).to_owned()].into_iter().chain(figures).collect())
    };
    Table {
        head: head.chain(sizes.iter().map(|nodes| of_nodes(*nodes))).collect(),
        rows: backends.iter().filter_map(row).collect(),
    }
}

fn figure(cell: &Cell) -> String {
    let (p50, p99) = (millis(cell.latency.p50_us), millis(cell.latency.p99_us));
    let ratio = cell.to_reference.map_or_else(String::new, |ratio| format!(", {ratio:.2} x"));
    let failed = failures(cell).map_or_else(String::new, |failed| format!(", {failed}"));
    format!("{} ({p50} / {p99}){ratio}{failed}", thousands(cell.requests_per_second.median))
}

fn speed(cells: &[&Cell]) -> Table {
    let rows = cells.iter().map(|cell| {
        let spread = cell.requests_per_second;
        [
            cell.backend.clone(),
            cell.nodes.to_string(),
            format!("{} to {}", thousands(spread.min), thousands(spread.max)),
            cell.fraction_of_limit.map_or_else(none, |share| format!("{:.0} %", share * 100.0)),
            millis(cell.latency.p999_us),
            millis(cell.latency.max_us),
        ]
    });
    table(["backend", "nodes", "lowest to highest round", "of the limit", "p99.9", "longest"], rows)
}

/// What 100,000 iterations cost.
fn cost(cells: &[&Cell]) -> Table {
    let rows = cells.iter().map(|cell| {
        [
            cell.backend.clone(),
            cell.nodes.to_string(),
            cell.resources.map_or_else(none, |used| format!("{:.1} s", used.cpu_seconds_per_100k)),
            cell.resources.map_or_else(none, |used| bytes(used.bytes_written_per_100k)),
            cell.resources.map_or_else(none, |used| bytes(used.memory_bytes as f64)),
            if cell.conflicts > 0 { thousands(cell.conflicts as f64) } else { none() },
            failures(cell).unwrap_or_else(none),
        ]
    });
    let head = ["backend", "nodes", "CPU per 100k", "written per 100k", "memory of the servers", "conflicts", "failed"];
    table(head, rows)
}

fn failures(cell: &Cell) -> Option<String> {
    let failed = cell.failures.iter().map(|(kind, count)| format!("{count} {kind}"));
    let unserved = (cell.unserved > 0).then(|| format!("{} unserved", cell.unserved));
    let all: Vec<_> = failed.chain(unserved).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn failovers(report: &Report) -> Table {
    let rows = report.failovers.iter().map(|failover| {
        let spread = failover.seconds;
        [
            failover.backend.clone(),
            failover.nodes.to_string(),
            seconds(spread.median),
            format!("{} to {}", seconds(spread.min), seconds(spread.max)),
            failover.kills.iter().map(|kill| format!("{kill:.2}")).collect::<Vec<_>>().join(", "),
            thousands(failover.applied as f64),
            thousands(failover.unknown as f64),
        ]
    });
    table(["backend", "nodes", "median", "shortest to longest", "each kill, s", "acknowledged", "unknown"], rows)
}

fn starts(report: &Report) -> Table {
    let rows = report.clusters.iter().map(|cluster| {
        let spread = cluster.start_seconds;
        let range = format!("{} to {}", seconds(spread.min), seconds(spread.max));
        [cluster.backend.clone(), cluster.nodes.to_string(), seconds(spread.median), range]
    });
    table(["backend", "nodes", "median", "shortest to longest"], rows)
}

fn none() -> String {
    "-".to_owned()
}
