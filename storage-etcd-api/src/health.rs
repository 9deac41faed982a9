//! gRPC's health service: a node serves if it reaches the leader.

use std::time::Duration;

use futures::{StreamExt, stream, stream::BoxStream};
use tonic::{Request, Response, Status};

use crate::{
    context::Context,
    proto::health::{
        HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server::Health,
    },
};

/// How often a watched state of health is looked at.
const LOOKED_AT: Duration = Duration::from_secs(1);

/// How long it may take to reach the leader.
pub(crate) const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

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
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: self.now().await.into() }))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
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
