//! The simulation finds bugs, and repeats. Run by `cargo xtask ci`, since it needs the flags that `cargo xtask simulate` gives.

#![cfg(simulated)]

use std::thread;

use simulation::{
    nemesis::Planted,
    run::{Options, Outcome, run},
};
use storage_embedded::simulated::Flaw;

const TICKS: u64 = 12_000;

/// Each seed on a thread of its own; a panic is a find like another.
fn one(seed: u64, planted: Option<Planted>) -> Result<Outcome, String> {
    let options = Options::new(TICKS).planted(planted);
    thread::spawn(move || run(seed, &options)).join().map_err(|_| "a panic".to_owned())
}

fn found(planted: Planted, within: u64) {
    for seed in 1..=within {
        let says = match one(seed, Some(planted)) {
            Ok(outcome) if outcome.is_passed() => continue,
            Ok(outcome) => outcome.violations.join("; "),
            Err(panic) => panic,
        };
        println!("{planted:?} was found by seed {seed}: {says}");
        return;
    }
    panic!("{planted:?} was not found by {within} seeds");
}

#[test]
fn a_seed_gives_the_same_run_every_time_and_another_seed_another() {
    let hashes = [7, 7, 8].map(|seed| one(seed, None).unwrap().hash);
    assert_eq!(hashes[0], hashes[1]);
    assert_ne!(hashes[0], hashes[2]);
}

#[test]
fn a_vote_that_is_answered_before_it_is_synced_is_found() {
    found(Planted::Engine(Flaw::UnsyncedVote), 40);
}

#[test]
fn a_read_that_nobody_confirmed_is_found() {
    found(Planted::Engine(Flaw::UnconfirmedRead), 40);
}

#[test]
fn an_acknowledgement_before_the_sync_is_found() {
    found(Planted::Engine(Flaw::EarlyAcknowledgement), 40);
}

#[test]
fn a_leader_that_leads_on_after_a_restart_is_found() {
    found(Planted::Engine(Flaw::RestoredLeader), 200);
}

#[test]
fn a_state_that_depends_on_more_than_the_log_is_found() {
    found(Planted::Engine(Flaw::RandomState), 5);
}

#[test]
fn a_write_that_is_applied_again_is_found() {
    found(Planted::Engine(Flaw::RepeatedWrite), 60);
}

#[test]
fn a_disk_that_lies_is_found() {
    found(Planted::LyingDisk, 40);
}

#[test]
fn a_node_id_that_is_used_for_an_empty_disk_is_found() {
    found(Planted::EmptiedDisk, 40);
}
