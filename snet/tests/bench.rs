//! The instrument as people use it: reports in every form, and what changed between two of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{collections::BTreeSet, fs, path::Path};

use bench::Report;
use common::{snet, stderr, stdout};
use serde_json::Value;

/// A small report of a store in memory, written in every form.
fn small(dir: &Path) -> Report {
    let file = |name: &str| dir.join(name).display().to_string();
    let output = snet(&[
        "bench",
        "--backends",
        "mem",
        "--nodes",
        "1",
        "--ops",
        "put,cas,payment",
        "--clients",
        "1,4",
        "--rates",
        "500",
        "--seconds",
        "0.1",
        "--dir",
        &file(""),
        "--json",
        &file("a.json"),
        "--markdown",
        &file("a.md"),
        "--html",
        &file("a.html"),
    ]);
    assert!(output.status.success(), "{output:?}");
    Report::parse(&fs::read_to_string(dir.join("a.json")).unwrap()).unwrap()
}

#[test]
fn a_report_in_json_is_whole_and_every_field_of_it_is_documented() {
    let dir = tempfile::tempdir().unwrap();
    let report = small(dir.path());
    assert_eq!(report.cells.len(), 3 * 2 * 2, "three operations, two numbers of clients, closed and open: {report:?}");
    for cell in &report.cells {
        assert_eq!(cell.rounds.len(), 3, "{cell:?}");
        assert!(cell.latency.p999_us <= cell.latency.max_us && cell.to_reference.is_none(), "{cell:?}");
        if let Some(rate) = cell.rate {
            let applied: u64 = cell.rounds.iter().map(|round| round.applied).sum();
            assert_eq!(applied + cell.unserved, 150, "each round does what the schedule says: {cell:?}");
            let requests = rate * if cell.workload == "put" { 1.0 } else { 2.0 };
            assert!(cell.requests_per_second.max < 1.2 * requests, "{cell:?}");
        }
    }
    assert!(report.command.contains("--rates 500") && !report.machine.system.is_empty(), "{report:?}");

    let written: Value = serde_json::from_str(&fs::read_to_string(dir.path().join("a.json")).unwrap()).unwrap();
    assert_eq!(serde_json::to_value(&report).unwrap(), written, "nothing is lost on the way");
    let documented = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks.md")).unwrap();
    let mut names = BTreeSet::new();
    collect_names(&written, &mut names);
    // What a store in memory has not.
    let failover = bench::Failover {
        backend: String::new(),
        nodes: 3,
        clients: 8,
        seconds: bench::Spread::of([1.0]),
        kills: vec![1.0],
        applied: 1,
        unknown: 0,
        timeline: bench::Timeline::default(),
    };
    collect_names(&serde_json::to_value(failover).unwrap(), &mut names);
    assert!(names.len() > 50, "{names:?}");
    let missing: Vec<_> = names.iter().filter(|name| !documented.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/benchmarks.md says nothing of {missing:?}");
    assert!(documented.contains(Report::SCHEMA));
}

fn collect_names(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                names.insert(name.clone());
                collect_names(value, names);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect_names(value, names)),
        _ => {}
    }
}

#[test]
fn the_page_is_well_formed_and_needs_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let report = small(dir.path());
    let page = fs::read_to_string(dir.path().join("a.html")).unwrap();
    for word in ["http:", "https:", "src=", "href=", "url(", "@import", "<script", "<link"] {
        assert!(!page.contains(word), "{word} in the page");
    }
    for word in
        ["prefers-color-scheme: dark", "width=device-width", "put, 4 clients", "payment, 1 client, 500 a second"]
    {
        assert!(page.contains(word), "{word} is missing");
    }
    let svgs = page.matches("<svg viewBox=\"0 0 360").count();
    assert_eq!(svgs, 2 * report.cells.len(), "each load has a chart of its throughput and one of its latencies");
    assert!(!page.contains("NaN") && !page.contains("inf"), "a figure that is none");
    assert_balanced(&page);

    let text = fs::read_to_string(dir.path().join("a.md")).unwrap();
    assert!(text.contains("## put, 4 clients") && text.contains("| mem ") && text.contains("--rates 500"), "{text}");
}

