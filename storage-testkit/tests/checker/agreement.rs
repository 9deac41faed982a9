//! The checker against the brute force, on random histories.
//!
//! `CHECKER_SEED` sets the first seed, `CHECKER_HISTORIES` how many histories there are.

use bytes::Bytes;
use fastrand::Rng;
use storage_core::{Expected, Key, Version};
use storage_testkit::{
    checker::Checker,
    history::{Action, History, Operation, Outcome, Seen},
};

use crate::{brute, simulate::Simulation};

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn it_says_what_trying_every_order_says() {
    let seed = setting("CHECKER_SEED", 0x5eed_2026);
    let histories = setting("CHECKER_HISTORIES", 100_000);
    println!("CHECKER_SEED={seed} CHECKER_HISTORIES={histories}");
    let (mut linearizable, mut unknown) = (0, 0);
    for number in 0..histories {
        let mut rng = Rng::with_seed(seed + number);
        let operations = if rng.bool() { arbitrary(&mut rng) } else { nearly_sound(&mut rng) };
        unknown += u64::from(operations.iter().any(|operation| operation.outcome == Outcome::Unknown));
        let expected = brute::is_linearizable(&operations);
        linearizable += u64::from(expected);
        let report = Checker::default().check(&History::new(operations.clone()));
        assert!(report.undecided.is_empty(), "seed {}: undecided: {operations:#?}", seed + number);
        let told = report.is_linearizable();
        assert!(told == expected, "seed {}: {told} is wrong of {}", seed + number, lines(&operations));
        if let [violation] = &report.violations[..] {
            let cited: Vec<usize> = violation.operations.iter().map(|cited| cited.number).collect();
            assert!(!cited.is_empty() && cited.len() <= operations.len(), "{violation}");
            if number % 16 == 0 {
                let seed = seed + number;
                assert!(
                    !brute::is_linearizable(&weakened(&operations, &cited)),
                    "seed {seed}: {violation} of {}",
                    lines(&operations)
                );
            }
        }
    }
    println!("{linearizable} of {histories} are linearizable, {unknown} have an unknown outcome");
    // A generator that made one kind only would prove nothing.
    assert!(linearizable > histories / 10 && linearizable < histories * 9 / 10, "{linearizable} of {histories}");
    assert!(unknown > histories / 5, "{unknown} of {histories}");
}

/// The cited operations, with the others as writes that may have been done at any time or never.
fn weakened(operations: &[Operation], cited: &[usize]) -> Vec<Operation> {
    let others = operations.iter().enumerate().filter(|(place, _)| !cited.contains(place));
    let others = others.map(|(_, other)| Operation {
        start: 0,
        guard: Expected::Any,
        outcome: Outcome::Unknown,
        ..other.clone()
    });
    cited.iter().map(|place| operations[*place].clone()).chain(others).collect()
}

fn lines(operations: &[Operation]) -> String {
    let line = |operation: &Operation| format!("\n  {} to {:?}: {operation}", operation.start, operation.end);
    operations.iter().map(line).collect()
}

/// A few clients of a sound store, and then one answer may be changed.
fn nearly_sound(rng: &mut Rng) -> Vec<Operation> {
    let simulation = Simulation {
        operations: rng.usize(1..6),
        clients: rng.usize(1..4),
        reads: 35,
        puts: rng.u32(0..40),
        deletes: 10,
        lost: 250,
        versions: rng.bool(),
        tells: rng.bool(),
        values: if rng.bool() { Some(2) } else { None },
    };
    let mut operations = simulation.run(&key(), rng);
    if rng.bool() {
        let place = rng.usize(..operations.len());
        let end = operations[place].end;
        let other = arbitrary_operation(rng);
        operations[place] =
            Operation { start: operations[place].start, end: end.or(other.end.map(|end| end + 9999)), ..other };
    }
    operations
}

/// Anything at all.
fn arbitrary(rng: &mut Rng) -> Vec<Operation> {
    let count = rng.usize(1..6);
    (0..count).map(|_| arbitrary_operation(rng)).collect()
}

fn key() -> Key {
    Key::new("k").unwrap()
}

fn arbitrary_operation(rng: &mut Rng) -> Operation {
    let value = |rng: &mut Rng| Bytes::from(format!("v{}", rng.u8(0..2)));
    let version = |rng: &mut Rng| Version::from_u64(rng.u64(1..4));
    let start = rng.u64(0..10);
    let end = Some(start + rng.u64(0..8));
    let guard = match rng.u8(0..8) {
        0 => Expected::Absent,
        1 => Expected::Exists,
        2 => Expected::Version(version(rng)),
        3 => Expected::Value(value(rng)),
        _ => Expected::Any,
    };
    let action = match rng.u8(0..7) {
        0..3 => Action::Read,
        3..6 => Action::Put(value(rng)),
        _ => Action::Delete,
    };
    let seen = match rng.u8(0..4) {
        0 => Seen::Absent,
        1 => Seen::Present { value: value(rng), version: None },
        _ => Seen::Present { value: value(rng), version: Some(version(rng)) },
    };
    let outcome = match rng.u8(0..8) {
        0 | 1 => Outcome::Unknown,
        2 => Outcome::Failed,
        3 if guard != Expected::Any => Outcome::Conflict { seen: if rng.bool() { seen } else { Seen::Untold } },
        _ if action == Action::Read => Outcome::Ok { seen, version: None },
        _ => {
            let told = matches!(action, Action::Put(_)) && rng.bool();
            Outcome::Ok { seen: Seen::Untold, version: told.then(|| version(rng)) }
        }
    };
    Operation { process: 0, start, end, key: key(), guard, action, outcome, txn: None, id: None }
}
