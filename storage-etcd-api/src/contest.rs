//! What locks and elections have in common, as in etcd's package `concurrency`: each contender has a key under a common prefix, named after its
//! lease, and it is the turn of the one whose key was created first. All of it is done by the calls that its client could make itself.

use bytes::Bytes;
use storage_embedded::mvcc::{KeyRange, KeyValue, Range};
use tonic::{Extensions, Request, Status, metadata::MetadataMap};

use crate::{
    context::{Context, read_options},
    error,
    kv::KvService,
    lease::LeaseService,
    limits::REQUEST_TIMEOUT,
    proto::{
        etcdserverpb::{
            Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader,
            TxnRequest, TxnResponse, compare::CompareResult, compare::CompareTarget, compare::TargetUnion,
            kv_server::Kv, lease_server::Lease, range_request::SortOrder, range_request::SortTarget, request_op,
            response_op,
        },
        mvccpb,
    },
    who::Credentials,
};

/// How long the lease lives of a contender that brings none, in seconds: as in etcd. Nobody keeps it alive.
const OWN_TTL_SECONDS: i64 = 60;

/// Who asks, with all that it has said of itself.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    metadata: MetadataMap,
    extensions: Extensions,
}

impl Caller {
    pub(crate) fn of<T>(request: Request<T>) -> (Self, T) {
        let (metadata, extensions, message) = request.into_parts();
        (Self { metadata, extensions }, message)
    }

    pub(crate) fn asks<T>(&self, message: T) -> Request<T> {
        Request::from_parts(self.metadata.clone(), self.extensions.clone(), message)
    }
}

/// Contests for turns.
#[derive(Clone, Debug)]
pub(crate) struct Contests(pub(crate) Context);

/// A contender's key. Dropped before its turn has come, it is deleted: its client has gone.
#[derive(Debug)]
pub(crate) struct Contender {
    contests: Contests,
    pub(crate) key: Bytes,
    /// The revision that has created the key.
    pub(crate) revision: i64,
    pub(crate) lease: i64,
    /// What the key held already, if it was there.
    pub(crate) held: Option<Bytes>,
    pub(crate) header: Option<ResponseHeader>,
    waits: bool,
}

impl Contests {
    pub(crate) fn kv(&self) -> KvService {
        KvService(self.0.clone())
    }

    /// Puts a contender's key, unless it is there.
    pub(crate) async fn enter(
        &self,
        caller: &Caller,
        name: &[u8],
        lease: i64,
        value: Bytes,
    ) -> Result<Contender, Status> {
        let lease = self.lease(caller, lease).await?;
        let key: Bytes = [&prefix(name), hex(lease).as_bytes()].concat().into();
        let put = PutRequest { key: key.clone(), value, lease, ..PutRequest::default() };
        let entered = self.if_created_at(caller, &key, 0, request_op::Request::RequestPut(put)).await?;
        let there = entered.responses.into_iter().next().and_then(|response| match response.response {
            Some(response_op::Response::ResponseRange(mut range)) => range.kvs.pop(),
            _ => None,
        });
        let header = entered.header;
        let (revision, held) = match there {
            Some(there) => (there.create_revision, Some(there.value)),
            None => (header.as_ref().map_or(0, |header| header.revision), None),
        };
        Ok(Contender { contests: self.clone(), key, revision, lease, held, header, waits: true })
    }

    /// The lease of a contender, which is kept alive once, or a new one.
    async fn lease(&self, caller: &Caller, lease: i64) -> Result<i64, Status> {
        if lease == 0 {
            let grant = LeaseGrantRequest { ttl: OWN_TTL_SECONDS, id: 0 };
            let granted = LeaseService(self.0.clone()).lease_grant(caller.asks(grant)).await?;
            return Ok(granted.into_inner().id);
        }
        let mvcc = self.0.by(&Credentials::of(&caller.asks(()))).await?;
        mvcc.keep_lease(lease.cast_unsigned(), REQUEST_TIMEOUT).await.map_err(error::status)?;
        Ok(lease)
    }

    /// Does something if a key was created by a revision (0: is not there), and reads it otherwise.
    pub(crate) async fn if_created_at(
        &self,
        caller: &Caller,
        key: &Bytes,
        revision: i64,
        then: request_op::Request,
    ) -> Result<TxnResponse, Status> {
        let compare = Compare {
            key: key.clone(),
            result: CompareResult::Equal.into(),
            target: CompareTarget::Create.into(),
            target_union: Some(TargetUnion::CreateRevision(revision)),
            ..Compare::default()
        };
        let read = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        let op = |request| vec![RequestOp { request: Some(request) }];
        let (success, failure) = (op(then), op(request_op::Request::RequestRange(read)));
        Ok(self.kv().txn(caller.asks(TxnRequest { compare: vec![compare], success, failure })).await?.into_inner())
    }

