//! What a million channels cost. A measurement, not a test of limits that a busy machine may miss: run it alone, with
//! `cargo test --release -p storage-embedded --lib a_million -- --ignored --nocapture`.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use super::*;
use crate::{disk::RealDisk, raft::SnapshotMeta, snapshot::SnapshotStore};

const RECORDS: u64 = 1_000_000;
const BATCH: u64 = 256;

/// A key of 60 bytes.
fn name(number: u64) -> Key {
    Key::new(format!("{:060x}", u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))).unwrap()
}

fn put(number: u64) -> Bytes {
    Command::encode_txn(&Txn::new().put(name(number), vec![7; 300]), None, None)
}

fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Applies puts in batches under the lock, as raft does, until told to stop; gives how long each batch took.
fn load(shared: &SharedState, batches: impl Iterator<Item = u64>) -> Vec<Duration> {
    let mut took = Vec::new();
    for batch in batches {
        let proposals: Vec<_> =
            (0..BATCH).map(|place| crate::raft::Proposal(put((batch * BATCH + place) * 7919 % RECORDS))).collect();
        let began = Instant::now();
        shared.write(|replica| {
            for (index, proposal) in (0..).zip(&proposals) {
                replica.state.apply_proposal(index, proposal);
            }
        });
        took.push(began.elapsed());
    }
    took
}

fn report(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let total: Duration = took.iter().sum();
    let rate = BATCH as f64 * took.len() as f64 / total.as_secs_f64();
    let at = |thousandths: usize| took[(took.len() - 1) * thousandths / 1000];
    println!(
        "{what}: {rate:.0} puts/s, a batch of {BATCH}: median {:?}, p99 {:?}, max {:?}",
        at(500),
        at(990),
        at(1000)
    );
}

#[test]
#[ignore = "a measurement"]
fn a_million_records_in_memory_and_in_a_snapshot() {
    let before = resident_bytes();
    let (shared, _sender) = SharedState::new(Replica::default());
    report("from empty to a million", load(&shared, 0..RECORDS / BATCH + 1));
    let records = shared.read(|replica| replica.state.tables().counts().records);
    let used = (resident_bytes() - before) as u64;
    println!("{records} records, {} bytes each with the history of {} changes", used / records, 65_536);
    report("with a million", load(&shared, 0..2000));

    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let snapshots = SnapshotStore::open(std::sync::Arc::new(RealDisk), dir.path()).unwrap();
    let tables = shared.read(|replica| replica.state.tables().clone());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let began = Instant::now();
            let written = snapshots.write(SnapshotMeta::default(), &tables, &|| true).unwrap();
            println!("a snapshot of {} MB took {:?}", written.snapshot.length() / 1_000_000, began.elapsed());
            done.store(true, Ordering::Relaxed);
        });
        report("during a snapshot", load(&shared, (0..).take_while(|_| !done.load(Ordering::Relaxed))));
    });
    drop(tables);
    let began = Instant::now();
    let (_, loaded) = snapshots.load(&snapshots.newest().unwrap().snapshot).unwrap();
    println!("loading it took {:?}", began.elapsed());
    assert_eq!(loaded.counts().records, records);
    let with_both = (resident_bytes() - before) as u64;
    println!("{} bytes a record of the loaded state", (with_both - used) / records);
}
