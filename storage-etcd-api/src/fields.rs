//! How many parts a message has, found out without taking it apart. An operation that says nothing has two bytes on the way and some 150 in memory:
//! the longest message would take hundreds of MiB, only to be refused then.

use bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint};
use storage_embedded::{MAX_PERMISSIONS, mvcc::MAX_OPS};

use crate::error::{self, Refusal};

/// The most fields of a message, without those within them: some 5 MiB in memory. A transaction with more has more operations than there may be. The
/// answers to calls of this process are read so too: the longest has the 16,384 permissions of a role.
const MAX_FIELDS: usize = 32_768;
const _: () = assert!(MAX_FIELDS > MAX_OPS && MAX_FIELDS > MAX_PERMISSIONS);

/// The most parts of a message in JSON, with all within them: a transaction of as many puts as there may be has half of them.
const MAX_JSON_PARTS: usize = 2 * MAX_FIELDS;

/// That an object in JSON has no more than [`MAX_JSON_PARTS`]. Each begins with one of three bytes, which bytes in base64 do not have.
pub(crate) fn json_parts(object: &[u8]) -> Result<(), Refusal> {
    let parts = object.iter().filter(|byte| matches!(byte, b'{' | b'[' | b',')).count();
    if parts > MAX_JSON_PARTS { Err(error::TOO_MANY_OPS) } else { Ok(()) }
}

/// That a message has no more than [`MAX_FIELDS`]. What is no message passes: whoever takes it apart says so.
pub(crate) fn fields(mut message: &[u8]) -> Result<(), Refusal> {
    for _ in 0..MAX_FIELDS {
        if !message.has_remaining() || skip(&mut message).is_none() {
            return Ok(());
        }
    }
    if message.has_remaining() { Err(error::TOO_MANY_OPS) } else { Ok(()) }
}

/// Goes behind a field. Of a group, which is no field of ours, each part counts.
fn skip(message: &mut &[u8]) -> Option<()> {
    let (_, kind) = decode_key(message).ok()?;
    let length = match kind {
        WireType::Varint => return decode_varint(message).ok().map(drop),
        WireType::SixtyFourBit => 8,
        WireType::ThirtyTwoBit => 4,
        WireType::LengthDelimited => usize::try_from(decode_varint(message).ok()?).ok()?,
        WireType::StartGroup | WireType::EndGroup => 0,
    };
    *message = message.get(length..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto::etcdserverpb::{Compare, RangeRequest, RequestOp, TxnRequest, request_op::Request};

    #[test]
    fn a_message_with_as_many_fields_as_there_may_be_passes_and_one_more_does_not() {
        let empty = |count| [0x1a, 0].repeat(count);
        assert!(fields(&empty(MAX_FIELDS)).is_ok());
        assert_eq!(fields(&empty(MAX_FIELDS + 1)).unwrap_err().words(), error::TOO_MANY_OPS.words());
        // Those within a field do not count: they are bounded where it is looked at.
        let within = RequestOp { request: Some(Request::RequestTxn(empty(MAX_FIELDS + 1).into())) };
        assert!(fields(&TxnRequest { success: vec![within], ..TxnRequest::default() }.encode_to_vec()).is_ok());
    }

    #[test]
    fn an_object_with_as_many_parts_as_there_may_be_passes_and_one_more_does_not() {
        let object = |ops: usize| [br#"{"success":["#, &b"{},".repeat(ops)[..]].concat();
        assert!(json_parts(&object(MAX_JSON_PARTS / 2 - 1)).is_ok());
        assert_eq!(json_parts(&object(MAX_JSON_PARTS / 2)).unwrap_err().words(), error::TOO_MANY_OPS.words());
    }

    #[test]
    fn every_kind_of_field_is_passed_by() {
        let range = RangeRequest { key: "k".into(), limit: i64::MIN, count_only: true, ..RangeRequest::default() };
        let op = RequestOp { request: Some(Request::RequestRange(range)) };
        let txn = TxnRequest { compare: vec![Compare::default(); 2], success: vec![op.clone()], failure: vec![op] };
        let mut bytes = txn.encode_to_vec();
        // Of 8 bytes, of 4, and a group: unknown fields.
        bytes.extend([0x79, 1, 2, 3, 4, 5, 6, 7, 8, 0x7d, 1, 2, 3, 4, 0x7b, 0x7c]);
        let mut rest = &bytes[..];
        let count = std::iter::from_fn(|| (!rest.is_empty()).then(|| skip(&mut rest).unwrap())).count();
        assert_eq!(count, 8);
        for cut in [bytes.len() - 6, 1] {
            assert!(fields(&bytes[..cut]).is_ok(), "what is cut short is for others to refuse");
        }
    }
}
