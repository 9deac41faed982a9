//! The service Lock: etcd's locks for clients that leave the waiting to the server.

use bytes::Bytes;
use tonic::{Request, Response, Status};

use crate::{
    contest::{Caller, Contests},
    error,
    proto::{
        etcdserverpb::{DeleteRangeRequest, kv_server::Kv},
        v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse, lock_server::Lock},
    },
};

/// Locks.
#[derive(Clone, Debug)]
pub(crate) struct LockService(pub(crate) Contests);

#[tonic::async_trait]
impl Lock for LockService {
    /// Waits as long as its client does.
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let (caller, LockRequest { name, lease }) = Caller::of(request);
        let mut contender = self.0.enter(&caller, &name, lease, Bytes::new()).await?;
        let mut header = contender.header.take();
        if contender.turn(&caller, &name).await? {
            // It may have ended with the lease while it waited.
            if !contender.is_there().await? {
                return Err(error::SESSION_EXPIRED.into());
            }
            header = self.0.0.header();
        }
        Ok(Response::new(LockResponse { header, key: contender.key.clone() }))
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        let (caller, UnlockRequest { key }) = Caller::of(request);
        let delete = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
        let deleted = self.0.kv().delete_range(caller.asks(delete)).await?.into_inner();
        Ok(Response::new(UnlockResponse { header: deleted.header }))
    }
}
