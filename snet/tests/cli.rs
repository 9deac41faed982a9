//! The program as people call it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{json, snet, stderr, stdout};

#[test]
fn the_help_has_examples_and_exit_codes() {
    for (arguments, expected) in [
        (&["--help"][..], "Exit codes:"),
        (&["bench", "--help"], "snet bench --seconds 5"),
        (&["bench", "compare", "--help"], "Exit codes: 0 nothing is worse"),
        (&["storage", "ping", "--help"], "snet storage ping embedded:/var/lib/channels"),
        (&["storage", "check", "--help"], "snet storage check mem:"),
    ] {
        let output = snet(arguments);
        assert!(output.status.success() && stdout(&output).contains(expected), "{arguments:?}: {output:?}");
    }
}

#[test]
fn a_wrong_command_line_ends_with_2_and_says_what_to_do() {
    let cases: [(&[&str], &str); 14] = [
        (&["bench", "--nodez", "1"], "--nodes"),
        (&["bench", "--nodes", "many"], "invalid value 'many'"),
        (&["bench", "--backends", "postgres"], "no backend `postgres` in this build, only mem"),
        (&["bench", "--backends", "mem", "--nodes", "3"], "1 to 1 nodes here, not 3"),
        (&["bench", "--backends", "mem", "--nodes", "1", "--ops", "puts"], "no operation `puts`, only put, get, cas"),
        (&["bench", "--backends", "mem", "--nodes", "1", "--clients", "0"], "at least one client"),
        (&["bench", "--backends", "mem", "--nodes", "1", "--value-bytes", "7"], "at least 8 bytes"),
        (&["bench", "--backends", "mem", "--nodes", "1", "--rounds", "0"], "nothing to do"),
        (&["bench", "--backends", "mem", "--client-threads", "0"], "at least one thread"),
        (&["bench", "--seconds", "0"], "above 0"),
        (&["bench", "--seconds", "1", "--iterations", "5"], "cannot be used with"),
        (&["bench", "--preload", "5", "--ops", "put"], "cannot be used with"),
        (&["storage", "ping", "meme:"], "did you mean `mem`?"),
        (&["storage", "check", "nosuch://host"], "known schemes: mem"),
    ];
    for (arguments, expected) in cases {
        let output = snet(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
        assert!(stdout(&output).is_empty(), "{arguments:?}: {}", stdout(&output));
    }
}

#[test]
fn a_directory_that_is_not_there_ends_with_3() {
    let output = snet(&["bench", "--backends", "mem", "--nodes", "1", "--dir", "/no/such/directory"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(stderr(&output).contains("/no/such/directory"), "{}", stderr(&output));
}

#[test]
fn the_table_has_a_line_for_each_operation() {
    let directory = tempfile::tempdir().unwrap();
    let output = snet(&[
        "bench",
        "--backends",
        "mem",
        "--nodes",
        "1",
        "--ops",
        "put,get,cas,hot-cas,txn,payment",
        "--iterations",
        "20",
        "--rounds",
        "2",
        "--dir",
        directory.path().to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{output:?}");
    let text = stdout(&output);
    for expected in [
        "20 iterations of each client",
        "fdatasync",
        concat!("mem ", env!("CARGO_PKG_VERSION"), " (not durable)"),
        "## put, 10 clients",
        "## get, 10 clients",
        "## cas, 10 clients",
        "## hot-cas, 10 clients",
        "## txn, 10 clients",
        "## payment, 10 clients",
        "p50 / p99",
    ] {
        assert!(text.contains(expected), "{expected} is missing:\n{text}");
    }
    assert!(stderr(&output).is_empty(), "no progress bar where there is no terminal: {}", stderr(&output));
}

#[test]
fn the_json_follows_its_schema() {
    let directory = tempfile::tempdir().unwrap();
    let output = snet(&[
        "bench",
        "--backends",
        "mem",
        "--nodes",
        "1",
        "--ops",
        "put,cas",
        "--seconds",
        "0.05",
        "--rounds",
        "2",
        "--output",
        "json",
        "--dir",
        directory.path().to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{output:?}");
    let report: bench::Report = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report.schema, bench::Report::SCHEMA);
    assert_eq!((report.iterations, report.seconds), (None, Some(0.05)));
    let cells: Vec<_> =
        report.cells.iter().map(|cell| (cell.workload.as_str(), cell.nodes, cell.rounds.len())).collect();
    assert_eq!(cells, [("put", 1, 2), ("cas", 1, 2)]);
    let cell = &report.cells[1];
    assert!(cell.requests_per_second.min > 0.0 && cell.latency.p99_us >= cell.latency.p50_us, "{cell:?}");
    assert!(cell.rounds.iter().all(|round| round.requests == 2 * round.applied), "{cell:?}");
    assert_eq!((cell.limit, report.backends[0].durable), (None, false), "a store in memory has no physical limit");
}

#[test]
fn a_ping_names_the_backend() {
    let output = snet(&["storage", "ping", "mem:"]);
    assert!(output.status.success() && stdout(&output).starts_with("memory "), "{output:?}");
    let answer = json(&["storage", "ping", "mem:"]);
    assert!(answer["backend"] == "memory" && answer["millis"].is_number(), "{answer}");
}

#[test]
fn a_right_store_passes_the_check() {
    let output = snet(&["storage", "check", "mem:a-store-to-check", "--only", "cas"]);
    let text = stdout(&output);
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("cas::succeeds") && text.contains("passed") && text.contains("0 failed"), "{text}");
    assert!(!text.contains("basics::"), "{text}");

    let report = json(&["storage", "check", "mem:a-store-to-check", "--only", "cas::succeeds"]);
    assert_eq!((&report["failed"], &report["cases"][0]["verdict"]), (&0.into(), &"passed".into()), "{report}");
}

#[test]
fn a_check_of_nothing_is_refused() {
    let output = snet(&["storage", "check", "mem:x", "--only", "no-such-case"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).contains("no case"), "{output:?}");
}

#[cfg(feature = "embedded")]
#[test]
fn the_embedded_engine_is_measured_and_checked_with_nothing_installed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let common = ["bench", "--iterations", "5", "--rounds", "1", "--output", "json", "--dir", path];

    let output = snet(&[&common[..], &["--nodes", "1,3"]].concat());
    assert!(output.status.success(), "{output:?}");
    let report: bench::Report = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report.cells.len(), 4, "put and cas on two sizes: {report:?}");
    assert!(report.cells.iter().all(|cell| cell.limit.is_some() && cell.resources.is_some()), "{report:?}");
    assert!(
        report.backends.iter().all(|backend| backend.durable && backend.version == env!("CARGO_PKG_VERSION")),
        "{report:?}"
    );

    let output = snet(&[&common[..], &["--preload", "500"]].concat());
    assert!(output.status.success(), "{output:?}");
    let report: bench::PreloadReport = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((report.schema.as_str(), report.channels), (bench::PreloadReport::SCHEMA, 500));
    assert_eq!(std::fs::read_dir(path).unwrap().count(), 0, "nothing is left");

    let output = snet(&["storage", "check", &format!("embedded:{path}/node"), "--only", "basics"]);
    assert!(output.status.success() && stdout(&output).contains("0 failed"), "{output:?}");
}
