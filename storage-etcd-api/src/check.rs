//! What is wrong with a request, whatever the store holds: looked at before anything is proposed, in the order of etcd.

use std::collections::HashSet;

use bytes::Bytes;
use prost::Message;
use storage_embedded::mvcc::{Intervals, KeyRange, MAX_OPS};
use tonic::Status;

use crate::{
    error::{self, Refusal},
    fields::fields,
    limits::{MAX_REQUEST_BYTES, MAX_TXN_OPS},
    proto::etcdserverpb::{
        DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, range_request::SortOrder,
        range_request::SortTarget, request_op,
    },
};

/// What gRPC takes beyond [`MAX_REQUEST_BYTES`] in etcd (512 KiB), so that the answer can say what is wrong.
const GRPC_OVERHEAD_BYTES: usize = 512 << 10;

/// The longest message that is read at all: a longer one breaks its call.
pub(crate) const MAX_MESSAGE_BYTES: usize = 8 << 20;

/// A message that gRPC would not have let through in etcd.
pub(crate) fn message_size(message: &impl Message) -> Result<(), Status> {
    message_bytes(message.encoded_len())
}

/// As [`message_size`], of one that was not taken apart.
pub(crate) fn message_bytes(size: usize) -> Result<(), Status> {
    let limit = MAX_REQUEST_BYTES + GRPC_OVERHEAD_BYTES;
    if size <= limit {
        return Ok(());
    }
    Err(Status::resource_exhausted(format!("grpc: received message larger than max ({size} vs. {limit})")))
}

/// A request that is too large for the log.
pub(crate) fn request_size(message: &impl Message) -> Result<(), Refusal> {
    if message.encoded_len() > MAX_REQUEST_BYTES { Err(error::REQUEST_TOO_LARGE) } else { Ok(()) }
}

pub(crate) fn range(request: &RangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(error::EMPTY_KEY);
    }
    let known = SortOrder::try_from(request.sort_order).is_ok() && SortTarget::try_from(request.sort_target).is_ok();
    if known { Ok(()) } else { Err(error::INVALID_SORT) }
}

pub(crate) fn put(request: &PutRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        Err(error::EMPTY_KEY)
    } else if request.ignore_value && !request.value.is_empty() {
        Err(error::VALUE_PROVIDED)
    } else if request.ignore_lease && request.lease != 0 {
        Err(error::LEASE_PROVIDED)
    } else {
        Ok(())
    }
}

pub(crate) fn delete(request: &DeleteRangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() { Err(error::EMPTY_KEY) } else { Ok(()) }
}

pub(crate) fn txn(request: &TxnRequest) -> Result<(), Refusal> {
    sizes(request, MAX_TXN_OPS, &mut { MAX_OPS })?;
    written(&request.success)?;
    written(&request.failure)?;
    Ok(())
}

/// Transactions within a transaction share what it has left of the limit, which bounds how deep they may be nested too. `all` is what is left
/// for all of them together: etcd has no such limit, and its words for too many at one place.
fn sizes(request: &TxnRequest, limit: usize, all: &mut usize) -> Result<(), Refusal> {
    let (compares, success, failure) = (request.compare.len(), request.success.len(), request.failure.len());
    let left = limit.checked_sub(compares.max(success).max(failure)).ok_or(error::TOO_MANY_OPS)?;
    *all = all.checked_sub(compares + success + failure).ok_or(error::TOO_MANY_OPS)?;
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(error::EMPTY_KEY);
    }
    request.success.iter().chain(&request.failure).try_for_each(|op| match &op.request {
        Some(request_op::Request::RequestRange(request)) => range(request),
        Some(request_op::Request::RequestPut(request)) => put(request),
        Some(request_op::Request::RequestDeleteRange(request)) => delete(request),
        Some(request_op::Request::RequestTxn(request)) => sizes(&within(request)?, left, all),
        None => Err(error::KEY_NOT_FOUND),
    })
}

/// A transaction that stands within another.
pub(crate) fn within(request: &Bytes) -> Result<TxnRequest, Refusal> {
    fields(request)?;
    TxnRequest::decode(request.clone()).map_err(|_| error::UNREADABLE)
}

/// The keys that a list of operations may put, and those that it may delete.
#[derive(Default)]
struct Written {
    puts: HashSet<Bytes>,
    deletes: Intervals,
}

impl Written {
    /// A put of a key that is deleted beside it is refused.
    fn check(&self, key: &Bytes) -> Result<(), Refusal> {
        if self.deletes.contains(key) { Err(error::DUPLICATE_KEY) } else { Ok(()) }
    }

    fn put(&mut self, key: &Bytes) -> Result<(), Refusal> {
        self.check(key)?;
        if self.puts.insert(key.clone()) { Ok(()) } else { Err(error::DUPLICATE_KEY) }
    }

    /// Takes in what a transaction within it writes. The larger set is added to: however deep they are nested, all of it takes no longer
    /// than to look at each key some few times.
    fn extend(&mut self, mut puts: HashSet<Bytes>, deletes: Intervals) -> Result<(), Refusal> {
        puts.iter().try_for_each(|key| self.check(key))?;
        if puts.len() > self.puts.len() {
            std::mem::swap(&mut self.puts, &mut puts);
        }
        for key in puts {
            if !self.puts.insert(key) {
                return Err(error::DUPLICATE_KEY);
            }
        }
        self.deletes.extend(deletes);
        Ok(())
    }
}

