//! `snet channel ...` as people call it.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use common::{json, snet, stderr, stdout, told};
use payment_channels::{
    AfterClaim, Authorization, ChainChannel, MemoryChain, Operation, Options, Payments, PrepaidUsage, Signer, Terms,
    UsageChange,
};
use serde_json::Value;
use storage::{
    Key, Store, StoreExt,
    channel::{Address, Amount, BlockNumber, ChannelId, GroupId, Nonce},
};

/// A service that has claimed 10 from channel 7 and died with a payment of 30 in flight, 20 being authorized.
#[tokio::main]
async fn service(directory: &Path) -> String {
    let url = format!("embedded:{}", directory.join("node").display());
    let store = storage::open(&url).await.unwrap();
    let signer = Signer::new(&[7; 32]).unwrap();
    let (contract, recipient, group_id) = (Address::new([1; 20]), Address::new([2; 20]), GroupId::new([3; 32]));
    let terms = Terms { contract, recipient, group_id, expiration_threshold: 100 };
    let chain = MemoryChain::new();
    let channel_id = ChannelId::from(7);
    chain.open(ChainChannel {
        channel_id,
        nonce: Nonce::ZERO,
        sender: signer.address(),
        signer: signer.address(),
        recipient,
        group_id,
        full_amount: Amount::from(1000),
        expiration: BlockNumber::from(5000),
    });
    let payments = Payments::new(Arc::clone(&store), chain, terms, Options::new("replica 3")).unwrap();
    let pay = async |nonce: u64, amount: u64| {
        let (nonce, amount) = (Nonce::from(nonce), Amount::from(amount));
        let payment = signer.sign(Authorization { contract, channel_id, nonce, amount }).unwrap();
        payments.reserve(&payment, Amount::from(10)).await.unwrap()
    };
    payments.commit(&pay(0, 10).await).await.unwrap();
    payments.start_claim(channel_id, AfterClaim::Continue).await.unwrap();
    payments.commit(&pay(1, 20).await).await.unwrap();
    let usage = PrepaidUsage::new(Arc::clone(&store));
    usage.change(channel_id, &mut Operation::random(), UsageChange::Plan(Amount::from(5))).await.unwrap();
    drop(pay(1, 30).await);
    store.close().await.unwrap();
    url
}

#[test]
fn an_operator_finds_a_channel_sees_who_holds_it_and_takes_it() {
    let directory = tempfile::tempdir().unwrap();
    let url = &service(directory.path());

    let list = told(&["channel", "list", url]);
    assert!(list.contains("authorized") && list.lines().count() == 2, "{list}");
    let listed = json(&["channel", "list", url]);
    assert_eq!(listed["channels"][0]["id"], "7");
    assert_eq!(listed["channels"][0]["authorized_amount"], "20");
    assert!(!listed.to_string().contains("signature"), "whoever has it can claim: {listed}");

    let shown = told(&["channel", "show", url, "7"]);
    for expected in
        ["20 of 990 (signed)", "replica 3, for a payment of 30 at nonce 1", "5 planned", "10 at nonce 0, then"]
    {
        assert!(shown.contains(expected), "{expected} is missing: {shown}");
    }
    let shown = json(&["channel", "show", url, "0x7"]);
    assert_eq!((&shown["turn"]["token"], &shown["turn"]["held_by"]["amount"]), (&Value::from(3), &Value::from("30")));

    assert!(told(&["channel", "claims", url]).contains("goes on"));
    assert_eq!(json(&["channel", "claims", url])["claims"][0]["amount"], "10");

    // Without --yes nothing changes, and people are told what it would break.
    let asked = snet(&["channel", "unlock", url, "7"]);
    assert_eq!(asked.status.code(), Some(2), "{asked:?}");
    assert!(stderr(&asked).contains("held by replica 3") && stderr(&asked).contains("--yes"), "{asked:?}");
    assert_eq!(json(&["channel", "show", url, "7"])["turn"]["token"], 3);

    let unlocked = json(&["channel", "unlock", url, "7", "--yes"]);
    assert_eq!((&unlocked["after"]["token"], &unlocked["after"]["held_by"]), (&Value::from(4), &Value::Null));
    assert!(told(&["channel", "unlock", url, "7"]).contains("free already"));

    let missing = snet(&["channel", "show", url, "8"]);
    assert_eq!(missing.status.code(), Some(3), "{missing:?}");
    assert!(stderr(&missing).contains("snet channel list"), "{missing:?}");
}

