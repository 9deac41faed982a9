//! Requests of the protocol as calls of the engine, and their answers back. Pure.

use bytes::Bytes;
use storage_core::Key;
use storage_embedded::mvcc::{
    Compare, Delete, Direction, Event, KeyRange, KeyValue, Op, OpAnswer, Operand, Order, OrderBy, Put, Range, Ranged,
    Relation, RevisionFilter, Txn, TxnAnswer,
};

use crate::{
    check,
    error::{self, Refusal},
    proto::{
        etcdserverpb::{
            self, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
            RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse, compare::CompareResult,
            compare::CompareTarget, compare::TargetUnion, range_request::SortOrder, range_request::SortTarget,
            request_op, response_op,
        },
        mvccpb,
    },
};

/// An end of one zero byte means that there is no end.
pub(crate) fn keys(key: Bytes, end: Bytes) -> KeyRange {
    match end.as_ref() {
        [] => KeyRange::One(key),
        [0] => KeyRange::From(key),
        _ => KeyRange::Between(key, end),
    }
}

pub(crate) fn range(request: RangeRequest) -> Range {
    let by = match request.sort_target() {
        SortTarget::Key => OrderBy::Key,
        SortTarget::Version => OrderBy::Version,
        SortTarget::Create => OrderBy::Create,
        SortTarget::Mod => OrderBy::Mod,
        SortTarget::Value => OrderBy::Value,
    };
    let direction = match request.sort_order() {
        SortOrder::None => None,
        SortOrder::Ascend => Some(Direction::Ascending),
        SortOrder::Descend => Some(Direction::Descending),
    };
    Range {
        keys: keys(request.key, request.range_end),
        revision: or_zero(request.revision),
        limit: or_zero(request.limit),
        order: Order { by, direction },
        keys_only: request.keys_only,
        count_only: request.count_only,
        revisions: RevisionFilter {
            min_mod: request.min_mod_revision,
            max_mod: request.max_mod_revision,
            min_create: request.min_create_revision,
            max_create: request.max_create_revision,
        },
    }
}

/// What is negative means as much as nothing.
fn or_zero(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

pub(crate) fn put(request: PutRequest) -> Result<Put, Refusal> {
    Ok(Put {
        key: Key::new(request.key).map_err(|_| error::KEY_TOO_LONG)?,
        value: (!request.ignore_value).then_some(request.value),
        lease: (!request.ignore_lease).then_some(request.lease.cast_unsigned()),
        previous: request.prev_kv,
    })
}

pub(crate) fn delete(request: DeleteRangeRequest) -> Delete {
    Delete { keys: keys(request.key, request.range_end), previous: request.prev_kv }
}

/// What no store has as a revision: for a transaction, to be refused where it is carried out.
const GIVEN_UP: u64 = u64::MAX;

/// Whether a transaction reads, if it comes to that, at a negative revision.
pub(crate) fn reads_what_was_given_up(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Op::Range(range) => range.revision == GIVEN_UP,
        Op::Txn(txn) => reads_what_was_given_up(txn),
        _ => false,
    })
}

/// Of a request that has passed [`check::txn`].
pub(crate) fn txn(request: TxnRequest) -> Result<Txn, Refusal> {
    Ok(Txn {
        compares: request.compare.into_iter().filter_map(compare).collect(),
        success: request.success.into_iter().map(op).collect::<Result<_, _>>()?,
        failure: request.failure.into_iter().map(op).collect::<Result<_, _>>()?,
    })
}

fn op(op: RequestOp) -> Result<Op, Refusal> {
    Ok(match op.request {
        // By itself a negative revision is none. Within a transaction it is one that was given up.
        Some(request_op::Request::RequestRange(request)) if request.revision < 0 => {
            Op::Range(Range { revision: GIVEN_UP, ..range(request) })
        }
        Some(request_op::Request::RequestRange(request)) => Op::Range(range(request)),
        Some(request_op::Request::RequestPut(request)) => Op::Put(put(request)?),
        Some(request_op::Request::RequestDeleteRange(request)) => Op::Delete(delete(request)),
        Some(request_op::Request::RequestTxn(request)) => Op::Txn(txn(check::within(&request)?)?),
        None => return Err(error::KEY_NOT_FOUND),
    })
}