/// What a list of operations writes. No key may be written twice, but by the two branches of one transaction.
fn written(ops: &[RequestOp]) -> Result<Written, Refusal> {
    let mut written = Written::default();
    for op in ops {
        if let Some(request_op::Request::RequestDeleteRange(request)) = &op.request {
            let (first, end) = (request.key.clone(), request.range_end.clone());
            // An end of one zero byte is none to etcd here, and lies before every key.
            let range = if end.is_empty() { KeyRange::One(first) } else { KeyRange::Between(first, end) };
            written.deletes.insert(range);
        }
    }
    for op in ops {
        if let Some(request_op::Request::RequestTxn(request)) = &op.request {
            let request = within(request)?;
            let (success, failure) = (self::written(&request.success)?, self::written(&request.failure)?);
            let Written { mut puts, mut deletes } = success;
            let mut other = failure.puts;
            if other.len() > puts.len() {
                std::mem::swap(&mut puts, &mut other);
            }
            puts.extend(other);
            deletes.extend(failure.deletes);
            written.extend(puts, deletes)?;
        }
    }
    for op in ops {
        if let Some(request_op::Request::RequestPut(request)) = &op.request {
            written.put(&request.key)?;
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn op(request: request_op::Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    fn put(key: impl Into<Bytes>) -> RequestOp {
        op(request_op::Request::RequestPut(PutRequest { key: key.into(), ..PutRequest::default() }))
    }

    fn delete(key: impl Into<Bytes>, end: impl Into<Bytes>) -> RequestOp {
        let request = DeleteRangeRequest { key: key.into(), range_end: end.into(), ..DeleteRangeRequest::default() };
        op(request_op::Request::RequestDeleteRange(request))
    }

    fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        let txn = TxnRequest { success, failure, ..TxnRequest::default() };
        op(request_op::Request::RequestTxn(txn.encode_to_vec().into()))
    }

    /// What etcd makes of each: its `checkIntervals`, by hand.
    #[test]
    fn what_is_written_twice_is_refused_as_in_etcd() {
        let cases: Vec<(&str, Vec<RequestOp>, bool)> = vec![
            ("a key twice", vec![put("a"), put("a")], false),
            ("two keys", vec![put("a"), put("b")], true),
            ("put and deleted", vec![put("a"), delete("a", "")], false),
            ("put within what is deleted", vec![delete("a", "c"), put("b")], false),
            ("put where the deleted ends", vec![delete("a", "b"), put("b")], true),
            ("put in the second of many deleted ranges", vec![delete("x", "z"), delete("a", "c"), put("y")], false),
            ("put between two deleted ranges", vec![delete("a", "b"), delete("c", "d"), put("b")], true),
            ("deleted from a key on, which etcd lets pass", vec![delete("a", "\0"), put("b")], true),
            ("twice, by the two branches of one", vec![nested(vec![put("a")], vec![put("a")])], true),
            ("twice, by two transactions", vec![nested(vec![put("a")], vec![]), nested(vec![], vec![put("a")])], false),
            ("within and beside", vec![nested(vec![put("a")], vec![]), put("a")], false),
            ("put within and deleted beside", vec![nested(vec![put("a")], vec![]), delete("a", "")], false),
            ("deleted within and put beside", vec![nested(vec![delete("a", "")], vec![]), put("a")], false),
            ("put and deleted by two branches", vec![nested(vec![put("a")], vec![delete("a", "")])], true),
            (
                "deleted, and put by a later one",
                vec![nested(vec![delete("a", "")], vec![]), nested(vec![put("a")], vec![])],
                false,
            ),
            (
                "put, and deleted by a later one, which etcd lets pass",
                vec![nested(vec![put("a")], vec![]), nested(vec![delete("a", "")], vec![])],
                true,
            ),
            ("two levels down", vec![nested(vec![nested(vec![put("a")], vec![])], vec![]), put("a")], false),
        ];
        for (name, ops, passes) in cases {
            assert_eq!(written(&ops).is_ok(), passes, "{name}");
        }
    }

    /// One by one, each put was compared with each delete: 10 billion comparisons.
    #[test]
    fn puts_and_deletes_are_compared_in_about_linear_time() {
        const EACH: usize = 100_000;
        let began = Instant::now();
        let deletes = (0..EACH).map(|one| delete(format!("d{one:06}"), ""));
        let puts = (0..EACH).map(|one| put(format!("p{one:06}")));
        assert!(written(&deletes.chain(puts).collect::<Vec<_>>()).is_ok());
        // What is written far within is not looked at again on each level.
        let few = || (0..10_000).map(|one| put(format!("p{one:06}"))).chain([delete("a", "b")]).collect();
        let deep = (0..120).fold(few(), |ops, _| vec![nested(ops, vec![])]);
        assert_eq!(written(&deep).unwrap().puts.len(), 10_000);
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    }

    #[test]
    fn all_operations_of_a_transaction_count() {
        let three = |each: usize| {
            let inner = nested(vec![put("a"); each], vec![]);
            let middle = nested(vec![inner; each], vec![]);
            TxnRequest { success: vec![middle; each], ..TxnRequest::default() }
        };
        let counted = |each: usize| each * (1 + each * (1 + each));
        let most = (1..).take_while(|each| counted(*each) <= MAX_OPS).last().unwrap();
        let checked = |each| sizes(&three(each), MAX_TXN_OPS, &mut { MAX_OPS });
        assert!(checked(most).is_ok());
        assert_eq!(checked(most + 1).unwrap_err().words(), error::TOO_MANY_OPS.words());
        assert!(3 * (most + 1) <= MAX_TXN_OPS, "etcd's own limit lets it through");
    }
}
