use super::{
    charts,
    format::{bytes, millis, seconds, thousands},
    method,
    view::View,
    warnings,
};
use crate::{Cell, Report};

/// The style of the page. Colours have names, which dark mode changes.
const STYLE: &str = include_str!("style.css");

/// A report as one page that needs nothing else: no script, no font, no network.
pub fn html(report: &Report) -> String {
    let backends: Vec<&str> = report.backends.iter().map(|backend| backend.name.as_str()).collect();
    let views = View::all(report);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>snet bench</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>How fast stores of payment-channel state are</h1>\n<p class=\"lead\">{}</p>\n<pre>{}</pre>\n",
        escape(&report.machine.line()),
        escape(&report.command),
    );
    for warning in warnings(report) {
        page += &format!("<p class=\"warning\">{}</p>\n", escape(warning));
    }
    page += "<h2>Requests per second by the number of nodes</h2>\n\
             <p>The scale is logarithmic. A thin line shows the lowest and the highest round.</p>\n";
    page += &legend(&backends);
    page += &figures(views.iter().map(|view| (view.title(), charts::throughput(view, &backends))));
    page += "<h2>Latencies</h2>\n<p>From the median (the marker) over the 99th percentile (the bar) to the 99.9th (the thin line).</p>\n";
    page += &figures(views.iter().filter_map(|view| {
        let nodes = view.usual_nodes()?;
        Some((format!("{}, {}", view.title(), of_nodes(nodes)), charts::latency(view, nodes, &backends)))
    }));
    if !report.failovers.is_empty() {
        page += &failovers(report, &backends);
    }
    page += "<h2>All figures</h2>\n";
    for view in &views {
        page += &table(view);
    }
    page += &format!(
        "<h2>Start</h2>\n<p>From the start of all nodes, without data, to the first acknowledged write.</p>\n{}",
        starts(report)
    );
    page += "<h2>What was measured, and how</h2>\n<ul>\n";
    for line in method(report) {
        page += &format!("<li>{}</li>\n", escape(&line));
    }
    page += "</ul>\n<dl>\n";
    for backend in &report.backends {
        page += &format!(
            "<dt>{} {}</dt><dd>{}. Durability: {}.</dd>\n",
            escape(&backend.name),
            escape(&backend.version),
            escape(&backend.what),
            escape(&backend.durability)
        );
    }
    page + &format!(
        "</dl>\n<p class=\"dim\">snet {}, format {}</p>\n</main>\n</body>\n</html>\n",
        escape(&report.version),
        report.schema
    )
}

/// Text between tags or in an attribute.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn of_nodes(nodes: usize) -> String {
    if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") }
}

fn legend(backends: &[&str]) -> String {
    let entries = backends.iter().map(|name| {
        let marker = charts::marker(charts::look(backends, name), 8.0, 8.0);
        format!(
            "<span><svg class=\"key\" viewBox=\"0 0 16 16\" aria-hidden=\"true\">{marker}</svg>{}</span>",
            escape(name)
        )
    });
    format!("<p class=\"legend\">{}</p>\n", entries.collect::<Vec<_>>().join("\n"))
}

fn figures(figures: impl Iterator<Item = (String, String)>) -> String {
    let figures =
        figures.map(|(title, svg)| format!("<figure><figcaption>{}</figcaption>{svg}</figure>\n", escape(&title)));
    format!("<div class=\"figures\">\n{}</div>\n", figures.collect::<String>())
}

fn failovers(report: &Report, backends: &[&str]) -> String {
    let list = &report.failovers;
    let (nodes, kills) = list.first().map_or((0, 0), |first| (first.nodes, first.kills.len()));
    let mut part =
        format!("<h2>When the leader is killed</h2>\n<p>{}, kill -9, {kills} times each.</p>\n", of_nodes(nodes));
    part += &figures(
        [
            ("Time without service, each kill".to_owned(), charts::kills(list, backends)),
            ("Acknowledgements around the median kill".to_owned(), charts::timelines(list, backends)),
        ]
        .into_iter(),
    );
    let rows = list.iter().map(|failover| {
        let figures = [failover.seconds.median, failover.seconds.min, failover.seconds.max].map(seconds);
        let counts = [failover.applied, failover.unknown].map(|count| thousands(count as f64));
        row(&failover.backend, figures.into_iter().chain(counts))
    });
    part + &scrolling(&["", "median", "shortest", "longest", "acknowledged, all kept", "unknown"], rows)
}

