use super::{
    format::{bytes, millis, seconds, thousands},
    method,
    view::View,
    warnings,
};
use crate::{Cell, Report};

/// A report in Markdown.
pub fn markdown(report: &Report) -> String {
    let mut text = format!("# snet bench\n\n`{}`\n", report.command);
    for warning in warnings(report) {
        text += &format!("\n**{warning}**\n");
    }
    for view in View::all(report) {
        let sizes = view.nodes();
        let rows = view.backends().into_iter().map(|name| {
            let cells = sizes.iter().map(|nodes| view.cell(name, *nodes).map_or_else(|| "-".to_owned(), figure));
            std::iter::once(name.to_owned()).chain(cells).collect()
        });
        let head = std::iter::once("requests/s (p50 / p99), to etcd".to_owned());
        let head = head.chain(sizes.iter().map(|nodes| format!("{nodes} node{}", if *nodes == 1 { "" } else { "s" })));
        text += &format!("\n## {}\n\n{}", view.title(), table(head.collect(), rows));
    }
    text += "\n## Cost\n\nOf 100,000 iterations.\n\n";
    let costly = report.cells.iter().filter_map(|cell| Some((cell, cell.resources?)));
    let rows = costly.map(|(cell, used)| {
        let load = format!("{}, {} clients", cell.workload, cell.clients);
        let cpu = format!("{:.1} s", used.cpu_seconds_per_100k);
        let (written, memory) = (bytes(used.bytes_written_per_100k), bytes(used.memory_bytes as f64));
        vec![cell.backend.clone(), cell.nodes.to_string(), load, cpu, written, memory]
    });
    text += &table(
        ["backend", "nodes", "load", "processor time", "written", "memory of the servers"].map(String::from).into(),
        rows,
    );
    if !report.failovers.is_empty() {
        let rows = report.failovers.iter().map(|failover| {
            let kills = failover.kills.iter().map(|kill| format!("{kill:.2}")).collect::<Vec<_>>().join(", ");
            let spread = failover.seconds;
            vec![
                failover.backend.clone(),
                failover.nodes.to_string(),
                seconds(spread.median),
                format!("{} to {}", seconds(spread.min), seconds(spread.max)),
                kills,
            ]
        });
        let head = ["backend", "nodes", "median", "shortest to longest", "each kill, s"].map(String::from).into();
        text += &format!("\n## Time without service after kill -9 of the leader\n\n{}", table(head, rows));
    }
    text += "\n## Start, to the first acknowledged write\n\n";
    let rows = report.clusters.iter().map(|cluster| {
        let spread = cluster.start_seconds;
        let range = format!("{} to {}", seconds(spread.min), seconds(spread.max));
        vec![cluster.backend.clone(), cluster.nodes.to_string(), seconds(spread.median), range]
    });
    text += &table(["backend", "nodes", "median", "shortest to longest"].map(String::from).into(), rows);
    text += "\n## What was measured, and how\n\n";
    for line in method(report) {
        text += &format!("- {line}\n");
    }
    for backend in &report.backends {
        text += &format!(
            "- **{}** {}: {}. Durability: {}.\n",
            backend.name, backend.version, backend.what, backend.durability
        );
    }
    text
}

fn figure(cell: &Cell) -> String {
    let mut text = format!(
        "{} ({} / {})",
        thousands(cell.requests_per_second.median),
        millis(cell.latency.p50_us),
        millis(cell.latency.p99_us)
    );
    if let Some(ratio) = cell.to_reference {
        text += &format!(", {ratio:.2} x");
    }
    let failed: u64 = cell.failures.values().sum();
    if failed > 0 {
        text += &format!(", **{failed} failed**");
    }
    if cell.unserved > 0 {
        text += &format!(", **{} unserved**", cell.unserved);
    }
    text
}

fn table(head: Vec<String>, rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let rule = line(vec!["---".to_owned(); head.len()]);
    line(head) + &rule + &rows.map(line).collect::<String>()
}
