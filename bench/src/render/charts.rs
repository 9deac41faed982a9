//! Charts as inline SVG: a row a backend on one axis. Colours and fonts come from the page's style, and so follow its light or dark mode.

use super::{escape, millis, seconds, thousands};
use crate::{Cell, Failover};

/// Charts have the width of a phone, and stand side by side where there is more room.
const WIDTH: f64 = 360.0;
const MARGIN: f64 = 14.0;
const ROW: f64 = 40.0;
const AXIS: f64 = 36.0;

/// The most labels on an axis, so that they do not meet.
const MOST_LABELS: usize = 7;

/// The colours of the style; further backends begin again.
const COLOURS: usize = 7;

/// Figures of one backend: what a mark is called, where it stands, and what is told of it.
struct Row {
    backend: String,
    marks: Vec<(String, f64, String)>,
}

/// Requests per second, a mark for each number of nodes.
pub(super) fn throughput(cells: &[&Cell], backends: &[&str]) -> String {
    let mark = |cell: &Cell| {
        let spread = cell.requests_per_second;
        let [median, min, max] = [spread.median, spread.min, spread.max].map(thousands);
        (cell.nodes.to_string(), spread.median, format!("{median} requests/s ({min} to {max}), {} nodes", cell.nodes))
    };
    rows("requests/s, by the number of nodes", &of_backends(cells, backends, |cell| vec![mark(cell)]), backends)
}

/// How long an iteration takes.
pub(super) fn latency(cells: &[&Cell], backends: &[&str]) -> String {
    let marks = |cell: &Cell| {
        let latency = cell.latency;
        let marks = [("p50", latency.p50_us), ("p99", latency.p99_us), ("p99.9", latency.p999_us)];
        marks.map(|(name, micros)| (name.to_owned(), micros / 1e3, format!("{name} {}", millis(micros)))).into()
    };
    rows("milliseconds", &of_backends(cells, backends, marks), backends)
}

/// The time without service of every kill.
pub(super) fn kills(failovers: &[Failover], backends: &[&str]) -> String {
    let marks = |kill: &f64| (String::new(), *kill, seconds(*kill));
    let row = |of: &Failover| Row { backend: of.backend.clone(), marks: of.kills.iter().map(marks).collect() };
    rows("seconds", &failovers.iter().map(row).collect::<Vec<_>>(), backends)
}

/// Acknowledgements around the kill of median length, on one scale of time.
pub(super) fn timelines(failovers: &[Failover], backends: &[&str]) -> String {
    let lines = || failovers.iter().map(|failover| &failover.timeline);
    let from = lines().map(|line| line.from_ms).fold(0.0, f64::min);
    let to = lines().map(|line| line.from_ms + line.step_ms * line.acknowledged.len() as f64).fold(1.0, f64::max);
    let x = |ms: f64| MARGIN + (ms - from) / (to - from) * (WIDTH - 2.0 * MARGIN);
    let step = [250.0, 500.0, 1000.0, 2000.0, 5000.0].into_iter().find(|step| to / step <= 6.0).unwrap_or(5000.0);
    let ticks = std::iter::successors(Some(0.0), |at| Some(at + step)).take_while(|at| *at <= to);
    let mut svg = open("seconds after the kill", failovers.len(), ticks.map(|at| (x(at), format!("{}", at / 1e3))));
    for (place, failover) in failovers.iter().enumerate() {
        let (line, base) = (&failover.timeline, ROW * (place + 1) as f64);
        let most = line.acknowledged.iter().copied().max().unwrap_or(0).max(1);
        let mut path = format!("M{:.1} {base:.1}", x(line.from_ms));
        for (step, count) in line.acknowledged.iter().enumerate() {
            let (begins, y) = (line.from_ms + line.step_ms * step as f64, f64::from(*count) / f64::from(most) * 22.0);
            path += &format!("L{:.1} {:.1}H{:.1}", x(begins), base - y, x(begins + line.step_ms));
        }
        svg += &format!("<path class=\"mark {}\" d=\"{path}V{base:.1}Z\"/>", colour(&failover.backend, backends));
        svg += &text(MARGIN, base - 26.0, "start", &failover.backend);
    }
    svg + "</svg>"
}

fn of_backends(cells: &[&Cell], backends: &[&str], marks: impl Fn(&Cell) -> Vec<(String, f64, String)>) -> Vec<Row> {
    let rows = backends.iter().map(|name| Row {
        backend: (*name).to_owned(),
        marks: cells.iter().filter(|cell| cell.backend == *name).flat_map(|cell| marks(cell)).collect(),
    });
    rows.filter(|row| !row.marks.is_empty()).collect()
}

