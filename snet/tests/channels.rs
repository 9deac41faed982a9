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
    AfterClaim, Authorization, ChainChannel, Ledger, MemoryChain, Operation, Options, Payments, PrepaidUsage, Signer,
    Terms, UsageChange,
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
    let usage = PrepaidUsage::new(Arc::clone(&store), payments.ledger());
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
    assert!(list.contains("authorized") && list.lines().count() == 3, "{list}");
    assert!(list.contains("contract 0x0101010101010101010101010101010101010101 on chain 31337"), "{list}");
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
        let ledger = Ledger { chain_id: MemoryChain::CHAIN_ID, contract: Address::new([1; 20]) };
        store.put(&ledger.channel_key(ChannelId::from(7)), ledger.enclose(value.as_bytes())).await.unwrap();
        store.close().await.unwrap();
    }
    for (value, expected) in [("CHAN\0\u{2}", "update this program"), ("{}", "is not what was written")] {
        spoil(url, value);
        for command in
            [&["channel", "list", url][..], &["channel", "show", url, "7"], &["channel", "unlock", url, "7", "--yes"]]
        {
            let output = snet(command);
            let code = if command[1] == "list" { 7 } else { 1 };
            assert_eq!(output.status.code(), Some(code), "{command:?}: {output:?}");
            assert!(stderr(&output).contains(expected), "{command:?}: {output:?}");
        }
    }
}

/// Every entry of an embedded store, once.
#[tokio::main]
async fn put_all(url: &str, entries: &[(String, Vec<u8>)]) {
    let store = storage::open(url).await.unwrap();
    for (key, value) in entries {
        store.put(&Key::new(key.clone()).unwrap(), value.clone()).await.unwrap();
    }
    store.close().await.unwrap();
}

/// The bytes of all files, by name: what reading must not change.
fn files(directory: &Path) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    let mut rest = vec![directory.to_owned()];
    while let Some(directory) = rest.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { rest.push(path) } else { drop(found.insert(path.clone(), std::fs::read(path).unwrap())) }
        }
    }
    found
}

#[test]
fn one_record_that_cannot_be_read_hides_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let url = &service(directory.path());
    let ledger = Ledger { chain_id: MemoryChain::CHAIN_ID, contract: Address::new([1; 20]) };
    let [channel, claim] = [ledger.channel_key(ChannelId::from(5)), ledger.claim_key(ChannelId::from(5), Nonce::ZERO)];
    put_all(url, &[(channel.to_string(), b"x".to_vec()), (claim.to_string(), b"x".to_vec())]);
    for (command, key, other) in [("list", &channel, "990"), ("claims", &claim, "goes on")] {
        let output = snet(&["channel", command, url]);
        assert_eq!(output.status.code(), Some(7), "{output:?}");
        assert!(stdout(&output).contains(other), "{output:?}");
        assert!(stderr(&output).contains(&key.to_string()), "{output:?}");
    }
    assert!(told(&["channel", "show", url, "7"]).contains("20 of 990"));
}

#[test]
fn commands_that_read_make_and_change_no_store() {
    let directory = tempfile::tempdir().unwrap();
    let url = &service(directory.path());
    let before = files(directory.path());
    for command in
        [&["list", url][..], &["claims", url], &["show", url, "7"], &["unlock", url, "7"], &["claim", "list", url]]
    {
        snet(&[&["channel"], command].concat());
    }
    assert_eq!(files(directory.path()), before);
    let absent = directory.path().join("absent");
    let none = &format!("embedded:{}", absent.display());
    let dry = &["import", url.as_str(), none, "--dry-run"];
    for command in [&["list", none][..], &["claims", none], &["show", none, "7"], &["unlock", none, "7", "--yes"], dry]
    {
        let output = snet(&[&["channel"], command].concat());
        assert!(!output.status.success(), "{command:?}: {output:?}");
        assert!(!absent.exists(), "{command:?} made a store");
    }
}

