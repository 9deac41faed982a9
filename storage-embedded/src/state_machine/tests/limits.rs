//! What a transaction may cost, and what those cost that older programs have logged.

use std::time::{Duration, Instant};

use super::*;
use crate::{
    keys::KeySpace,
    mvcc::{Delete, MAX_LEASE_KEYS, MAX_OPS, Op, OpAnswer, Put, Range},
};

/// A state with so many keys, `k00000` and on, with values of a byte.
pub(super) fn filled(keys: usize) -> Applier {
    let mut applier = Applier::default();
    for some in (0..keys).step_by(128) {
        let txn = (some..keys.min(some + 128)).fold(Txn::new(), |txn, one| txn.put(key(&format!("k{one:05}")), "v"));
        applier.txn(txn).committed().unwrap();
    }
    applier
}

fn all() -> KeyRange {
    KeyRange::Between("k".into(), "l".into())
}

fn count() -> Op {
    Op::Range(Range { count_only: true, ..Range::new(all()) })
}

fn put(name: &str) -> Op {
    Op::Put(Put { key: key(name), value: Some("w".into()), lease: Some(0), previous: false })
}

fn ops(success: Vec<Op>) -> mvcc::Txn {
    mvcc::Txn { success, ..mvcc::Txn::default() }
}

/// Each operation so often, three levels deep.
fn nested(op: &Op, each: usize) -> mvcc::Txn {
    let inner = ops(vec![op.clone(); each]);
    let middle = ops(vec![Op::Txn(inner); each]);
    ops(vec![Op::Txn(middle); each])
}

fn answered(applied: Applied) -> std::sync::Arc<mvcc::TxnAnswer> {
    match applied {
        Applied::Mvcc(answer) => answer,
        other => panic!("{other}"),
    }
}

#[test]
fn what_costs_too_much_is_refused_and_changes_nothing() {
    // By the limits of the first version, for which fewer keys are enough.
    let mut applier = filled(26_000);
    let compare = |with| mvcc::Compare { keys: all(), relation: mvcc::Relation::NotEqual, with };
    let by_value = Range {
        order: mvcc::Order { by: mvcc::OrderBy::Value, direction: Some(mvcc::Direction::Ascending) },
        limit: 1,
        ..Range::new(all())
    };
    let past = Range { revision: 2, ..Range::new(KeyRange::One("k00000".into())) };
    let mut keyed = mvcc::Txn { success: vec![put("new")], ..mvcc::Txn::default() };
    keyed.compares = vec![compare(mvcc::Operand::Version(7)); 60];
    let cases = [
        ("counts", ops([vec![put("new")], vec![count(); 160]].concat())),
        ("counts within", { nested(&count(), 6) }),
        ("keys deleted", ops(vec![put("new"), Op::Delete(Delete { keys: all(), previous: false })])),
        ("keys answered", ops([vec![put("new")], vec![Op::Range(Range::new(all())); 6]].concat())),
        ("keys sorted", ops([vec![put("new")], vec![Op::Range(by_value); 9]].concat())),
        ("the past", ops([vec![put("new")], vec![Op::Range(past); 40]].concat())),
        ("comparisons", keyed),
        ("keys written", ops((0..2600).map(|one| put(&format!("new{one}"))).collect())),
        ("operations", ops(vec![Op::Txn(mvcc::Txn::default()); MAX_OPS + 1])),
    ];
    let before = (applier.state.tables().digest(), applier.state.tables().keys.revision);
    for (name, txn) in cases {
        let applied = applier.apply(Command::Mvcc { txn, limits: 1 });
        assert_eq!(applied, Applied::Rejected(Rejection::TooCostly), "{name}");
        assert_eq!((applier.state.tables().digest(), applier.state.tables().keys.revision), before, "{name}");
        assert_eq!(applier.value("new"), None, "{name}");
    }
    // A little less of each is carried out.
    let mut applier = filled(10_000);
    answered(applier.apply(Command::mvcc(ops([vec![put("new")], vec![count(); 127]].concat()))));
    let delete = Op::Delete(Delete { keys: all(), previous: true });
    let answer = answered(applier.apply(Command::mvcc(ops(vec![delete]))));
    assert!(
        matches!(&answer.answers[0], OpAnswer::Delete { deleted: 10_000, previous, .. } if previous.len() == 10_000)
    );
}

