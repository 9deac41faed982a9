//! How fast it is, against the disk alone: `cargo test --release -p storage-embedded --lib log::tests::bench -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use super::*;
use crate::disk::{Disk, RealDisk};

const TIME: Duration = Duration::from_secs(2);
/// A record of a 128-byte value, roughly.
const PAYLOAD: usize = 160;

/// Calls per second.
fn rate(mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut calls = 0.0;
    while start.elapsed() < TIME {
        call();
        calls += 1.0;
    }
    calls / start.elapsed().as_secs_f64()
}

#[test]
#[ignore = "a measurement"]
fn appends_against_raw_syncs() {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    for _ in 0..3 {
        for records in [1, 10, 100] {
            let file = RealDisk.create(&dir.path().join("raw")).unwrap();
            file.write_at(&vec![0; 16 << 20], 0).unwrap();
            file.sync_data().unwrap();
            let bytes = vec![1; records * (PAYLOAD + 26) + 16];
            let mut at = 0;
            let raw = rate(|| {
                at = if at + bytes.len() > 16 << 20 { 0 } else { at };
                file.write_at(&bytes, at as u64).unwrap();
                file.sync_data().unwrap();
                at += bytes.len();
            });
            let options = LogOptions { background: true, ..LogOptions::default() };
            let mut log = Log::open_in(Arc::new(RealDisk), &dir.path().join("log"), &options, None).unwrap();
            let payload = Bytes::from(vec![1; PAYLOAD]);
            let mut index = now(log.get_log_state()).unwrap().last_log_id.map_or(0, |id| id.index + 1);
            let ours = rate(|| {
                let entries = (0..records as u64).map(|n| Entry {
                    log_id: log_id(1, index + n),
                    payload: EntryPayload::Normal(Proposal(payload.clone())),
                });
                let (sender, receiver) = TypeConfig::oneshot();
                now(log.append(entries, IOFlushed::Signal(sender))).unwrap();
                receiver.now_or_never().unwrap().unwrap().unwrap();
                index += records as u64;
            });
            let metrics = log.metrics();
            println!(
                "{records:3} records: raw {raw:6.0} batches/s, log {ours:6.0} ({:.2}), {:7.0} records/s, {} segments, mean sync {:?}",
                ours / raw,
                ours * records as f64,
                metrics.segments,
                metrics.sync_time / u32::try_from(metrics.batches).unwrap()
            );
            now(log.purge(log_id(1, index - 1))).unwrap();
        }
    }
}
