//! Encodings, against examples that are kept for ever and against chance.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use payment_channels::{
    AfterClaim, Claim, FreeCallCount, Hold, Operation, ReservationId, ReservationRecord, ReservationStatus, Settlement,
    Usage, UsageChange,
};
use proptest::prelude::*;
use storage_core::{
    OperationId,
    channel::{Amount, Nonce},
    record::DecodeError,
};

use crate::support::*;

fn hold(id: u128) -> Hold {
    Hold {
        id: ReservationId(id),
        owner: "réplica 1".to_owned(),
        lease: Duration::from_millis(30_000),
        nonce: Nonce::from(3),
        amount: Amount::from(600),
    }
}

/// Four reservations, one for each way to end and one in flight.
fn held_record() -> ReservationRecord {
    let released = ReservationRecord::default().taken(hold(1)).unwrap().ended(Settlement::Released);
    released.taken(hold(2)).unwrap().taken(hold(3)).unwrap().ended(Settlement::Committed).taken(hold(4)).unwrap()
}

fn claim() -> Claim {
    Claim { id: 0x0123_4567_89ab_cdef, payment: pay(3, 580), after: AfterClaim::Close }
}

fn usage() -> Usage {
    let changes = [UsageChange::Plan(Amount::from(100)), UsageChange::Use(Amount::from(30))];
    let refund = UsageChange::Refund(Amount::from(20));
    (1..)
        .zip(changes.into_iter().chain([refund]))
        .fold(Usage::default(), |usage, (id, change)| usage.after(&Operation::new(OperationId(id)), change).unwrap())
}

fn free_calls() -> FreeCallCount {
    (1..=2).fold(FreeCallCount::default(), |count, id| count.after(&Operation::new(OperationId(id)), 5).unwrap())
}

fn free_calls_given_back() -> FreeCallCount {
    free_calls().after_giving_back(OperationId(2)).unwrap()
}

/// The bytes in a golden file.
fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let fields = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split("--").next().unwrap());
    let digits: Vec<_> = fields.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

#[test]
fn golden_files_are_read_and_written_for_ever() {
    assert_eq!(ReservationRecord::decode(&golden("slot_v1_held.hex")), Ok(held_record()));
    assert_eq!(ReservationRecord::decode(&golden("slot_v1_free.hex")), Ok(held_record().unlocked().unwrap()));
    assert_eq!(Claim::decode(&golden("claim_v1.hex")), Ok(claim()));
    assert_eq!(Usage::decode(&golden("usage_v1.hex")), Ok(usage()));
    assert_eq!(FreeCallCount::decode(&golden("free_calls_v1.hex")), Ok(free_calls()));
    assert_eq!(FreeCallCount::decode(&golden("free_calls_v2.hex")), Ok(free_calls_given_back()));
    assert_eq!(free_calls_given_back().used(), 1);
    let written = [
        ("slot_v1_held.hex", held_record().encode()),
        ("slot_v1_free.hex", held_record().unlocked().unwrap().encode()),
        ("claim_v1.hex", claim().encode()),
        ("usage_v1.hex", usage().encode()),
        ("free_calls_v1.hex", free_calls().encode()),
        ("free_calls_v2.hex", free_calls_given_back().encode()),
        ("ledger_v1.hex", LEDGER.enclose(b"record")),
    ];
    for (name, bytes) in &written {
        assert_eq!(golden(name), bytes[..], "{name}");
    }
    let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")).unwrap();
    let files: BTreeSet<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(files, written.iter().map(|(name, _)| (*name).to_owned()).collect(), "every file is tested");
}

/// Whether bytes are read, and if so, which bytes are written for what was read.
type Reencode = fn(&[u8]) -> Result<Vec<u8>, DecodeError>;

