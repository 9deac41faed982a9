//! gRPC's health service: a node serves if it reaches the leader.

use std::time::Duration;

use futures::{StreamExt, stream, stream::BoxStream};
use storage_core::Error;
use storage_embedded::mvcc::MvccError;
use tonic::{Request, Response, Status};

use crate::{
    context::Context,
    error,
    proto::health::{
        HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server::Health,
    },
};

/// How often a watched state of health is looked at.
const LOOKED_AT: Duration = Duration::from_secs(1);

/// How long it may take to reach the leader.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// The health of the server. All services have the same.
#[derive(Clone, Debug)]
pub(crate) struct HealthService(pub(crate) Context);

impl HealthService {
    async fn now(&self) -> ServingStatus {
        // A follower that is cut off does not know it: it has to ask.
        match self.0.mvcc.barrier(ANSWERS_WITHIN).await {
            Ok(()) => ServingStatus::Serving,
            Err(_) => ServingStatus::NotServing,
        }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        // As in etcd, there is the server as a whole and nothing else to ask for.
        if !request.get_ref().service.is_empty() {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(HealthCheckResponse { status: self.now().await.into() }))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        if !request.get_ref().service.is_empty() {
            let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() };
            return Ok(Response::new(stream::once(async move { Ok(unknown) }).chain(stream::pending()).boxed()));
        }
        let changes = stream::unfold((self.clone(), None), |(service, before)| async move {
            let mut now = service.now().await;
            while before == Some(now) {
                tokio::time::sleep(LOOKED_AT).await;
                now = service.now().await;
            }
            Some((Ok(HealthCheckResponse { status: now.into() }), (service, Some(now))))
        });
        Ok(Response::new(changes.boxed()))
    }
}

/// In etcd's words, since alerts match on them.
const NO_LEADER: &str = "RAFT NO LEADER";

/// Why this node does not serve.
pub(crate) async fn trouble(context: &Context) -> Option<String> {
    if context.node().status().leader.is_none() {
        return Some(NO_LEADER.to_owned());
    }
    // A follower that is cut off does not know it: it has to ask.
    match context.mvcc.barrier(ANSWERS_WITHIN).await {
        Ok(()) => None,
        Err(MvccError::Store(Error::Unavailable { .. })) => Some(NO_LEADER.to_owned()),
        Err(error) => Some(format!("QGET ERROR:{}", error::status(error).message())),
    }
}
