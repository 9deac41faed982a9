//! The whole demonstration, on a real EVM with the real contract, where that can be had.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::{Write, stderr},
    process::Command,
};

use storage_testkit::programs;

#[test]
fn the_balance_sheet_closes_after_kills_and_double_spends() {
    let modules = match programs::variable("ANVIL_NODE_MODULES", "anvil") {
        Ok(modules) => modules,
        Err(error) => {
            // Not by a macro: tests that pass have their prints captured, and a skipped one has to be seen.
            let _ = writeln!(stderr(), "SKIPPED paid-service::demo: {error}");
            return;
        }
    };
    let mut demo = Command::new(env!("CARGO_BIN_EXE_paid-service"));
    demo.args(["demo", "--calls", "1000", "--kills", "3", "--double-spends", "50", "--modules", &modules]);
    let ended = demo.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{}\n{out}\n{err}", ended.status);
    assert!(out.contains("0 accepted"), "{out}");
}