/// How fast it was, and what it cost, so that neither is wider than a page. The second is folded up unless something failed.
fn table(view: &View<'_>) -> String {
    let cells = || {
        let backends = view.backends().into_iter();
        backends.flat_map(|name| view.nodes().into_iter().filter_map(move |nodes| view.cell(name, nodes)))
    };
    let speed =
        ["", "nodes", "requests/s", "lowest to highest", "to etcd", "of the limit", "p50", "p99", "p99.9", "longest"];
    let failed = cells().any(|cell| !cell.failures.is_empty() || cell.unserved > 0);
    let open = if failed { " open" } else { "" };
    let cost = ["", "nodes", "CPU s per 100k", "written per 100k", "memory", "conflicts", "failed"];
    format!(
        "<h3>{}</h3>\n{}<details{open}><summary>Cost, conflicts and failures</summary>\n{}</details>\n",
        escape(&view.title()),
        scrolling(&speed, cells().map(|cell| row(&cell.backend, speed_of(cell).into_iter()))),
        scrolling(&cost, cells().map(|cell| row(&cell.backend, cost_of(cell).into_iter()))),
    )
}

fn none() -> String {
    "-".to_owned()
}

fn speed_of(cell: &Cell) -> [String; 9] {
    let spread = cell.requests_per_second;
    [
        cell.nodes.to_string(),
        thousands(spread.median),
        format!("{} to {}", thousands(spread.min), thousands(spread.max)),
        cell.to_reference.map_or_else(none, |ratio| format!("{ratio:.2} x")),
        cell.fraction_of_limit.map_or_else(none, |share| format!("{:.0} %", share * 100.0)),
        millis(cell.latency.p50_us),
        millis(cell.latency.p99_us),
        millis(cell.latency.p999_us),
        millis(cell.latency.max_us),
    ]
}

fn cost_of(cell: &Cell) -> [String; 6] {
    let failed = cell.failures.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>();
    let unserved = (cell.unserved > 0).then(|| format!("{} unserved", cell.unserved));
    let failed: Vec<_> = failed.into_iter().chain(unserved).collect();
    [
        cell.nodes.to_string(),
        cell.resources.map_or_else(none, |used| format!("{:.1}", used.cpu_seconds_per_100k)),
        cell.resources.map_or_else(none, |used| bytes(used.bytes_written_per_100k)),
        cell.resources.map_or_else(none, |used| bytes(used.memory_bytes as f64)),
        if cell.conflicts > 0 { thousands(cell.conflicts as f64) } else { none() },
        if failed.is_empty() { none() } else { failed.join(", ") },
    ]
}

fn starts(report: &Report) -> String {
    let rows = report.clusters.iter().map(|cluster| {
        let figures = [cluster.start_seconds.median, cluster.start_seconds.min, cluster.start_seconds.max].map(seconds);
        row(&cluster.backend, std::iter::once(cluster.nodes.to_string()).chain(figures))
    });
    scrolling(&["", "nodes", "median", "shortest", "longest"], rows)
}

fn row(name: &str, cells: impl Iterator<Item = String>) -> String {
    let cells: String = cells.map(|cell| format!("<td>{}</td>", escape(&cell))).collect();
    format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", escape(name))
}

/// A table that scrolls by itself where it is wider than the page.
fn scrolling(head: &[&str], rows: impl Iterator<Item = String>) -> String {
    let head: String = head.iter().map(|cell| format!("<th scope=\"col\">{}</th>", escape(cell))).collect();
    format!(
        "<div class=\"scrolling\" tabindex=\"0\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{}</tbody>\n</table></div>\n",
        rows.collect::<String>()
    )
}
