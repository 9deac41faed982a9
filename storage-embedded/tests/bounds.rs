//! What a node keeps on its disk is bounded in bytes, and a follower that was away for a while is sent the log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    env, fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use storage_core::{Key, ReadOptions, Store, StoreExt};
use storage_embedded::{LocalCluster, Node, NodeConfig, Role};

const SOON: Duration = Duration::from_secs(60);
const KIB: u64 = 1 << 10;

fn small(config: NodeConfig) -> NodeConfig {
    let mut config = config.fast();
    config.bounds.snapshot_bytes = 512 * KIB;
    config.bounds.log_kept_bytes = 512 * KIB;
    config
}

/// Writes so many KiB, on few keys.
async fn write(node: &Node, kib: u64) {
    let store = node.store();
    for number in 0..kib / 64 {
        let key = Key::try_from(format!("k{}", number % 4).as_str()).unwrap();
        store.put(&key, vec![number.to_le_bytes()[0]; 64 << 10]).await.unwrap();
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_values_are_in_snapshots_and_gone_from_the_log_long_before_there_are_many() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(dir.path(), 1, small).await.unwrap();
    let node = cluster.node(0).unwrap();
    write(node, 16 << 10).await;
    // 256 entries of 64 KiB: far from the 500,000 after which a snapshot is due however small they are.
    until("a snapshot holds nearly all, and the log was given up", || {
        let status = node.status();
        status.snapshot.is_some_and(|snapshot| snapshot > 64) && status.purged.is_some_and(|purged| purged > 64)
    })
    .await;
    let status = node.status();
    let behind = status.last_log_index.unwrap() - status.purged.unwrap().max(status.snapshot.unwrap());
    let most = status.snapshots.newest_bytes.max(512 * KIB) / (64 * KIB);
    assert!(behind <= 2 * most + 16, "{behind} entries behind the snapshot, {most} are allowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_for_a_while_is_sent_the_log_and_after_long_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(dir.path(), 3, small).await.unwrap();
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower().unwrap());
    for (kib, snapshots) in [(1536, 0), (8192, 1)] {
        follower.isolate(true);
        write(leader, kib).await;
        until("the leader has a snapshot", || leader.status().snapshot > follower.status().last_log_index).await;
        if snapshots == 0 {
            // Time in which too much would be given up.
            tokio::time::sleep(Duration::from_millis(500)).await;
        } else {
            until("the log is given up", || leader.status().purged > follower.status().last_log_index).await;
        }
        follower.isolate(false);
        until("the follower has caught up", || follower.status().last_applied >= leader.status().committed).await;
        assert_eq!(leader.status().role, Role::Leader);
        assert_eq!(follower.status().snapshots.received, snapshots, "after {kib} KiB");
    }
}

/// A node that wrote `MIB` on 8 keys and was killed is started again by a process of its own, which reads all of it.
#[test]
fn a_start_takes_at_most_half_more_memory_than_the_node_took_that_wrote_so_much() {
    let dir = tempfile::tempdir().unwrap();
    let peak = || {
        let mut process = Command::new(env::current_exe().unwrap());
        process.args(["--exact", "a_node_in_a_process_of_its_own", "--ignored", "--nocapture"]);
        let output = process.env(DIRECTORY, dir.path()).output().unwrap();
        let says = String::from_utf8_lossy(&output.stdout).into_owned();
        let peak = says.lines().find_map(|line| line.split_once(PEAK)?.1.trim().parse::<u64>().ok());
        peak.unwrap_or_else(|| panic!("{says}{}", String::from_utf8_lossy(&output.stderr)))
    };
    let (running, starting) = (peak(), peak());
    println!("{running} KiB when it wrote, {starting} KiB when it started again");
    assert!(2 * starting <= 3 * running, "{starting} KiB at the start, and {running} KiB when it wrote");
}

/// What is written: four times the entries that a log keeps in memory.
const MIB: u64 = 256;

/// Where the node of the process has its data.
const DIRECTORY: &str = "BOUNDS_DIRECTORY";

/// Behind this a process prints how many KiB of memory it had at the most.
const PEAK: &str = "peak: ";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a process of the test above"]
async fn a_node_in_a_process_of_its_own() {
    let dir = env::var(DIRECTORY).expect("the test above starts it");
    let mut config = NodeConfig::alone(1, 7, &dir);
    // No snapshot: all is left in the log, for the start to read.
    (config.bounds.snapshot_bytes, config.bounds.log_kept_bytes) = (MIB << 21, MIB << 21);
    let node = Node::start(config).await.unwrap();
    node.wait_for_leader(SOON).await.unwrap();
    let (store, last) = (node.store(), Key::try_from("last").unwrap());
    if store.get(&last, ReadOptions::default()).await.unwrap().is_none() {
        for number in 0..2 * MIB {
            let key = Key::try_from(format!("k{}", number % 8).as_str()).unwrap();
            store.put(&key, vec![number.to_le_bytes()[0]; 512 << 10]).await.unwrap();
        }
        store.put(&last, "1").await.unwrap();
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB"));
    println!("{PEAK}{}", peak.expect("the kernel tells"));
    assert_eq!(node.status().snapshot, None);
    // As if it were killed.
    std::process::exit(0);
}

/// The nodes must live through what openraft issue 2116 tells of: writes without a pause, and the log given up close behind them.
///
/// `SOAK_SECONDS=1200 cargo test --release -p storage-embedded --test bounds -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a soak of 20 minutes, or SOAK_SECONDS"]
async fn three_nodes_at_full_rate_with_a_snapshot_every_few_seconds() {
    let seconds = std::env::var("SOAK_SECONDS").map_or(1200, |seconds| seconds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(dir.path(), 3, NodeConfig::fast).await.unwrap();
    let (store, written) = (Arc::new(cluster.store().unwrap()), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let end = began + Duration::from_secs(seconds);
    let writers: Vec<_> = (0..128_u64)
        .map(|writer| {
            let (store, written) = (Arc::clone(&store), Arc::clone(&written));
            tokio::spawn(async move {
                for number in 0_u64.. {
                    if Instant::now() >= end {
                        return;
                    }
                    let key = Key::try_from(format!("k{writer}-{}", number % 64).as_str()).unwrap();
                    store.put(&key, vec![number.to_le_bytes()[0]; 1024]).await.unwrap();
                    written.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let took = began.elapsed().as_secs_f64();
    println!("{:.0} writes/s of 1 KiB for {took:.0} s", written.load(Relaxed) as f64 / took);
    for node in cluster.running() {
        let status = node.status();
        println!(
            "node {}: {:?}, {} snapshots written, {} received, entries {:?} to {:?} in the log",
            node.id(),
            status.role,
            status.snapshots.written,
            status.snapshots.received,
            status.purged,
            status.last_log_index
        );
        assert_ne!(status.role, Role::Stopped);
        assert!(status.snapshots.written > 0);
    }
}