const KINDS: [(Reencode, [u8; 4], u8); 5] = [
    (|bytes| ReservationRecord::decode(bytes).map(|record| record.encode().to_vec()), *b"SLOT", 1),
    (|bytes| Claim::decode(bytes).map(|claim| claim.encode().to_vec()), *b"CLAM", 1),
    (|bytes| Usage::decode(bytes).map(|usage| usage.encode().to_vec()), *b"USGE", 1),
    (|bytes| FreeCallCount::decode(bytes).map(|count| count.encode().to_vec()), *b"FREE", 2),
    (|bytes| FreeCallCount::decode(bytes).map(|count| count.encode().to_vec()), *b"FREE", 2),
];

fn examples() -> [Vec<u8>; 5] {
    let counts = [free_calls().encode(), free_calls_given_back().encode()];
    let [counted, given_back] = counts;
    [held_record().encode(), claim().encode(), usage().encode(), counted, given_back].map(|bytes| bytes.to_vec())
}

#[test]
fn each_defect_of_a_record_has_its_own_error() {
    for ((reencode, tag, newest), good) in KINDS.into_iter().zip(examples()) {
        assert_eq!(reencode(&good).as_ref(), Ok(&good));
        for length in 0..good.len() {
            assert_eq!(reencode(&good[..length]), Err(DecodeError::Truncated), "{tag:?}: {length} bytes");
        }
        assert_eq!(reencode(&[&good[..], &[0]].concat()), Err(DecodeError::TrailingBytes { bytes: 1 }));
        let with = |place: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[place] = byte;
            reencode(&bytes).unwrap_err()
        };
        assert!(matches!(with(0, b'X'), DecodeError::WrongSchema { expected, .. } if expected == tag));
        let (found, supported) = (u16::from(newest) + 1, u16::from(newest));
        assert_eq!(with(5, newest + 1), DecodeError::NewerVersion { found, supported });
        assert_eq!(with(5, 0), DecodeError::NonCanonical { field: "version" });
    }
    let claim = claim().encode();
    for (place, byte) in [(claim.len() - 2, 0), (claim.len() - 2, 30), (claim.len() - 1, 2)] {
        let mut bytes = claim.to_vec();
        bytes[place] = byte;
        assert!(matches!(Claim::decode(&bytes), Err(DecodeError::NonCanonical { .. })), "{byte} at {place}");
    }
}

proptest! {
    #[test]
    fn what_is_read_is_written_the_same(record in proptest::collection::vec(any::<u8>(), 0..400), kind in 0usize..5, newest: bool) {
        let (reencode, tag, version) = KINDS[kind];
        let record = [&tag[..], &[0, if newest { version } else { 1 }], &record].concat();
        if let Ok(written) = reencode(&record) {
            prop_assert_eq!(written, record);
        }
    }

    #[test]
    fn a_byte_changed_is_refused_or_means_something_else(kind in 0usize..5, place in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut record = examples()[kind].clone();
        let place = place.index(record.len());
        record[place] ^= flip;
        if let Ok(written) = KINDS[kind].0(&record) {
            prop_assert_eq!(written, record);
        }
    }
}

#[test]
fn a_slot_remembers_how_the_last_reservations_ended() {
    let record = held_record();
    assert_eq!(record.token().0, 4);
    let statuses = [1, 2, 3, 4, 5].map(|id| record.status(ReservationId(id)));
    let settled = ReservationStatus::Settled;
    let expected = [
        settled(Settlement::Released),
        settled(Settlement::Fenced),
        settled(Settlement::Committed),
        ReservationStatus::Held,
        ReservationStatus::Unknown,
    ];
    assert_eq!(statuses, expected);
    let many = (10..).take(ReservationRecord::MAX_SETTLED).fold(record.ended(Settlement::Committed), |record, id| {
        record.taken(hold(id)).unwrap().ended(Settlement::Committed)
    });
    assert_eq!(many.status(ReservationId(4)), ReservationStatus::Unknown, "bounded");
    assert_eq!(many.status(ReservationId(10)), settled(Settlement::Committed));
    assert_eq!(ReservationRecord::decode(&many.encode()), Ok(many));
}
