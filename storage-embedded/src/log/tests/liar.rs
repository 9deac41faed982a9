//! Planted bugs: a log whose syncs do nothing for one kind of call. The crash at every operation has to find each.

use std::time::Instant;

use super::*;
use crate::simulated::{Fault, Survival};

/// Makes calls until the power goes, with lying syncs under those that `is_struck` names. Whether what is found after the
/// crash is neither the state before nor after the last call.
fn finds(calls: &[(Held, Call)], is_struck: fn(&Call) -> bool, operation: u64) -> bool {
    let disk = SimDisk::new(operation);
    disk.fail_at(operation, Fault::PowerLoss);
    let Ok(mut log) = open(&disk) else { return false };
    let mut possible = vec![Held::default()];
    for (before, call) in calls {
        let mut after = before.clone();
        call.apply(&mut after);
        possible = vec![before.clone(), after];
        disk.lie(is_struck(call));
        if call.make(&mut log, &disk).is_err() {
            break;
        }
    }
    drop(log);
    // A log that says that it is damaged has found it too.
    open(&disk.crash(Survival::Nothing)).map_or(true, |mut log| !possible.contains(&Held::by(&mut log)))
}

#[test]
fn a_vote_or_an_entry_that_is_acknowledged_before_it_is_synced_is_found() {
    type Bug = (&'static str, fn(&Call) -> bool);
    let bugs: [Bug; 3] = [
        ("unsynced vote", |call| matches!(call, Call::Vote(_))),
        ("unsynced entries", |call| matches!(call, Call::Append(_))),
        ("unsynced truncation", |call| matches!(call, Call::Truncate(_))),
    ];
    let runs: Vec<_> = (0..10).map(|seed| workload(seed, 40)).collect();
    for (name, is_struck) in bugs {
        let began = Instant::now();
        let mut crashes = 0;
        let found = runs.iter().any(|calls| {
            (0..200).any(|operation| {
                crashes += 1;
                finds(calls, is_struck, operation)
            })
        });
        assert!(found, "{name}: not found in {crashes} crashes");
        println!("{name}: found at crash {crashes}, after {:.3} s", began.elapsed().as_secs_f64());
    }
    let nothing = |_: &Call| false;
    assert!(!runs.iter().any(|calls| (0..200).any(|operation| finds(calls, nothing, operation))), "an honest disk");
}
