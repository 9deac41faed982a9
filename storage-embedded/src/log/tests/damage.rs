//! What was durable is cut, flipped or missing.

use std::path::PathBuf;

use super::super::record::{BATCH_HEADER, SEGMENT_HEADER};
use super::*;
use crate::simulated::Survival;

/// A log of entries in batches of two, over several segments, as it is on disk after its process died.
fn written(closed: bool) -> (SimDisk, Held) {
    let disk = SimDisk::new(3);
    let mut log = open(&disk).unwrap();
    now(log.save_vote(&Vote::new(2, 1))).unwrap();
    for pair in 0..33 {
        let payload = vec![b'x'; usize::try_from(pair).unwrap() * 2];
        append(&mut log, vec![entry(2, pair * 2, &payload), entry(2, pair * 2 + 1, b"second")]).unwrap();
    }
    let held = Held::by(&mut log);
    if closed {
        log.close().unwrap();
    }
    let crashed = disk.crash(Survival::Nothing);
    (crashed, held)
}

/// The segments, oldest first, each with the offsets where its batches begin and the last one ends.
fn segments(disk: &SimDisk) -> Vec<(PathBuf, Vec<usize>)> {
    let logs = disk.contents().into_iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "log"));
    logs.map(|(path, bytes)| {
        let mut bounds = vec![SEGMENT_HEADER];
        loop {
            let at = *bounds.last().unwrap();
            let length = bytes.get(at + 4..at + 8).map_or(0, |length| u32::from_le_bytes(length.try_into().unwrap()));
            if length == 0 {
                return (path, bounds);
            }
            bounds.push(at + BATCH_HEADER + usize::try_from(length).unwrap());
        }
    })
    .collect()
}

/// What is held if the newest segment has only its first `batches`.
fn with_batches(held: &Held, disk: &SimDisk, batches: usize) -> Held {
    let (_, bounds) = segments(disk).pop().unwrap();
    let lost = 2 * u64::try_from(bounds.len() - 1 - batches).unwrap();
    let mut held = held.clone();
    let last = held.next_index() - lost;
    held.entries.retain(|index, _| *index < last);
    held.last = Some(log_id(2, last - 1));
    held
}

#[test]
fn a_log_cut_at_every_byte_of_its_last_segment_loses_only_what_was_cut() {
    let (disk, held) = written(false);
    let (path, bounds) = segments(&disk).pop().unwrap();
    assert!(bounds.len() > 3);
    let end = *bounds.last().unwrap();
    type Cut = fn(&mut Vec<u8>, usize);
    let cuts: [(&str, Cut); 3] = [
        ("cut", |bytes, at| bytes.truncate(at)),
        ("zeros", |bytes, at| bytes[at..].fill(0)),
        ("garbage", |bytes, at| bytes[at..].fill(0xa5)),
    ];
    for (name, cut) in cuts {
        for at in 0..=end {
            let found = disk.fork();
            found.damage(&path, |bytes| cut(bytes, at)).unwrap();
            let batches = bounds.iter().filter(|bound| **bound <= at).count().saturating_sub(1);
            let expected = with_batches(&held, &disk, batches);
            let mut log = open(&found).unwrap_or_else(|error| panic!("{name} at {at}: {error}"));
            assert_eq!(Held::by(&mut log), expected, "{name} at {at}");
            append(&mut log, vec![entry(3, expected.next_index(), b"goes on")]).unwrap();
            drop(log);
            assert_eq!(Held::by(&mut open(&found).unwrap()).last, Some(log_id(3, expected.next_index())));
        }
    }
}

