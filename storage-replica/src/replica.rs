//! A replica of a service: its node, if it has one, its store, and the port for operators.
//!
//! Whatever was started is stopped again when a start fails. The store is closed before its node stops, so that nobody
//! waits for a dead node.

use std::{sync::Arc, time::Duration};

use storage_core::{Error, Metered, ReadOptions, Registry, Result, Store};
use storage_membership::Participant;
use tokio::time::Instant;

use crate::{
    config::{Config, Growing, Member, NodeUrl, Settings, check_token},
    growing,
    monitor::{Monitor, Watched},
    node::{self, ManagedNode},
};

/// One replica of a service, as far as the storage is concerned: its node, if it has one, and its store.
///
/// ```no_run
/// use storage_core::{Key, StoreExt};
/// use storage_replica::{Replica, config::Config};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (config, _warnings) = Config::load("cluster.toml")?;
/// let replica = Replica::start(&config, 4).await?;
/// replica.store().put(&Key::new("channel/7")?, "open").await?;
/// replica.stop().await;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Replica {
    part: Part,
    store: Arc<dyn Store>,
    monitor: Option<Monitor>,
    startup_timeout: Duration,
}

/// How it takes part.
#[derive(Debug)]
enum Part {
    /// As the settings say, from the beginning to the end.
    Fixed(Option<Arc<dyn ManagedNode>>),
    /// As the leader of the cluster says.
    Growing(Participant),
}

/// How long one question takes at the most whether the cluster serves.
const ASKED_FOR: Duration = Duration::from_secs(1);
/// The wait between two of them.
const ASKED_EVERY: Duration = Duration::from_millis(50);

impl Replica {
    /// Does what the table says of this replica, and waits until its cluster serves.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is no such replica in the table, and those of [`Replica::launch`] and [`Replica::ready`];
    /// a node that was started is stopped again.
    pub async fn start(config: &Config, replica_id: u64) -> Result<Self> {
        let settings = config.settings(Some(replica_id)).map_err(Error::invalid_argument)?;
        let replica = Self::launch(settings).await?;
        match replica.ready(replica.startup_timeout).await {
            Ok(()) => Ok(replica),
            Err(error) => {
                replica.stop().await;
                Err(error)
            }
        }
    }

    /// Starts the node, if there is one, and does not wait for the others: see [`Replica::ready`].
    ///
    /// # Errors
    /// Those of [`node::start`], and of opening a store.
    pub async fn launch(settings: Settings) -> Result<Self> {
        let Settings { node, endpoints, startup_timeout, admin_url, .. } = settings;
        let Some(node) = node else {
            let store = node::connect(&endpoints, &settings.client_tls).await?;
            return Self::watched(None, store, admin_url.as_ref(), startup_timeout).await;
        };
        let node = node::start(node).await?;
        let launched = match node.store(&[]).await {
            Ok(store) => Self::watched(Some(node.clone()), store, admin_url.as_ref(), startup_timeout).await,
            Err(error) => Err(error),
        };
        if launched.is_err() {
            node.stop().await;
        }
        launched
    }

    /// Counts the calls of the store, and serves the counts to operators.
    async fn watched(
        node: Option<Arc<dyn ManagedNode>>,
        store: Arc<dyn Store>,
        admin_url: Option<&NodeUrl>,
        startup_timeout: Duration,
    ) -> Result<Self> {
        let calls = Arc::new(Registry::new());
        let counted: Arc<dyn Store> = Arc::new(Metered::new(Arc::clone(&store), calls.clone()));
        let watched = Watched { node: node.clone(), store, calls };
        let monitor = match admin_url {
            Some(url) => Some(Monitor::start(watched, url).await?),
            None => None,
        };
        Ok(Self { part: Part::Fixed(node), store: counted, monitor, startup_timeout })
    }

