//! Transactions and their answers as bytes: canonical, as everything that the log carries.

use bytes::{BufMut, Bytes};

use super::{
    Compare, Delete, Direction, KeyRange, KeyValue, LeaseLife, Op, OpAnswer, Operand, Order, OrderBy, Put, Range,
    Ranged, Relation, RevisionFilter, Txn, TxnAnswer,
};
use crate::codec::{DecodeError, Decoded, Reader, boolean, key, put_bytes, put_length};

const TOO_DEEP: DecodeError = DecodeError("transactions are nested too deep");

pub(crate) fn put_txn(out: &mut Vec<u8>, txn: &Txn) {
    put_length(out, txn.compares.len());
    txn.compares.iter().for_each(|compare| put_compare(out, compare));
    for ops in [&txn.success, &txn.failure] {
        put_length(out, ops.len());
        ops.iter().for_each(|op| put_op(out, op));
    }
}

pub(crate) fn txn(reader: &mut Reader) -> Decoded<Txn> {
    txn_within(reader, Txn::MAX_DEPTH)
}

/// `depth`: how many transactions may stand within this one.
fn txn_within(reader: &mut Reader, depth: usize) -> Decoded<Txn> {
    let compares = (0..reader.length()?).map(|_| compare(reader)).collect::<Decoded<_>>()?;
    let success = (0..reader.length()?).map(|_| op(reader, depth)).collect::<Decoded<_>>()?;
    let failure = (0..reader.length()?).map(|_| op(reader, depth)).collect::<Decoded<_>>()?;
    Ok(Txn { compares, success, failure })
}

fn put_op(out: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Range(range) => {
            out.put_u8(1);
            put_range(out, range);
        }
        Op::Put(Put { key, value, lease, previous }) => {
            out.put_u8(2);
            let lease_kind = match lease {
                None => KEEPS_LEASE,
                Some(0) => 0,
                Some(_) => HAS_LEASE,
            };
            out.put_u8(
                if *previous { PREVIOUS } else { 0 } | if value.is_none() { KEEPS_VALUE } else { 0 } | lease_kind,
            );
            put_bytes(out, key.as_bytes());
            if let Some(value) = value {
                put_bytes(out, value);
            }
            if let Some(lease) = lease.filter(|lease| *lease != 0) {
                out.put_u64_le(lease);
            }
        }
        Op::Delete(Delete { keys, previous }) => {
            out.put_u8(3);
            out.put_u8((*previous).into());
            put_keys(out, keys);
        }
        Op::Txn(txn) => {
            out.put_u8(4);
            put_txn(out, txn);
        }
    }
}

// Flags of a put. What is absent takes no bytes, since puts are most of a log.
const PREVIOUS: u8 = 1;
const KEEPS_VALUE: u8 = 2;
const KEEPS_LEASE: u8 = 4;
const HAS_LEASE: u8 = 8;

fn op(reader: &mut Reader, depth: usize) -> Decoded<Op> {
    match reader.u8()? {
        1 => range(reader).map(Op::Range),
        2 => {
            let flags = reader.u8()?;
            let lease_kind = flags & (KEEPS_LEASE | HAS_LEASE);
            // Refused and not passed over: whoever wrote such a flag means something that this release would not do.
            if flags >= 2 * HAS_LEASE || lease_kind == KEEPS_LEASE | HAS_LEASE {
                return Err(DecodeError("a put with unknown flags"));
            }
            let key = key(reader)?;
            let value = if flags & KEEPS_VALUE == 0 { Some(reader.bytes()?) } else { None };
            let lease = match lease_kind {
                KEEPS_LEASE => None,
                0 => Some(0),
                _ => Some(non_zero(reader)?),
            };
            Ok(Op::Put(Put { key, value, lease, previous: flags & PREVIOUS != 0 }))
        }
        3 => {
            let previous = boolean(reader)?;
            Ok(Op::Delete(Delete { keys: keys(reader)?, previous }))
        }
        // Counted down while it is read: the nesting in a stranger's bytes must not become the depth of this stack.
        4 => txn_within(reader, depth.checked_sub(1).ok_or(TOO_DEEP)?).map(Op::Txn),
        _ => Err(DecodeError("an operation of an unknown kind")),
    }
}

fn non_zero(reader: &mut Reader) -> Decoded<u64> {
    let number = reader.u64()?;
    // Zero is said by a flag. With a second form of it, one transaction would have two encodings.
    if number == 0 { Err(DecodeError("a zero where none is written")) } else { Ok(number) }
}

