//! Where the replicas of a rehearsal get their handles.

use std::sync::Arc;

use ::bench::{Placement, Target};
use ::soak::{Open, in_turn};
use ::storage::Store;
use futures::FutureExt as _;

use crate::exit::Failure;

/// A store that replicas open, and what has to be ended afterwards.
pub(super) struct Stores {
    pub(super) open: Open,
    /// What all replicas share, where each cannot have its own.
    shared: Option<Arc<dyn Store>>,
    cluster: Option<Box<dyn Target>>,
}

impl Stores {
    /// The store of a URL. Each replica opens it for itself, with a connection of its own, except an embedded node, which
    /// can be started only once in a directory: there all share it.
    pub(super) async fn at(url: &str) -> Result<Self, Failure> {
        // Handles on a store in memory find each other by its name.
        let url = if url == "mem:" { format!("mem:rehearsal-{:032x}", ::storage::unique_id()) } else { url.to_owned() };
        let store = ::storage::open(&url).await?;
        if store.capabilities().backend == "embedded" {
            return Ok(Self { open: in_turn(vec![Arc::clone(&store)]), shared: Some(store), cluster: None });
        }
        let _ = store.close().await;
        let open: Open = Arc::new(move |_| {
            let url = url.clone();
            async move { ::storage::open(&url).await }.boxed()
        });
        Ok(Self { open, shared: None, cluster: None })
    }

    /// An embedded cluster in this process, in a temporary directory on a disk where there is one.
    pub(super) async fn cluster(nodes: usize) -> Result<Self, Failure> {
        let cluster = ::bench::backend("embedded")?.start(nodes, &::bench::default_directory()).await?;
        Ok(Self { open: in_turn(cluster.handles(Placement::Spread)), shared: None, cluster: Some(cluster) })
    }

    /// Ends what was started.
    pub(super) async fn stop(self) {
        if let Some(shared) = self.shared {
            let _ = shared.close().await;
        }
        if let Some(cluster) = self.cluster {
            cluster.stop().await;
        }
    }
}
