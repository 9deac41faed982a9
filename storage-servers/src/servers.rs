//! Servers of one kind with a store on each: started, asked about themselves, and ended.
//!
//! One way for tests, benches and soaks. Stores are dropped before their servers, so that no client waits for a process
//! that is gone.

use std::{io, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use storage::{ReadOptions, Store};
use storage_testkit::{
    nemesis::Leads,
    server::{Cluster, ClusterOptions, Node, NodeContext, ServerError, ServerSpec},
};

/// A server that is ready for its own probe may still wait for word of the leader; it answers a read within this time.
const SERVES_WITHIN: Duration = Duration::from_secs(30);

/// A server on this machine tells about itself within this time.
const TELLS_WITHIN: Duration = Duration::from_secs(5);

/// One kind of server.
#[derive(Clone, Debug)]
pub struct Servers {
    /// The scheme of the URLs that open a store on them.
    pub scheme: &'static str,
    /// How they are started.
    pub spec: ServerSpec,
    /// Whether what it takes to start them is on this machine; if not, the error has the command that installs it.
    pub installed: fn() -> Result<(), ServerError>,
    /// Asks one of them about itself.
    pub ask: fn(&NodeContext) -> BoxFuture<'_, io::Result<Told>>,
}

/// What a server tells about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its version, if its answer has one.
    pub version: Option<String>,
    /// Whether it leads.
    pub leads: bool,
}

/// Why servers could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A process did not start; if its program is not on this machine, the text has the command that installs it.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The processes run, and a store on them cannot be opened or read.
    #[error(transparent)]
    Store(#[from] storage::Error),
}

impl Servers {
    /// Starts a cluster, and opens a store on each of its servers.
    ///
    /// # Errors
    /// Says what kept it from starting.
    pub async fn start(self, nodes: usize, options: ClusterOptions) -> Result<Running, Error> {
        let cluster = Cluster::start(self.spec.clone(), nodes, options).await?;
        let mut stores = Vec::with_capacity(nodes);
        for node in cluster.nodes() {
            let store = storage::open(&format!("{}://{}", self.scheme, node.client_url())).await?;
            store.ping(ReadOptions::default().timeout(SERVES_WITHIN)).await?;
            stores.push(store);
        }
        Ok(Running { stores, servers: self, cluster })
    }

    /// Asks a server about itself, but not for ever.
    ///
    /// # Errors
    /// What kept it from answering.
    pub async fn ask(&self, node: &NodeContext) -> io::Result<Told> {
        tokio::time::timeout(TELLS_WITHIN, (self.ask)(node)).await?
    }

    /// Asks a server whether it leads. One that does not answer does not.
    pub fn leads(&self) -> Leads {
        let ask = self.ask;
        Arc::new(move |node| async move { ask(&node).await.is_ok_and(|told| told.leads) }.boxed())
    }
}

/// A running cluster with a store on each server. Dropping it ends it.
pub struct Running {
    // Fields drop in this order: the stores go before their servers.
    /// A store on each server, in order.
    pub stores: Vec<Arc<dyn Store>>,
    /// The kind of server.
    pub servers: Servers,
    /// The processes.
    pub cluster: Cluster,
}

impl Running {
    /// The place of the server that leads now, if one that runs says so.
    pub async fn leader(&self) -> Option<usize> {
        for (place, node) in self.cluster.nodes().iter().enumerate() {
            if node.pid().is_some() && self.servers.ask(node.context()).await.is_ok_and(|told| told.leads) {
                return Some(place);
            }
        }
        None
    }

    /// The version of the first server.
    ///
    /// # Errors
    /// If it does not tell.
    pub async fn version(&self) -> io::Result<String> {
        let first = self.cluster.nodes().first().map(Node::context).ok_or(io::ErrorKind::NotFound)?;
        self.servers.ask(first).await?.version.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Ends it in good order.
    pub async fn stop(self) {
        for store in &self.stores {
            // What the servers kept goes with them, whether or not they were told goodbye.
            let _ = store.close().await;
        }
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("servers", &self.servers).finish_non_exhaustive()
    }
}
