//! Secrets stay off command lines, and what holds them or the data is for its owner alone.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use common::{snet, stderr, stdout};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// An address that nobody else has, as far as the system knows.
fn url() -> String {
    format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

/// Killed when it is dropped.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn with(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_snet")).args(arguments).envs(variables.iter().copied()).output().unwrap()
}

fn modes_below(dir: &Path, found: &mut Vec<(String, bool, u32)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::metadata(&path).unwrap();
        found.push((text(&path).to_owned(), metadata.is_dir(), metadata.permissions().mode() & 0o777));
        if metadata.is_dir() {
            modes_below(&path, found);
        }
    }
}

/// A node whose process lets everybody read what it makes, were it not for the modes with which it makes it.
#[test]
fn a_cluster_runs_without_a_secret_on_any_command_line_and_nobody_else_reads_its_data() {
    const TOKEN: &str = "7d6b0e9c0f6a6d4f2a9d3c1e5b7a8f6e";
    let dir = tempfile::tempdir().unwrap();
    let (token, data, file) = (dir.path().join("token"), dir.path().join("data/n1"), dir.path().join("store.url"));
    fs::write(&token, format!("{TOKEN}\n")).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let (client, peer) = (url(), url());
    let initial = format!("n1={peer}");
    let mut node = Command::new("sh");
    node.args(["-c", "umask 0; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_snet"), "storage", "init", "--name", "n1"]);
    node.args(["--token-file", text(&token), "--data-dir", text(&data), "--client-url", &client, "--peer-url", &peer]);
    node.args(["--initial-cluster", &initial, "--log-outputs", "stdout"]).stdout(Stdio::piped());
    let mut node = Node(node.spawn().unwrap());
    let mut log = String::new();
    for line in BufReader::new(node.0.stdout.take().unwrap()).lines().map_while(Result::ok) {
        log += &format!("{line}\n");
        if line.contains("ready: the cluster serves") {
            break;
        }
    }
    assert!(log.contains(&format!("chmod 600 {}", token.display())), "{log}");
    let words = fs::read(format!("/proc/{}/cmdline", node.0.id())).unwrap();
    assert!(!String::from_utf8_lossy(&words).contains(TOKEN) && !log.contains(TOKEN));

    let store = client.replace("http:", "etcd:");
    fs::write(&file, format!("{store}\n")).unwrap();
    let at_file = format!("@{}", file.display());
    assert!(with(&["storage", "put", "a", "1"], &[("SNET_URL", &store)]).status.success());
    for arguments in [
        &["--url-file", text(&file)][..],
        &["--store", &at_file],
        &["--store", "env:SOMEWHERE"],
        // What the command line says counts before the environment.
        &["--endpoints", &client],
    ] {
        let arguments = [&["storage", "get", "a", "--value-only"], arguments].concat();
        let got = with(&arguments, &[("SOMEWHERE", &store), ("SNET_URL", "mem:")]);
        assert_eq!(stdout(&got), "1", "{arguments:?}: {got:?}");
    }
    assert!(with(&["storage", "ping"], &[("SNET_URL", &store)]).status.success());
    let none = snet(&["storage", "get", "a"]);
    assert_eq!(none.status.code(), Some(2), "{none:?}");
    assert!(stderr(&none).contains("SNET_URL"), "{none:?}");

    let saved = dir.path().join("saved");
    assert!(snet(&["storage", "snapshot", "save", text(&saved), "--endpoints", &client]).status.success());
    assert_eq!(fs::metadata(&saved).unwrap().permissions().mode() & 0o777, 0o600);
    let mut found = Vec::new();
    modes_below(&dir.path().join("data"), &mut found);
    assert!(found.iter().filter(|(_, is_dir, _)| !is_dir).count() >= 3, "{found:?}");
    for (path, is_dir, mode) in found {
        assert_eq!(mode, if is_dir { 0o700 } else { 0o600 }, "{path}");
    }
}

#[test]
fn a_node_that_others_reach_is_not_started_with_a_token_that_keeps_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let init = ["storage", "init", "--name", "n1", "--data-dir", text(&data), "--client-url", "http://127.0.0.1:1"];
    let far = ["--peer-url", "http://10.0.0.1:1", "--initial-cluster", "n1=http://10.0.0.1:1"];
    for (more, expected) in [
        (
            &["--token", "unique-token"][..],
            "an example that stands in documents, and others can reach http://10.0.0.1:1",
        ),
        (&["--token", "t", "--engine", "etcd"], "the token has 1 bytes, and 16 are the least"),
        (&["--token-file", "/no/such/file"], "cannot read /no/such/file"),
        (&[], "--token-file FILE"),
    ] {
        let refused = snet(&[&init[..], &far, more].concat());
        assert_eq!(refused.status.code(), Some(2), "{more:?}: {refused:?}");
        assert!(stderr(&refused).contains(expected), "{more:?}: {refused:?}");
    }
    assert!(!data.exists(), "nothing was made");

    let file = dir.path().join("cluster.toml");
    let row = "[[replicas]]\nid = 1\nstart_node = true\nnode_name = \"n1\"\nclient_url = \"http://10.0.0.1:1\"\npeer_url = \"http://10.0.0.1:2\"\n";
    fs::write(&file, format!("token = \"unique-token\"\n{row}")).unwrap();
    let checked = snet(&["storage", "config", "check", text(&file)]);
    assert_eq!(checked.status.code(), Some(2), "{checked:?}");
    assert!(stderr(&checked).contains("an example that stands in documents"), "{checked:?}");
}