    /// Takes part in a cluster that grows by itself: see [`storage_membership`]. It does not wait for the cluster: see [`Replica::ready`].
    /// The store goes by the replica's own node while it has one, and by those of others otherwise.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a directory of another replica or in use; [`Error::Corrupt`] if what it says cannot be read;
    /// [`Error::Unavailable`] if it cannot be written, or the admin URL cannot be listened on.
    pub async fn grow(growing: Growing) -> Result<Self> {
        let membership = &growing.membership;
        check_token(&membership.token, membership.replicas.iter().map(|replica| &replica.peer_url))
            .map_err(Error::invalid_argument)?;
        let (admin_url, startup_timeout) = (growing.admin_url.clone(), growing.startup_timeout);
        let participant = growing::take_part(growing).await?;
        let Self { store, monitor, .. } =
            match Self::watched(None, participant.store(), admin_url.as_ref(), startup_timeout).await {
                Ok(watched) => watched,
                Err(error) => {
                    participant.stop().await;
                    return Err(error);
                }
            };
        Ok(Self { part: Part::Growing(participant), store, monitor, startup_timeout })
    }

    /// What a replica of a cluster that grows by itself does or waits for, in words.
    pub fn doing(&self) -> Option<String> {
        match &self.part {
            Part::Fixed(_) => None,
            Part::Growing(participant) => Some(participant.state()),
        }
    }

    /// Waits until the cluster serves: a majority of its nodes is there, and one of them leads.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the time is over, with whom it waits for; [`Error::Closed`] or [`Error::Corrupt`] if the node has stopped.
    pub async fn ready(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let mut last = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let asked_for = left.min(ASKED_FOR);
            match self.store.ping(ReadOptions::default().timeout(asked_for)).await {
                Ok(()) => return Ok(()),
                Err(error) if !error.is_retryable() => return Err(error),
                Err(error) if left.is_zero() => {
                    let error = last.unwrap_or(error);
                    let missing: Vec<_> = self.missing().await.into_iter().map(|member| member.name).collect();
                    let whom =
                        if missing.is_empty() { String::new() } else { format!(", without {}", missing.join(", ")) };
                    return Err(Error::unavailable(format!(
                        "the cluster does not serve after {timeout:?}{whom}: {error}"
                    )));
                }
                Err(error) => {
                    // One that had hardly any time says nothing but that.
                    if asked_for == ASKED_FOR || last.is_none() {
                        last = Some(error);
                    }
                    tokio::time::sleep(ASKED_EVERY.min(left)).await;
                }
            }
        }
    }

    /// The store. Whoever closes it ends it for all who have it from here, and leaves the node running.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// The node that this replica has started. In a cluster that grows by itself nodes come and go, and none is shown.
    pub fn node(&self) -> Option<Arc<dyn ManagedNode>> {
        match &self.part {
            Part::Fixed(node) => node.clone(),
            Part::Growing(_) => None,
        }
    }

    /// Where metrics and health are served, if the settings have an admin URL.
    pub fn monitor(&self) -> Option<&Monitor> {
        self.monitor.as_ref()
    }

    /// The founding members that take no connection now. A replica without a node does not know.
    pub async fn missing(&self) -> Vec<Member> {
        match &self.part {
            Part::Fixed(Some(node)) => node::missing(&node.settings().cluster).await.into_iter().cloned().collect(),
            _ => Vec::new(),
        }
    }

    /// Waits until the node runs no more; for ever, if there is none.
    ///
    /// # Errors
    /// Those of [`Node::stopped`](node::Node::stopped).
    pub async fn stopped(&self) -> Result<()> {
        match &self.part {
            Part::Fixed(Some(node)) => node.stopped().await,
            Part::Fixed(None) => std::future::pending().await,
            Part::Growing(participant) => participant.stopped().await,
        }
    }

    /// Closes the store and stops the node. Its ports and directory are free when this returns.
    pub async fn stop(&self) {
        if let Some(monitor) = &self.monitor {
            monitor.stop().await;
        }
        // A handle that is left behind by what it cannot reach is no reason to go on.
        let _ = self.store.close().await;
        match &self.part {
            Part::Fixed(Some(node)) => node.stop().await,
            Part::Fixed(None) => {}
            Part::Growing(participant) => participant.stop().await,
        }
    }
}
