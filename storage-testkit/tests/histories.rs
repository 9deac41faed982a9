//! The format of histories, and what the recorder writes into them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use storage_core::{
    Expected, FaultInjecting, Key, MemoryStore, OperationId, ReadOptions, ScanOptions, Store, StoreExt, Txn, Version,
    WriteOptions,
};
use storage_testkit::history::{Action, FORMAT, History, MAX_LINE_BYTES, Operation, Outcome, Recorder, Seen};

const HEADER: &str = r#"{"format":"storage-history","version":1}"#;

fn key(text: &str) -> Key {
    Key::new(text.to_owned()).unwrap()
}

fn of(action: Action, guard: Expected, outcome: Outcome) -> Operation {
    Operation { process: 3, start: 10, end: Some(20), key: key("k"), guard, action, outcome, txn: None, id: None }
}

#[test]
fn a_history_survives_its_lines() {
    let version = Version::from_bytes([0xfe; 16]);
    let present = Seen::Present { value: "a".into(), version: Some(version) };
    let bare = Seen::Present { value: vec![0xff, 0].into(), version: None };
    let untold = || Outcome::Ok { seen: Seen::Untold, version: None };
    let history = History::new(vec![
        of(Action::Read, Expected::Any, Outcome::Ok { seen: present.clone(), version: None }),
        of(Action::Read, Expected::Any, Outcome::Ok { seen: Seen::Absent, version: None }),
        of(Action::Read, Expected::Any, Outcome::Ok { seen: bare, version: None }),
        of(Action::Read, Expected::Exists, untold()),
        of(
            Action::Put("\u{2028}\"".into()),
            Expected::Absent,
            Outcome::Ok { seen: Seen::Untold, version: Some(version) },
        ),
        of(Action::Put("b".into()), Expected::Version(version), Outcome::Conflict { seen: present }),
        of(Action::Delete, Expected::Value("b".into()), Outcome::Conflict { seen: Seen::Absent }),
        of(Action::Delete, Expected::Exists, Outcome::Conflict { seen: Seen::Untold }),
        Operation { end: None, txn: Some(7), ..of(Action::Delete, Expected::Any, Outcome::Unknown) },
        Operation { id: Some(OperationId(u128::MAX)), ..of(Action::Put("".into()), Expected::Any, Outcome::Failed) },
        Operation { key: Key::new(vec![0xc0]).unwrap(), ..of(Action::Delete, Expected::Any, untold()) },
    ]);
    let mut lines = Vec::new();
    history.write(&mut lines).unwrap();
    assert!(lines.starts_with(HEADER.as_bytes()) && HEADER.contains(FORMAT));
    assert_eq!(History::read(&lines[..]).unwrap(), history);
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let line = r#"{"process":1,"start":5,"end":6,"key":"k","action":"read","outcome":"ok","seen":null}"#;
    let wrong = |from: &str, to: &str| format!("{HEADER}\n{line}\n\n{}\n", line.replace(from, to));
    let put = r#""action":"put","value":"v""#;
    let cases = [
        (String::new(), "line 1: the history is empty"),
        (line.to_owned(), "line 1: a history begins with"),
        (HEADER.replace('1', "2"), "line 1: version 2 of the format, and only 1 can be read"),
        (HEADER.replace("storage", "other"), "line 1: a history begins with"),
        (wrong(r#""start":5,"#, ""), "line 4: missing field `start` (column"),
        (wrong("}", ""), "line 4: EOF while parsing"),
        (wrong(r#""key""#, r#""kee""#), "line 4: unknown field `kee`"),
        (wrong(r#""end":6"#, r#""end":4"#), "line 4: `end` is before `start`"),
        (wrong(r#""end":6,"#, ""), "line 4: an operation that was answered has an `end`"),
        (wrong(r#","seen":null"#, ""), "line 4: a read that was ok has `seen`"),
        (wrong(r#""key":"k""#, r#""key":"""#), "line 4: invalid argument: a key has at least one byte"),
        (wrong(r#""key":"k""#, r#""key":{"hex":"0"}"#), "line 4: hex is pairs of hexadecimal digits"),
        (wrong(r#""key":"k""#, r#""key":7"#), "line 4: expected a string"),
        (wrong(r#""read""#, r#""put""#), "line 4: a put, and nothing else, has a `value`"),
        (wrong(r#""action":"read""#, put), "line 4: a write sees nothing"),
        (wrong(r#""outcome":"ok""#, r#""outcome":"conflict""#), "line 4: only a guard (`if`) makes a conflict"),
        (wrong("null}", r#"null,"version":"1"}"#), "line 4: only a put that was ok has a `version`"),
        (wrong("null", r#"{"value":"v","version":"x"}"#), "line 4: invalid argument: a version is 1 to 32"),
    ];
    for (text, expected) in cases {
        let told = History::read(text.as_bytes()).unwrap_err().to_string();
        assert!(told.starts_with(expected), "{told} is not {expected}");
    }
    let long = format!("{HEADER}\n{}", " ".repeat(MAX_LINE_BYTES + 1));
    assert!(History::read(long.as_bytes()).unwrap_err().to_string().starts_with("line 2: longer than"));
}

#[tokio::test]
async fn everything_that_proves_something_is_recorded() {
    let recorder = Recorder::new();
    let faults = FaultInjecting::new(Arc::new(MemoryStore::new()));
    let store = recorder.wrap(Arc::new(faults.clone()) as Arc<dyn Store>);
    let version = store.put(&key("a"), "1").await.unwrap();
    let _ = store.compare_and_swap(&key("a"), Version::from_u64(99), "2").await.unwrap();
    faults.lose_replies(1);
    store.delete(&key("a")).await.unwrap_err();
    faults.fail_before_send(1);
    store.get(&key("a"), ReadOptions::default()).await.unwrap_err();
    store.get_many(&[key("a"), key("b")], ReadOptions::default()).await.unwrap();
    let txn = Txn::new().guard(key("c"), Expected::Absent).put(key("b"), "3").put(key("c"), "4");
    let committed = store.commit(txn, WriteOptions::default()).await.unwrap().committed().unwrap();
    let refused = Txn::new().guard(key("a"), Expected::Absent).guard(key("b"), Expected::Absent).put(key("c"), "5");
    assert!(!store.commit(refused, WriteOptions::default()).await.unwrap().is_committed());
    store.scan(b"", ScanOptions::default()).await.unwrap();
    store.get(&key("a"), ReadOptions::default().stale()).await.unwrap();

    let history = recorder.history();
    let told: Vec<String> =
        history.operations().iter().map(|operation| format!("{} {operation}", operation.key)).collect();
    let (first, second) = (version.to_u64().unwrap(), committed.versions[0].and_then(Version::to_u64).unwrap());
    let expected = [
        format!("a put \"1\" -> version {first:x}"),
        format!("a put \"2\" if version 63 -> conflict, \"1\" at version {first:x}"),
        "a delete -> unknown".to_owned(),
        "a read -> not applied".to_owned(),
        "a read -> absent".to_owned(),
        "b read -> absent".to_owned(),
        format!("c put \"4\" if absent -> version {second:x}"),
        format!("b put \"3\" -> version {second:x}"),
        "a check if absent -> not applied".to_owned(),
        format!("b check if absent -> conflict, \"3\" at version {second:x}"),
        "c put \"5\" -> not applied".to_owned(),
        format!("b read -> \"3\" at version {second:x}"),
        format!("c read -> \"4\" at version {second:x}"),
    ];
    assert_eq!(told, expected);
    let txns: Vec<_> = history.operations().iter().map(|operation| operation.txn).collect();
    assert_eq!(txns[6..11], [Some(0), Some(0), Some(1), Some(1), Some(1)]);
    assert!(history.operations().iter().all(|operation| operation.end.is_some_and(|end| operation.start <= end)));
}

#[tokio::test]
async fn a_write_that_was_dropped_or_is_under_way_is_unknown() {
    let recorder = Recorder::new();
    let faults = FaultInjecting::new(Arc::new(MemoryStore::new()));
    let store = recorder.wrap(faults.clone());
    let partition = faults.partition();
    let key = key("a");
    let mut put = Box::pin(store.put(&key, "1"));
    assert!(futures::poll!(&mut put).is_pending());
    let unknown = |recorder: &Recorder| {
        let history = recorder.history();
        history.operations().iter().all(|operation| operation.outcome == Outcome::Unknown && operation.end.is_none())
            && history.operations().len() == 1
    };
    assert!(unknown(&recorder));
    drop(put);
    drop(partition);
    assert!(unknown(&recorder));
}