/// Flips a bit of every byte up to the end of the last batch. `last` is what is held without that batch.
fn flip_everywhere(disk: &SimDisk, held: &Held, last: &Held) {
    let segments = segments(disk);
    let newest = segments.len() - 1;
    let mut random = fastrand::Rng::with_seed(1);
    for (place, (path, bounds)) in segments.iter().enumerate() {
        let (start_of_last, end) = (bounds[bounds.len() - 2], bounds[bounds.len() - 1]);
        for at in 0..end {
            let damaged = disk.fork();
            let bit = random.u8(..8);
            damaged.damage(path, |bytes| bytes[at] ^= 1 << bit).unwrap();
            let before = damaged.contents();
            match open(&damaged) {
                Err(LogError::Corrupt { file, offset, .. }) => {
                    assert_eq!(&file, path);
                    let offset = usize::try_from(offset).unwrap();
                    assert!(offset <= at && at - offset < SEGMENT_HEADER, "byte {at} of {path:?} reported at {offset}");
                    assert_eq!(damaged.contents(), before, "a log that does not open is left as it is");
                }
                Ok(mut log) if place == newest && at >= start_of_last => assert_eq!(&Held::by(&mut log), last),
                Ok(mut log) => panic!("byte {at} of {path:?}: {}", Held::by(&mut log) == *held),
                Err(other) => panic!("byte {at} of {path:?}: {other}"),
            }
        }
    }
}

#[test]
fn a_flipped_bit_is_reported_or_was_in_the_last_batch() {
    let (disk, held) = written(false);
    let (_, bounds) = segments(&disk).pop().unwrap();
    flip_everywhere(&disk, &held, &with_batches(&held, &disk, bounds.len() - 2));
}

#[test]
fn a_flipped_bit_in_a_closed_log_loses_nothing() {
    let (disk, held) = written(true);
    flip_everywhere(&disk, &held, &held);
}

#[test]
fn a_missing_segment_is_reported() {
    let (disk, _) = written(false);
    let segments = segments(&disk);
    for (path, _) in &segments[..segments.len() - 1] {
        let damaged = disk.fork();
        crate::disk::Disk::remove(&damaged, path).unwrap();
        assert!(matches!(open(&damaged), Err(LogError::Corrupt { .. })), "{path:?}");
    }
}

#[test]
fn a_newer_format_is_refused() {
    let (disk, _) = written(true);
    let (path, _) = segments(&disk).pop().unwrap();
    disk.damage(&path, |bytes| {
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..SEGMENT_HEADER - 4]);
        bytes[SEGMENT_HEADER - 4..SEGMENT_HEADER].copy_from_slice(&crc.to_le_bytes());
    })
    .unwrap();
    let before = disk.contents();
    assert!(matches!(open(&disk), Err(LogError::NewerFormat { found: 2, supported: 1, .. })));
    assert_eq!(disk.contents(), before);
}

#[test]
fn an_entry_that_is_damaged_while_the_log_is_open_is_not_returned() {
    let disk = SimDisk::new(3);
    let mut log = open(&disk).unwrap();
    for index in 0..10 {
        append(&mut log, vec![entry(1, index, &[b'x'; 100])]).unwrap();
    }
    let (path, bounds) = segments(&disk).remove(0);
    let at = bounds[2] - 1;
    disk.damage(&path, |bytes| bytes[at] ^= 1).unwrap();
    assert_eq!(now(log.try_get_log_entries(0..1)).unwrap().len(), 1);
    let error = now(log.try_get_log_entries(0..3)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

#[test]
fn a_value_that_looks_like_a_batch_is_a_value() {
    let (disk, held) = written(false);
    let (path, bounds) = segments(&disk).pop().unwrap();
    let copied = disk.contents()[&path][bounds[1]..bounds[2]].to_vec();
    let mut log = open(&disk).unwrap();
    append(&mut log, vec![entry(2, held.next_index(), &copied)]).unwrap();
    let disk = disk.crash(Survival::Nothing);
    let (path, bounds) = segments(&disk).pop().unwrap();
    disk.damage(&path, |bytes| bytes[bounds[0]] ^= 1).unwrap();
    assert_eq!(Held::by(&mut open(&disk).unwrap()), held, "the torn batch is cut, whatever is in it");
}
