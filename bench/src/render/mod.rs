//! Reports for people: Markdown, and one page of HTML that needs nothing else.

mod charts;
mod page;

use self::page::{Section, Table, sections};
use crate::{
    Report,
    format::{bytes, millis, seconds, thousands},
};

/// The style of the page. Colours have names, which dark mode changes.
const STYLE: &str = include_str!("style.css");

/// A report in Markdown.
pub fn markdown(report: &Report) -> String {
    let mut text = format!("# snet bench\n\n`{}`\n", report.command);
    text.extend(warnings(report).map(|warning| format!("\n**{warning}**\n")));
    for Section { title, text: says, tables, points, .. } in sections(report) {
        text += &format!("\n## {title}\n\n");
        if !says.is_empty() {
            text += &format!("{says}\n\n");
        }
        text.extend(tables.iter().map(|table| format!("{}\n", table.markdown())));
        text.extend(points.iter().map(|point| format!("- {point}\n")));
    }
    text
}

/// A report as one page that needs nothing else: no script, no font, no network.
pub fn html(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>snet bench</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>How fast stores of payment-channel state are</h1>\n<p>{}</p>\n<pre>{}</pre>\n",
        escape(&report.machine.line()),
        escape(&report.command),
    );
    page.extend(warnings(report).map(|warning| format!("<p class=\"warning\">{}</p>\n", escape(warning))));
    for Section { title, text, charts, tables, points } in sections(report) {
        page += &format!("<h2>{}</h2>\n<p>{}</p>\n<div class=\"figures\">\n", escape(&title), escape(text));
        page.extend(
            charts
                .iter()
                .map(|(caption, svg)| format!("<figure><figcaption>{}</figcaption>{svg}</figure>\n", escape(caption))),
        );
        page += "</div>\n";
        for Table { head, rows } in tables {
            let line = |tag: &str, cells: &[String]| {
                let cells: String = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
                format!("<tr>{cells}</tr>\n")
            };
            let rows: String = rows.iter().map(|row| line("td", row)).collect();
            // It scrolls by itself where it is wider than the page.
            page += &format!(
                "<div class=\"scrolling\" tabindex=\"0\"><table>\n{}{rows}</table></div>\n",
                line("th", &head)
            );
        }
        let points: String = points.iter().map(|point| format!("<li>{}</li>\n", escape(point))).collect();
        page += &format!("<ul>\n{points}</ul>\n");
    }
    page + &format!("<p>snet {}, format {}</p>\n</main>\n</body>\n</html>\n", escape(&report.version), report.schema)
}

/// Text between tags or in an attribute.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// What every report says of how it was made.
fn method(report: &Report) -> Vec<String> {
    let amount = match (report.iterations, report.seconds) {
        (Some(iterations), _) => format!("{} iterations of each client", thousands(iterations as f64)),
        (None, seconds) => format!("{} s", seconds.unwrap_or_default()),
    };
    let mut lines = vec![
        format!(
            "All nodes run on this machine: {}; {}.",
            report.machine.line(),
            report.physics,
        ),
        format!(
            "{} rounds of {amount} after {} s of warm-up, with {}-byte values. Each round starts new clusters, one backend after the \
             other, so that a machine that drifts does so for all of them. Figures are medians of the rounds with the lowest and \
             the highest.",
            report.rounds, report.warm_up_seconds, report.value_bytes
        ),
        format!(
            "Clients run on threads of their own and call through the same trait, placed: {}. In a closed loop each waits for its answer \
             before it goes on. In an open loop iterations begin at a fixed rate and latencies count from when they should have begun.",
            report.placement
        ),
        "A cas is a read and a swap and counts as two requests; a payment is a reservation and a commit, likewise. hot-cas is the same \
         on one key for all clients: those that lose are counted as conflicts. After each run the counters in the store had to add \
         up to what was acknowledged."
            .to_owned(),
        "The limit is what waiting allows clients in a closed loop: clients x requests / (fdatasync + round trips), \
         with the fdatasync of a majority of the nodes at once on the disk they share."
            .to_owned(),
        "Processor time and bytes written are those of the servers for 100,000 iterations; of nodes in the clients' process, without \
         the clients' threads (calls that travel on these are not counted), and memory is that of the whole process."
            .to_owned(),
    ];
    if let Some(failover) = report.failovers.first() {
        lines.push(format!(
            "The time without service runs from the SIGKILL of the leader to the first acknowledgement of a cas that began after it, by any of \
             {} clients. The embedded engine's clients are in the process of a node that lives; the others call all nodes.",
            failover.clients
        ));
    }
    lines
}

/// What has to be known before any figure is read.
fn warnings(report: &Report) -> impl Iterator<Item = &'static str> {
    let in_memory = report.on_tmpfs.then_some("THE DATA WAS IN MEMORY: the figures of durable stores say nothing.");
    let failed = (!report.is_clean()).then_some("OPERATIONS FAILED: the figures say how many and how.");
    in_memory.into_iter().chain(failed)
}
