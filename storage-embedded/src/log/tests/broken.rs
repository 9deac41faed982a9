//! Invariants of the log, broken on purpose: the log stops with their words.

use super::super::directory::Directory;
use super::super::plan::Plan;
use super::super::queue::Queue;
use super::super::record::{Record, Seed, Summary, seal_batch};
use super::super::writer::{Resume, Writer};
use super::*;
use crate::{disk::Disk, simulated::Fault};

fn queue_with(records: &[Record]) -> Queue {
    let mut queue = Queue::new(Summary::default());
    records.iter().for_each(|record| queue.push(record));
    queue
}

#[test]
#[should_panic(expected = "a batch is acknowledged before it is synced")]
fn nothing_is_acknowledged_before_it_is_synced() {
    queue_with(&[Record::Confirmation]).take().unwrap().finish(&Ok(()));
}

#[test]
#[should_panic(expected = "a second vote in a term, or one of an earlier term")]
fn a_node_votes_once_in_a_term() {
    queue_with(&[Record::Vote(Vote::new(3, 1)), Record::Vote(Vote::new(3, 2))]);
}

#[test]
#[should_panic(expected = "a second vote in a term, or one of an earlier term")]
fn a_node_does_not_go_back_to_an_earlier_term() {
    queue_with(&[Record::Vote(Vote::new(3, 1)), Record::Vote(Vote::new(2, 1))]);
}

#[test]
#[should_panic(expected = "an entry is taken back that was committed")]
fn what_is_committed_stays() {
    let entries = [1, 2].map(|index| Record::Entry(entry(1, index, b"")));
    let [one, two] = entries;
    queue_with(&[one, two, Record::Committed(log_id(1, 2)), Record::TruncateAfter(Some(log_id(1, 1)))]);
}

#[test]
#[should_panic(expected = "an entry that does not follow the one before it")]
fn terms_do_not_fall_in_the_log() {
    queue_with(&[Record::Entry(entry(2, 1, b"")), Record::Entry(entry(1, 2, b""))]);
}

#[test]
#[should_panic(expected = "the log is written after a write or sync has failed")]
fn a_failed_sync_is_never_tried_again() {
    let disk = SimDisk::new(1);
    disk.create_dir(dir()).unwrap();
    let directory = Arc::new(Directory::new(Arc::new(disk.clone()), dir(), &options(), None));
    let resume = Resume { sequence: 1, next_batch: 1, previous: None, summary: Summary::default() };
    let mut writer = Writer::begin(directory, resume).unwrap();
    // The write, and then the sync.
    disk.fail_at(disk.operations() + 1, Fault::Eio);
    let mut batch = queue_with(&[Record::Confirmation]).take().unwrap();
    assert!(writer.write(&mut batch).is_err());
    let _ = writer.write(&mut batch);
}

#[test]
#[should_panic(expected = "a batch is written twice")]
fn what_is_durable_does_not_wait_to_be_written() {
    let mut queue = queue_with(&[Record::Confirmation]);
    let mut batch = queue.take().unwrap();
    batch.synced();
    queue.put_back(batch);
}

#[test]
#[should_panic(expected = "a record ends within its batch")]
fn no_record_goes_without_a_checksum() {
    let mut batch = queue_with(&[Record::Confirmation]).take().unwrap().bytes;
    batch.push(0);
    seal_batch(&mut batch, Seed::new(1, 1), 0, 1);
}

#[test]
#[should_panic(expected = "an entry is left out of what is read from the log")]
fn no_entry_is_left_out_of_what_is_read() {
    let cached = vec![entry(1, 1, b""), entry(1, 3, b"")];
    let _ = Plan { cached, ..Plan::default() }.read(&crate::disk::RealDisk);
}

/// What raft is told, and everyone after it.
#[test]
fn a_broken_invariant_stops_the_log_with_its_words() {
    let mut log = open(&SimDisk::new(1)).unwrap();
    now(log.save_vote(&Vote::new(3, 1))).unwrap();
    let refused = now(log.save_vote(&Vote::new(3, 2))).unwrap_err();
    assert!(refused.to_string().contains("a second vote in a term"), "{refused}");
    assert_eq!(append(&mut log, vec![entry(3, 1, b"")]).unwrap_err().to_string(), refused.to_string());
    assert_eq!(now(log.read_vote()).unwrap(), Some(Vote::new(3, 1)));
}

/// The thread that writes finds it: whoever waits is told, and nobody waits for ever.
#[tokio::test]
async fn a_broken_invariant_on_the_threads_of_the_log_stops_it_too() {
    let options = LogOptions { background: true, ..options() };
    let mut log = Log::open_in(Arc::new(SimDisk::new(1)), dir(), &options, None).unwrap();
    log.sync_inline(false);
    // It goes to the disk and was never put into memory.
    log.shared().queue.lock().push_entry(&entry(1, 0, b"")).unwrap();
    let refused = log.save_vote(&Vote::new(3, 1)).await.unwrap_err();
    let words = "an entry reaches the disk twice, or was never appended";
    let failure = log.watch_failure().wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert!(failure.to_string().contains(words), "{failure}");
    assert!(log.save_vote(&Vote::new(4, 1)).await.unwrap_err().to_string().contains(words), "first {refused}");
}
