//! How the suite gets at the stores of one backend, and what it can break there.
//!
//! Implemented by authors of backends. A hook that is missing skips its cases with a reason, so that nothing passes by
//! being absent.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{Cause, Error, Key, Result, Store};

/// How the suite gets at stores of one backend.
#[async_trait]
pub trait Harness: Send + Sync {
    /// The backend with its way of running, for reports: `memory`, `etcd`, `etcd prefixed`.
    fn name(&self) -> &str;

    /// How many servers stand behind a store; 1 for a store inside this process.
    fn nodes(&self) -> usize {
        1
    }

    /// Whether namespaces share servers.
    fn servers(&self) -> Servers;

    /// A fresh and empty key space that nobody else sees.
    ///
    /// # Errors
    /// Whatever prevents it; the case fails.
    async fn namespace(&self) -> Result<Box<dyn Namespace>>;
}

/// Whether the namespaces of a harness share servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Servers {
    /// Each namespace has servers, or a store, of its own: faults disturb nobody else.
    Own,
    /// All namespaces of all harnesses with this name and number of nodes share servers: a case with faults runs alone.
    Shared,
}

/// One key space, with as many handles on it as a case opens. Dropping it frees what it holds.
#[async_trait]
pub trait Namespace: Send + Sync {
    /// One more independent handle, with a connection of its own where there are connections.
    ///
    /// # Errors
    /// Those of opening a store.
    async fn open(&self) -> Result<Arc<dyn Store>>;

    /// A handle after as much as possible of what holds the data has ended and started again, without disturbing other
    /// namespaces. All other handles are closed before. As it is written here, it only opens.
    ///
    /// # Errors
    /// Those of opening a store.
    async fn reopen(&self) -> Result<Arc<dyn Store>> {
        self.open().await
    }

    /// Deletes what is left in shared servers. All handles are closed before. The case is over: nothing is written afterwards.
    ///
    /// # Errors
    /// Those of the store.
    async fn remove(&self) -> Result<()> {
        Ok(())
    }

    /// The longest key in here. Shorter than [`Key::MAX_BYTES`] only where the namespace is itself the beginning of
    /// the store's keys, as with [`Prefixed`](crate::Prefixed).
    fn max_key_bytes(&self) -> usize {
        Key::MAX_BYTES
    }

    /// What can be broken here. Without it, the cases that need faults are skipped.
    fn faults(&self) -> Option<&dyn Faults> {
        None
    }
}

/// What a harness can break. Each hook that a harness does not have answers [`FaultError::Impossible`], and the cases
/// that need it are skipped with that reason.
///
/// Whatever was broken is healed by [`Faults::heal`], which the suite calls after each case that asked for faults.
#[async_trait]
pub trait Faults: Send + Sync {
    /// Mends everything; returns once the store serves again.
    async fn heal(&self) -> Result<()>;

    /// Ends the server that leads, abruptly (as kill -9 does). The other servers can still serve.
    async fn kill_leader(&self) -> FaultResult {
        impossible("the harness cannot kill a leader")
    }

    /// Ends every server abruptly and starts them all again; returns once the store serves.
    async fn restart_all(&self) -> FaultResult {
        impossible("the harness cannot restart its servers")
    }

    /// Cuts a minority of the servers off from the others and returns a handle that reaches only the minority.
    async fn isolate_minority(&self) -> FaultResult<Arc<dyn Store>> {
        impossible("the harness cannot cut servers off")
    }

    /// Makes the store unavailable, until it is healed: servers stopped or paused, or connections cut.
    async fn outage(&self) -> FaultResult {
        impossible("the harness cannot take the store away")
    }

    /// A handle that will get no answer to its next commit, although the store applies it.
    async fn open_losing_reply(&self) -> FaultResult<Arc<dyn Store>> {
        impossible("the harness cannot lose a reply")
    }

    /// Makes the store forget its history so far, so that no watch can resume after what was committed until now
    /// (but after the last commit it can).
    async fn forget_history(&self) -> FaultResult {
        impossible("the harness cannot compact the history")
    }
}

/// What a hook answers.
pub type FaultResult<T = ()> = Result<T, FaultError>;

/// Why a hook did not do what it says.
#[derive(Debug)]
#[non_exhaustive]
pub enum FaultError {
    /// It cannot be done here, for this reason: the case is skipped.
    Impossible(String),
    /// It should have worked: the case fails.
    Failed(Cause),
}

impl From<Error> for FaultError {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

fn impossible<T>(reason: &str) -> FaultResult<T> {
    Err(FaultError::Impossible(reason.to_owned()))
}
