//! With threads, on a real disk.

use std::time::{Duration, Instant};

use super::*;
use crate::disk::RealDisk;
use crate::simulated::Fault;

fn background(dir: &Path, confirm_after: Duration) -> Log {
    let options = LogOptions { segment_bytes: 64 << 10, cache_bytes: 4096, confirm_after, ..LogOptions::default() };
    Log::open_in(Arc::new(RealDisk), dir, &options, None).unwrap()
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn appends_are_acknowledged_while_the_mode_changes_and_are_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = background(dir.path(), Duration::from_secs(60));
    let mut random = fastrand::Rng::with_seed(5);
    let mut waiting = Vec::new();
    for index in 0..3000 {
        if random.u8(..10) == 0 {
            log.sync_inline(random.bool());
        }
        let (sender, receiver) = TypeConfig::oneshot();
        log.append([entry(1, index, &index.to_le_bytes())], IOFlushed::Signal(sender)).await.unwrap();
        waiting.push(receiver);
        let at = random.u64(..=index);
        let read = log.try_get_log_entries(at..=at).await.unwrap();
        assert_eq!(read, [entry(1, at, &at.to_le_bytes())], "an appended entry can be read at once");
    }
    log.sync_inline(false);
    log.save_vote(&Vote::new(4, 2)).await.unwrap();
    for receiver in &mut waiting {
        tokio::task::unconstrained(receiver).now_or_never().expect("all before the vote is durable").unwrap().unwrap();
    }
    let metrics = log.metrics();
    assert!(metrics.batches < 3001 && metrics.entries == 3000, "{metrics:?}");
    assert_eq!(metrics.syncs.iter().sum::<u64>(), metrics.batches);
    assert!(metrics.segments >= 1);
    drop(log);
    let mut log = background(dir.path(), Duration::from_secs(60));
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(4, 2)));
    let entries = log.try_get_log_entries(..).await.unwrap();
    assert!((0..3000).map(|index| entry(1, index, &index.to_le_bytes())).eq(entries));
}

#[tokio::test]
async fn an_idle_log_confirms_itself_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = background(dir.path(), Duration::from_millis(5));
    let (sender, receiver) = TypeConfig::oneshot();
    log.append([entry(1, 0, b"x")], IOFlushed::Signal(sender)).await.unwrap();
    receiver.await.unwrap().unwrap();
    wait_for("the confirmation", || log.metrics().batches == 2);
    let (checked, mut rounds) = (Instant::now(), 0);
    while checked.elapsed() < Duration::from_millis(50) {
        rounds += 1;
        assert_eq!(log.metrics().batches, 2, "one is enough, round {rounds}");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_failure_in_the_background_reaches_everyone() {
    let disk = SimDisk::new(1);
    let options = LogOptions { confirm_after: Duration::from_secs(60), background: true, ..options() };
    let mut log = Log::open_in(Arc::new(disk.clone()), dir(), &options, None).unwrap();
    let mut failure = log.watch_failure();
    log.sync_inline(false);
    let next = disk.operations();
    // The spare is prepared meanwhile: any of the next operations may be its.
    (next..next + 40).for_each(|operation| disk.fail_at(operation, Fault::Eio));
    let (sender, receiver) = TypeConfig::oneshot();
    let appended = log.append([entry(1, 0, b"x")], IOFlushed::Signal(sender)).await;
    if appended.is_ok() {
        receiver.await.unwrap().unwrap_err();
    }
    failure.wait_for(Option::is_some).await.unwrap();
    log.save_vote(&Vote::new(1, 1)).await.unwrap_err();
    log.close().unwrap_err();
}

#[test]
fn the_directory_is_free_when_the_log_is_closed() {
    use super::super::DataDir;
    let dir = tempfile::tempdir().unwrap();
    let open = || DataDir::open(Arc::new(RealDisk), dir.path(), 1, 1);
    let log = Log::open(open().unwrap(), &LogOptions { segment_bytes: 4096, ..LogOptions::default() }).unwrap();
    let kept = log.clone();
    assert!(matches!(open(), Err(LogError::Locked { .. })));
    log.close().unwrap();
    open().unwrap();
    drop(kept);
}
