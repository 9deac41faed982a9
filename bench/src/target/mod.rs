//! Clusters to measure.

#[cfg(feature = "embedded")]
mod embedded;
#[cfg(feature = "etcd")]
mod etcd_api;
mod killable;
mod memory;
#[cfg(any(feature = "embedded", feature = "etcd"))]
mod nodes;
#[cfg(any(feature = "etcd", feature = "consul", feature = "zk"))]
mod servers;

use std::{path::Path, sync::Arc};

use futures::future::BoxFuture;
use storage::Store;

use self::killable::Breaking;
pub(crate) use self::killable::Killable;

use crate::{Error, Result};

/// The backends of this build: one line for each.
pub const BACKENDS: &[Backend] = &[
    memory::BACKEND,
    #[cfg(feature = "embedded")]
    embedded::BACKEND,
    #[cfg(feature = "embedded")]
    embedded::ON_THE_LEADER,
    #[cfg(feature = "embedded")]
    embedded::ON_A_FOLLOWER,
    #[cfg(feature = "etcd")]
    etcd_api::BACKEND,
    #[cfg(feature = "etcd")]
    servers::ETCD,
    #[cfg(feature = "consul")]
    servers::CONSUL,
    #[cfg(feature = "zk")]
    servers::ZK,
];

/// A kind of store that clusters can be started of.
#[derive(Clone, Copy)]
pub struct Backend {
    /// Its name on the command line and in reports.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub what: &'static str,
    /// What has to have happened before a write is acknowledged.
    pub durability: &'static str,
    /// Whether clients call it within their own process, without a connection.
    pub in_process: bool,
    /// Whether an acknowledged write is on a disk.
    pub durable: bool,
    /// The smallest cluster of it.
    pub least_nodes: usize,
    /// The largest cluster of it.
    pub most_nodes: usize,
    /// Which nodes clients call, where this is what makes it another variant.
    pub(crate) placement: Option<Placement>,
    /// Its nodes are processes of the program `snet`.
    pub needs_snet: bool,
    needs: fn() -> Result<()>,
    start: fn(usize, &Path) -> Starting<'_>,
    /// Starts a cluster to kill nodes of, where that can be done.
    kill: Option<fn(usize, &Path) -> Breaking<'_>>,
}

type Starting<'a> = BoxFuture<'a, Result<Box<dyn Target>>>;

/// A running cluster. Dropping it ends it, and what it kept on disk is gone.
pub trait Target: Send {
    /// A handle on each node, in order.
    fn stores(&self) -> Vec<Arc<dyn Store>>;

    /// The place of the node that leads, if the cluster tells.
    fn leader(&self) -> Option<usize>;

    /// The process ids of its servers; `None`: its nodes run in this process.
    fn servers(&self) -> Option<Vec<u32>> {
        None
    }

    /// The version of the servers; of nodes in this process, that of this program.
    fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }

    /// Ends it in good order.
    fn stop(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// Which nodes the clients call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// All of them, evenly: replicas of a service behind a load balancer.
    #[default]
    Spread,
    /// The one that leads, where it can be told: one active replica.
    Leader,
    /// One that does not lead, where there is one and that can be told.
    Follower,
}

impl Backend {
    /// Whether what it needs is on this machine.
    ///
    /// # Errors
    /// [`Error::Servers`], with the command that installs what is missing.
    pub fn installed(&self) -> Result<()> {
        (self.needs)()
    }

    /// Starts a cluster with its data in a new folder in `directory`, and waits until it serves.
    ///
    /// # Errors
    /// [`Error::Usage`] for a size that it cannot have; otherwise what keeps it from starting.
    pub async fn start(&self, nodes: usize, directory: &Path) -> Result<Box<dyn Target>> {
        self.check(nodes)?;
        (self.start)(nodes, directory).await
    }

    /// Whether there are clusters of this size.
    pub fn has(&self, nodes: usize) -> bool {
        (self.least_nodes..=self.most_nodes).contains(&nodes)
    }

    fn check(&self, nodes: usize) -> Result<()> {
        if self.has(nodes) {
            return Ok(());
        }
        let Self { name, least_nodes, most_nodes, .. } = self;
        Err(Error::Usage(format!("a cluster of {name} has {least_nodes} to {most_nodes} nodes here, not {nodes}")))
    }

    /// Whether there are clusters of these sizes: those that are too small are left out, as long as one is not.
    pub(crate) fn check_any(&self, sizes: &[usize]) -> Result<()> {
        let is_too_small = |nodes: &&usize| (1..self.least_nodes).contains(*nodes);
        let wrong = sizes.iter().find(|nodes| !is_too_small(nodes) && !self.has(**nodes));
        match wrong.or(sizes.first().filter(|_| sizes.iter().all(|nodes| is_too_small(&nodes)))) {
            Some(nodes) => self.check(*nodes),
            None => Ok(()),
        }
    }

    /// Whether nodes of it can be killed.
    pub(crate) fn can_be_killed(&self) -> bool {
        self.kill.is_some()
    }

    /// Starts a cluster whose nodes can be killed.
    ///
    /// # Errors
    /// As [`Backend::start`]; [`Error::Usage`] where there is none.
    pub(crate) async fn start_to_kill(&self, nodes: usize, directory: &Path) -> Result<Box<dyn Killable>> {
        self.check(nodes)?;
        match self.kill {
            Some(kill) => kill(nodes, directory).await,
            None => Err(Error::Usage(format!("nodes of {} cannot be killed", self.name))),
        }
    }
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").field("name", &self.name).finish_non_exhaustive()
    }
}

impl dyn Target {
    /// The handles of the nodes that clients placed so call.
    pub fn handles(&self, placement: Placement) -> Vec<Arc<dyn Store>> {
        let (stores, leader) = (self.stores(), self.leader());
        let one = match (placement, leader) {
            (Placement::Spread, _) | (_, None) => None,
            (Placement::Leader, Some(leader)) => stores.get(leader),
            (Placement::Follower, Some(leader)) => {
                let mut others = stores.iter().enumerate().filter(|(place, _)| *place != leader);
                others.next().map(|(_, store)| store)
            }
        };
        one.map(Arc::clone).map_or(stores, |one| vec![one])
    }
}

/// Those that criterion benches run: each store once, and nodes that are processes of `snet` where that program is named.
pub fn to_bench() -> impl Iterator<Item = &'static Backend> {
    BACKENDS
        .iter()
        .filter(|backend| backend.placement.is_none() && (!backend.needs_snet || backend.installed().is_ok()))
}

/// The backend of this name.
///
/// # Errors
/// [`Error::Usage`] with the names there are.
pub fn backend(name: &str) -> Result<&'static Backend> {
    BACKENDS.iter().find(|backend| backend.name == name).ok_or_else(|| {
        let known: Vec<_> = BACKENDS.iter().map(|backend| backend.name).collect();
        let known = known.join(", ");
        Error::Usage(format!(
            "there is no backend `{name}` in this build, only {known}; others need their cargo feature: etcd, consul, zk or all"
        ))
    })
}