    /// The key under a name that was created first; by what this replica has, if that is enough.
    pub(crate) async fn first(
        &self,
        caller: &Caller,
        name: &[u8],
        serializable: bool,
    ) -> Result<(Option<mvccpb::KeyValue>, Option<ResponseHeader>), Status> {
        self.one(
            caller,
            name,
            RangeRequest { sort_order: SortOrder::Ascend.into(), serializable, ..RangeRequest::default() },
        )
        .await
    }

    async fn one(
        &self,
        caller: &Caller,
        name: &[u8],
        how: RangeRequest,
    ) -> Result<(Option<mvccpb::KeyValue>, Option<ResponseHeader>), Status> {
        let (key, range_end) = (prefix(name).into(), end(name).into());
        let range = RangeRequest { key, range_end, limit: 1, sort_target: SortTarget::Create.into(), ..how };
        let mut ranged = self.kv().range(caller.asks(range)).await?.into_inner();
        Ok((ranged.kvs.pop(), ranged.header))
    }

    /// Deletes a key that a revision has created.
    pub(crate) async fn leave(
        &self,
        caller: &Caller,
        key: &Bytes,
        revision: i64,
    ) -> Result<Option<ResponseHeader>, Status> {
        let delete = DeleteRangeRequest { key: key.clone(), ..DeleteRangeRequest::default() };
        let left = self.if_created_at(caller, key, revision, request_op::Request::RequestDeleteRange(delete)).await?;
        Ok(left.header)
    }

    /// What a key holds, by what this replica has.
    async fn look(&self, key: &Bytes) -> Result<Option<KeyValue>, Status> {
        let range = Range { keys_only: true, ..Range::new(KeyRange::One(key.clone())) };
        let mut ranged = self.0.mvcc.range(&range, read_options(true)).await.map_err(error::status)?;
        Ok(ranged.entries.pop())
    }
}

impl Contender {
    /// Waits until no key under its name is older. Its own entry was applied on this replica, and so was every older one.
    ///
    /// # Errors
    /// When its key is gone meanwhile, with its lease.
    pub(crate) async fn turn(&mut self, caller: &Caller, name: &[u8]) -> Result<bool, Status> {
        let mut applied = self.contests.0.mvcc.applied();
        let mut has_waited = false;
        loop {
            let before = RangeRequest {
                max_create_revision: self.revision - 1,
                sort_order: SortOrder::Descend.into(),
                serializable: true,
                ..RangeRequest::default()
            };
            // No key is older than the first revision, and 0 would be no bound.
            let (before, _) =
                if self.revision > 1 { self.contests.one(caller, name, before).await? } else { (None, None) };
            let Some(before) = before else {
                self.waits = false;
                return Ok(has_waited);
            };
            has_waited = true;
            loop {
                applied.borrow_and_update();
                let there = self.contests.look(&before.key).await?;
                if there.is_none_or(|there| there.create_revision.cast_signed() != before.create_revision) {
                    break;
                }
                if !self.is_there().await? {
                    self.waits = false;
                    return Err(error::SESSION_EXPIRED.into());
                }
                applied.changed().await.map_err(|_| Status::from(error::STOPPED))?;
            }
        }
    }

    /// Whether its key is there as it was created.
    pub(crate) async fn is_there(&self) -> Result<bool, Status> {
        let there = self.contests.look(&self.key).await?;
        Ok(there.is_some_and(|there| there.create_revision.cast_signed() == self.revision))
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        if !self.waits {
            return;
        }
        let (contests, key, revision) = (self.contests.clone(), self.key.clone(), self.revision);
        tokio::spawn(async move {
            // By nobody's leave: it was allowed to put the key. If it fails, the key goes with its lease.
            let (caller, ()) = Caller::of(Request::new(()));
            if let Err(error) = contests.leave(&caller, &key, revision).await {
                tracing::debug!(%error, "the key of a contender that has gone stays until its lease ends");
            }
        });
    }
}

/// What the keys under a name begin with.
fn prefix(name: &[u8]) -> Vec<u8> {
    [name, b"/"].concat()
}

/// The end of the range of these keys: `0` comes behind `/`.
fn end(name: &[u8]) -> Vec<u8> {
    [name, b"0"].concat()
}

/// As Go writes a lease.
fn hex(lease: i64) -> String {
    let sign = if lease < 0 { "-" } else { "" };
    format!("{sign}{:x}", lease.unsigned_abs())
}