#[test]
fn records_that_cannot_be_read_are_named_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let url = &service(directory.path());
    #[tokio::main]
    async fn spoil(url: &str, value: &'static str) {
        let store = storage::open(url).await.unwrap();
        store.put(&Key::new(format!("channel/{:064x}", 7)).unwrap(), value).await.unwrap();
        store.close().await.unwrap();
    }
    for (value, expected) in [("CHAN\0\u{2}", "update this program"), ("{}", "is not what was written")] {
        spoil(url, value);
        for command in
            [&["channel", "list", url][..], &["channel", "show", url, "7"], &["channel", "unlock", url, "7", "--yes"]]
        {
            let output = snet(command);
            assert_eq!(output.status.code(), Some(1), "{command:?}: {output:?}");
            assert!(stderr(&output).contains(expected), "{command:?}: {output:?}");
        }
    }
}

#[test]
fn an_empty_store_has_no_channels_and_no_claims() {
    assert!(told(&["channel", "list", "mem:"]).contains("no channels"));
    assert!(told(&["channel", "claims", "mem:"]).contains("no claims"));
    assert_eq!(json(&["channel", "list", "mem:"])["channels"], Value::Array(Vec::new()));
}

#[test]
fn the_help_has_examples_and_mistakes_are_told() {
    for command in ["list", "show", "unlock", "claims", "simulate"] {
        let help = told(&["channel", command, "--help"]);
        assert!(help.contains("Examples:") && help.contains(&format!("snet channel {command}")), "{help}");
    }
    let cases: [(&[&str], &str); 6] = [
        (&["channel", "show", "mem:", "seven"], "a number is decimal, or 0x"),
        (&["channel", "list", "meme:"], "did you mean `mem`?"),
        (&["channel", "simulate", "--clients", "0"], "1 to 100000 clients"),
        (&["channel", "simulate", "--hot-share", "2"], "0 to 1"),
        (&["channel", "simulate", "--lease-ms", "1"], "a lease is 20ms"),
        (&["channel", "simulate", "--nodes", "0"], "1 to 11 nodes"),
    ];
    for (arguments, expected) in cases {
        let output = snet(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_simulation_tells_what_happened_and_passes_its_audit() {
    let text = told(&["channel", "simulate", "--seconds", "1", "--kill-replicas", "--store", "mem:", "--seed", "5"]);
    for expected in ["payments/s", "own channels, p50 / p99", "kills", "seed 5", "AUDIT of 13 channels", "PASSED"] {
        assert!(text.contains(expected), "{expected} is missing:\n{text}");
    }
    let output = snet(&["channel", "simulate", "--seconds", "1", "--clients", "4", "--output", "json"]);
    assert!(output.status.success(), "{output:?}");
    let report: bench::SimulationReport = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report.schema, bench::SimulationReport::SCHEMA);
    assert_eq!(
        (report.backend.as_str(), report.replicas, report.own_clients, report.hot_clients),
        ("embedded", 3, 3, 1)
    );
    assert!(report.payments > 0 && report.audit.acknowledged >= report.payments, "{report:#?}");
}

/// Ctrl-C ends it early, and the audit is made all the same.
#[cfg(unix)]
#[test]
fn an_interrupted_simulation_still_audits() {
    let child = Command::new(env!("CARGO_BIN_EXE_snet"))
        .args(["channel", "simulate", "--seconds", "600", "--store", "mem:", "--clients", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (began, deadline) = (Instant::now(), Duration::from_secs(60));
    // It listens once its handler is there, which /proc tells: before, the signal would end it at once.
    let listens = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0").trim().to_owned();
        u64::from_str_radix(&caught, 16).unwrap_or(0) & 0b10 != 0
    };
    while !listens() {
        assert!(began.elapsed() < deadline, "no handler for the signal");
        std::thread::yield_now();
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && stdout(&output).contains("AUDIT of 2 channels"), "{output:?}");
}
