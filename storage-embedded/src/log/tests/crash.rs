//! The power goes, or the disk fails, at every operation.

use super::*;
use crate::simulated::{Fault, Survival};

const LENGTH: usize = 40;

/// Makes the calls until one fails. Returns what the log may hold: the state before or after that call.
fn run(disk: &SimDisk, calls: &[(Held, Call)]) -> (Vec<Held>, Option<Log>) {
    let Ok(mut log) = open(disk) else { return (vec![Held::default()], None) };
    let mut after = Held::default();
    for (before, call) in calls {
        after = before.clone();
        call.apply(&mut after);
        if call.make(&mut log, disk).is_err() {
            return (vec![before.clone(), after], Some(log));
        }
    }
    (vec![after], Some(log))
}

fn operations(calls: &[(Held, Call)]) -> u64 {
    let disk = SimDisk::new(0);
    let (held, log) = run(&disk, calls);
    assert_eq!(held.len(), 1);
    drop(log);
    disk.operations()
}

fn survivals(seed: u64) -> [Survival; 5] {
    let any = |n| Survival::Any(seed * 3 + n);
    [Survival::Nothing, Survival::Everything, any(0), any(1), any(2)]
}

/// Opens what a crash has left, goes on with it, and opens it again.
fn check(disk: &SimDisk, possible: &[Held], context: &str) {
    let mut log = open(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    let mut held = Held::by(&mut log);
    assert!(possible.contains(&held), "{context}: found {held:#?}, possible {possible:#?}");
    let next = held.next_index();
    for call in [Call::Append(vec![entry(99, next, b"goes on")]), Call::Vote(Vote::new(99, 3))] {
        call.make(&mut log, disk).unwrap_or_else(|error| panic!("{context}: {error}"));
        call.apply(&mut held);
    }
    let again = disk.crash(Survival::Nothing);
    assert_eq!(Held::by(&mut open(&again).unwrap()), held, "{context}: after it went on");
}

#[test]
fn what_was_acknowledged_is_found_after_a_crash_at_any_operation() {
    for seed in 0..5 {
        let calls = workload(seed, LENGTH);
        for operation in 0..operations(&calls) {
            let disk = SimDisk::new(seed);
            disk.fail_at(operation, Fault::PowerLoss);
            let (possible, log) = run(&disk, &calls);
            drop(log);
            for survival in survivals(seed * 10_000 + operation) {
                check(&disk.crash(survival), &possible, &format!("seed {seed}, operation {operation}, {survival:?}"));
            }
        }
    }
}

#[test]
fn recovery_may_be_cut_short_at_any_operation() {
    let calls = workload(11, LENGTH);
    let all = operations(&calls);
    for crash in (0..all).step_by(5) {
        let disk = SimDisk::new(11);
        disk.fail_at(crash, Fault::PowerLoss);
        let (possible, log) = run(&disk, &calls);
        drop(log);
        let found = disk.crash(Survival::Any(crash));
        let recovery = {
            let counted = found.fork();
            let log = open(&counted).unwrap();
            let operations = counted.operations();
            drop(log);
            operations
        };
        for operation in 0..recovery {
            let again = found.fork();
            again.fail_at(operation, Fault::PowerLoss);
            assert!(open(&again).is_err());
            for survival in survivals(operation) {
                let context = format!("crash {crash}, operation {operation} of the recovery, {survival:?}");
                check(&again.crash(survival), &possible, &context);
            }
        }
    }
}

#[test]
fn a_log_that_failed_acknowledges_nothing_more_and_loses_nothing() {
    for fault in [Fault::Eio, Fault::Enospc] {
        let mut bitten = 0;
        for seed in 20..24 {
            let calls = workload(seed, LENGTH);
            for operation in 0..operations(&calls) {
                let context = format!("{fault:?}, seed {seed}, operation {operation}");
                let disk = SimDisk::new(seed);
                disk.fail_at(operation, fault);
                let (possible, log) = run(&disk, &calls);
                if let Some(mut log) = log.filter(|_| possible.len() > 1) {
                    bitten += 1;
                    let next = possible[1].next_index();
                    append(&mut log, vec![entry(98, next, b"too late")]).expect_err(&context);
                    now(log.save_vote(&Vote::new(98, 1))).expect_err(&context);
                    now(log.truncate_after(None)).expect_err(&context);
                    now(log.purge(log_id(98, 1000))).expect_err(&context);
                }
                for survival in survivals(operation) {
                    check(&disk.crash(survival), &possible, &context);
                }
                // The process starts again, the power stayed: what it finds now must not be lost later.
                let held = Held::by(&mut open(&disk).unwrap_or_else(|error| panic!("{context}: {error}")));
                assert!(possible.contains(&held), "{context}");
                check(&disk.crash(Survival::Nothing), &[held], &format!("{context}, restarted, then the power went"));
            }
        }
        assert!(bitten > 100, "{fault:?} bit {bitten} times");
    }
}
