//! `snet` as a process, and what it says.

#![allow(dead_code, reason = "each test program takes what it needs")]

pub(crate) mod etcdctl;

use std::process::{Command, Output};

use serde_json::Value;

pub(crate) fn snet(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_snet")).args(arguments).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What a command printed, if it ended well.
#[track_caller]
pub(crate) fn told(arguments: &[&str]) -> String {
    let output = snet(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    stdout(&output)
}

/// What a command printed as JSON, if it ended well.
#[track_caller]
pub(crate) fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&told(&[arguments, &["--output", "json"]].concat())).unwrap()
}
