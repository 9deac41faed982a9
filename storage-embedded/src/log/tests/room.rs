//! There is no descriptor, or no space, for the next segment: the log waits, loses nothing, and goes on. Anything else ends it.

use std::time::{Duration, Instant};

use super::super::directory::Directory;
use super::super::queue::{Batch, Queue};
use super::super::record::Summary;
use super::super::writer::{Resume, Writer};
use super::*;
use crate::disk::Disk;
use crate::simulated::{Fault, Survival};

const ENTRIES: u64 = 6;

/// A batch with one entry, so long that the next one needs another segment.
fn batch(queue: &mut Queue, index: u64) -> Batch {
    queue.push_entry(&entry(1, index, &[1; 1500])).unwrap();
    queue.take().unwrap()
}

/// What became of some batches.
#[derive(Debug, Default, PartialEq)]
struct Run {
    /// How often one had to be written again.
    again: u32,
    failed: bool,
    /// How many operations of the disk it took.
    operations: u64,
}

/// Writes some batches, of which each begins a segment, with a fault at one operation.
fn write(disk: &SimDisk, fault: Option<(u64, Fault)>) -> Run {
    disk.create_dir(dir()).unwrap();
    let directory = Arc::new(Directory::new(Arc::new(disk.clone()), dir(), &options(), None));
    let resume = Resume { sequence: 1, next_batch: 1, previous: None, summary: Summary::default() };
    let mut writer = Writer::begin(directory, resume).unwrap();
    let mut queue = Queue::new(Summary::default());
    let (mut run, began) = (Run::default(), disk.operations());
    if let Some((operation, fault)) = fault {
        disk.fail_at(began + operation, fault);
    }
    for index in 0..ENTRIES {
        let mut batch = batch(&mut queue, index);
        match writer.write(&mut batch) {
            Ok(_) => {}
            Err(LogError::NoSegment { .. }) => {
                run.again += 1;
                writer.write(&mut batch).unwrap();
            }
            Err(_) => return Run { failed: true, ..run },
        }
        let _ = batch.finish(&Ok(()));
    }
    Run { operations: disk.operations() - began, ..run }
}

fn entries(disk: &SimDisk) -> usize {
    Held::by(&mut open(disk).unwrap()).entries.len()
}

#[test]
fn a_batch_for_which_there_is_no_segment_is_written_later_whatever_was_missing() {
    let operations = {
        let run = write(&SimDisk::new(0), None);
        assert!(run.again == 0 && !run.failed);
        run.operations
    };
    for (fault, expected) in [(Fault::Emfile, 12), (Fault::Enospc, 8)] {
        let mut waited = 0;
        for operation in 0..operations {
            let context = format!("{fault:?} at {operation}");
            let disk = SimDisk::new(operation);
            let Run { again, failed, .. } = write(&disk, Some((operation, fault)));
            waited += again;
            // A write to the log itself may lack space, and then nobody knows what the disk has.
            assert!(!failed || fault == Fault::Enospc, "{context}");
            if !failed {
                for survival in [Survival::Nothing, Survival::Any(operation)] {
                    assert_eq!(entries(&disk.crash(survival)), 6, "{context}, {survival:?}");
                }
                assert_eq!(entries(&disk), 6, "{context}");
            }
        }
        assert!(waited >= expected, "{fault:?}: {waited} batches waited");
    }
}

/// What raft sees of it, with the threads of the log.
#[tokio::test]
async fn nobody_is_told_before_there_is_a_file_and_everyone_afterwards() {
    let disk = SimDisk::new(1);
    let options = LogOptions { background: true, confirm_after: Duration::from_secs(60), ..options() };
    let mut log = Log::open_in(Arc::new(disk.clone()), dir(), &options, None).unwrap();
    for inline in [true, false] {
        log.sync_inline(inline);
        let next = disk.operations();
        (next..next + 30).for_each(|operation| disk.fail_at(operation, Fault::Emfile));
        let before = log.metrics().segment_waits;
        let mut told = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut index = log.get_log_state().await.unwrap().last_log_id.map_or(0, |id| id.index + 1);
        while log.waits().is_none() {
            assert!(Instant::now() < deadline, "it never waits");
            let (sender, receiver) = TypeConfig::oneshot();
            log.append([entry(1, index, &[1; 500])], IOFlushed::Signal(sender)).await.unwrap();
            told.push(receiver);
            index += 1;
            tokio::task::yield_now().await;
        }
        assert!(log.failure().is_none() && log.metrics().waits_for_segment);
        assert_eq!(log.try_get_log_entries(index - 1..index).await.unwrap().len(), 1, "it can be read");
        // A vote waits as well: it counts when it is durable, and not before.
        log.save_vote(&Vote::new(if inline { 5 } else { 6 }, 1)).await.unwrap();
        for receiver in told {
            receiver.await.unwrap().unwrap();
        }
        assert!(log.waits().is_none() && log.metrics().segment_waits > before);
    }
    let held = Held::by(&mut open(&disk.crash(Survival::Nothing)).unwrap());
    assert_eq!(held.vote, Some(Vote::new(6, 1)));
    assert_eq!(held.last, log.get_log_state().await.unwrap().last_log_id);
}

/// A node that stops is not held up by it, and whoever waits is told that it has not become durable.
#[tokio::test]
async fn a_log_that_waits_can_be_closed() {
    let disk = SimDisk::new(1);
    let options = LogOptions { background: true, confirm_after: Duration::from_secs(60), ..options() };
    let mut log = Log::open_in(Arc::new(disk.clone()), dir(), &options, None).unwrap();
    let next = disk.operations();
    (next..next + 10_000).for_each(|operation| disk.fail_at(operation, Fault::Emfile));
    let mut told = Vec::new();
    for index in 0..20 {
        let (sender, receiver) = TypeConfig::oneshot();
        log.append([entry(1, index, &[1; 500])], IOFlushed::Signal(sender)).await.unwrap();
        told.push(receiver);
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while log.waits().is_none() {
        assert!(Instant::now() < deadline, "it never waits");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    log.wait_no_more();
    told.pop().unwrap().await.unwrap().unwrap_err();
    assert!(log.failure().unwrap().to_string().contains("waits for a file for its next segment"));
    log.close().unwrap_err();
}
