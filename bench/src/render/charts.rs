//! Charts as inline SVG. Colours and fonts come from the page's style, so that they follow its light or dark mode; each line
//! has a marker of its own too, for those who see no colours.

use super::{
    axis::LogAxis,
    format::{millis, seconds, thousands},
    html::escape,
    view::View,
};
use crate::Failover;

/// Charts have the width of a phone, and stand side by side where there is more room.
const WIDTH: f64 = 360.0;

/// The lines of a page have these many looks; further ones begin again.
pub(super) const LOOKS: usize = 7;

/// The look of a backend, by its place in the report.
pub(super) fn look(backends: &[&str], backend: &str) -> usize {
    backends.iter().position(|name| *name == backend).unwrap_or(0) % LOOKS
}

/// Requests per second by the number of nodes, one line a backend.
pub(super) fn throughput(view: &View<'_>, backends: &[&str]) -> String {
    let (height, left, right, top, bottom) = (250.0, 44.0, 14.0, 10.0, 34.0);
    let nodes = view.nodes();
    let cells = || view.backends().into_iter().flat_map(|name| nodes.iter().filter_map(move |n| view.cell(name, *n)));
    let spreads = cells().flat_map(|cell| [cell.requests_per_second.min, cell.requests_per_second.max]);
    let y = LogAxis::holding(spreads, height - bottom, top);
    let x = |place: usize| {
        let steps = nodes.len().saturating_sub(1).max(1) as f64;
        let middle = if nodes.len() == 1 { 0.5 } else { place as f64 / steps };
        left + 12.0 + middle * (WIDTH - left - right - 24.0)
    };
    let mut svg = open(height, &format!("Requests per second by the number of nodes: {}", view.title()));
    for (value, place) in y.ticks() {
        svg += &grid(left, place, WIDTH - right, place);
        svg += &text(left - 6.0, place + 4.0, "end", "", &short(value));
    }
    for (place, count) in nodes.iter().enumerate() {
        svg += &text(x(place), height - 18.0, "middle", "", &count.to_string());
    }
    svg += &text(f64::midpoint(left, WIDTH - right), height - 3.0, "middle", "dim", "nodes");
    for name in view.backends() {
        let look = look(backends, name);
        let points: Vec<_> =
            nodes.iter().enumerate().filter_map(|(place, n)| Some((x(place), view.cell(name, *n)?))).collect();
        let line = points.iter().map(|(x, cell)| format!("{x:.1},{:.1}", y.place(cell.requests_per_second.median)));
        svg += &format!("<polyline class=\"line s{look}\" points=\"{}\"/>", line.collect::<Vec<_>>().join(" "));
        for (x, cell) in points {
            let spread = cell.requests_per_second;
            svg += &format!(
                "<line class=\"spread s{look}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
                y.place(spread.min),
                y.place(spread.max)
            );
            let told = format!(
                "{name}, {} nodes: {} requests/s ({} to {})",
                cell.nodes,
                thousands(spread.median),
                thousands(spread.min),
                thousands(spread.max)
            );
            svg += &format!("<g>{}<title>{}</title></g>", marker(look, x, y.place(spread.median)), escape(&told));
        }
    }
    svg + "</svg>"
}

