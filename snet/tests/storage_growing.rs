//! Clusters that grow by themselves: real processes that are started, killed, wiped, paused and cut off, mostly under load.
#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "storage_growing/clocks.rs"]
mod clocks;
mod common;
mod growing;
#[path = "storage_growing/own_table.rs"]
mod own_table;
#[path = "storage_growing/recover.rs"]
mod recover;
#[path = "storage_growing/tls.rs"]
mod tls;

use std::{
    thread,
    time::{Duration, Instant},
};

use common::snet;
use growing::{DEAD_AFTER, DEADLINE, Replicas, changes, leader_of, p99, replica, roles, settled};
use serde_json::Value;
use storage_testkit::server::Image;

/// Waits for something that is not shown by the cluster.
#[track_caller]
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < DEADLINE, "{what} has not come in time");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Sees that something stays as it is, for so long that it would have changed.
#[track_caller]
fn stays(what: &str, for_: Duration, mut look: impl FnMut() -> bool) {
    let began = Instant::now();
    while began.elapsed() < for_ {
        assert!(look(), "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The first of so many replicas runs; the others are not started.
fn first_of(count: usize) -> Replicas {
    let mut replicas = Replicas::new(count, "embedded");
    replicas.start(1, "new");
    replicas.until_voters(&[1]);
    replicas
}

/// So many replicas run, of which the first three vote.
fn three_of(count: usize) -> Replicas {
    three_started(Replicas::new(count, "embedded"))
}

/// All of them run, of which the first three vote.
fn three_started(mut replicas: Replicas) -> Replicas {
    let count = replicas.cluster.len();
    replicas.start(1, "new");
    replicas.until_voters(&[1]);
    replicas.start(2, "join");
    replicas.start(3, "join");
    replicas.until_voters(&[1, 2, 3]);
    for spare in 4..=count {
        replicas.start(spare, "join");
    }
    replicas.until_count(count, 3);
    replicas
}

async fn one_after_the_other(engine: &'static str, expected: &[usize]) {
    let mut replicas = Replicas::new(expected.len(), engine);
    replicas.start(1, "new");
    replicas.until_count(1, 1);
    let mut phases = Vec::new();
    let report = replicas
        .under_load(async |replicas, recorder| {
            let mut from = recorder.now();
            for (at, voters) in expected.iter().enumerate().skip(1) {
                replicas.start(at + 1, "join");
                replicas.until_count(at + 1, *voters);
                let to = recorder.now();
                phases.push((at + 1, *voters, from, to));
                from = to;
            }
        })
        .await;
    for (replica, voters, from, to) in phases {
        let (p99, answers) = p99(&report, from, to);
        let seconds = (to - from) as f64 / 1e9;
        println!(
            "{engine}: replica {replica} comes, {voters} voters after {seconds:.1} s: p99 {p99:.1} ms of {answers} answers"
        );
    }
    assert_eq!((report.failed, report.unknown), (0, 0), "no call fails while the cluster grows");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_1_to_6_give_1_1_3_3_5_5_voters_and_no_call_fails() {
    one_after_the_other("embedded", &[1, 1, 3, 3, 5, 5]).await;
}

#[test]
fn replicas_that_start_at_once_found_one_cluster() {
    let mut replicas = Replicas::new(3, "embedded");
    for replica in 1..=3 {
        replicas.start(replica, "quorum");
    }
    replicas.until_count(3, 3);
    let founded: Vec<_> =
        (1..=3).filter(|replica| replicas.identity(*replica).unwrap()["node"]["founds"] == true).collect();
    assert_eq!(founded.len(), 1, "{founded:?}");
}

#[test]
fn two_replicas_that_are_cut_off_from_each_other_found_nothing_until_they_are_a_majority() {
    let Some(mut replicas) = Replicas::in_network(3) else { return };
    replicas.cut_off(&[1]);
    replicas.start(1, "quorum");
    replicas.start(2, "quorum");
    eventually("replica 1 says why it waits", || {
        replicas.log(1).contains("a majority of the 3 replicas").then_some(())
    });
    eventually("replica 2 says why it waits", || {
        replicas.log(2).contains("a majority of the 3 replicas").then_some(())
    });
    for replica in [1, 2] {
        assert_eq!(replicas.identity(replica).unwrap()["cluster"], Value::Null);
    }
    replicas.heal();
    replicas.until_count(2, 1);
    replicas.start(3, "quorum");
    replicas.until_count(3, 3);
}

/// Wherever it is killed, there is one cluster in the end.
#[test]
#[ignore = "slow: cargo test -p snet --features etcd --test storage_growing -- --ignored --test-threads 1 --nocapture"]
fn a_founder_that_is_killed_after_its_promises_or_after_it_has_founded_is_the_founder_still() {
    for after in ["proposed", "node"] {
        let mut replicas = Replicas::new(3, "embedded");
        replicas.start(1, "quorum");
        replicas.start(2, "quorum");
        eventually(after, || replicas.identity(1).filter(|identity| !identity[after].is_null()));
        replicas.kill(1);
        replicas.start(3, "quorum");
        let founder = replicas.identity(1).unwrap();
        if !founder["node"].is_null() {
            // It may have acknowledged writes: nobody else may found a cluster.
            stays("no other cluster is founded", DEAD_AFTER * 2, || {
                [2, 3].iter().all(|other| replicas.identity(*other).is_none_or(|other| other["node"].is_null()))
            });
        }
        replicas.start(1, "quorum");
        let shown = replicas.until_count(3, 3);
        if !founder["node"].is_null() {
            assert_eq!(shown["cluster"], founder["cluster"], "killed after {after}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: cargo test -p snet --features etcd --test storage_growing -- --ignored --test-threads 1 --nocapture"]
async fn a_dead_voter_is_replaced_by_a_spare_and_stays_without_one() {
    let mut replicas = three_of(4);
    let report = replicas
        .under_load(async |replicas, _| {
            let victim = (1..=3).find(|id| *id != replicas.leader()).unwrap();
            replicas.kill(victim);
            let shown = replicas.until("the spare in its place", |shown| {
                roles(shown, "voter").contains(&4) && roles(shown, "voter").len() == 3 && settled(shown)
            });
            assert!(!roles(&shown, "voter").contains(&victim), "{shown:#}");
            // Without a spare it stays.
            let second = (1..=4).find(|id| *id != replicas.leader() && *id != victim).unwrap();
            let before = changes(&shown);
            replicas.kill(second);
            let shown = replicas.until("its death", |shown| replica(shown, second)["state"] == "dead");
            assert_eq!(roles(&shown, "voter").len(), 3, "{shown:#}");
            stays("nothing is changed without a spare", DEAD_AFTER, || {
                replicas.show().is_none_or(|shown| changes(&shown) == before)
            });
            // The first comes back, without its node, and takes the place of the second.
            replicas.start(victim, "join");
            replicas.until("the first is back", |shown| roles(shown, "voter").contains(&victim) && settled(shown));
            replicas.start(second, "join");
            replicas.until_count(4, 3);
        })
        .await;
    assert!(report.succeeded > 100, "{report}");
}

#[test]
fn two_of_three_that_are_killed_leave_no_acknowledgement_and_no_change() {
    let mut replicas = three_of(3);
    let before = changes(&replicas.show().unwrap());
    replicas.kill(2);
    replicas.kill(3);
    let url = format!("http://{}", replicas.cluster.node(0).unwrap().client_url());
    let began = Instant::now();
    let mut tried = 0;
    while began.elapsed() < DEAD_AFTER * 2 {
        let put = snet(&["storage", "put", "a", "1", "--seconds", "2", "--endpoints", &url]);
        assert!(!put.status.success(), "{put:?}");
        tried += 1;
    }
    assert!(tried > 0);
    replicas.start(2, "join");
    replicas.start(3, "join");
    let shown = replicas.until_voters(&[1, 2, 3]);
    assert_eq!(changes(&shown), before, "{shown:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_loses_its_disk_comes_back_with_a_new_id() {
    let mut replicas = three_of(3);
    replicas
        .under_load(async |replicas, _| {
            let victim = (1..=3).find(|id| *id != replicas.leader()).unwrap();
            let before = replicas.show().unwrap();
            let former = replica(&before, victim)["node"].clone();
            replicas.wipe(victim);
            replicas.start(victim, "join");
            let shown = replicas.until("it votes again", |shown| {
                let node = &replica(shown, victim)["node"];
                roles(shown, "voter") == [1, 2, 3] && *node != former && settled(shown)
            });
            assert_eq!(shown["lost_voters"], Value::Array(Vec::new()));
        })
        .await;
}

#[test]
fn a_first_replica_that_loses_its_disk_and_is_cut_off_while_it_catches_up_does_not_elect_itself() {
    let Some(mut replicas) = Replicas::in_network(3) else { return };
    replicas.start(1, "new");
    replicas.until_count(1, 1);
    replicas.start(2, "join");
    replicas.start(3, "join");
    let before = replicas.until_voters(&[1, 2, 3]);
    replicas.wipe(1);
    replicas.start(1, "join");
    eventually("it is given a node", || replicas.identity(1).filter(|identity| !identity["node"].is_null()));
    replicas.cut_off(&[1]);
    let url = format!("http://{}", replicas.cluster.node(0).unwrap().client_url());
    let began = Instant::now();
    while began.elapsed() < DEAD_AFTER {
        let put = snet(&["storage", "put", "a", "1", "--seconds", "1", "--endpoints", &url]);
        assert!(!put.status.success(), "{put:?}");
    }
    assert_eq!(replicas.identity(1).unwrap()["cluster"], before["cluster"], "it has no cluster of its own");
    replicas.heal();
    let shown = replicas.until("it votes with another node", |shown| {
        let node = &replica(shown, 1)["node"];
        roles(shown, "voter") == [1, 2, 3] && *node != replica(&before, 1)["node"] && settled(shown)
    });
    assert_eq!(shown["cluster"], before["cluster"]);
}

#[test]
fn a_first_replica_that_loses_its_disk_waits_while_no_other_is_there() {
    let mut replicas = three_of(3);
    let before = replicas.show().unwrap();
    replicas.kill(2);
    replicas.kill(3);
    replicas.wipe(1);
    replicas.start(1, "join");
    eventually("it says that it waits", || replicas.log(1).contains("no node of it answers").then_some(()));
    stays("it founds nothing", DEAD_AFTER, || replicas.identity(1).unwrap()["cluster"].is_null());
    replicas.start(2, "join");
    replicas.start(3, "join");
    // Its former id is never used again.
    let shown = replicas.until("it votes with another node", |shown| {
        let node = &replica(shown, 1)["node"];
        roles(shown, "voter") == [1, 2, 3] && *node != replica(&before, 1)["node"] && settled(shown)
    });
    assert_eq!(shown["cluster"], before["cluster"]);
}

#[test]
fn a_replica_with_another_token_is_not_taken_in() {
    let mut replicas = first_of(3);
    replicas.token(2, "another word");
    replicas.start(2, "join");
    eventually("it says why", || replicas.log(2).contains("another token").then_some(()));
    replicas.start(3, "join");
    let shown = replicas.until_count(2, 1);
    assert_eq!(replica(&shown, 2), &Value::Null, "{shown:#}");
    assert!(replicas.identity(2).unwrap()["cluster"].is_null());
}

#[test]
fn a_node_of_another_cluster_at_the_address_of_a_replica_is_not_mixed_in() {
    let mut replicas = first_of(3);
    let url = |port: &str| format!("http://127.0.0.1:{}", replicas.cluster.node(1).unwrap().port(port).unwrap());
    let (client, peer, dir) = (url("client"), url("peer"), tempfile::tempdir().unwrap());
    let mut foreign = std::process::Command::new(env!("CARGO_BIN_EXE_snet"))
        .current_dir(dir.path())
        .args([
            "storage",
            "init",
            "--name",
            "f",
            "--token",
            "another word",
            "--client-url",
            &client,
            "--peer-url",
            &peer,
        ])
        .args(["--initial-cluster", format!("f={peer}").as_str()])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the foreign node", || {
        snet(&["storage", "put", "a", "1", "--endpoints", &client]).status.success().then_some(())
    });
    replicas.start(3, "join");
    let shown = replicas.until_count(2, 1);
    assert_eq!(roles(&shown, "voter"), [1]);
    assert_eq!(replicas.identity(3).unwrap()["cluster"], shown["cluster"]);
    let found = common::json(&["storage", "scan", "", "--endpoints", &client]);
    assert_eq!(found["entries"].as_array().unwrap().len(), 1, "nobody has written there: {found}");
    foreign.kill().unwrap();
    foreign.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: cargo test -p snet --features etcd --test storage_growing -- --ignored --test-threads 1 --nocapture"]
async fn a_leader_that_is_killed_in_a_change_leaves_one_that_the_next_leader_ends() {
    let mut replicas = first_of(5);
    for replica in 2..=5 {
        replicas.start(replica, "join");
    }
    let before = replicas.until_count(5, 5);
    replicas
        .under_load(async |replicas, _| {
            let leader = leader_of(&before).unwrap();
            let victim = (1..=5).find(|id| *id != leader).unwrap();
            let former = replica(&before, victim)["node"].clone();
            replicas.wipe(victim);
            replicas.start(victim, "join");
            // As soon as the change that takes it in again is announced.
            replicas.until("the change is announced", |shown| {
                changes(shown) > changes(&before) + 1
                    && shown["last_change"]["what"].as_str().unwrap().starts_with("make the voters")
            });
            replicas.kill(leader);
            replicas.until("the change is ended", |shown| {
                let node = &replica(shown, victim)["node"];
                roles(shown, "voter").contains(&victim)
                    && *node != former
                    && leader_of(shown).is_some_and(|now| now != leader)
            });
            replicas.start(leader, "join");
            replicas.until_count(5, 5);
        })
        .await;
}

#[test]
fn two_replicas_that_join_at_once_are_taken_in_by_one_change() {
    let mut replicas = first_of(3);
    replicas.start(2, "join");
    replicas.start(3, "join");
    let shown = replicas.until_voters(&[1, 2, 3]);
    assert_eq!(changes(&shown), 3, "two learners, and one change of voters: {shown:#}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: cargo test -p snet --features etcd --test storage_growing -- --ignored --test-threads 1 --nocapture"]
async fn a_leader_that_leaves_hands_over_and_no_call_fails() {
    let mut replicas = three_of(4);
    let mut gone = 0;
    let report = replicas
        .under_load(async |replicas, _| {
            gone = replicas.leader();
            let file = replicas.config(gone);
            let left = snet(&["storage", "cluster", "leave", &gone.to_string(), "--config", file.to_str().unwrap()]);
            assert!(left.status.success(), "{left:?}");
            let shown = replicas.until("it has left", |shown| {
                replica(shown, gone)["role"] == "left" && roles(shown, "voter").len() == 3 && settled(shown)
            });
            assert_ne!(leader_of(&shown), Some(gone));
        })
        .await;
    // Calls are sent again by the client, or end by the node that takes over.
    let longest =
        report.history.operations().iter().filter_map(|operation| Some(operation.end? - operation.start)).max();
    println!("the longest call took {} ms", longest.unwrap() / 1_000_000);
    assert_eq!(report.failed, 0, "{report}");
    let undone = ["storage", "cluster", "leave", &gone.to_string(), "--undo", "--config"];
    let file = replicas.config(gone);
    assert!(snet(&[&undone[..], &[file.to_str().unwrap()]].concat()).status.success());
    replicas.until("it is a spare", |shown| replica(shown, gone)["role"] == "spare");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: cargo test -p snet --features etcd --test storage_growing -- --ignored --test-threads 1 --nocapture"]
async fn a_voter_that_stood_still_and_was_replaced_serves_nothing_afterwards() {
    let mut replicas = three_of(4);
    replicas
        .under_load(async |replicas, _| {
            let shown = replicas.show().unwrap();
            let leader = replicas.leader();
            let victim = (1..=3).find(|id| *id != leader).unwrap();
            let former = replica(&shown, victim)["node"].clone();
            replicas.cluster.pause(victim - 1).unwrap();
            replicas.until("it is replaced", |shown| {
                roles(shown, "voter").contains(&4) && !roles(shown, "voter").contains(&victim) && settled(shown)
            });
            replicas.cluster.resume(victim - 1).unwrap();
            // Clients ask it as well: what it answers is in the history.
            let shown = replicas.until("it is a spare", |shown| {
                let now = replica(shown, victim);
                now["role"] == "spare" && now["state"] == "live" && now["runs_node"] == false
            });
            assert_ne!(replica(&shown, victim)["node"], former);
        })
        .await;
}

#[test]
#[ignore = "slow: cargo test -p snet --features etcd --test storage_growing -- --ignored --test-threads 1 --nocapture"]
fn a_replica_that_flaps_makes_one_change_at_the_most() {
    let mut replicas = three_of(4);
    let shown = replicas.show().unwrap();
    let (before, leader) = (changes(&shown), leader_of(&shown).unwrap());
    let victim = (1..=3).find(|id| *id != leader).unwrap();
    // Shorter than the threshold: nothing happens.
    for _ in 0..3 {
        replicas.cluster.pause(victim - 1).unwrap();
        thread::sleep(DEAD_AFTER / 4);
        replicas.cluster.resume(victim - 1).unwrap();
        thread::sleep(DEAD_AFTER / 4);
    }
    assert_eq!(changes(&replicas.until_count(4, 3)), before);
    // Longer: it is replaced once, by a learner that then votes.
    for _ in 0..2 {
        replicas.kill(victim);
        replicas.until("it is gone", |shown| replica(shown, victim)["state"] == "dead" && settled(shown));
        replicas.start(victim, "join");
        replicas.until("it is back", |shown| replica(shown, victim)["state"] == "live");
    }
    let after = changes(&replicas.until_count(4, 3));
    assert_eq!(after - before, 2, "one that comes, and one change of voters");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: cargo test -p snet --features etcd --test storage_growing -- --ignored --test-threads 1 --nocapture"]
async fn the_power_of_all_fails_in_the_middle_of_a_change() {
    let mut image = match Image::create(&std::env::temp_dir()) {
        Ok(image) => image,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let mut replicas = Replicas::on(&image, 3);
    replicas.start(1, "new");
    replicas.until_voters(&[1]);
    let put = |replicas: &Replicas, value: &str| {
        let url = format!("http://{}", replicas.cluster.node(0).unwrap().client_url());
        assert!(snet(&["storage", "put", "a", value, "--endpoints", &url]).status.success());
    };
    put(&replicas, "1");
    image.sync().unwrap();
    replicas.start(2, "join");
    replicas.start(3, "join");
    replicas.until("a change", |shown| changes(shown) >= 1);
    put(&replicas, "2");
    for node in 0..3 {
        replicas.cluster.pause(node).unwrap();
    }
    image.power_off().unwrap();
    replicas.cluster.kill_all();
    image.power_on().unwrap();
    for replica in 1..=3 {
        replicas.start(replica, "join");
    }
    replicas.until_voters(&[1, 2, 3]);
    let url = format!("http://{}", replicas.cluster.node(0).unwrap().client_url());
    let got = snet(&["storage", "get", "a", "--value-only", "--endpoints", &url]);
    assert_eq!(common::stdout(&got), "2", "{got:?}");
    drop(replicas);
}

#[test]
fn a_dry_run_tells_and_does_nothing() {
    let mut replicas = first_of(3);
    replicas.kill(1);
    let file = replicas.config(1);
    let dir = file.parent().unwrap();
    let mut dry = std::process::Command::new(env!("CARGO_BIN_EXE_snet"))
        .current_dir(dir)
        .args(["storage", "serve", "--incremental", "--config", "cluster.toml", "--replica", "1", "--dry-run"])
        .spawn()
        .unwrap();
    replicas.start(2, "join");
    replicas.start(3, "join");
    let shown = replicas
        .until("it tells", |shown| shown["intends"].as_str().is_some_and(|intends| intends.contains("a dry run")));
    assert!(shown["intends"].as_str().unwrap().starts_with("start a node at replica 2"), "{shown:#}");
    stays("nothing is changed", DEAD_AFTER, || replicas.show().is_none_or(|shown| roles(&shown, "voter") == [1]));
    dry.kill().unwrap();
    dry.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: cargo test -p snet --features etcd --test storage_growing -- --ignored --test-threads 1 --nocapture"]
async fn an_etcd_grows_1_1_3_and_a_killed_and_wiped_member_is_replaced() {
    let mut replicas = Replicas::new(3, "etcd");
    replicas.start(1, "new");
    replicas.until_count(1, 1);
    replicas.start(2, "join");
    replicas.until_count(2, 1);
    replicas.start(3, "join");
    let before = replicas.until_voters(&[1, 2, 3]);
    let leader = leader_of(&before).unwrap();
    let victim = (1..=3).find(|id| *id != leader).unwrap();
    replicas.wipe(victim);
    replicas.start(victim, "join");
    replicas.until("it votes again, with a new id", |shown| {
        let now = &replica(shown, victim)["node"];
        roles(shown, "voter") == [1, 2, 3] && *now != replica(&before, victim)["node"] && settled(shown)
    });
}

/// It takes minutes, as the members of an etcd rest between changes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: cargo test -p snet --features etcd --test storage_growing an_etcd -- --ignored --nocapture"]
async fn an_etcd_grows_1_1_3_3_5() {
    one_after_the_other("etcd", &[1, 1, 3, 3, 5]).await;
}
