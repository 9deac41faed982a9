//! What a log takes of the machine: descriptors, and bytes that are read or may go.

use std::ops::Range;

use futures::TryStreamExt;

use super::*;
use crate::disk::RealDisk;

fn fill(log: &mut Log, entries: Range<u64>, bytes: usize) {
    for index in entries {
        append(log, vec![entry(1, index, &vec![index.to_le_bytes()[0]; bytes])]).unwrap();
    }
}

/// Files of a directory that this process has open.
fn open_files(dir: &Path) -> usize {
    let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    files.filter(|file| std::fs::read_link(file.path()).is_ok_and(|path| path.starts_with(dir))).count()
}

#[test]
fn a_log_of_many_segments_has_one_of_them_open() {
    let place = tempfile::tempdir().unwrap();
    let open = || Log::open_in(Arc::new(RealDisk), place.path(), &options(), None).unwrap();
    let mut log = open();
    fill(&mut log, 0..200, 500);
    for _ in 0..2 {
        assert!(log.shared().index.read().segments.len() > 50);
        assert_eq!(Held::by(&mut log).entries.len(), 200);
        assert_eq!(open_files(place.path()), 1);
        drop(log);
        log = open();
    }
}

#[test]
fn a_reader_finds_the_segments_that_it_was_promised() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap();
    fill(&mut log, 0..40, 500);
    let promised = log.shared().index.read().plan(0..40, usize::MAX);
    now(log.purge(log_id(1, 35))).unwrap();
    // What comes next would be written over them.
    fill(&mut log, 40..80, 500);
    assert_eq!(promised.read(&disk).unwrap().len(), 40);
    now(log.purge(log_id(1, 75))).unwrap();
    assert!(disk.contents().len() < 12, "{:?}", disk.contents().keys());
}

#[test]
fn entries_to_be_applied_are_read_in_pieces_and_none_is_left_out() {
    let mut log = open(&SimDisk::new(1)).unwrap();
    fill(&mut log, 0..5, super::super::store::MAX_READ / 2 + 1);
    fill(&mut log, 5..100, 10);
    for range in [0..100, 3..50, 7..7] {
        let read: Vec<_> = now(async { now(log.entries_stream(range.clone())).try_collect().await }).unwrap();
        assert!(read.iter().map(|entry| entry.log_id.index).eq(range));
    }
    assert_eq!(log.shared().read(0..100, super::super::store::MAX_READ).unwrap().len(), 2, "a piece is bounded");
}

/// Raft went on from there as if the entries before it had been sent.
#[test]
fn a_follower_is_sent_nothing_instead_of_what_follows_purged_entries() {
    let mut log = open(&SimDisk::new(1)).unwrap();
    fill(&mut log, 0..40, 500);
    now(log.purge(log_id(1, 20))).unwrap();
    assert!(now(log.limited_get_log_entries(10, 40)).unwrap().is_empty());
    assert_eq!(now(log.limited_get_log_entries(21, 40)).unwrap().len(), 19);
}

#[test]
fn bytes_behind_an_entry_are_those_on_disk_and_tell_what_may_go() {
    let mut log = open(&SimDisk::new(1)).unwrap();
    assert_eq!((log.bytes_between(None, 0), log.last_before(0)), (0, None));
    fill(&mut log, 10..60, 500);
    let all = log.bytes_between(None, 59);
    // A segment of 2048 bytes holds two of them.
    assert!((50 * 500..=25 * 2048).contains(&all), "{all}");
    assert_eq!(log.bytes_between(Some(59), 59), 0);
    assert_eq!(log.last_before(all), None, "nothing is too much");
    for bytes in [0, 500, 1000, 7000, all - 700] {
        let last = log.last_before(bytes).unwrap();
        assert!(log.bytes_between(Some(last), 59) > bytes);
        assert!(log.bytes_between(Some(last + 1), 59) <= bytes);
    }
    now(log.purge(log_id(1, 30))).unwrap();
    assert_eq!(log.bytes_between(None, 59), log.bytes_between(Some(30), 59));
    assert!(log.bytes_between(None, 59) < all * 2 / 3);
}
