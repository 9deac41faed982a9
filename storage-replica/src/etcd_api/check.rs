//! What is wrong with a request, whatever the store holds: looked at before anything is proposed, in the order of etcd.

use std::collections::HashSet;

use bytes::Bytes;
use prost::Message;
use tonic::Status;

use super::{
    MAX_REQUEST_BYTES, MAX_TXN_OPS,
    error::{self, Refusal},
    proto::etcdserverpb::{
        DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, range_request::SortOrder,
        range_request::SortTarget, request_op,
    },
};

/// What gRPC takes beyond [`MAX_REQUEST_BYTES`] in etcd (512 KiB), so that the answer can say what is wrong.
const GRPC_OVERHEAD_BYTES: usize = 512 << 10;

/// The longest message that is read at all: a longer one breaks its call.
pub(super) const MAX_MESSAGE_BYTES: usize = 8 << 20;

/// A message that gRPC would not have let through in etcd.
pub(super) fn message_size(message: &impl Message) -> Result<(), Status> {
    let (size, limit) = (message.encoded_len(), MAX_REQUEST_BYTES + GRPC_OVERHEAD_BYTES);
    if size <= limit {
        return Ok(());
    }
    Err(Status::resource_exhausted(format!("grpc: received message larger than max ({size} vs. {limit})")))
}

/// A request that is too large for the log.
pub(super) fn request_size(message: &impl Message) -> Result<(), Refusal> {
    if message.encoded_len() > MAX_REQUEST_BYTES { Err(error::REQUEST_TOO_LARGE) } else { Ok(()) }
}

pub(super) fn range(request: &RangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(error::EMPTY_KEY);
    }
    let known = SortOrder::try_from(request.sort_order).is_ok() && SortTarget::try_from(request.sort_target).is_ok();
    if known { Ok(()) } else { Err(error::INVALID_SORT) }
}

pub(super) fn put(request: &PutRequest) -> Result<(), Refusal> {
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

pub(super) fn delete(request: &DeleteRangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() { Err(error::EMPTY_KEY) } else { Ok(()) }
}

pub(super) fn txn(request: &TxnRequest) -> Result<(), Refusal> {
    sizes(request, MAX_TXN_OPS)?;
    written(&request.success)?;
    written(&request.failure)?;
    Ok(())
}

/// Transactions within a transaction share what it has left of the limit, which bounds how deep they may be nested too.
fn sizes(request: &TxnRequest, limit: usize) -> Result<(), Refusal> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = limit.checked_sub(longest).ok_or(error::TOO_MANY_OPS)?;
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(error::EMPTY_KEY);
    }
    request.success.iter().chain(&request.failure).try_for_each(|op| match &op.request {
        Some(request_op::Request::RequestRange(request)) => range(request),
        Some(request_op::Request::RequestPut(request)) => put(request),
        Some(request_op::Request::RequestDeleteRange(request)) => delete(request),
        Some(request_op::Request::RequestTxn(request)) => sizes(&within(request)?, left),
        None => Err(error::KEY_NOT_FOUND),
    })
}

/// A transaction that stands within another.
pub(super) fn within(request: &Bytes) -> Result<TxnRequest, Refusal> {
    TxnRequest::decode(request.clone()).map_err(|_| error::UNREADABLE)
}

/// The keys that a list of operations may put, and the ranges that it may delete.
#[derive(Default)]
struct Written {
    puts: HashSet<Bytes>,
    deletes: Vec<(Bytes, Bytes)>,
}

impl Written {
    fn deletes(&self, key: &Bytes) -> bool {
        self.deletes.iter().any(|(first, end)| if end.is_empty() { key == first } else { key >= first && key < end })
    }

    /// A put of a key that is deleted beside it is refused.
    fn put(&mut self, key: &Bytes) -> Result<(), Refusal> {
        if self.deletes(key) {
            return Err(error::DUPLICATE_KEY);
        }
        self.puts.insert(key.clone());
        Ok(())
    }
}

/// What a list of operations writes. No key may be written twice, but by the two branches of one transaction.
fn written(ops: &[RequestOp]) -> Result<Written, Refusal> {
    let mut written = Written::default();
    for op in ops {
        if let Some(request_op::Request::RequestDeleteRange(request)) = &op.request {
            written.deletes.push((request.key.clone(), request.range_end.clone()));
        }
    }
    for op in ops {
        if let Some(request_op::Request::RequestTxn(request)) = &op.request {
            let request = within(request)?;
            let (success, failure) = (self::written(&request.success)?, self::written(&request.failure)?);
            if success.puts.iter().chain(&failure.puts).any(|key| written.puts.contains(key)) {
                return Err(error::DUPLICATE_KEY);
            }
            success.puts.iter().chain(&failure.puts).try_for_each(|key| written.put(key))?;
            written.deletes.extend(success.deletes);
            written.deletes.extend(failure.deletes);
        }
    }
    for op in ops {
        if let Some(request_op::Request::RequestPut(request)) = &op.request {
            if written.puts.contains(&request.key) {
                return Err(error::DUPLICATE_KEY);
            }
            written.put(&request.key)?;
        }
    }
    Ok(written)
}
