//! The simulation finds bugs, and repeats. Run by `cargo xtask simulate --check`, since it needs the flags that `cargo xtask simulate` gives.
//!
//! In processes of their own: a node that panics may take the process with it.

#![cfg(simulated)]

use std::process::Command;

fn simulate(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_simulate")).args(arguments).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// That so many seeds find a bug, which may also show as a panic of a node.
fn finds(bug: &str, within: u64) {
    let (succeeded, says) = simulate(&["--planted", bug, "--seeds", &within.to_string()]);
    println!("{says}");
    assert!(says.contains("violation:") && succeeded || says.contains("a panic: "), "{bug} was not found");
}

/// The hashes of all runs that are told of.
fn hashes(arguments: &[&str]) -> Vec<String> {
    let (succeeded, says) = simulate(arguments);
    assert!(succeeded, "{says}");
    says.split("hash ").skip(1).filter_map(|rest| rest.get(..16)).map(str::to_owned).collect()
}

#[test]
fn a_seed_gives_the_same_run_every_time_and_another_seed_another() {
    let (seven, eight) = (hashes(&["--seed", "7", "--ticks", "3000"]), hashes(&["--seed", "8", "--ticks", "3000"]));
    assert_eq!(seven.len(), 2);
    assert_eq!(seven[0], seven[1]);
    assert_ne!(seven, eight);
}

/// The order in which the tasks of a node that was killed are dropped depended on how many tasks the process had run before.
#[test]
fn a_seed_gives_the_same_run_among_others_as_alone() {
    let alone = hashes(&["--seed", "17", "--ticks", "3000"]);
    let among = hashes(&["--first", "16", "--seeds", "3", "--ticks", "3000", "--jobs", "2", "--verbose"]);
    assert_eq!((alone.len(), among.len()), (2, 3));
    assert_eq!(alone[0], alone[1]);
    assert!(among.contains(&alone[0]), "{alone:?} {among:?}");
}

/// A leader tried to connect to a follower that was down 16,000 times within half a second.
#[test]
fn a_node_that_is_down_is_not_tried_without_a_pause() {
    let (passed, says) = simulate(&["--seed", "2"]);
    assert!(passed, "{says}");
}

/// The leader's answer came when its caller had gone on to the next one, ended the number of the write, and was thrown away.
#[test]
fn a_write_that_the_last_leader_has_answered_is_not_told_that_its_time_has_passed() {
    let (passed, says) = simulate(&["--seed", "2005"]);
    assert!(passed, "{says}");
}

#[test]
fn a_vote_that_is_answered_before_it_is_synced_is_found() {
    finds("unsynced-vote", 40);
}

#[test]
fn a_read_that_nobody_confirmed_is_found() {
    finds("unconfirmed-read", 20);
}

#[test]
fn an_acknowledgement_before_the_sync_is_found() {
    finds("early-acknowledgement", 160);
}

#[test]
fn a_leader_that_leads_on_after_a_restart_is_found() {
    finds("restored-leader", 40);
}

#[test]
fn a_state_that_depends_on_more_than_the_log_is_found() {
    finds("random-state", 5);
}

#[test]
fn a_write_that_is_applied_again_is_found() {
    finds("repeated-write", 40);
}

#[test]
fn a_disk_that_lies_is_found() {
    finds("lying-disk", 20);
}

#[test]
fn a_node_id_that_is_used_for_an_empty_disk_is_found() {
    finds("emptied-disk", 20);
}

#[test]
fn a_change_of_members_that_leaves_no_majority_is_found() {
    finds("unchecked-change", 60);
}

#[test]
fn a_node_that_votes_without_its_disk_is_found() {
    finds("wiped-voter", 40);
}

#[test]
fn a_directory_that_counts_as_empty_because_it_cannot_be_read_is_found() {
    finds("unreadable-is-absent", 40);
}

#[test]
fn a_segment_that_could_not_be_begun_and_was_passed_over_is_found() {
    finds("ignored-segment", 120);
}

#[test]
fn a_lease_that_ends_by_the_clock_of_an_earlier_leadership_is_found() {
    finds("stale-lease-clock", 200);
}

#[test]
fn a_number_that_ends_before_its_write_is_found() {
    finds("early-numbers", 60);
}

#[test]
fn a_delete_that_takes_more_than_its_range_is_found() {
    finds("greedy-delete", 10);
}

#[test]
fn a_state_that_differs_and_is_not_compared_is_found() {
    finds("uncompared", 10);
}
