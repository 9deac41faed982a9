//! `snet storage ...` on stores that need no server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
};

use common::{json, snet, stderr, stdout, told};
use serde_json::Value;

#[test]
fn keys_are_written_read_swapped_listed_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("embedded:{}/node", directory.path().display());
    let on = ["--store", url.as_str()];
    let with = |arguments: &[&'static str]| [arguments, &on[..]].concat();

    let absent = snet(&with(&["storage", "get", "channel/7"]));
    assert_eq!(absent.status.code(), Some(4), "{absent:?}");
    assert!(stderr(&absent).contains("channel/7 is absent"), "{absent:?}");

    let written = json(&with(&["storage", "put", "channel/7", "open"]));
    let version = written["version"].as_str().unwrap().to_owned();
    let read = json(&with(&["storage", "get", "channel/7"]));
    assert_eq!(
        (&read["key"], &read["value"], &read["version"]),
        (&"channel/7".into(), &"open".into(), &version.clone().into())
    );
    let shown = told(&with(&["storage", "get", "channel/7"]));
    assert_eq!(
        shown.lines().map(|line| line.split_whitespace().last().unwrap()).collect::<Vec<_>>(),
        ["channel/7", &version, "open"]
    );

    let swap = [&["storage", "cas", "channel/7", "claimed", "--version", &version][..], &on].concat();
    told(&swap);
    let conflict = snet(&swap);
    assert_eq!(conflict.status.code(), Some(4), "{conflict:?}");
    assert!(stderr(&conflict).contains("nothing was written: channel/7 has version"), "{conflict:?}");
    told(&with(&["storage", "cas", "channel/8", "open", "--absent"]));
    assert_eq!(snet(&with(&["storage", "cas", "channel/8", "x", "--absent"])).status.code(), Some(4));
    told(&with(&["storage", "cas", "channel/8", "claimed", "--value", "open"]));

    let mut put = Command::new(env!("CARGO_BIN_EXE_snet"))
        .args(with(&["storage", "put", "binary", "-"]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    put.stdin.take().unwrap().write_all(&[0, 255, 10]).unwrap();
    assert!(put.wait().unwrap().success());
    assert_eq!(json(&with(&["storage", "get", "binary"]))["value_hex"], "00ff0a");
    assert_eq!(snet(&with(&["storage", "get", "binary", "--value-only"])).stdout, [0, 255, 10]);

    let all = json(&with(&["storage", "scan"]));
    let keys: Vec<_> = all["entries"].as_array().unwrap().iter().map(|entry| entry["key"].as_str().unwrap()).collect();
    assert_eq!((keys, &all["more"]), (vec!["binary", "channel/7", "channel/8"], &Value::Bool(false)));
    let some = json(&with(&["storage", "scan", "channel/", "--limit", "1"]));
    assert_eq!((some["entries"].as_array().unwrap().len(), &some["more"]), (1, &Value::Bool(true)));

    assert_eq!(snet(&with(&["storage", "delete", "channel/7", "--version", "1"])).status.code(), Some(4));
    told(&with(&["storage", "delete", "channel/7"]));
    assert_eq!(snet(&with(&["storage", "get", "channel/7"])).status.code(), Some(4));
}

#[test]
fn a_wrong_command_line_says_what_to_do() {
    let cases: [(&[&str], &str); 14] = [
        (&["storage", "get", "k"], "--store URL, --url-file FILE, --endpoints URLS, or the variable SNET_URL"),
        (&["storage", "get", "k", "--store", "mem:", "--endpoints", "http://a:1"], "cannot be used with"),
        (&["storage", "get", "k", "--endpoints", "a:1"], "http://HOST:PORT"),
        (&["storage", "get", "", "--store", "mem:"], "at least one byte"),
        (&["storage", "cas", "k", "v", "--store", "mem:"], "--version <VERSION>|--value <VALUE>|--absent"),
        (&["storage", "cas", "k", "v", "--version", "xyz", "--store", "mem:"], "hexadecimal"),
        (&["storage", "put", "k", "v", "--store", "mem:", "--replica", "1"], "cannot be used with"),
        (&["storage", "statuz"], "a similar subcommand exists: 'status'"),
        (&["storage", "init", "--name", "n1"], "--initial-cluster <NODES>"),
        (&["storage", "init", "--nam", "n1"], "a similar argument exists: '--name'"),
        (&["storage", "member", "remove", "n1", "--endpoints", "http://a:1"], "hexadecimal digits"),
        (&["storage", "check"], "the variable SNET_URL"),
        (&["storage", "ping", "mem:", "--endpoints", "http://a:1"], "cannot be used with"),
        (&["storage", "copy", "--from", "meme:", "--to", "mem:"], "did you mean `mem`?"),
    ];
    for (arguments, expected) in cases {
        let output = snet(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_configuration_is_checked_without_starting_anything() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cluster.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "tokn = 't'\n[[replicas]]\nid = 1\nstart_node = 'maybe'\n").unwrap();
    let wrong = snet(&["storage", "config", "check", path]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    let text = stderr(&wrong);
    for expected in
        ["line 1: there is no key `tokn`, did you mean `token`?", "line 1: there is no `token`", "line 4: `start_node`"]
    {
        assert!(text.contains(expected), "{expected} is missing: {text}");
    }
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cluster.example.toml");
    let right = told(&["storage", "config", "check", example]);
    assert!(right.contains("replica 4  node n3") && right.contains("replica 5  no node"), "{right}");
    let rows = json(&["storage", "config", "check", example]);
    assert_eq!((&rows["replicas"][3]["node"]["name"], &rows["replicas"][4]["node"]), (&"n3".into(), &Value::Null));
    let serve = snet(&["storage", "serve", "--config", example, "--replica", "9"]);
    assert_eq!(serve.status.code(), Some(2), "{serve:?}");
    assert!(stderr(&serve).contains("no replica 9 in the table, only 1, 2, 3, 4, 5"), "{serve:?}");
    let missing = snet(&["storage", "config", "check", "/no/such/file.toml"]);
    assert_eq!(missing.status.code(), Some(3), "{missing:?}");
}

#[test]
fn nodes_that_do_not_answer_are_told() {
    let status = snet(&["storage", "status", "--endpoints", "http://127.0.0.1:1", "--seconds", "2"]);
    assert_eq!(status.status.code(), Some(3), "{status:?}");
    assert!(stdout(&status).contains("does not answer"), "{status:?}");
    let list = snet(&["storage", "member", "list", "--endpoints", "http://127.0.0.1:1", "--seconds", "2"]);
    assert_eq!(list.status.code(), Some(3), "{list:?}");
}

#[test]
fn shells_and_man_are_told_of_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(told(&["completions", shell]).contains("initial-cluster"), "{shell}");
    }
    assert!(told(&["man"]).contains(".TH"));
    let directory = tempfile::tempdir().unwrap();
    told(&["man", "--dir", directory.path().to_str().unwrap()]);
    let page = std::fs::read_to_string(directory.path().join("snet-storage-init.1")).unwrap();
    assert!(page.contains("initial\\-cluster"), "{page}");
}

#[test]
fn every_command_has_examples() {
    for command in [
        "init",
        "serve",
        "config check",
        "get",
        "put",
        "cas",
        "delete",
        "scan",
        "watch",
        "copy",
        "status",
        "member list",
        "member add",
        "member promote",
        "member remove",
        "snapshot save",
        "snapshot status",
        "ping",
        "check",
    ] {
        let words: Vec<_> = ["storage"].into_iter().chain(command.split(' ')).chain(["--help"]).collect();
        let help = told(&words);
        assert!(help.contains("Examples:") && help.contains(&format!("snet storage {command}")), "{help}");
    }
}

/// A process that is killed if the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cluster of one serves at once, and ends in good order when it is told to.
#[cfg(unix)]
#[test]
fn a_node_alone_serves_and_stops_at_sigterm_and_sigint() {
    let directory = tempfile::tempdir().unwrap();
    let mut ports = storage_testkit::server::Reservation::default();
    let (client, peer) = (ports.port().unwrap(), ports.port().unwrap());
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    for signal in ["-TERM", "-INT"] {
        let child = Command::new(env!("CARGO_BIN_EXE_snet"))
            .args(["storage", "init", "--name", "n1", "--token", "t", "--client-url", &client, "--peer-url", &peer])
            .args(["--initial-cluster", &format!("n1={peer}")])
            .current_dir(directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut running = Running(child);
        let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines().map(Result::unwrap);
        let place = lines.next().unwrap();
        assert!(place.contains(&client) && place.contains(&peer) && place.contains("n1.storage"), "{place}");
        lines.find(|line| line == "ready: the cluster serves").unwrap();
        let status = json(&["storage", "status", "--endpoints", &client]);
        assert_eq!(status["nodes"][0]["role"], "leader", "{status}");
        assert!(Command::new("kill").args([signal, &running.0.id().to_string()]).status().unwrap().success());
        assert_eq!(lines.collect::<Vec<_>>(), ["stopping", "stopped"]);
        assert!(running.0.wait().unwrap().success());
    }
}

/// As in `snet ... | head -1`, whose reader closes the pipe when it has seen enough.
#[test]
fn nothing_is_said_when_the_reader_of_the_output_has_gone() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_snet"));
    let child = command.args(["completions", "bash"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let ended = child.wait_with_output().unwrap();
    // As of a program that SIGPIPE has ended.
    assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(141), &b""[..]));
}

#[test]
fn a_value_that_is_too_large_is_a_mistake_of_the_command_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("value");
    std::fs::write(&file, vec![b'x'; (1 << 20) + 1]).unwrap();
    let url = format!("embedded:{}/node", directory.path().display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_snet"));
    let put = command.args(["storage", "put", "k", "-", "--store", &url]).stdin(std::fs::File::open(&file).unwrap());
    let refused = put.output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}