/// What a program before limits had versions has carried out, its successor has to: the others have the state after it.
#[test]
fn a_transaction_of_an_older_program_is_carried_out_whatever_it_costs() {
    let unnumbered = |txn| Command::Mvcc { txn, limits: 0 };
    let mut applier = filled(2000);
    let huge = mvcc::Txn { success: vec![Op::Txn(nested(&count(), 22)), put("new")], ..mvcc::Txn::default() };
    const { assert!(22 * 22 * 22 * 2000 > mvcc::MAX_WORK && 22 * 22 * 22 > MAX_OPS, "this program would refuse it") };
    answered(applier.apply(unnumbered(huge)));
    assert_eq!(applier.value("new").unwrap(), "w");
    let delete = Op::Delete(Delete { keys: all(), previous: false });
    let answer = answered(applier.apply(unnumbered(ops(vec![delete]))));
    assert!(matches!(answer.answers[0], OpAnswer::Delete { deleted: 2000, .. }));
}

/// Its answer was refused when it was whole, all of it in memory: 3,456,000 entries, of which no more is made now than was ever allowed.
#[cfg(target_os = "linux")]
#[test]
fn what_was_refused_for_its_answer_is_refused_before_there_is_much_of_it() {
    fn peak_mib() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() >> 10
    }
    for limits in [0, 1] {
        let mut applier = filled(2000);
        let txn = ops(vec![put("new"), Op::Txn(nested(&Op::Range(Range::new(all())), 12))]);
        let (before, peak) = (applier.state.tables().digest(), peak_mib());
        let applied = applier.apply(Command::Mvcc { txn, limits });
        let expected = [Rejection::AnswerTooLarge, Rejection::TooCostly][usize::from(limits)];
        assert_eq!(applied, Applied::Rejected(expected));
        assert_eq!(applier.state.tables().digest(), before);
        let more = peak_mib() - peak;
        assert!(more < 200, "{more} MiB more");
    }
}

/// Puts that keep a value look for what the operations before them have left of it: one by one, minutes.
#[test]
fn many_puts_and_deletes_are_looked_at_once_each() {
    const KEYS: usize = 60_000;
    let mut keys = KeySpace::default();
    let put = |one: usize, value: Option<&'static str>| {
        let value = value.map(Bytes::from);
        Op::Put(Put { key: key(&format!("k{one:05}")), value, lease: Some(0), previous: false })
    };
    let deletes =
        (0..KEYS).map(|one| Op::Delete(Delete { keys: KeyRange::One(format!("d{one:05}").into()), previous: false }));
    let puts = (0..KEYS).map(|one| put(one, Some("v")));
    let kept = (0..KEYS).map(|one| put(one, None));
    let began = Instant::now();
    let txn = ops(puts.chain(deletes).chain(kept).collect());
    let limits = mvcc::Limits::of(0).unwrap();
    assert_eq!(mvcc::execute(&mut keys, &txn, limits).unwrap().answers.len(), 3 * KEYS);
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    // A key that was deleted before is not there to be kept, also among many, and one that was put since is.
    let mut rest = vec![Op::Delete(Delete { keys: all(), previous: false }), put(1, Some("v")), put(1, None)];
    mvcc::execute(&mut keys, &ops(rest.clone()), limits).unwrap();
    rest.push(put(2, None));
    assert_eq!(mvcc::execute(&mut keys, &ops(rest), limits), Err(mvcc::Refused::KeyNotFound));
}

#[test]
fn a_lease_has_no_more_keys_than_its_end_can_delete_at_once() {
    let mut applier = Applier::default();
    for id in [1, 2] {
        applier.apply(Command::LeaseGrant { id, ttl_seconds: 9 });
    }
    let attach = |from: usize, count: usize, lease| {
        let put = |one: usize| Put {
            key: key(&format!("k{one:05}")),
            value: Some("v".into()),
            lease: Some(lease),
            previous: false,
        };
        Command::mvcc(ops((from..from + count).map(|one| Op::Put(put(one))).collect()))
    };
    for some in (0..MAX_LEASE_KEYS).step_by(128) {
        answered(applier.apply(attach(some, 128, 1)));
    }
    let full = Applied::Rejected(Rejection::LeaseFull);
    assert_eq!(applier.apply(attach(MAX_LEASE_KEYS, 1, 1)), full);
    answered(applier.apply(attach(MAX_LEASE_KEYS, 1, 2)));
    answered(applier.apply(attach(MAX_LEASE_KEYS, 1, 0)));
    let Command::Mvcc { txn, .. } = attach(MAX_LEASE_KEYS, 1, 1) else { unreachable!() };
    answered(applier.apply(Command::Mvcc { txn, limits: 0 }));
    assert!(matches!(applier.apply(Command::LeaseRevoke { id: 1 }), Applied::Outcome(_)));
    assert_eq!(applier.state.tables().counts().records, 0);
}

