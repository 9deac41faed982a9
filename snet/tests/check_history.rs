//! `snet check-history` as people call it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

const SOUND: &str = r#"{"format":"storage-history","version":1}
{"process":0,"start":0,"end":1,"key":"a","action":"put","value":"1","outcome":"ok","version":"1"}
{"process":1,"start":2,"end":3,"key":"a","action":"read","outcome":"ok","seen":{"value":"1","version":"1"}}
{"process":1,"start":4,"end":5,"key":"<b>","action":"read","outcome":"ok","seen":null}
"#;
/// A read after the read of `1` that sees nothing.
const STALE: &str = r#"{"process":2,"start":6,"end":7,"key":"a","action":"read","outcome":"ok","seen":null}"#;

fn check(input: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snet"));
    command.args(["check-history", "-"]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_sound_history_ends_with_0() {
    let output = check(SOUND, &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).starts_with("linearizable: 3 operations on 2 keys"), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_violation_ends_with_1_and_is_told_and_drawn() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    let output = check(&format!("{SOUND}{STALE}"), &["--html", page.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = text(&output.stdout);
    assert!(told.contains("no order explains these 2 of 3 operations") && told.contains("read -> absent"), "{told}");
    assert!(text(&output.stderr).contains("error: 1 of 2 keys are not linearizable"), "{output:?}");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.matches("<rect").count() == 2, "{page}");
    assert!(!page.contains("http") && !page.contains("<script"), "the page needs nothing else: {page}");
}

#[test]
fn the_json_names_the_operations() {
    let output = check(&format!("{SOUND}{STALE}"), &["--output", "json"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&answer["verdict"], &answer["operations"]), (&"not linearizable".into(), &4.into()));
    let violation = &answer["violations"][0];
    assert_eq!((&violation["key"], &violation["of"]), (&"a".into(), &3.into()));
    let stale: serde_json::Value = serde_json::from_str(STALE).unwrap();
    assert_eq!((&violation["operations"][1]["number"], &violation["operations"][1]["operation"]), (&3.into(), &stale));
}

#[test]
fn what_is_no_history_ends_with_2_and_names_the_line() {
    let output = check(&format!("{SOUND}oops\n"), &[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("standard input: line 5: expected value"), "{output:?}");
    assert_eq!(check("", &[]).status.code(), Some(2));
}

#[test]
fn what_cannot_be_opened_or_decided_ends_with_3() {
    let arguments = ["check-history", "/no/such/file"];
    let output = Command::new(env!("CARGO_BIN_EXE_snet")).args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(!Path::new("/no/such/file").exists() && text(&output.stderr).contains("/no/such/file"), "{output:?}");

    let put =
        |n| format!(r#"{{"process":{n},"start":0,"end":9,"key":"a","action":"put","value":"{n}","outcome":"ok"}}"#);
    let reads: Vec<String> = (0..9)
        .map(|n| {
            format!(
                r#"{{"process":0,"start":1,"end":8,"key":"a","action":"read","outcome":"ok","seen":{{"value":"{n}"}}}}"#
            )
        })
        .collect();
    let puts: Vec<String> = (0..9).map(put).collect();
    let hard = format!("{}\n{}\n{}", SOUND.lines().next().unwrap(), puts.join("\n"), reads.join("\n"));
    assert_eq!(check(&hard, &[]).status.code(), Some(0));
    let output = check(&hard, &["--max-configurations", "3"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(text(&output.stderr).contains("1 of 1 keys could not be decided"), "{output:?}");
}
