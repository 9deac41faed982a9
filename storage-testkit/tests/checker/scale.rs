//! Long histories: the checker decides them, and finds the one wrong answer in them.

use std::sync::atomic::{AtomicUsize, Ordering};

use fastrand::Rng;
use storage_core::{Expected, Key, OperationId, Version};
use storage_testkit::{
    checker::{Checker, MAX_OPEN},
    history::{Action, History, Operation, Outcome, Seen},
};

use crate::simulate::{self, SWAPS, Simulation};

const MIXED: Simulation = Simulation { operations: 20_000, reads: 45, puts: 20, deletes: 5, lost: 20, ..SWAPS };

#[test]
fn long_histories_of_a_sound_register_pass() {
    let cases = [
        ("swaps", SWAPS),
        ("swaps by value", Simulation { versions: false, ..SWAPS }),
        ("conflicts tell nothing", Simulation { tells: false, lost: 20, ..SWAPS }),
        ("a fifth is lost", Simulation { lost: 200, ..SWAPS }),
        ("blind puts", Simulation { reads: 20, puts: 80, ..SWAPS }),
        ("few values", Simulation { values: Some(3), clients: 6, lost: 0, ..MIXED }),
        ("mixed", MIXED),
    ];
    for (name, simulation) in cases {
        let simulation = Simulation { operations: 5_000, ..simulation };
        let report = Checker::default().check(&simulate::history(&simulation, 2, &mut Rng::with_seed(1)));
        assert!(report.is_linearizable(), "{name}: {report}");
    }
}

#[test]
fn one_wrong_answer_among_many_is_found_and_told_in_a_few_operations() {
    let sound = simulate::history(&MIXED, 1, &mut Rng::with_seed(2));
    let mut operations = sound.operations().to_vec();
    // A swap that met a conflict is told that it was applied.
    let wrong = (10_000..).find(|place| is_conflict(&operations[*place])).unwrap();
    operations[wrong].outcome = Outcome::Ok { seen: Seen::Untold, version: Some(Version::from_u64(1 << 40)) };
    let told = AtomicUsize::new(0);
    let progress = |operations| told.store(operations, Ordering::SeqCst);
    let report = Checker::default().on_progress(&progress).check(&History::new(operations));
    let [violation] = &report.violations[..] else { panic!("{report}") };
    assert!(violation.operations.len() <= 4, "{violation}");
    assert!(violation.operations.iter().any(|cited| cited.number == wrong), "{violation}");
}

fn is_conflict(operation: &Operation) -> bool {
    matches!((&operation.guard, &operation.outcome), (Expected::Version(_), Outcome::Conflict { .. }))
}

#[test]
fn progress_is_told() {
    let told = AtomicUsize::new(0);
    let progress = |operations| told.store(operations, Ordering::SeqCst);
    let history = simulate::history(&Simulation { operations: 70_000, ..SWAPS }, 1, &mut Rng::with_seed(3));
    assert!(Checker::default().on_progress(&progress).check(&history).is_linearizable());
    assert_eq!(told.load(Ordering::SeqCst), 65_536);
}

fn put(start: u64, end: u64, value: &str, id: Option<u128>, outcome: Outcome) -> Operation {
    let (key, action) = (Key::new("k").unwrap(), Action::Put(value.to_owned().into()));
    let id = id.map(OperationId);
    Operation { process: 0, start, end: Some(end), key, guard: Expected::Any, action, outcome, txn: None, id }
}

const OK: Outcome = Outcome::Ok { seen: Seen::Untold, version: None };

#[test]
fn what_is_over_a_limit_is_undecided_and_not_passed() {
    let many: Vec<Operation> = (0..=MAX_OPEN).map(|_| put(0, 9, "v", None, OK)).collect();
    let report = Checker::default().check(&History::new(many.clone()));
    assert!(!report.is_linearizable() && report.undecided.len() == 1 && report.violations.is_empty(), "{report}");
    assert!(Checker::default().check(&History::new(many[1..].to_vec())).is_linearizable());

    let hard = (0..12).flat_map(|number| {
        let read = Operation {
            action: Action::Read,
            outcome: Outcome::Ok { seen: Seen::Present { value: "v".into(), version: None }, version: None },
            ..put(100, 101, "", None, OK)
        };
        [put(0, 50, &format!("v{number}"), None, OK), put(0, 60, "v", None, OK), read]
    });
    let hard = History::new(hard.collect());
    assert!(Checker::default().check(&hard).is_linearizable());
    assert_eq!(Checker::default().max_configurations(2).check(&hard).undecided.len(), 1);
}

#[test]
fn a_write_that_was_sent_twice_under_one_id_is_one_write() {
    let read = |start, value: &str| Operation {
        action: Action::Read,
        outcome: Outcome::Ok { seen: Seen::Present { value: value.to_owned().into(), version: None }, version: None },
        ..put(start, start + 1, "", None, OK)
    };
    let sent = |id, second| {
        let first = put(0, 1, "a", Some(1), Outcome::Unknown);
        History::new(vec![
            first,
            read(2, "a"),
            put(4, 5, "b", None, OK),
            put(6, 7, "a", Some(id), second),
            read(8, "a"),
        ])
    };
    assert!(Checker::default().check(&sent(2, OK)).is_linearizable(), "two writes");
    let report = Checker::default().check(&sent(1, OK));
    assert_eq!(report.violating_keys, 1, "one write cannot come back: {report}");
    assert!(!Checker::default().check(&sent(1, Outcome::Unknown)).is_linearizable());
    assert!(Checker::default().check(&sent(2, Outcome::Unknown)).is_linearizable());
}
