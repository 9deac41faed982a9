//! Without faults.

use super::*;

#[test]
fn it_holds_what_the_model_holds() {
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let mut log = open(&disk).unwrap();
        for (step, (before, call)) in workload(seed, 60).into_iter().enumerate() {
            assert_eq!(Held::by(&mut log), before, "seed {seed}, before step {step}, {call:?}");
            call.make(&mut log, &disk).unwrap_or_else(|error| panic!("seed {seed}, step {step}, {call:?}: {error}"));
        }
    }
}

#[test]
fn an_entry_of_any_size_is_held_and_one_too_large_stops_the_log() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap();
    let sizes = [0, 1, 1500, 2048, 256 << 10, super::super::record::MAX_ENTRY_BYTES];
    for (index, size) in (0..).zip(sizes) {
        append(&mut log, vec![entry(1, index, &vec![7; size])]).unwrap();
    }
    drop(log);
    let mut log = open(&disk).unwrap();
    let entries = now(log.try_get_log_entries(..)).unwrap();
    let found: Vec<_> = entries
        .iter()
        .map(|entry| match &entry.payload {
            EntryPayload::Normal(proposal) => proposal.0.len(),
            _ => 0,
        })
        .collect();
    assert_eq!(found, sizes);
    let large = vec![0; super::super::record::MAX_ENTRY_BYTES + 1];
    append(&mut log, vec![entry(1, 6, &large)]).unwrap_err();
    assert!(matches!(&*log.failure().unwrap().0, LogError::TooLarge { .. }));
}

#[test]
fn a_hole_is_refused() {
    let mut log = open(&SimDisk::new(1)).unwrap();
    append(&mut log, vec![entry(1, 5, b"a log may begin anywhere")]).unwrap();
    append(&mut log, vec![entry(1, 7, b"but must go on")]).unwrap_err();
    assert!(matches!(&*log.failure().unwrap().0, LogError::Hole { index: 7 }));
}

#[test]
fn purged_segments_are_used_again_and_the_log_stays_small() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap();
    now(log.save_vote(&Vote::new(3, 1))).unwrap();
    for index in 0..2000 {
        append(&mut log, vec![entry(1, index, &[1; 100])]).unwrap();
        if index % 50 == 49 {
            now(log.purge(log_id(1, index - 10))).unwrap();
        }
    }
    assert!(disk.contents().len() < 12, "{:?}", disk.contents().keys());
    drop(log);
    let held = Held::by(&mut open(&disk).unwrap());
    assert_eq!(held.vote, Some(Vote::new(3, 1)), "the vote outlives the segment it was written to");
    assert_eq!(held.entries.keys().copied().collect::<Vec<_>>(), (1990..2000).collect::<Vec<_>>());
}

#[test]
fn restarts_do_not_fill_the_disk() {
    let disk = SimDisk::new(1);
    for term in 0..30 {
        let mut log = open(&disk).unwrap();
        now(log.save_vote(&Vote::new(term, 1))).unwrap();
    }
    let bytes: usize = disk.contents().values().map(Vec::len).sum();
    assert!(bytes < 30 * 700 + 3 * 2048, "{bytes}");
}

#[test]
fn a_limited_read_returns_some_but_never_none() {
    let mut log = open(&SimDisk::new(1)).unwrap();
    for index in 0..20 {
        append(&mut log, vec![entry(1, index, &vec![1; 1 << 20])]).unwrap();
    }
    let some = now(log.limited_get_log_entries(3, 20)).unwrap();
    assert_eq!(some.first().unwrap().log_id.index, 3);
    assert!((1..8).contains(&some.len()), "{}", some.len());
    assert_eq!(now(log.try_get_log_entries(3..=4)).unwrap().len(), 2);
}

#[test]
fn what_is_committed_is_found_again() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap();
    append(&mut log, vec![entry(1, 0, b"a"), entry(1, 1, b"b")]).unwrap();
    now(log.save_committed(Some(log_id(1, 1)))).unwrap();
    drop(log);
    assert_eq!(now(open(&disk).unwrap().read_committed()).unwrap(), Some(log_id(1, 1)));
}

#[test]
fn a_closed_log_takes_no_more() {
    let mut log = open(&SimDisk::new(1)).unwrap();
    log.close().unwrap();
    append(&mut log, vec![entry(1, 0, b"late")]).unwrap_err();
    now(log.save_vote(&Vote::new(1, 1))).unwrap_err();
    assert!(log.failure().is_none(), "closing is no failure");
}
