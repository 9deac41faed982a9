//! Segments that nobody has written, with checksums that are right: docs/decisions/0024-fuzzing.md.

use std::path::PathBuf;

use storage_testkit::fuzz::fuzz;

use super::super::record::{BATCH_HEADER, Previous, SEGMENT_HEADER, Seed};
use super::super::segment::{self, SegmentName};
use super::*;
use crate::disk::Disk;

/// The segments of a log that has seen everything, oldest first: their files and bytes.
fn written() -> Vec<(PathBuf, Vec<u8>)> {
    let disk = SimDisk::new(3);
    let mut log = open(&disk).unwrap();
    now(log.save_vote(&Vote::new(2, 1))).unwrap();
    for index in 0..40 {
        append(&mut log, vec![entry(2, 2 * index, &[b'x'; 50]), entry(2, 2 * index + 1, b"")]).unwrap();
    }
    now(log.truncate_after(Some(log_id(2, 75)))).unwrap();
    now(log.save_vote(&Vote::new_committed(3, 2))).unwrap();
    now(log.save_committed(Some(log_id(2, 70)))).unwrap();
    now(log.purge(log_id(2, 3))).unwrap();
    append(&mut log, vec![entry(3, 76, b"later")]).unwrap();
    log.close().unwrap();
    let is_segment = |path: &Path| path.extension().is_some_and(|end| end == "log");
    disk.contents().into_iter().filter(|(path, _)| is_segment(path)).collect()
}

/// A log opens, or says where it is damaged. One that opens is read, written and opened again.
#[test]
fn fuzz_segments() {
    let segments = written();
    assert!(segments.len() > 2, "{}", segments.len());
    // Changed in the first, in one within, and in the last.
    for place in [0, segments.len() / 2, segments.len() - 1] {
        let (path, sample) = &segments[place];
        let name = SegmentName::parse(path.file_name().unwrap().to_str().unwrap()).unwrap();
        fuzz(&format!("segment {place} of {}", segments.len()), [sample.clone()], |input| {
            let disk = disk(&segments, place, &mended(input, name.seed()));
            let mut log = open(&disk).map_err(|error| match error {
                LogError::Corrupt { reason, .. } => reason.to_owned(),
                error => error.to_string(),
            })?;
            let held = Held::by(&mut log);
            append(&mut log, vec![entry(u64::MAX, held.next_index(), b"goes on")])
                .map_err(|error| error.to_string())?;
            log.close().unwrap();
            drop(log);
            let mut log = open(&disk).unwrap();
            assert_eq!(Held::by(&mut log).next_index(), held.next_index() + 1);
            Ok(String::new())
        });
    }
}

/// Found by the test above: headers that name each other were followed until there was no memory.
#[test]
fn a_segment_that_follows_itself_or_a_later_one_is_reported() {
    let segments = written();
    let last = segments.len() - 1;
    for (place, follows) in [(last, last), (0, last), (1, 2)] {
        let name = |place: usize| SegmentName::parse(segments[place].0.file_name().unwrap().to_str().unwrap()).unwrap();
        let (path, bytes) = &segments[place];
        let mut header = segment::header(bytes, name(place), path).unwrap().unwrap();
        header.previous = Some(Previous { sequence: name(follows).sequence, end: 600 });
        let circle = [&header.encode(), &bytes[SEGMENT_HEADER..]].concat();
        let error = open(&disk(&segments, place, &circle)).unwrap_err().to_string();
        assert!(error.contains("follows itself or a later one"), "{error}");
    }
}

/// A disk with these segments, of which one is another.
fn disk(segments: &[(PathBuf, Vec<u8>)], place: usize, other: &[u8]) -> SimDisk {
    let disk = SimDisk::new(1);
    disk.create_dir(dir()).unwrap();
    for (at, (path, bytes)) in segments.iter().enumerate() {
        let file = disk.create(path).unwrap();
        file.write_at(if at == place { other } else { bytes }, 0).unwrap();
        file.sync_data().unwrap();
    }
    disk.sync_dir(dir()).unwrap();
    disk
}

/// The lengths of batches and records are believed, and all checksums made right.
fn mended(input: &[u8], seed: Seed) -> Vec<u8> {
    let mut bytes = input.to_vec();
    if let Some(header) = bytes.get_mut(..SEGMENT_HEADER) {
        let (content, crc) = header.split_at_mut(SEGMENT_HEADER - 4);
        crc.copy_from_slice(&crc32c::crc32c(content).to_le_bytes());
    }
    let number = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).map_or(0, |number| u32::from_le_bytes(number.try_into().unwrap()) as usize)
    };
    let mut at = SEGMENT_HEADER;
    loop {
        let end = at + BATCH_HEADER + number(&bytes, at + 4);
        if end == at + BATCH_HEADER || end > bytes.len() {
            return bytes;
        }
        let mut record = at + BATCH_HEADER;
        while number(&bytes, record) > 0 && record + 8 + number(&bytes, record) <= end {
            let next = record + 8 + number(&bytes, record);
            let crc = seed.record(record, &bytes[record..record + 4], &bytes[record + 8..next]);
            bytes[record + 4..record + 8].copy_from_slice(&crc.to_le_bytes());
            record = next;
        }
        let crc = seed.batch(at, &bytes[at + 4..at + BATCH_HEADER]);
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        at = end;
    }
}