/// Rows on a logarithmic axis that holds all their marks; those that are not above 0 have no place on it.
fn rows(unit: &str, rows: &[Row], backends: &[&str]) -> String {
    let values = || rows.iter().flat_map(|row| &row.marks).map(|mark| mark.1).filter(|value| *value > 0.0);
    let (low, high) = (values().fold(f64::MAX, f64::min).min(1e12) / 1.3, values().fold(1e-6, f64::max) * 1.3);
    let x = |value: f64| MARGIN + (value / low).ln() / (high / low).ln() * (WIDTH - 2.0 * MARGIN);
    let mut svg = open(unit, rows.len(), ticks(low, high).into_iter().map(|value| (x(value), short(value))));
    for (place, row) in rows.iter().enumerate() {
        let (y, colour) = (ROW * (place + 1) as f64 - 8.0, colour(&row.backend, backends));
        svg += &text(MARGIN, y - 16.0, "start", &row.backend);
        let marks = || row.marks.iter().filter(|mark| mark.1 > 0.0).map(|(name, value, told)| (name, x(*value), told));
        let (from, to) = marks().fold((WIDTH, 0.0), |(from, to), (_, x, _)| (x.min(from), x.max(to)));
        if from < to {
            svg += &format!("<path class=\"bar {colour}\" d=\"M{from:.1} {y:.1}H{to:.1}\"/>");
        }
        for (name, x, told) in marks() {
            let title = escape(&format!("{}: {told}", row.backend));
            svg += &format!(
                "<circle class=\"mark {colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{title}</title></circle>"
            );
            svg += &text(x, y - 6.0, "middle", name);
        }
    }
    svg + "</svg>"
}

/// Round values: powers of ten, with 2 and 5 between them where there is room.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let powers = || (-12..=12).map(|power| 10_f64.powi(power));
    let of = |steps: &[f64]| {
        let all = powers().flat_map(|power| steps.iter().map(move |step| step * power));
        all.filter(|value| (low..=high).contains(value)).collect::<Vec<_>>()
    };
    let candidates = [of(&[1.0, 2.0, 5.0]), of(&[1.0, 3.0]), of(&[1.0])];
    candidates.into_iter().find(|ticks| ticks.len() <= MOST_LABELS).unwrap_or_default()
}

fn open(unit: &str, rows: usize, ticks: impl Iterator<Item = (f64, String)>) -> String {
    let bottom = ROW * rows as f64 + 8.0;
    let (height, unit) = (bottom + AXIS, escape(unit));
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{unit}\">");
    for (x, name) in ticks {
        svg += &format!("<path class=\"grid\" d=\"M{x:.1} 4V{bottom:.1}\"/>");
        svg += &text(x, bottom + 14.0, "middle", &name);
    }
    svg + &text(WIDTH / 2.0, bottom + 31.0, "middle", &unit)
}

fn text(x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(text))
}

fn colour(backend: &str, backends: &[&str]) -> String {
    format!("s{}", backends.iter().position(|name| *name == backend).unwrap_or(0) % COLOURS)
}

/// A number as short as it can be: 20k, 0.05.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.0}M", value / 1e6),
        value if value >= 1e3 => format!("{:.0}k", value / 1e3),
        value if value >= 1.0 => format!("{value:.0}"),
        value => format!("{value:.3}").trim_end_matches('0').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_few_and_between_the_ends() {
        for (low, high) in [(800.0, 50_000.0), (0.02, 3.0), (3.9, 6.5), (1e-3, 1e3)] {
            let ticks = ticks(low, high);
            assert!((1..=MOST_LABELS).contains(&ticks.len()), "{low} to {high}: {ticks:?}");
            assert!(ticks.is_sorted() && ticks.iter().all(|tick| (low..=high).contains(tick)), "{ticks:?}");
        }
    }

    #[test]
    fn whatever_there_is_not_there_is_a_chart() {
        for marks in [vec![], vec![0.0], vec![f64::NAN], vec![5.0]] {
            let marks = marks.into_iter().map(|value| (String::new(), value, String::new())).collect();
            let svg = rows("seconds", &[Row { backend: "mem".to_owned(), marks }], &["mem"]);
            assert!(svg.ends_with("</svg>") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
