//! Where the replicas of a simulation get their handles.

use std::sync::Arc;

use ::bench::Open;
use ::storage::Store;
use futures::{FutureExt as _, future::ready};

use crate::exit::Failure;

/// A store that replicas open, and what has to be ended afterwards.
pub(super) struct Stores {
    pub(super) open: Open,
    /// What all replicas share, where each cannot have its own.
    shared: Option<Arc<dyn Store>>,
    #[cfg(feature = "embedded")]
    cluster: Option<(::storage::embedded::LocalCluster, tempfile::TempDir)>,
}

impl Stores {
    /// The store of a URL. Each replica opens it for itself, with a connection of its own, except an embedded node, which
    /// can be started only once in a directory: there all share it.
    pub(super) async fn at(url: &str) -> Result<Self, Failure> {
        // Handles on a store in memory find each other by its name.
        let url =
            if url == "mem:" { format!("mem:simulation-{:032x}", ::storage::unique_id()) } else { url.to_owned() };
        let store = ::storage::open(&url).await?;
        if store.capabilities().backend == "embedded" {
            let shared = Arc::clone(&store);
            let open: Open = Arc::new(move |_| ready(Ok(Arc::clone(&store))).boxed());
            return Ok(Self::new(open, Some(shared)));
        }
        let _ = store.close().await;
        let open: Open = Arc::new(move |_| {
            let url = url.clone();
            async move { ::storage::open(&url).await }.boxed()
        });
        Ok(Self::new(open, None))
    }

    /// An embedded cluster in this process, in a temporary directory on a disk where there is one.
    #[cfg(feature = "embedded")]
    pub(super) async fn cluster(nodes: u64) -> Result<Self, Failure> {
        use anyhow::anyhow;

        /// More nodes than anybody has replicas that vote.
        const MAX_NODES: u64 = 11;
        if !(1..=MAX_NODES).contains(&nodes) {
            return Err(Failure::Usage(anyhow!("an embedded cluster has 1 to {MAX_NODES} nodes here, not {nodes}")));
        }
        let parent = ::bench::default_directory();
        let directory = tempfile::Builder::new().prefix("simulation-").tempdir_in(&parent).map_err(|error| {
            Failure::Missing(anyhow::Error::new(error).context(format!("make a directory in {}", parent.display())))
        })?;
        let cluster = ::storage::embedded::LocalCluster::start(directory.path(), nodes, |config| config).await?;
        let stores: Vec<_> = cluster.running().map(|node| Arc::new(node.store()) as Arc<dyn Store>).collect();
        let open: Open = Arc::new(move |replica| {
            let store = stores.iter().cycle().nth(replica % stores.len().max(1)).map(Arc::clone);
            ready(store.ok_or(::storage::Error::Closed)).boxed()
        });
        Ok(Self { cluster: Some((cluster, directory)), ..Self::new(open, None) })
    }

    #[cfg(not(feature = "embedded"))]
    pub(super) async fn cluster(_: u64) -> Result<Self, Failure> {
        let what = "this build has no embedded engine: name a store with --store, or build with the feature `embedded`";
        Err(Failure::Usage(anyhow::anyhow!(what)))
    }

    fn new(open: Open, shared: Option<Arc<dyn Store>>) -> Self {
        Self {
            open,
            shared,
            #[cfg(feature = "embedded")]
            cluster: None,
        }
    }

    /// Ends what was started.
    pub(super) async fn stop(self) {
        if let Some(shared) = self.shared {
            let _ = shared.close().await;
        }
        #[cfg(feature = "embedded")]
        if let Some((mut cluster, directory)) = self.cluster {
            cluster.stop_all().await;
            drop(directory);
        }
    }
}