#[test]
fn a_claim_goes_from_the_channel_to_a_wallet_and_is_finished() {
    let directory = tempfile::tempdir().unwrap();
    let url = &service(directory.path());
    told(&["channel", "unlock", url, "7", "--yes"]);
    let started = json(&["channel", "claim", "start", url, "7"]);
    assert_eq!((&started["nonce"], &started["amount"]), (&Value::from("1"), &Value::from("20")));
    let listed = json(&["channel", "claim", "list", url]);
    assert_eq!(listed["claims"].as_array().unwrap().len(), 2);
    assert_eq!(listed["claims"][1]["calldata"], started["calldata"]);
    assert!(listed["claims"][0]["signature"].as_str().unwrap().len() == 132, "{listed}");
    // One of a channel: the contract pays the second after the first.
    assert_eq!((&listed["together"][0]["claims"], listed["together"].as_array().unwrap().len()), (&Value::from(1), 1));
    let again = snet(&["channel", "claim", "start", url, "7"]);
    assert!(!again.status.success() && stderr(&again).contains("nothing is authorized at nonce 2"), "{again:?}");
    let asked = snet(&["channel", "claim", "finish", url, "7", "0"]);
    assert_eq!(asked.status.code(), Some(2), "{asked:?}");
    assert!(told(&["channel", "claim", "finish", url, "7", "0", "--yes"]).contains("finished"));
    let left = json(&["channel", "claim", "list", url]);
    assert_eq!(left["claims"].as_array().unwrap().len(), 1);
    assert_eq!(json(&["channel", "claim", "show", url, "7", "1"])["calldata"], started["calldata"]);
    assert_eq!(snet(&["channel", "claim", "show", url, "7", "0"]).status.code(), Some(4));
}

