use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use storage::Store;

use crate::Result;

/// A running cluster whose nodes are processes that can be killed, one by one. Dropping it ends it.
#[async_trait]
pub(crate) trait Killable: Send {
    /// Handles for clients.
    fn stores(&self) -> Vec<Arc<dyn Store>>;

    /// The place of the node that leads now, if one says so and can be killed.
    async fn leader(&mut self) -> Result<Option<usize>>;

    /// Kills a node with SIGKILL and returns when it is gone.
    fn kill(&mut self, place: usize) -> Result<()>;

    /// Starts a killed node again, on its data, and waits until it serves.
    async fn restart(&mut self, place: usize) -> Result<()>;

    /// Ends it in good order.
    async fn stop(self: Box<Self>);
}

/// A cluster that is being started.
pub(crate) type Breaking<'a> = BoxFuture<'a, Result<Box<dyn Killable>>>;