/// The answers that a client does not take are in memory on every replica.
#[test]
fn the_bytes_of_unacknowledged_answers_are_bounded() {
    let mut applier = Applier::default();
    let Applied::Session(session) = applier.apply(Command::OpenSession { nonce: 1 }) else {
        panic!("a session is opened")
    };
    for one in 0..15 {
        applier.txn(Txn::new().put(key(&format!("k{one}")), vec![7; 1 << 20])).committed().unwrap();
    }
    let mut send = |sequence, acknowledged_below, limits| {
        let txn = ops(vec![Op::Range(Range::new(all())), put("a")]);
        let command = Box::new(Command::Mvcc { txn, limits });
        let request = Request { session, sequence, acknowledged_below };
        applier.apply(Command::Once { request, command })
    };
    for sequence in 0..5 {
        answered(send(sequence, 0, 1));
    }
    let full = Applied::Rejected(Rejection::TooManyRequests);
    assert_eq!(send(5, 0, 1), full, "75 MiB are waiting");
    answered(send(6, 0, 0));
    answered(send(7, 4, 1));
    assert_eq!(send(5, 4, 1), full, "its caller was told that it was not carried out");
}

/// Where it is applied changes nothing about the state, and nobody waits meanwhile.
#[tokio::test]
async fn what_takes_long_is_applied_elsewhere_and_to_the_same_state() {
    use crate::{
        raft::{Entry, LogId, Proposal, TypeConfig},
        simulated::SimDisk,
    };
    use openraft::{EntryPayload, storage::RaftStateMachine};

    let long = ops([vec![put("new")], vec![count(); 100]].concat());
    let mut commands: Vec<_> = (0..60)
        .map(|some| (0..128).fold(Txn::new(), |txn, one| txn.put(key(&format!("k{some:02}{one:03}")), "v")))
        .map(|txn| Command::Txn { txn, operation: None, request: None })
        .collect();
    commands.extend([Command::mvcc(long), Command::LeaseGrant { id: 3, ttl_seconds: 3 }, leased_put("l", "x", 3)]);
    commands.push(Command::mvcc(ops(vec![Op::Delete(Delete { keys: all(), previous: true }), put("k2")])));
    let entries = commands.iter().zip(1..).map(|(command, index)| Entry {
        log_id: LogId::new(openraft::alias::CommittedLeaderIdOf::<TypeConfig>::new(1), index),
        payload: EntryPayload::Normal(Proposal(command.encode())),
    });
    let entries: Vec<_> = entries.collect();

    let mut here = Replica::default();
    entries.iter().for_each(|entry| drop(here.apply(entry)));
    let mut machine = StateMachine::open(std::sync::Arc::new(SimDisk::new(1)), "/s").unwrap();
    let shared = machine.shared();
    let entries = futures::stream::iter(entries.into_iter().map(|entry| Ok((entry, None))).collect::<Vec<_>>());
    let (mut seen, mut turns_during_long) = (Vec::new(), 0);
    let mut applying = Box::pin(machine.apply(entries));
    // Between two polls the thread is free: what a reader sees then.
    while futures::poll!(&mut applying).is_pending() {
        let index = shared.read(Replica::applied_index);
        turns_during_long += u32::from(index == 60 || index == 63);
        seen.push(index);
        tokio::task::yield_now().await;
    }
    drop(applying);
    assert!(turns_during_long > 0, "the thread was not free while the long ones were applied: {seen:?}");
    assert!(seen.is_sorted());
    let state = |replica: &Replica| (replica.applied_index(), replica.hash(), replica.last_applied);
    assert_eq!(shared.read(state), state(&here));
    assert_eq!(shared.hash_after(61), here.recent.after(61));
}