/// A node is asked before anything is finished: one that is not there leaves all as it is.
#[test]
fn claims_are_not_settled_without_a_node() {
    let directory = tempfile::tempdir().unwrap();
    let url = &service(directory.path());
    let refused = snet(&["channel", "claim", "settle", url, "--node", "http://127.0.0.1:1"]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    assert!(stderr(&refused).contains("the node cannot be asked"), "{refused:?}");
    assert_eq!(json(&["channel", "claims", url])["claims"].as_array().unwrap().len(), 1);
    let wrong = snet(&["channel", "claim", "settle", url, "--node", "https://127.0.0.1:1"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
}

#[test]
fn records_of_an_earlier_version_are_listed_and_moved() {
    let directory = tempfile::tempdir().unwrap();
    let url = &service(directory.path());
    let new = &format!("embedded:{}", directory.path().join("old").display());
    let ledger = Ledger { chain_id: 5, contract: Address::new([1; 20]) };
    #[tokio::main]
    async fn record(url: &str) -> (String, Vec<u8>) {
        let store = storage::open(url).await.unwrap();
        let ledger = Ledger { chain_id: MemoryChain::CHAIN_ID, contract: Address::new([1; 20]) };
        let entry = store.get(&ledger.channel_key(ChannelId::from(7)), Default::default()).await.unwrap().unwrap();
        store.close().await.unwrap();
        (format!("channel/{:064x}", 7), ledger.open(&entry).unwrap().to_vec())
    }
    put_all(new, &[record(url)]);
    assert!(told(&["channel", "list", new]).contains("snet channel move"));
    let contract = &ledger.contract.to_string();
    let moved = json(&["channel", "move", new, "--chain-id", "5", "--contract", contract]);
    assert_eq!(moved["records"], 1);
    let listed = json(&["channel", "list", new]);
    assert_eq!(
        (&listed["channels"][0]["chain_id"], &listed["channels"][0]["id"]),
        (&Value::from(5), &Value::from("7"))
    );
}

#[test]
fn a_store_of_the_original_daemon_is_told_and_imported() {
    let directory = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "to"].map(|name| format!("embedded:{}", directory.path().join(name).display()));
    let text = include_str!("../../payment-channels/tests/vectors/daemon.json");
    let records: Value = serde_json::from_str(text).unwrap();
    let bytes =
        |hex: &str| (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let entry = |record: &Value| (record["key"].as_str().unwrap().to_owned(), bytes(record["value"].as_str().unwrap()));
    put_all(&from, &records.as_array().unwrap().iter().map(entry).collect::<Vec<_>>());
    for command in [&["list", &from][..], &["claims", &from]] {
        let told = told(&[&["channel"], command].concat());
        assert!(told.contains("snet-daemon") && told.contains("snet channel import"), "{told}");
    }
    let shown = snet(&["channel", "show", &from, "42"]);
    assert!(shown.status.code() == Some(3) && stderr(&shown).contains("snet-daemon"), "{shown:?}");
    let dry = json(&["channel", "import", &from, &to, "--dry-run"]);
    assert_eq!((&dry["channels"], &dry["authorized_amount"], &dry["written"]), (&4.into(), &"20537".into(), &7.into()));
    assert!(!directory.path().join("to").exists(), "a dry run makes no store");
    // What cannot be read is not empty.
    let blocked = directory.path().join("blocked");
    std::fs::write(&blocked, "no directory").unwrap();
    let blocked = snet(&["channel", "import", &from, &format!("embedded:{}", blocked.display()), "--dry-run"]);
    assert!(blocked.status.code() == Some(3) && stderr(&blocked).contains("cannot read"), "{blocked:?}");
    let imported = json(&["channel", "import", &from, &to]);
    assert_eq!((&imported["written"], &imported["unchanged"]), (&7.into(), &0.into()));
    let again = json(&["channel", "import", &from, &to]);
    assert_eq!((&again["written"], &again["unchanged"]), (&0.into(), &7.into()));
    assert!(told(&["channel", "show", &to, "42"]).contains("12345 of 20000 (signed)"));
    let unknown = snet(&["channel", "import", &from, &to, "--network", "main"]);
    assert_eq!(unknown.status.code(), Some(4), "{unknown:?}");
}

#[test]
fn an_empty_store_has_no_channels_and_no_claims() {
    assert!(told(&["channel", "list", "mem:"]).contains("no channels"));
    assert!(told(&["channel", "claims", "mem:"]).contains("no claims"));
    assert_eq!(json(&["channel", "list", "mem:"])["channels"], Value::Array(Vec::new()));
}

#[test]
fn the_help_has_examples_and_mistakes_are_told() {
    for command in ["list", "show", "unlock", "claims", "claim", "import", "move", "rehearse"] {
        let help = told(&["channel", command, "--help"]);
        assert!(help.contains("Examples:") && help.contains(&format!("snet channel {command}")), "{help}");
    }
    let cases: [(&[&str], &str); 6] = [
        (&["channel", "show", "mem:", "seven"], "a number is decimal, or 0x"),
        (&["channel", "list", "meme:"], "did you mean `mem`?"),
        (&["channel", "rehearse", "--clients", "0"], "1 to 100000 clients"),
        (&["channel", "rehearse", "--hot-share", "2"], "0 to 1"),
        (&["channel", "rehearse", "--lease-ms", "1"], "a lease is 20ms"),
        (&["channel", "rehearse", "--nodes", "0"], "1 to 11 nodes"),
    ];
    for (arguments, expected) in cases {
        let output = snet(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_rehearsal_tells_what_happened_and_passes_its_audit() {
    let text = told(&["channel", "rehearse", "--seconds", "1", "--kill-replicas", "--store", "mem:", "--seed", "5"]);
    for expected in ["payments/s", "own channels, p50 / p99", "kills", "seed 5", "AUDIT of 13 channels", "PASSED"] {
        assert!(text.contains(expected), "{expected} is missing:\n{text}");
    }
    let output = snet(&["channel", "rehearse", "--seconds", "1", "--clients", "4", "--output", "json"]);
    assert!(output.status.success(), "{output:?}");
    let report: soak::RehearsalReport = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report.schema, soak::RehearsalReport::SCHEMA);
    assert_eq!(
        (report.backend.as_str(), report.replicas, report.own_clients, report.hot_clients),
        ("embedded", 3, 3, 1)
    );
    assert!(report.payments > 0 && report.audit.acknowledged >= report.payments, "{report:#?}");
}

/// Ctrl-C ends it early, and the audit is made all the same.
#[cfg(unix)]
#[test]
fn an_interrupted_rehearsal_still_audits() {
    let child = Command::new(env!("CARGO_BIN_EXE_snet"))
        .args(["channel", "rehearse", "--seconds", "600", "--store", "mem:", "--clients", "2"])
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