fn put_keys(out: &mut Vec<u8>, keys: &KeyRange) {
    let (kind, first, end) = match keys {
        KeyRange::One(key) => (0, key, None),
        KeyRange::From(first) => (1, first, None),
        KeyRange::Between(first, end) => (2, first, Some(end)),
    };
    out.put_u8(kind);
    put_bytes(out, first);
    if let Some(end) = end {
        put_bytes(out, end);
    }
}

fn keys(reader: &mut Reader) -> Decoded<KeyRange> {
    match reader.u8()? {
        0 => reader.bytes().map(KeyRange::One),
        1 => reader.bytes().map(KeyRange::From),
        2 => Ok(KeyRange::Between(reader.bytes()?, reader.bytes()?)),
        _ => Err(DecodeError("a range of an unknown kind")),
    }
}

const KEYS_ONLY: u8 = 1;
const COUNT_ONLY: u8 = 2;
/// The numbers that are not zero, one flag each, in the order in which they follow.
const FIRST_NUMBER: u8 = 4;

fn put_range(out: &mut Vec<u8>, range: &Range) {
    let numbers = numbers(range);
    let flags = (0_u8..).zip(&numbers).fold(0, |flags, (place, number)| flags | u8::from(*number != 0) << place);
    out.put_u8(u8::from(range.keys_only) * KEYS_ONLY + u8::from(range.count_only) * COUNT_ONLY);
    out.put_u8(flags);
    put_keys(out, &range.keys);
    numbers.iter().filter(|number| **number != 0).for_each(|number| out.put_u64_le(*number));
}

fn range(reader: &mut Reader) -> Decoded<Range> {
    let (booleans, flags) = (reader.u8()?, reader.u8()?);
    if booleans >= FIRST_NUMBER || flags >= 1 << 7 {
        return Err(DecodeError("a range with unknown flags"));
    }
    let mut range = Range::new(keys(reader)?);
    let mut number = |place: u8| if flags & (1 << place) == 0 { Ok(0) } else { non_zero(reader) };
    range.keys_only = booleans & KEYS_ONLY != 0;
    range.count_only = booleans & COUNT_ONLY != 0;
    range.revision = number(0)?;
    range.limit = number(1)?;
    range.order = order(number(2)?)?;
    range.revisions = RevisionFilter {
        min_mod: number(3)?.cast_signed(),
        max_mod: number(4)?.cast_signed(),
        min_create: number(5)?.cast_signed(),
        max_create: number(6)?.cast_signed(),
    };
    Ok(range)
}

fn numbers(range: &Range) -> [u64; 7] {
    let RevisionFilter { min_mod, max_mod, min_create, max_create } = range.revisions;
    [
        range.revision,
        range.limit,
        order_number(range.order),
        min_mod.cast_unsigned(),
        max_mod.cast_unsigned(),
        min_create.cast_unsigned(),
        max_create.cast_unsigned(),
    ]
}

fn order_number(Order { by, direction }: Order) -> u64 {
    let by = match by {
        OrderBy::Key => 0,
        OrderBy::Version => 1,
        OrderBy::Create => 2,
        OrderBy::Mod => 3,
        OrderBy::Value => 4,
    };
    let direction = match direction {
        None => 0,
        Some(Direction::Ascending) => 1,
        Some(Direction::Descending) => 2,
    };
    direction * 5 + by
}

fn order(number: u64) -> Decoded<Order> {
    let by = match number % 5 {
        0 => OrderBy::Key,
        1 => OrderBy::Version,
        2 => OrderBy::Create,
        3 => OrderBy::Mod,
        _ => OrderBy::Value,
    };
    let direction = match number / 5 {
        0 => None,
        1 => Some(Direction::Ascending),
        2 => Some(Direction::Descending),
        _ => return Err(DecodeError("an order of an unknown kind")),
    };
    Ok(Order { by, direction })
}

fn put_compare(out: &mut Vec<u8>, Compare { keys, relation, with }: &Compare) {
    put_keys(out, keys);
    out.put_u8(match relation {
        Relation::Equal => 0,
        Relation::NotEqual => 1,
        Relation::Greater => 2,
        Relation::Less => 3,
    });
    let (kind, number) = match with {
        Operand::Version(number) => (0, number),
        Operand::Create(number) => (1, number),
        Operand::Mod(number) => (2, number),
        Operand::Lease(number) => (3, number),
        Operand::Value(value) => {
            out.put_u8(4);
            return put_bytes(out, value);
        }
    };
    out.put_u8(kind);
    out.put_i64_le(*number);
}

