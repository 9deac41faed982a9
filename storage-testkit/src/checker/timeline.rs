//! Violations as one HTML page: no script, no font, no picture from anywhere else; light and dark as the reader has it.

use std::fmt::Write as _;

use super::findings::{Cited, Findings, Violation, millis};
use crate::history::{Action, Outcome};

const STYLE: &str = "\
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--faint:#6b7480;--line:#d5dae0;--read:#2f6fdb;--write:#b45309;\
--unknown:#7c3aed;--conflict:#64748b}\
@media(prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e6e9ed;--faint:#98a2ad;--line:#343b44;--read:#6ea8ff;\
--write:#f0a24a;--unknown:#b794ff;--conflict:#94a3b8}}\
body{background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem}\
svg{width:100%;height:auto;display:block;margin:1rem 0}text{fill:var(--ink);font:13px ui-monospace,monospace}\
.faint,.faint text{fill:var(--faint);color:var(--faint)}.grid{stroke:var(--line)}\
.read{fill:var(--read)}.write{fill:var(--write)}.conflict{fill:var(--conflict)}\
.unknown{fill:none;stroke:var(--unknown);stroke-width:2;stroke-dasharray:5 4}\
table{border-collapse:collapse;font:13px ui-monospace,monospace}td,th{padding:.2rem .8rem;text-align:left;\
border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums}.scroll{overflow-x:auto}";

impl Findings {
    /// The violations, drawn: one HTML page that needs nothing else.
    #[must_use]
    pub fn html(&self) -> String {
        page(self)
    }
}

fn page(report: &Findings) -> String {
    let mut page = String::new();
    let verdict = if report.is_linearizable() { "The history is linearizable" } else { "Not shown to be linearizable" };
    let verdict = if report.violating_keys > 0 { "The history is not linearizable" } else { verdict };
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{verdict}</title>\
         <style>{STYLE}</style>\n<h1>{verdict}</h1>\n<p>{} operations on {} keys, {} with an unknown outcome, {} that were \
         not applied; {} keys have no order, {} could not be decided.</p>\n",
        report.operations,
        report.keys,
        report.unknown,
        report.failed,
        report.violating_keys,
        report.undecided.len()
    );
    for violation in &report.violations {
        section(&mut page, violation);
    }
    page.push_str("</html>\n");
    page
}

fn section(page: &mut String, violation: &Violation) {
    let key = escaped(&violation.key.to_string());
    let Violation { operations, of, .. } = violation;
    let _ = write!(
        page,
        "<h2>Key “{key}”</h2>\n<p>No order explains these {} of {of} operations, whatever the others did, and none of them can be \
         left out. Each took effect somewhere within its bar; a dashed one at any time from its start on, or never. Bars stand in \
         the order of their starts and ends; distances are no durations.</p>\n",
        operations.len(),
    );
    drawing(page, operations);
    page.push_str("<div class=\"scroll\"><table><tr><th>#<th>process<th>start<th>end<th>operation</tr>\n");
    for Cited { number, operation } in operations {
        let _ = writeln!(
            page,
            "<tr><td>{number}<td>{}<td>{}<td>{}<td>{}</tr>",
            operation.process,
            millis(operation.start),
            operation.end.map_or_else(|| "none".to_owned(), millis),
            escaped(&operation.to_string())
        );
    }
    page.push_str("</table></div>\n");
}

/// The units of the drawing, which is as wide as the page.
const WIDTH: usize = 1000;
/// Room for the name of a process.
const MARGIN: usize = 90;
/// A bar and the line of text above it.
const ROW: usize = 46;

/// A row for each operation. The axis has one step for each different time, so that microseconds beside minutes are seen.
fn drawing(page: &mut String, operations: &[Cited]) {
    let ends = operations.iter().filter(|cited| !is_open(cited)).filter_map(|cited| cited.operation.end);
    let mut times: Vec<u64> = operations.iter().map(|cited| cited.operation.start).chain(ends).collect();
    times.sort_unstable();
    times.dedup();
    let place = |time: u64| {
        let step = times.partition_point(|other| *other < time);
        MARGIN + step * (WIDTH - MARGIN) / times.len().max(1)
    };
    let height = operations.len() * ROW + 40;
    let _ = writeln!(page, "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"timeline\">");
    for time in &times {
        let x = place(*time);
        let _ = writeln!(page, "<line class=\"grid\" x1=\"{x}\" y1=\"0\" x2=\"{x}\" y2=\"{}\"/>", height - 30);
    }
    for (row, cited) in operations.iter().enumerate() {
        bar(page, cited, row * ROW + 22, &place);
    }
    if let (Some(first), Some(last)) = (times.first(), times.last()) {
        let (y, first, later) = (height - 8, millis(*first), millis(last - first));
        let _ = writeln!(page, "<text class=\"faint\" x=\"{MARGIN}\" y=\"{y}\">{first}</text>");
        let _ =
            writeln!(page, "<text class=\"faint\" x=\"{WIDTH}\" y=\"{y}\" text-anchor=\"end\">{later} later</text>");
    }
    page.push_str("</svg>\n");
}

/// A bar with its label above it, which ends where the bar ends if there is more room to the left.
fn bar(page: &mut String, cited: &Cited, y: usize, place: &impl Fn(u64) -> usize) {
    let Cited { number, operation } = cited;
    let from = place(operation.start);
    let to = operation.end.filter(|_| !is_open(cited)).map_or(WIDTH, place).max(from + 4);
    let (label, anchor) = if from > WIDTH / 2 { (to, " text-anchor=\"end\"") } else { (from, "") };
    let text = escaped(&operation.to_string());
    let (start, end) = (millis(operation.start), operation.end.map_or_else(|| "no answer".to_owned(), millis));
    let _ = writeln!(
        page,
        "<g><title>#{number} {text}\n{start} to {end}</title><text class=\"faint\" x=\"0\" y=\"{}\">process {}</text>\
         <rect class=\"{}\" x=\"{from}\" y=\"{y}\" width=\"{}\" height=\"12\" rx=\"3\"/>\
         <text x=\"{label}\" y=\"{}\"{anchor}>#{number} {text}</text></g>",
        y + 11,
        operation.process,
        class(cited),
        to - from,
        y - 5,
    );
}

fn is_open(cited: &Cited) -> bool {
    cited.operation.outcome == Outcome::Unknown
}

fn class(cited: &Cited) -> &'static str {
    match (&cited.operation.outcome, &cited.operation.action) {
        (Outcome::Unknown, _) => "unknown",
        (Outcome::Conflict { .. }, _) => "conflict",
        (_, Action::Read) => "read",
        _ => "write",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
