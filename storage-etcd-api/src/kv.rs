//! The service KV.

use storage_core::Error;
use storage_embedded::{
    Mvcc,
    mvcc::{MvccError, Op, OpAnswer, Refused, Txn, TxnAnswer},
};
use tonic::{Request, Response, Status};

use crate::{
    check,
    context::{Context, read_options},
    error::{self, status},
    limits::REQUEST_TIMEOUT,
    proto::etcdserverpb::{
        CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
        RangeRequest, RangeResponse, TxnRequest, TxnResponse, kv_server::Kv,
    },
    translate,
    who::Credentials,
};

/// Reads and writes keys.
#[derive(Clone, Debug)]
pub(crate) struct KvService(pub(crate) Context);

impl KvService {
    /// A transaction that does one thing.
    async fn write(&self, who: &Credentials, op: Op) -> Result<Result<OpAnswer, MvccError>, Status> {
        let answer = self.txn_by(who, Txn::of(op)).await?;
        Ok(answer.and_then(|mut answer| {
            answer.answers.pop().ok_or_else(|| Error::corrupt("an operation has no answer").into())
        }))
    }

    async fn txn_by(&self, who: &Credentials, txn: Txn) -> Result<Result<TxnAnswer, MvccError>, Status> {
        let ask = |mvcc: Mvcc| {
            let txn = txn.clone();
            async move { mvcc.txn(txn, REQUEST_TIMEOUT).await }
        };
        self.0.ask(who, ask).await
    }

    async fn has_no(&self, lease: Option<u64>) -> Result<bool, Status> {
        match lease {
            Some(lease) => Ok(self.0.mvcc.lease(lease, REQUEST_TIMEOUT).await.map_err(status)?.is_none()),
            None => Ok(false),
        }
    }
}

/// As [`status`], of what is no transaction to its client.
fn one_status(error: MvccError) -> Status {
    match error {
        MvccError::Refused(Refused::TooCostly) => error::REQUEST_TOO_LARGE.into(),
        error => status(error),
    }
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let (who, request) = (Credentials::of(&request), request.into_inner());
        check::message_size(&request)?;
        check::range(&request)?;
        let mvcc = self.0.fresh(&who, request.serializable).await?;
        let ranged = mvcc.range(&translate::range(request), read_options(true)).await.map_err(one_status)?;
        let header = self.0.header_at(ranged.revision);
        Ok(Response::new(translate::ranged(ranged, header)))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let (who, request) = (Credentials::of(&request), request.into_inner());
        check::message_size(&request)?;
        check::put(&request)?;
        check::request_size(&request)?;
        let put = translate::put(request)?;
        let lease = put.lease.filter(|lease| *lease != 0);
        let answer = match self.write(&who, Op::Put(put)).await? {
            // Of a put that lacks both its key and its lease, etcd names the lease; within a transaction, the key.
            Err(MvccError::Refused(Refused::KeyNotFound)) if self.has_no(lease).await? => {
                return Err(error::LEASE_NOT_FOUND.into());
            }
            answer => answer.map_err(status)?,
        };
        match answer {
            OpAnswer::Put { previous, revision } => {
                Ok(Response::new(translate::put_answer(previous, self.0.header_at(revision))))
            }
            _ => Err(error::CORRUPT.into()),
        }
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let (who, request) = (Credentials::of(&request), request.into_inner());
        check::message_size(&request)?;
        check::delete(&request)?;
        check::request_size(&request)?;
        match self.write(&who, Op::Delete(translate::delete(request))).await?.map_err(one_status)? {
            OpAnswer::Delete { deleted, previous, revision } => {
                Ok(Response::new(translate::delete_answer(deleted, previous, self.0.header_at(revision))))
            }
            _ => Err(error::CORRUPT.into()),
        }
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let (who, request) = (Credentials::of(&request), request.into_inner());
        check::message_size(&request)?;
        check::txn(&request)?;
        let serializable = translate::is_serializable(&request);
        let within_limit = check::request_size(&request);
        let txn = translate::txn(request)?;
        let is_given_up = translate::reads_what_was_given_up(&txn);
        let answer = if txn.is_read_only() {
            let mvcc = self.0.fresh(&who, serializable).await?;
            mvcc.read_txn(&txn, read_options(true)).await
        } else {
            within_limit?;
            self.txn_by(&who, txn).await?
        };
        let answer = answer.map_err(|error| match error {
            MvccError::Refused(Refused::FutureRevision) if is_given_up => error::COMPACTED.into(),
            error => status(error),
        })?;
        let header = self.0.header_at(answer.revision);
        Ok(Response::new(translate::txn_answer(answer, header)))
    }

    async fn compact(&self, request: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        let who = Credentials::of(&request);
        self.0.check_root(&who).await?;
        let revision = u64::try_from(request.into_inner().revision).map_err(|_| error::COMPACTED)?;
        let ask = |mvcc: Mvcc| async move { mvcc.compact(revision, REQUEST_TIMEOUT).await };
        self.0.ask(&who, ask).await?.map_err(status)?;
        Ok(Response::new(CompactionResponse { header: self.0.header() }))
    }
}
