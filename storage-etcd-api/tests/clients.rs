//! What clients of etcd in other languages make of three embedded nodes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use common::{ApiCluster, etcd};
use storage_testkit::programs;
use tokio::{process::Command, time::timeout};

const DEADLINE: Duration = Duration::from_secs(60);

/// For the program in Go, whose parts have deadlines of their own.
const ALL_PARTS_WITHIN: Duration = Duration::from_secs(300);

const PARTS: [&str; 6] = ["puts_and_gets", "prefix_ranges", "transactions", "watches", "leases", "locks"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python() {
    if !has("python3", &["-c", "import ensurepip, venv"]).await {
        return skip("clients::python", "python3 with venv is not on this machine");
    }
    let python = programs::variable("ETCD3_PYTHON", "clients").unwrap_or_else(|error| panic!("{error}"));
    let mut client = Command::new(python);
    // The client's generated code is from before protobuf's faster implementation wanted something newer.
    client.env("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python").arg(script("python/client.py"));
    let parts: Vec<_> = PARTS.into_iter().chain(["cluster"]).collect();
    run("clients::python", client, &parts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node() {
    if !has("node", &["--version"]).await || !has("npm", &["--version"]).await {
        return skip("clients::node", "node with npm is not on this machine");
    }
    let modules = programs::variable("ETCD3_NODE_MODULES", "clients").unwrap_or_else(|error| panic!("{error}"));
    let mut client = Command::new("node");
    client.env("NODE_PATH", modules).arg(script("node/client.js"));
    let parts: Vec<_> = PARTS.into_iter().chain(["elections", "cluster"]).collect();
    run("clients::node", client, &parts).await;
}

/// Etcd's own client, with its recipes: the same program is told the same by a real etcd.
/// The modules are some megabytes: where they take longer, they cannot be had.
const FETCHED_WITHIN: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go() {
    if !has("go", &["version"]).await {
        return skip("clients::go", "go is not on this machine");
    }
    let dir = tempfile::tempdir().unwrap();
    let folder = script("go");
    let go = |arguments: &[&str]| {
        let mut go = Command::new("go");
        go.current_dir(&folder).env("GOFLAGS", "-mod=readonly").args(arguments).kill_on_drop(true);
        go
    };
    let fetched = timeout(FETCHED_WITHIN, go(&["mod", "download"]).output()).await;
    if !fetched.is_ok_and(|fetched| fetched.unwrap().status.success()) {
        return skip("clients::go", "the modules of go.mod cannot be fetched");
    }
    let client = dir.path().join("client");
    let built = go(&["build", "-o", client.to_str().unwrap(), "."]).output().await.unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let began = Instant::now();
    let cluster = ApiCluster::start_calm(dir.path(), 3).await;
    let (_etcd, real) = etcd::start().await;
    let told = async |endpoints: &[String]| {
        let mut client = Command::new(&client);
        let ended = timeout(ALL_PARTS_WITHIN, client.args(endpoints).kill_on_drop(true).output());
        let output = ended.await.expect("it ends").unwrap();
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{endpoints:?} after {out}: {err}");
        out
    };
    let expected = told(&[real]).await;
    assert!(expected.lines().count() >= 19, "{expected}");
    // At one node, at another, and at all, each in the place of the leader once.
    let endpoints = cluster.endpoints();
    for first in 0..endpoints.len() {
        let mut turned = endpoints.clone();
        turned.rotate_left(first);
        assert_eq!(told(&turned).await, expected, "{first}");
    }
    report("clients::go", "passed", "", began.elapsed());
}

async fn run(case: &str, mut client: Command, parts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start_calm(dir.path(), 3).await;
    // To files, so that a client that hangs shows how far it came.
    let (out, err) = (dir.path().join("out"), dir.path().join("err"));
    client.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
    let began = Instant::now();
    let mut child = client.args(cluster.endpoints()).kill_on_drop(true).spawn().unwrap();
    let ended = timeout(DEADLINE, child.wait()).await;
    let (out, err) = (fs::read_to_string(out).unwrap(), fs::read_to_string(err).unwrap());
    assert!(matches!(&ended, Ok(Ok(status)) if status.success()), "{ended:?} after {out:?}: {err}");
    assert_eq!(out.lines().collect::<Vec<_>>(), parts);
    report(case, "passed", "", began.elapsed());
}

async fn has(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().await.is_ok_and(|output| output.status.success())
}

fn script(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name);
    path.to_str().unwrap().to_owned()
}

/// Says that a test did not take place, where the conformance suite says so of its cases.
fn skip(case: &str, reason: &str) {
    // Not by a macro: tests that pass have their prints captured, and a skipped one has to be seen.
    let _ = writeln!(std::io::stderr(), "SKIPPED {case}: {reason}");
    report(case, "skipped", reason, Duration::ZERO);
}

/// One line of the report that `cargo xtask test` shows; names and reasons have nothing to escape.
fn report(case: &str, verdict: &str, reason: &str, elapsed: Duration) {
    let Some(path) = env::var_os("STORAGE_CONFORMANCE_REPORT") else { return };
    let line = format!(
        "{{\"backend\":\"etcd API\",\"nodes\":3,\"case\":\"{case}\",\"verdict\":\"{verdict}\",\"reason\":\"{reason}\",\"millis\":{}}}\n",
        elapsed.as_millis()
    );
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(line.as_bytes()).unwrap();
}