/// How long an iteration takes: from p50 over p99 to p99.9, one row a backend.
pub(super) fn latency(view: &View<'_>, nodes: usize, backends: &[&str]) -> String {
    let (left, right, row, bottom) = (8.0, 14.0, 34.0, 34.0);
    let cells: Vec<_> = view.backends().into_iter().filter_map(|name| view.cell(name, nodes)).collect();
    let height = row * cells.len() as f64 + bottom + 6.0;
    let ends = cells.iter().flat_map(|cell| [cell.latency.p50_us, cell.latency.p999_us]);
    let x = LogAxis::holding(ends, left, WIDTH - right);
    let mut svg = open(height, &format!("Latencies with {nodes} nodes: {}", view.title()));
    for (value, place) in x.ticks() {
        svg += &grid(place, 4.0, place, height - bottom);
        svg += &text(place, height - 18.0, "middle", "", &short(value / 1e3));
    }
    svg += &text(f64::midpoint(left, WIDTH - right), height - 3.0, "middle", "dim", "milliseconds");
    for (place, cell) in cells.iter().enumerate() {
        let (look, latency) = (look(backends, &cell.backend), cell.latency);
        let y = 24.0 + row * place as f64;
        let [p50, p99, p999] = [latency.p50_us, latency.p99_us, latency.p999_us].map(|value| x.place(value));
        let told = format!(
            "{}: p50 {}, p99 {}, p99.9 {}, longest {}",
            cell.backend,
            millis(latency.p50_us),
            millis(latency.p99_us),
            millis(latency.p999_us),
            millis(latency.max_us)
        );
        svg += "<g>";
        svg +=
            &format!("<line class=\"spread s{look}\" x1=\"{p99:.1}\" x2=\"{p999:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        svg += &format!("<line class=\"bar s{look}\" x1=\"{p50:.1}\" x2=\"{p99:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        svg += &marker(look, p50, y);
        // Where the bar is far to the right, the name stands at the other end.
        svg += &text(left, y - 9.0, "start", "halo", &cell.backend);
        svg += &format!("<title>{}</title></g>", escape(&told));
    }
    svg + "</svg>"
}

/// The time without service of every kill, one row a backend.
pub(super) fn kills(failovers: &[Failover], backends: &[&str]) -> String {
    let (left, right, row, bottom) = (8.0, 14.0, 36.0, 34.0);
    let height = row * failovers.len() as f64 + bottom + 6.0;
    let all = failovers.iter().flat_map(|failover| failover.kills.iter().copied());
    let x = LogAxis::holding(all, left, WIDTH - right);
    let mut svg = open(height, "Time without service after each kill of the leader");
    for (value, place) in x.ticks() {
        svg += &grid(place, 4.0, place, height - bottom);
        svg += &text(place, height - 18.0, "middle", "", &short(value));
    }
    svg += &text(f64::midpoint(left, WIDTH - right), height - 3.0, "middle", "dim", "seconds");
    for (place, failover) in failovers.iter().enumerate() {
        let (look, y) = (look(backends, &failover.backend), 26.0 + row * place as f64);
        let name = format!("{}: median {}", failover.backend, seconds(failover.seconds.median));
        svg += &text(left, y - 10.0, "start", "halo", &name);
        for kill in &failover.kills {
            let told = format!("{}: {}", failover.backend, seconds(*kill));
            svg += &format!(
                "<circle class=\"dot s{look}\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{}</title></circle>",
                x.place(*kill),
                escape(&told)
            );
        }
        let median = x.place(failover.seconds.median);
        svg += &format!(
            "<line class=\"line s{look}\" x1=\"{median:.1}\" x2=\"{median:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
            y - 8.0,
            y + 8.0
        );
    }
    svg + "</svg>"
}

/// Acknowledgements around the kill of median length, one strip a backend on one scale of time.
pub(super) fn timelines(failovers: &[Failover], backends: &[&str]) -> String {
    let (left, right, row, bottom) = (8.0, 14.0, 62.0, 34.0);
    let height = row * failovers.len() as f64 + bottom + 4.0;
    let ends = |failover: &Failover| {
        let line = &failover.timeline;
        (line.from_ms, line.from_ms + line.step_ms * line.acknowledged.len() as f64)
    };
    let from = failovers.iter().map(|failover| ends(failover).0).fold(0.0, f64::min);
    let to = failovers.iter().map(|failover| ends(failover).1).fold(1.0, f64::max);
    let x = |ms: f64| left + (ms - from) / (to - from) * (WIDTH - left - right);
    let mut svg = open(height, "Acknowledgements around a kill of the leader");
    for tick in ticks(to) {
        svg += &grid(x(tick), 4.0, x(tick), height - bottom);
        svg += &text(x(tick), height - 18.0, "middle", "", &format!("{}", tick / 1e3));
    }
    svg += &text(f64::midpoint(left, WIDTH - right), height - 3.0, "middle", "dim", "seconds after the kill");
    for (place, failover) in failovers.iter().enumerate() {
        let (look, base) = (look(backends, &failover.backend), row * (place + 1) as f64 - 4.0);
        let line = &failover.timeline;
        let most = line.acknowledged.iter().copied().max().unwrap_or(0).max(1);
        let mut path = format!("M{:.1} {base:.1}", x(line.from_ms));
        for (step, count) in line.acknowledged.iter().enumerate() {
            let begins = line.from_ms + line.step_ms * step as f64;
            let y = base - f64::from(*count) / f64::from(most) * (row - 26.0);
            path += &format!("L{:.1} {y:.1}L{:.1} {y:.1}", x(begins), x(begins + line.step_ms));
        }
        path += &format!("L{:.1} {base:.1}Z", x(ends(failover).1));
        svg += &format!("<path class=\"area s{look}\" d=\"{path}\"/>");
        svg += &text(left, base - row + 20.0, "start", "halo", &failover.backend);
    }
    svg +=
        &format!("<line class=\"kill\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"4\" y2=\"{1:.1}\"/>", x(0.0), height - bottom);
    svg + "</svg>"
}

/// Round times up to this, in milliseconds; not more than fit.
fn ticks(to: f64) -> Vec<f64> {
    let steps = [250.0, 500.0, 1000.0, 2000.0, 5000.0];
    let step = steps.into_iter().find(|step| to / step <= 6.0).unwrap_or(5000.0);
    std::iter::successors(Some(0.0), |at| Some(at + step)).take_while(|at| *at <= to).collect()
}

/// The marker of a look, around a point.
pub(super) fn marker(look: usize, x: f64, y: f64) -> String {
    let polygon = |points: [(f64, f64); 4]| {
        let points = points.map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + dy)).join(" ");
        format!("<polygon class=\"dot s{look}\" points=\"{points}\"/>")
    };
    match look % 4 {
        0 => format!("<circle class=\"dot s{look}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>"),
        1 => polygon([(-4.0, -4.0), (4.0, -4.0), (4.0, 4.0), (-4.0, 4.0)]),
        2 => polygon([(0.0, -5.5), (5.5, 0.0), (0.0, 5.5), (-5.5, 0.0)]),
        _ => polygon([(0.0, -5.5), (5.0, 4.0), (-5.0, 4.0), (0.0, -5.5)]),
    }
}

fn open(height: f64, label: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{}\">", escape(label))
}

fn grid(x1: f64, y1: f64, x2: f64, y2: f64) -> String {
    format!("<line class=\"grid\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>")
}

fn text(x: f64, y: f64, anchor: &str, class: &str, text: &str) -> String {
    format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(text))
}

/// A number as short as it can be: 20k, 0.05.
fn short(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e3 => (value / 1e3, "k"),
        value => (value, ""),
    };
    // Ticks are round: what is left behind the third digit is an error of the arithmetic.
    let text = if value >= 1.0 { format!("{value:.0}") } else { format!("{value:.3}") };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}
