//! The node of a replica: what it is to the replica, whatever its engine.
//!
//! `embedded` is a node inside this process, `etcd` an etcd that this process starts, watches and stops. Both found a cluster of
//! the same flags, serve the etcd v3 API on their client URL, and give a [`Store`].

mod embedded;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "etcd")]
mod etcd_members;
mod ids;
mod mark;
mod members;
mod metrics;
#[cfg(feature = "etcd")]
mod process;
mod shown;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use storage_core::{Error, Result, Store};
use storage_embedded::Refusals;
use tokio::net::TcpStream;

use crate::{
    config::{ClusterState, Engine, InitialCluster, Member, NodeSettings, exposed},
    monitor::Page,
};

pub use embedded::EmbeddedNode;
pub(crate) use embedded::restore;
#[cfg(feature = "etcd")]
pub(crate) use embedded::restore_salvaged;
#[cfg(feature = "etcd")]
pub use etcd::EtcdNode;
#[cfg(feature = "etcd")]
pub(crate) use etcd::connect;
#[cfg(feature = "etcd")]
pub(crate) use ids::shown_cluster;
pub use ids::{cluster_id, node_id};
pub use members::{Change, MemberUrls, Members};

/// A node that a replica has started.
#[async_trait]
pub trait ManagedNode: fmt::Debug + Send + Sync {
    /// What the node was started with.
    fn settings(&self) -> &NodeSettings;

    /// The store, through this node. Closing it leaves the node running.
    ///
    /// # Errors
    /// Those of opening a store.
    async fn store(&self) -> Result<Arc<dyn Store>>;

    /// How many connections were refused, for each port that refuses by itself: an etcd tells its log alone.
    fn refusals(&self) -> Vec<(&'static str, Arc<Refusals>)> {
        Vec::new()
    }

    /// Waits until the node runs no more. The error says why, if nobody asked it to: the process should end then.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with what went wrong.
    async fn stopped(&self) -> Result<()>;

    /// Writes the node's metrics. An etcd has its own, on `/metrics` of its client URL.
    fn metrics(&self, page: &mut Page);

    /// The members of the cluster, if this node leads.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if nobody answers.
    async fn members(&self) -> Result<Option<Members>>;

    /// Makes a change of the members, and returns the id of the one that it has taken in. An embedded node makes it only if the members are those
    /// that were seen, and it leads.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: it was not made, look again; [`Error::InvalidArgument`] if it cannot be made; [`Error::UnknownOutcome`]: look again.
    async fn change(&self, seen: &Members, change: Change) -> Result<Option<u64>>;

    /// Stops the node in good order and waits until its ports and directory are free. Stopping twice is fine.
    async fn stop(&self);
}

/// Starts a node. It runs when this returns, which does not mean that its cluster serves: that needs a majority of the nodes.
///
/// # Errors
/// [`Error::InvalidArgument`] for settings that cannot work, and a directory of another cluster, node or engine, or in use;
/// [`Error::Unavailable`] if a port is taken, or the directory cannot be written; [`Error::Unsupported`] for an
/// etcd in a build without the feature `etcd`; [`Error::Corrupt`] for damaged data.
pub async fn start(settings: NodeSettings) -> Result<Arc<dyn ManagedNode>> {
    check(&settings)?;
    for exposed in exposed(&settings.client_url, &settings.peer_url) {
        tracing::warn!("{exposed}");
    }
    match settings.engine {
        Engine::Embedded => Ok(Arc::new(EmbeddedNode::start(settings).await?)),
        #[cfg(feature = "etcd")]
        Engine::Etcd => Ok(Arc::new(EtcdNode::start(settings).await?)),
        #[cfg(not(feature = "etcd"))]
        Engine::Etcd => Err(without_etcd("a node that is an etcd")),
    }
}

/// What a build without the client of etcd answers.
#[cfg(not(feature = "etcd"))]
pub(crate) fn without_etcd(what: &str) -> Error {
    Error::Unsupported { feature: format!("{what} in this build: build it with the cargo feature `etcd`") }
}

fn check(settings: &NodeSettings) -> Result<()> {
    let NodeSettings { name, client_url, peer_url, cluster, tls, .. } = settings;
    tls.suffices(client_url, peer_url).map_err(|missing| Error::invalid_argument(missing.join("; ")))?;
    if client_url.authority() == peer_url.authority() {
        return Err(Error::invalid_argument(format!(
            "{client_url} is for clients and for other nodes: each needs a port of its own"
        )));
    }
    match cluster.member(name) {
        Some(member) if member.peer_url == *peer_url => Ok(()),
        Some(member) => Err(Error::invalid_argument(format!(
            "the initial cluster has {} for `{name}`, whose peer URL is {peer_url}: they have to be the same",
            member.peer_url
        ))),
        // An embedded node that joins is told the founders; an etcd all members.
        None if settings.state != ClusterState::New && settings.engine == Engine::Embedded => Ok(()),
        None => {
            let names = cluster.names();
            Err(Error::invalid_argument(format!("the initial cluster has no node `{name}`, only {names}")))
        }
    }
}

/// How long a member may take to take a connection before it counts as not there.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// The members of a cluster that take no connection on their peer port now.
pub async fn missing(cluster: &InitialCluster) -> Vec<&Member> {
    let answers = cluster.members().iter().map(|member| async move {
        let connected = tokio::time::timeout(ANSWERS_WITHIN, TcpStream::connect(member.peer_url.authority())).await;
        (!matches!(connected, Ok(Ok(_)))).then_some(member)
    });
    futures::future::join_all(answers).await.into_iter().flatten().collect()
}

/// Why a port cannot be listened on.
pub(crate) fn cannot_listen(what: &str, url: &crate::config::NodeUrl, error: &std::io::Error) -> Error {
    let advice = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!(": another program uses this port; stop it, or choose another port for the {what} URL")
        }
        std::io::ErrorKind::AddrNotAvailable => format!(": the {what} URL needs an address of this machine"),
        _ => String::new(),
    };
    Error::unavailable(format!("cannot listen on {url}: {error}{advice}"))
}
