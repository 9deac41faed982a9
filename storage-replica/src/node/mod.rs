//! The node of a replica: started, watched and stopped, whatever its engine.
//!
//! `embedded` is a node inside this process, `etcd` an etcd that this process keeps. Both found a cluster of the same flags, serve the etcd v3 API on their
//! client URL, and give a [`Store`](storage_core::Store). `ids` is what they make of these flags, and `owner_file` keeps a directory from being used for
//! another node, cluster or engine than it was made for.

mod embedded;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(not(feature = "etcd"))]
#[path = "without_etcd.rs"]
mod etcd;
mod ids;
mod managed;
pub(crate) mod own_table;
mod owner_file;

use std::{sync::Arc, time::Duration};

use storage_core::{Error, Result};
use tokio::net::TcpStream;

use crate::config::{ClusterState, Engine, InitialCluster, Member, NodeSettings, check_token, exposed};

pub use embedded::EmbeddedNode;
pub(crate) use embedded::{restore, restore_salvaged};
pub(crate) use etcd::connect;
pub use ids::{cluster_id, node_id};
pub use managed::ManagedNode;
pub(crate) use managed::cannot_listen;
pub use storage_membership::Node;

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
        Engine::Etcd => etcd::start(settings).await,
    }
}

fn check(settings: &NodeSettings) -> Result<()> {
    let NodeSettings { name, token, client_url, peer_url, cluster, tls, .. } = settings;
    let peer_urls = cluster.members().iter().map(|member| &member.peer_url).chain([peer_url]);
    check_token(token, peer_urls).map_err(Error::invalid_argument)?;
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
