//! What all services share.

use std::sync::Arc;

use storage_core::ReadOptions;
use storage_embedded::{
    Auth, Mvcc, Node,
    mvcc::{Denied, MvccError},
};
use tonic::Status;

use crate::{
    error,
    limits::REQUEST_TIMEOUT,
    places::NodePlaces,
    proto::etcdserverpb::ResponseHeader,
    who::{Credentials, Gate},
};

/// The node behind the services, and what finds out who asks.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// Without a client: what it may do is not asked.
    pub(crate) mvcc: Mvcc,
    pub(crate) gate: Arc<Gate>,
    pub(crate) places: NodePlaces,
}

impl Context {
    pub(crate) fn node(&self) -> &Node {
        self.mvcc.node()
    }

    /// The node for whoever asks.
    pub(crate) async fn by(&self, credentials: &Credentials) -> Result<Mvcc, Status> {
        Ok(self.mvcc.by(self.gate.who(&self.mvcc, credentials).await?))
    }

    /// The node for whoever asks, once it has all that was acknowledged before; at once if the client does not mind.
    pub(crate) async fn fresh(&self, credentials: &Credentials, serializable: bool) -> Result<Mvcc, Status> {
        if !serializable {
            self.mvcc.barrier(REQUEST_TIMEOUT).await.map_err(error::status)?;
        }
        self.by(credentials).await
    }

    /// The users and roles for whoever asks.
    pub(crate) async fn auth(&self, credentials: &Credentials) -> Result<Auth, Status> {
        Ok(self.node().auth().by(self.gate.who(&self.mvcc, credentials).await?))
    }

    /// Asks the node for something, and once more if users and roles were against it: this replica may have been behind who has changed them.
    pub(crate) async fn ask<T, F>(
        &self,
        credentials: &Credentials,
        ask: impl Fn(Mvcc) -> F,
    ) -> Result<Result<T, MvccError>, Status>
    where
        F: Future<Output = Result<T, MvccError>>,
    {
        let answer = ask(self.by(credentials).await?).await;
        if !matches!(answer, Err(MvccError::Denied(_))) {
            return Ok(answer);
        }
        Ok(ask(self.fresh(credentials, false).await?).await)
    }

    /// That `root` asks, or one that has its role, or that users are not asked for.
    pub(crate) async fn check_root(&self, credentials: &Credentials) -> Result<(), Status> {
        self.check(credentials, Auth::check_root).await
    }

    /// That one asks who says who it is, or that users are not asked for.
    pub(crate) async fn check_somebody(&self, credentials: &Credentials) -> Result<(), Status> {
        self.check(credentials, Auth::check_somebody).await
    }

    /// As [`Context::ask`].
    async fn check(
        &self,
        credentials: &Credentials,
        check: impl Fn(&Auth) -> Result<(), Denied>,
    ) -> Result<(), Status> {
        if check(&self.auth(credentials).await?).is_ok() {
            return Ok(());
        }
        self.mvcc.barrier(REQUEST_TIMEOUT).await.map_err(error::status)?;
        Ok(check(&self.auth(credentials).await?).map_err(error::denied)?)
    }

    /// The header of an answer, with this replica's revision.
    pub(crate) fn header(&self) -> Option<ResponseHeader> {
        self.header_at(self.mvcc.revision())
    }

    /// The header of an answer, with this revision.
    pub(crate) fn header_at(&self, revision: u64) -> Option<ResponseHeader> {
        let node = self.node();
        Some(ResponseHeader {
            cluster_id: cluster_id(node.cluster()),
            member_id: node.id(),
            revision: revision.cast_signed(),
            raft_term: node.term(),
        })
    }
}

/// The id of a cluster as this API shows it: etcd's ids have 64 bits, and the engine's 128.
#[allow(clippy::cast_possible_truncation, reason = "the two halves of it")]
pub fn cluster_id(cluster: u128) -> u64 {
    (cluster >> 64) as u64 ^ cluster as u64
}

/// How a read is made.
pub(crate) fn read_options(serializable: bool) -> ReadOptions {
    let options = ReadOptions::default().timeout(REQUEST_TIMEOUT);
    if serializable { options.stale() } else { options }
}
