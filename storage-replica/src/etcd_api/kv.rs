//! The service KV.

use storage_core::Error;
use storage_embedded::mvcc::{MvccError, Op, OpAnswer, Refused, Txn};
use tonic::{Request, Response, Status};

use super::{
    REQUEST_TIMEOUT, check,
    context::{Context, read_options},
    error::{self, status},
    proto::etcdserverpb::{
        CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
        RangeRequest, RangeResponse, TxnRequest, TxnResponse, kv_server::Kv,
    },
    translate,
};

/// Reads and writes keys.
#[derive(Clone, Debug)]
pub(super) struct KvService(pub(super) Context);

impl KvService {
    /// A transaction that does one thing.
    async fn write(&self, op: Op) -> Result<OpAnswer, MvccError> {
        let mut answer = self.0.mvcc.txn(Txn::of(op), REQUEST_TIMEOUT).await?;
        answer.answers.pop().ok_or_else(|| Error::corrupt("an operation has no answer").into())
    }

    async fn has_no(&self, lease: Option<u64>) -> Result<bool, Status> {
        match lease {
            Some(lease) => Ok(self.0.mvcc.lease(lease, REQUEST_TIMEOUT).await.map_err(status)?.is_none()),
            None => Ok(false),
        }
    }
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let request = request.into_inner();
        check::message_size(&request)?;
        check::range(&request)?;
        let options = read_options(request.serializable);
        let ranged = self.0.mvcc.range(&translate::range(request), options).await.map_err(status)?;
        let header = self.0.header_at(ranged.revision);
        Ok(Response::new(translate::ranged(ranged, header)))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let request = request.into_inner();
        check::message_size(&request)?;
        check::put(&request)?;
        check::request_size(&request)?;
        let put = translate::put(request)?;
        let lease = put.lease.filter(|lease| *lease != 0);
        let answer = match self.write(Op::Put(put)).await {
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
        let request = request.into_inner();
        check::message_size(&request)?;
        check::delete(&request)?;
        check::request_size(&request)?;
        match self.write(Op::Delete(translate::delete(request))).await.map_err(status)? {
            OpAnswer::Delete { deleted, previous, revision } => {
                Ok(Response::new(translate::delete_answer(deleted, previous, self.0.header_at(revision))))
            }
            _ => Err(error::CORRUPT.into()),
        }
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let request = request.into_inner();
        check::message_size(&request)?;
        check::txn(&request)?;
        let serializable = translate::is_serializable(&request);
        let within_limit = check::request_size(&request);
        let txn = translate::txn(request)?;
        let answer = if txn.is_read_only() {
            self.0.mvcc.read_txn(&txn, read_options(serializable)).await
        } else {
            within_limit?;
            self.0.mvcc.txn(txn, REQUEST_TIMEOUT).await
        };
        let answer = answer.map_err(status)?;
        let header = self.0.header_at(answer.revision);
        Ok(Response::new(translate::txn_answer(answer, header)))
    }

    async fn compact(&self, request: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        let revision = u64::try_from(request.into_inner().revision).map_err(|_| error::COMPACTED)?;
        self.0.mvcc.compact(revision, REQUEST_TIMEOUT).await.map_err(status)?;
        Ok(Response::new(CompactionResponse { header: self.0.header() }))
    }
}
