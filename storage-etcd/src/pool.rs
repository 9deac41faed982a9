//! The servers of one etcd cluster, and calls on them: a connection that broke is discarded by the call that saw it.

use std::time::Duration;

use etcd_client::Error as ClientError;
use storage_core::{
    Result,
    servers::{self, Effect, Failure},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    EtcdConfig,
    endpoint::{Endpoint, Ready},
    error::failure,
};

/// The servers of one cluster, with one connection to each that was asked.
pub(crate) type Pool = servers::Pool<Endpoint>;

/// A pool of the servers of a configuration. Reads the certificates, and connects to nothing yet.
///
/// # Errors
/// [`Error::InvalidArgument`](storage_core::Error::InvalidArgument) for certificates that cannot be read or used.
pub(crate) async fn open(config: &EtcdConfig) -> Result<Pool> {
    let (closed, tasks) = (CancellationToken::new(), TaskTracker::new());
    let endpoints = Endpoint::all(config, &closed, &tasks).await?;
    Ok(Pool::new(endpoints, closed, tasks))
}

/// Makes a call: see [`servers::Pool::call`].
pub(crate) async fn call<T, F>(
    pool: &Pool,
    effect: Effect,
    limit: Duration,
    send: impl Fn(&Ready) -> F + Send + Sync,
) -> Result<T>
where
    F: Future<Output = Result<T, ClientError>> + Send,
{
    pool.call(effect, limit, |ready| {
        let answer = send(&ready);
        async move {
            answer.await.map_err(|error| -> Failure {
                let failed = failure(error);
                if failed.broken {
                    ready.discard();
                }
                failed.failure
            })
        }
    })
    .await
}
