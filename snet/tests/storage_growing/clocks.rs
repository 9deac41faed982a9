//! No wall clock decides anything, and no monotonic clock is compared with that of another machine.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::Value;
use storage_testkit::{programs, server::Launch};

use super::{
    growing::{DEAD_AFTER, Replicas, Setting, changes, replica, roles},
    stays, three_started,
};

/// Whether processes can be given monotonic clocks of their own.
fn has_clock_namespaces() -> bool {
    Command::new("unshare").args(["--time", "--monotonic", "1", "true"]).status().is_ok_and(|status| status.success())
}

/// The wall clock of a replica is so many seconds off from now on.
fn shift(place: &Path, replica: usize, seconds: i64) {
    let aside = place.join(format!("r{replica}.new"));
    fs::write(&aside, format!("{seconds:+}")).unwrap();
    fs::rename(aside, place.join(format!("r{replica}"))).unwrap();
}

/// How far the wall clock of a replica was from ours when it wrote the first line of its log, in minutes.
fn off_at_start(log: &str, began: SystemTime) -> i64 {
    let stamp =
        log.lines().find_map(|line| line.split_whitespace().find(|word| word.contains('T') && word.ends_with('Z')));
    let stamp = stamp.unwrap_or_else(|| panic!("no time in {log}"));
    let number = |range: std::ops::Range<usize>| stamp[range].parse::<i64>().unwrap();
    let minutes = number(11..13) * 60 + number(14..16);
    let ours = i64::try_from(began.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 60 % 1440).unwrap();
    (minutes - ours + 720).rem_euclid(1440) - 720
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: cargo test -p snet --features etcd --test storage_growing -- --ignored --test-threads 1 --nocapture"]
async fn clocks_that_jump_by_an_hour_change_nothing() {
    const HOUR: i64 = 3600;
    let library = programs::variable("LIBFAKETIME", "faketime").unwrap();
    let place = tempfile::tempdir().unwrap();
    for (replica, off) in [(1, HOUR), (2, -HOUR), (3, 0)] {
        shift(place.path(), replica, off);
    }
    let has_namespaces = has_clock_namespaces();
    println!("monotonic clocks that differ: {has_namespaces}");
    let clocks = place.path().to_path_buf();
    let start = move |replica: usize| {
        let program = env!("CARGO_BIN_EXE_snet");
        // Each machine counts from its own start: one since a day, one since a year.
        let since = (replica * replica * 40 * 86_400).to_string();
        let launch = match has_namespaces {
            true => Launch::new("unshare").args(["--time", "--monotonic", &since, "--boottime", &since, program]),
            false => Launch::new(program),
        };
        launch
            .env("LD_PRELOAD", &*library)
            .env("FAKETIME_TIMESTAMP_FILE", clocks.join(format!("r{replica}")).display().to_string())
            .env("FAKETIME_CACHE_DURATION", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1")
    };
    #[expect(clippy::disallowed_methods, reason = "the clock of the replicas is compared with it")]
    let began = SystemTime::now();
    let mut replicas = three_started(Replicas::with(3, Setting { start: Arc::new(start), ..Setting::default() }));
    for (replica, off) in [(1, 60), (2, -60), (3, 0)] {
        let found = off_at_start(&replicas.log(replica), began);
        assert!((found - off).abs() <= 5, "replica {replica} is {found} minutes off: its clock was not shifted");
    }
    let before = replicas.show().unwrap();
    let etcdctl = programs::find("etcdctl").unwrap();
    let url = format!("http://{}", replicas.cluster.node(0).unwrap().client_url());
    let ask = |arguments: &[&str]| {
        let output = Command::new(&etcdctl).args(["--endpoints", &url]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let lease = ask(&["lease", "grant", "600"]).split_whitespace().nth(1).unwrap().to_owned();
    ask(&["put", "leased", "1", "--lease", &lease]);
    let report = replicas
        .under_load(async |replicas, _| {
            // Those that were ahead fall behind, and the other way round; then all jump together, and back.
            for offs in [[-HOUR, HOUR, HOUR], [HOUR, HOUR, HOUR], [-HOUR, -HOUR, -HOUR], [0, 0, 0]] {
                for (replica, off) in (1..).zip(offs) {
                    shift(place.path(), replica, off);
                }
                stays("everybody lives, and nothing is changed", DEAD_AFTER + Duration::from_secs(1), || {
                    replicas.show().is_none_or(|shown| {
                        let lives = |id| replica(&shown, id)["state"] == "live";
                        changes(&shown) == changes(&before) && roles(&shown, "voter") == [1, 2, 3] && (1..=3).all(lives)
                    })
                });
            }
        })
        .await;
    assert_eq!((report.failed, report.unknown), (0, 0), "{report}");
    let shown = replicas.show().unwrap();
    assert_eq!((&shown["term"], &shown["lost_voters"]), (&before["term"], &Value::Array(Vec::new())), "no election");
    assert!(ask(&["get", "leased"]).contains("leased"), "a lease lives its time, and no hour of it is skipped");
    let left = ask(&["lease", "timetolive", &lease]);
    assert!(left.contains("granted with TTL(600s)"), "{left}");
}