fn compare(reader: &mut Reader) -> Decoded<Compare> {
    let keys = keys(reader)?;
    let relation = match reader.u8()? {
        0 => Relation::Equal,
        1 => Relation::NotEqual,
        2 => Relation::Greater,
        3 => Relation::Less,
        _ => return Err(DecodeError("a comparison of an unknown relation")),
    };
    let with = match reader.u8()? {
        0 => Operand::Version(reader.u64()?.cast_signed()),
        1 => Operand::Create(reader.u64()?.cast_signed()),
        2 => Operand::Mod(reader.u64()?.cast_signed()),
        3 => Operand::Lease(reader.u64()?.cast_signed()),
        4 => Operand::Value(reader.bytes()?),
        _ => return Err(DecodeError("a comparison of an unknown kind")),
    };
    Ok(Compare { keys, relation, with })
}

pub(crate) fn put_txn_answer(out: &mut Vec<u8>, answer: &TxnAnswer) {
    out.put_u8(answer.succeeded.into());
    out.put_u64_le(answer.revision);
    put_length(out, answer.answers.len());
    for answer in &answer.answers {
        match answer {
            OpAnswer::Range(Ranged { entries, more, count, revision }) => {
                out.put_u8(1);
                out.put_u8((*more).into());
                out.put_u64_le(*count);
                out.put_u64_le(*revision);
                put_entries(out, entries);
            }
            OpAnswer::Put { previous, revision } => {
                out.put_u8(2);
                out.put_u64_le(*revision);
                out.put_u8(previous.is_some().into());
                if let Some(previous) = previous {
                    put_entry(out, previous);
                }
            }
            OpAnswer::Delete { deleted, previous, revision } => {
                out.put_u8(3);
                out.put_u64_le(*revision);
                out.put_u64_le(*deleted);
                put_entries(out, previous);
            }
            OpAnswer::Txn(answer) => {
                out.put_u8(4);
                put_txn_answer(out, answer);
            }
        }
    }
}

pub(crate) fn txn_answer(reader: &mut Reader) -> Decoded<TxnAnswer> {
    answer_within(reader, Txn::MAX_DEPTH)
}

fn answer_within(reader: &mut Reader, depth: usize) -> Decoded<TxnAnswer> {
    let (succeeded, revision) = (boolean(reader)?, reader.u64()?);
    let answers = (0..reader.length()?).map(|_| op_answer(reader, depth)).collect::<Decoded<_>>()?;
    Ok(TxnAnswer { succeeded, answers, revision })
}

fn op_answer(reader: &mut Reader, depth: usize) -> Decoded<OpAnswer> {
    match reader.u8()? {
        1 => {
            let (more, count, revision) = (boolean(reader)?, reader.u64()?, reader.u64()?);
            Ok(OpAnswer::Range(Ranged { entries: entries(reader)?, more, count, revision }))
        }
        2 => {
            let revision = reader.u64()?;
            let previous = if boolean(reader)? { Some(entry(reader)?) } else { None };
            Ok(OpAnswer::Put { previous, revision })
        }
        3 => {
            let (revision, deleted) = (reader.u64()?, reader.u64()?);
            Ok(OpAnswer::Delete { deleted, previous: entries(reader)?, revision })
        }
        4 => answer_within(reader, depth.checked_sub(1).ok_or(TOO_DEEP)?).map(OpAnswer::Txn),
        _ => Err(DecodeError("an answer of an unknown kind")),
    }
}

fn put_entries(out: &mut Vec<u8>, entries: &[KeyValue]) {
    put_length(out, entries.len());
    entries.iter().for_each(|entry| put_entry(out, entry));
}

fn entries(reader: &mut Reader) -> Decoded<Vec<KeyValue>> {
    (0..reader.length()?).map(|_| entry(reader)).collect()
}

pub(crate) fn put_entry(out: &mut Vec<u8>, entry: &KeyValue) {
    put_bytes(out, &entry.key);
    put_bytes(out, &entry.value);
    for number in [entry.create_revision, entry.mod_revision, entry.version, entry.lease] {
        out.put_u64_le(number);
    }
}

fn entry(reader: &mut Reader) -> Decoded<KeyValue> {
    let (key, value): (Bytes, Bytes) = (reader.bytes()?, reader.bytes()?);
    let (create_revision, mod_revision) = (reader.u64()?, reader.u64()?);
    Ok(KeyValue { key, value, create_revision, mod_revision, version: reader.u64()?, lease: reader.u64()? })
}

pub(crate) fn put_life(out: &mut Vec<u8>, life: Option<LeaseLife>) {
    out.put_u8(life.is_some().into());
    if let Some(LeaseLife { granted_seconds, left_millis }) = life {
        out.put_u64_le(granted_seconds);
        out.put_u64_le(left_millis);
    }
}

pub(crate) fn life(reader: &mut Reader) -> Decoded<Option<LeaseLife>> {
    if !boolean(reader)? {
        return Ok(None);
    }
    Ok(Some(LeaseLife { granted_seconds: reader.u64()?, left_millis: reader.u64()? }))
}
