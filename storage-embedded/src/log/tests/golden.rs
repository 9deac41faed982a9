//! Format version 1 stays readable, byte for byte. To make the file anew after a deliberate change of the version, run this
//! test with `WRITE_GOLDEN=1` in the environment.

use std::path::PathBuf;

use openraft::Membership;

use super::super::queue::Queue;
use super::super::record::{Previous, Record, SegmentHeader, Summary, seal_batch};
use super::super::segment::{self, SegmentName};
use super::*;
use crate::raft::Member;

const NAME: SegmentName = SegmentName { sequence: 3, nonce: 0x0123_4567_89ab_cdef };

fn header() -> SegmentHeader {
    let summary = Summary {
        vote: Some(Vote::new(4, 2)),
        last: Some(log_id(4, 41)),
        purged: Some(log_id(3, 40)),
        committed: None,
    };
    let previous = Some(Previous { sequence: 2, end: 7777 });
    SegmentHeader { sequence: NAME.sequence, nonce: NAME.nonce, size: 2048, first_batch: 9, previous, summary }
}

fn records() -> Vec<Vec<Record>> {
    let member =
        Member { name: "n1".into(), peer_address: "127.0.0.1:1".into(), client_url: "http://127.0.0.1:2".into() };
    let membership =
        Membership::new(vec![[1].into(), [1, 2].into()], BTreeMap::from([(1, member.clone()), (2, member)]));
    let entry_of = |index, payload| Entry { log_id: log_id(5, index), payload };
    vec![
        vec![Record::Entry(entry(4, 42, b"a proposal")), Record::Entry(entry(4, 43, b""))],
        vec![Record::Vote(Vote::new_committed(5, 1)), Record::TruncateAfter(Some(log_id(4, 42)))],
        vec![
            Record::Entry(entry_of(43, EntryPayload::Blank)),
            Record::Entry(entry_of(44, EntryPayload::Membership(membership.unwrap()))),
            Record::Committed(log_id(5, 43)),
        ],
        vec![Record::PurgeTo(log_id(4, 42))],
        vec![Record::Confirmation],
    ]
}

fn write() -> Vec<u8> {
    let mut out = header().encode();
    for (number, batch) in (9..).zip(records()) {
        let mut queue = Queue::new(Summary::default());
        batch.iter().for_each(|record| queue.push(record));
        let mut bytes = queue.take().unwrap().bytes;
        seal_batch(&mut bytes, NAME.seed(), out.len(), number);
        out.extend(bytes);
    }
    out
}

#[test]
fn version_1_is_written_and_read_as_ever() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/log-v1.segment");
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, write()).unwrap();
    }
    let golden = std::fs::read(&file).unwrap();
    assert_eq!(segment::header(&golden, NAME, &file).unwrap(), Some(header()));
    let mut found = Vec::new();
    let end = segment::scan(&golden.clone().into(), &header(), |record, _| {
        found.push(record);
        Ok(())
    })
    .unwrap();
    assert_eq!((end.offset, end.next_batch), (golden.len(), 14));
    assert_eq!(found, records().concat());
    assert_eq!(write(), golden);
}