/// Every tag is closed by its own, in order.
fn assert_balanced(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let body = page.split_once("</style>").unwrap().1;
    for tag in body.split('<').skip(1).map(|rest| rest.split_once('>').expect("a tag ends").0) {
        let name = tag.split([' ', '\n', '/']).find(|word| !word.is_empty()).unwrap();
        if tag.starts_with('/') {
            let last = open.pop();
            // The head was opened before the style.
            assert!(
                last == Some(name) || (last.is_none() && ["head", "html"].contains(&name)),
                "</{name}> after {last:?}"
            );
        } else if !tag.ends_with('/') && name != "meta" {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?} stay open");
}

#[test]
fn what_changed_is_told_from_noise_and_what_is_worse_ends_with_4() {
    let dir = tempfile::tempdir().unwrap();
    let report = small(dir.path());
    let file = |name: &str, change: &dyn Fn(&mut Report)| {
        let mut report = report.clone();
        change(&mut report);
        let path = dir.path().join(name).display().to_string();
        fs::write(&path, serde_json::to_string(&report).unwrap()).unwrap();
        path
    };
    let faster = |factor: f64| {
        move |report: &mut Report| {
            let closed = report.cells.iter_mut().filter(|cell| cell.rate.is_none() && cell.workload == "put");
            for (round, place) in closed.flat_map(|cell| &mut cell.rounds).zip((0..3).cycle()) {
                // Rounds that differ by 2 %.
                (round.requests, round.seconds) = (100_000, (1.0 + 0.01 * f64::from(place)) / factor);
            }
        }
    };
    let (usual, same) = (file("usual", &faster(1.0)), file("same", &faster(1.005)));
    let (slow, few) = (
        file("slow", &faster(0.5)),
        file("few", &|report| {
            faster(0.5)(report);
            report.cells.iter_mut().for_each(|cell| cell.rounds.truncate(2));
        }),
    );
    let cases = [
        (&usual, &same, 0, "0 better, 0 worse, 12 noise"),
        (&usual, &slow, 4, "0 better, 2 worse, 10 noise"),
        (&slow, &usual, 0, "2 better, 0 worse, 10 noise"),
        (&usual, &few, 0, "12 with too few rounds"),
    ];
    for (before, after, code, expected) in cases {
        let output = snet(&["bench", "compare", before, after]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(stdout(&output).contains(expected), "{expected} is missing:\n{}", stdout(&output));
    }
    let other = file("other", &|report| {
        report.value_bytes = 2048;
        report.physics.fdatasync.p50_us *= 2.0;
    });
    let told = stdout(&snet(&["bench", "compare", &usual, &other]));
    assert!(
        told.contains("bytes of a value: 128 before, 2048 now") && told.contains("the machine itself has changed"),
        "{told}"
    );
    let output = snet(&["bench", "compare", &usual, &slow, "--output", "json"]);
    let changes: bench::Changes = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((changes.schema.as_str(), changes.changes.len()), (bench::Changes::SCHEMA, 12));

    let old = dir.path().join("old").display().to_string();
    fs::write(&old, r#"{"schema": "snet-bench/1"}"#).unwrap();
    let output = snet(&["bench", "compare", &old, &usual]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).contains("snet-bench/1"), "{output:?}");
    let output = snet(&["bench", "compare", &usual, "/no/such/file"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[cfg(feature = "etcd")]
#[test]
fn leaders_of_the_embedded_engine_are_killed_and_nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    let output = snet(&[
        "bench",
        "--backends",
        "embedded,embedded-follower,embedded-etcd-api",
        "--nodes",
        "1,3",
        "--ops",
        "put",
        "--clients",
        "4",
        "--iterations",
        "5",
        "--rounds",
        "1",
        "--kills",
        "2",
        "--output",
        "json",
        "--dir",
        &path,
    ]);
    assert!(output.status.success(), "{output:?}");
    let report = Report::parse(&stdout(&output)).unwrap();
    let sizes: Vec<_> = report.cells.iter().map(|cell| (cell.backend.as_str(), cell.nodes)).collect();
    let expected = [
        ("embedded", 1),
        ("embedded", 3),
        ("embedded-follower", 3),
        ("embedded-etcd-api", 1),
        ("embedded-etcd-api", 3),
    ];
    assert_eq!(sizes, expected, "a single node has no follower");
    let killed: Vec<_> = report.failovers.iter().map(|failover| failover.backend.as_str()).collect();
    assert_eq!(killed, ["embedded", "embedded-etcd-api"]);
    for failover in &report.failovers {
        assert!(failover.kills.len() == 2 && failover.kills.iter().all(|seconds| *seconds > 0.0), "{failover:?}");
        let line = &failover.timeline;
        assert!(failover.applied > 0 && line.acknowledged.iter().sum::<u32>() > 0, "{failover:?}");
        assert!(line.acknowledged.contains(&0), "while nobody leads nothing is acknowledged: {failover:?}");
    }
    assert!(bench::html(&report).contains("when the leader is killed"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
}
