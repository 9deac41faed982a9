//! Somebody else fills the disk of a node: it holds some in reserve, and the cluster gets out of it by its own means.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use storage_core::{Error, Key, ReadOptions, Store, StoreExt, Txn, WriteOptions};
use storage_embedded::{LocalCluster, NodeConfig};

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// A small file system of its own. Linux with root.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(bytes: u64) -> Result<Self, String> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={bytes},mode=700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self(dir)),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Takes all that is left of it.
    fn fill(&self) -> PathBuf {
        let path = self.0.path().join("of-somebody-else");
        let mut file = File::options().append(true).create(true).open(&path).unwrap();
        for size in [1 << 20, 4096] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

fn key(name: &str) -> Key {
    Key::try_from(name).unwrap()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn commit(cluster: &LocalCluster, place: usize, txn: Txn) -> Result<(), Error> {
    let options = WriteOptions::default().timeout(SOON);
    cluster.node(place).unwrap().store().commit(txn, options).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_somebody_else_fills_stops_growth_and_nothing_else() {
    let disk = match SmallDisk::mount(256 * MIB) {
        Ok(disk) => disk,
        Err(reason) => return println!("skipped, since there is no file system of its own: {reason}"),
    };
    let dir = tempfile::tempdir().unwrap();
    let place = disk.0.path().join("n1");
    let of_first = |mut config: NodeConfig, dir: &Path| {
        if config.id == 1 {
            config.data_dir = dir.to_path_buf();
        }
        config.election = Duration::from_secs(2)..Duration::from_secs(4);
        (config.bounds.snapshot_bytes, config.bounds.log_kept_bytes) = (8 * MIB, 8 * MIB);
        config
    };
    let mut cluster = LocalCluster::start(dir.path(), 3, |config| of_first(config, &place)).await.unwrap();
    for number in 0..50 {
        commit(&cluster, 0, Txn::new().put(key(&format!("k{number}")), "v")).await.unwrap();
    }
    let space = |cluster: &LocalCluster| cluster.node(0).unwrap().status().disk;
    until("it holds its reserve", || space(&cluster).reserve >= 32 * MIB && !space(&cluster).is_short()).await;

    let filled = disk.fill();
    until("each node knows the alarm", || cluster.running().all(|node| node.status().alarms == [1])).await;
    // With what it holds it starts again, too.
    cluster.stop(0).await;
    disk.fill();
    cluster.restart(0).await.unwrap();
    cluster.wait_for_leader().await.unwrap();
    for place in 0..3 {
        let refused = commit(&cluster, place, Txn::new().put(key("more"), "1")).await;
        assert!(
            matches!(&refused, Err(Error::Throttled { source, .. }) if source.to_string().contains("no space")),
            "{refused:?}"
        );
        commit(&cluster, place, Txn::new().delete(key(&format!("k{place}")))).await.unwrap();
        let read = ReadOptions::default().timeout(SOON);
        assert!(cluster.node(place).unwrap().store().get(&key("k9"), read).await.unwrap().is_some());
    }
    // Many segments of log, and the snapshots behind which they are given up: on the full disk as on the others.
    for number in 0..1024_u32 {
        let content = vec![number.to_le_bytes()[0]; 63 << 10];
        cluster.node(number as usize % 3).unwrap().put_row("row", content, SOON).await.unwrap();
    }
    let node = cluster.node(0).unwrap();
    node.mvcc().compact(10, SOON).await.unwrap();
    node.mvcc().barrier(SOON).await.unwrap();
    let before = node.status().last_applied;
    // What raft tells of itself may be behind its state: the first may be of what was applied a moment before.
    let deadline = Instant::now() + SOON;
    while node.status().snapshot < before {
        assert!(Instant::now() < deadline, "{:?} of {before:?}", node.status().snapshot);
        node.snapshot(SOON).await.unwrap();
    }
    assert!(space(&cluster).reserve < 32 * MIB, "it was used: {:?}", space(&cluster));
    assert!(cluster.running().all(|node| node.why_stopped().is_none()));

    // Disarmed without space, it is raised again by the node itself.
    assert!(cluster.node(1).unwrap().mvcc().disarm(1, SOON).await.unwrap());
    until("it is raised again", || cluster.node(1).unwrap().status().alarms == [1]).await;
    fs::remove_file(filled).unwrap();
    until("it holds its reserve again", || !space(&cluster).is_short()).await;
    assert!(cluster.node(2).unwrap().mvcc().disarm(1, SOON).await.unwrap());
    for place in 0..3 {
        let store = cluster.node(place).unwrap().store();
        store.put(&key("more"), "1").await.unwrap();
    }
    assert_eq!(cluster.node(0).unwrap().status().alarms, []);
}
