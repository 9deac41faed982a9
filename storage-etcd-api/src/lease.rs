//! The service Lease.

use futures::{Stream, StreamExt, stream::BoxStream};
use storage_embedded::{Mvcc, mvcc::LeaseLife};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    context::{Context, read_options},
    error::{self, status},
    limits::REQUEST_TIMEOUT,
    proto::etcdserverpb::{
        LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
        LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
        LeaseTimeToLiveResponse, lease_server::Lease,
    },
    who::Credentials,
};

/// The shortest life of a lease, in seconds: etcd's, with its default timing.
const MIN_TTL_SECONDS: i64 = 2;

/// The longest life of a lease, in seconds: etcd's.
const MAX_TTL_SECONDS: i64 = 9_000_000_000;

/// Leases.
#[derive(Clone, Debug)]
pub(crate) struct LeaseService(pub(crate) Context);

#[tonic::async_trait]
impl Lease for LeaseService {
    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Result<Response<LeaseGrantResponse>, Status> {
        let who = Credentials::of(&request);
        self.0.check_somebody(&who).await?;
        let LeaseGrantRequest { ttl, id } = request.into_inner();
        if ttl > MAX_TTL_SECONDS {
            return Err(error::LEASE_TTL_TOO_LARGE.into());
        }
        let ttl = ttl.max(MIN_TTL_SECONDS);
        // Among so many numbers none comes twice.
        let id = if id == 0 { fastrand::i64(1..) } else { id };
        let ask = |mvcc: Mvcc| async move {
            mvcc.grant_lease(id.cast_unsigned(), ttl.cast_unsigned(), REQUEST_TIMEOUT).await
        };
        let granted = self.0.ask(&who, ask).await?;
        granted.map_err(status)?;
        Ok(Response::new(LeaseGrantResponse { header: self.0.header(), id, ttl, error: String::new() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let who = Credentials::of(&request);
        let id = request.into_inner().id.cast_unsigned();
        let ask = |mvcc: Mvcc| async move { mvcc.revoke_lease(id, REQUEST_TIMEOUT).await };
        self.0.ask(&who, ask).await?.map_err(status)?;
        Ok(Response::new(LeaseRevokeResponse { header: self.0.header() }))
    }

    type LeaseKeepAliveStream = BoxStream<'static, Result<LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let who = Credentials::of(&request);
        Ok(Response::new(keep_alive(self.0.clone(), who, request.into_inner()).boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let who = Credentials::of(&request);
        self.0.check_somebody(&who).await?;
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        // Before anything is told of the lease.
        let attached = if keys {
            self.0.fresh(&who, false).await?.lease_keys(id.cast_unsigned()).map_err(status)?
        } else {
            Vec::new()
        };
        let life = self.0.mvcc.lease(id.cast_unsigned(), REQUEST_TIMEOUT).await.map_err(error::status)?;
        let mut answer = LeaseTimeToLiveResponse { header: None, id, ttl: -1, granted_ttl: 0, keys: Vec::new() };
        if let Some(LeaseLife { granted_seconds, left_millis }) = life {
            answer.ttl = (left_millis / 1000).cast_signed();
            answer.granted_ttl = granted_seconds.cast_signed();
            answer.keys = attached;
        }
        answer.header = self.0.header();
        Ok(Response::new(answer))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let mvcc = self.0.fresh(&Credentials::of(&request), false).await?;
        let leases = mvcc.leases(read_options(true)).await.map_err(status)?;
        let leases = leases.into_iter().map(|id| LeaseStatus { id: id.cast_signed() }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: self.0.header(), leases }))
    }
}

/// How many requests of one stream are worked on at a time: they share the rounds in which the leader asks whether it still leads, so that with
/// 4 ms between nodes this is some 100,000 leases a second.
const KEPT_AT_ONCE: usize = 512;

/// Answers the requests in their order until the client ends.
fn keep_alive(
    context: Context,
    who: Credentials,
    requests: Streaming<LeaseKeepAliveRequest>,
) -> impl Stream<Item = Result<LeaseKeepAliveResponse, Status>> {
    let answers = requests.map(move |request| {
        let (context, who) = (context.clone(), who.clone());
        async move {
            let id = request?.id;
            let ask = |mvcc: Mvcc| async move { mvcc.keep_lease(id.cast_unsigned(), REQUEST_TIMEOUT).await };
            let life = context.ask(&who, ask).await?.map_err(error::status)?;
            // No life is how a client is told that there is no such lease.
            let ttl = life.map_or(0, |life| life.granted_seconds.cast_signed());
            Ok(LeaseKeepAliveResponse { header: context.header(), id, ttl })
        }
    });
    answers.buffered(KEPT_AT_ONCE)
}