/// `None` for a comparison that always holds.
fn compare(compare: etcdserverpb::Compare) -> Option<Compare> {
    let target = CompareTarget::try_from(compare.target);
    let relation = match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => Relation::Equal,
        Ok(CompareResult::NotEqual) => Relation::NotEqual,
        Ok(CompareResult::Greater) => Relation::Greater,
        Ok(CompareResult::Less) => Relation::Less,
        // A relation that is yet to come holds in etcd, except between a value and a key that is not there.
        Err(_) if target == Ok(CompareTarget::Value) => {
            let keys = keys(compare.key, compare.range_end);
            return Some(Compare { keys, relation: Relation::Greater, with: Operand::Version(0) });
        }
        Err(_) => return None,
    };
    let Ok(target) = target else {
        // What is yet to come is equal to whatever it is compared with.
        let never =
            Compare { keys: KeyRange::One(compare.key), relation: Relation::Less, with: Operand::Version(i64::MIN) };
        return (relation != Relation::Equal).then_some(never);
    };
    let keys = keys(compare.key, compare.range_end);
    // An operand of another kind than the target counts as zero.
    let with = match (target, compare.target_union) {
        (CompareTarget::Version, Some(TargetUnion::Version(number))) => Operand::Version(number),
        (CompareTarget::Version, _) => Operand::Version(0),
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(number))) => Operand::Create(number),
        (CompareTarget::Create, _) => Operand::Create(0),
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(number))) => Operand::Mod(number),
        (CompareTarget::Mod, _) => Operand::Mod(0),
        (CompareTarget::Value, Some(TargetUnion::Value(value))) => Operand::Value(value),
        (CompareTarget::Value, _) => Operand::Value(Bytes::new()),
        (CompareTarget::Lease, Some(TargetUnion::Lease(number))) => Operand::Lease(number),
        (CompareTarget::Lease, _) => Operand::Lease(0),
    };
    Some(Compare { keys, relation, with })
}

/// A read-only transaction that may be stale: every operation is a read that may be.
pub(crate) fn is_serializable(request: &TxnRequest) -> bool {
    let stale =
        |op: &RequestOp| matches!(&op.request, Some(request_op::Request::RequestRange(range)) if range.serializable);
    request.success.iter().chain(&request.failure).all(stale)
}

pub(crate) fn ranged(ranged: Ranged, header: Option<ResponseHeader>) -> RangeResponse {
    RangeResponse {
        header,
        kvs: ranged.entries.into_iter().map(entry).collect(),
        more: ranged.more,
        count: ranged.count.cast_signed(),
    }
}

pub(crate) fn txn_answer(answer: TxnAnswer, header: Option<ResponseHeader>) -> TxnResponse {
    let responses = answer.answers.into_iter().map(|answer| ResponseOp { response: Some(op_answer(answer)) });
    TxnResponse { header, succeeded: answer.succeeded, responses: responses.collect() }
}

/// Answers within an answer have the revision alone in their headers, and transactions not even that.
fn op_answer(answer: OpAnswer) -> response_op::Response {
    let at = |revision: u64| Some(ResponseHeader { revision: revision.cast_signed(), ..ResponseHeader::default() });
    match answer {
        OpAnswer::Range(answer) => {
            let header = at(answer.revision);
            response_op::Response::ResponseRange(ranged(answer, header))
        }
        OpAnswer::Put { previous, revision } => response_op::Response::ResponsePut(put_answer(previous, at(revision))),
        OpAnswer::Delete { deleted, previous, revision } => {
            response_op::Response::ResponseDeleteRange(delete_answer(deleted, previous, at(revision)))
        }
        OpAnswer::Txn(answer) => {
            response_op::Response::ResponseTxn(txn_answer(answer, Some(ResponseHeader::default())))
        }
    }
}

pub(crate) fn put_answer(previous: Option<KeyValue>, header: Option<ResponseHeader>) -> PutResponse {
    PutResponse { header, prev_kv: previous.map(entry) }
}

pub(crate) fn delete_answer(
    deleted: u64,
    previous: Vec<KeyValue>,
    header: Option<ResponseHeader>,
) -> DeleteRangeResponse {
    DeleteRangeResponse { header, deleted: deleted.cast_signed(), prev_kvs: previous.into_iter().map(entry).collect() }
}

pub(crate) fn event(event: Event) -> mvccpb::Event {
    let kind = if event.deleted { mvccpb::event::EventType::Delete } else { mvccpb::event::EventType::Put };
    mvccpb::Event { r#type: kind.into(), kv: Some(entry(event.entry)), prev_kv: event.previous.map(entry) }
}

fn entry(entry: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: entry.key,
        create_revision: entry.create_revision.cast_signed(),
        mod_revision: entry.mod_revision.cast_signed(),
        version: entry.version.cast_signed(),
        value: entry.value,
        lease: entry.lease.cast_signed(),
    }
}
