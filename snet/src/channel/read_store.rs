//! A store that a command only reads: it is neither made nor changed by that.

use std::sync::Arc;

use ::storage::Store;

use crate::exit::Failure;

/// The store, and what has to live as long as it.
pub(super) struct ReadStore {
    store: Arc<dyn Store>,
    #[cfg(feature = "embedded")]
    _copy: Option<tempfile::TempDir>,
}

impl ReadStore {
    /// Opens the store of a URL. An embedded node is read as it stands on its disk, and is not started, since that would write: an election, and
    /// an entry of its log. So it must not run meanwhile.
    pub(super) async fn open(url: &str) -> Result<Self, Failure> {
        #[cfg(feature = "embedded")]
        if let Some(directory) = embedded::directory(url) {
            return tokio::task::spawn_blocking(move || embedded::copy(&directory))
                .await
                .map_err(|error| Failure::Missing(error.into()))??
                .start()
                .await;
        }
        Ok(Self {
            store: ::storage::open(url).await?,
            #[cfg(feature = "embedded")]
            _copy: None,
        })
    }

    /// The same; `None` for an embedded node that is not there yet.
    pub(super) async fn open_if_there(url: &str) -> Result<Option<Self>, Failure> {
        #[cfg(feature = "embedded")]
        if let Some(directory) = embedded::directory(url)
            && embedded::is_nobodys(&directory)?
        {
            return Ok(None);
        }
        Self::open(url).await.map(Some)
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub(super) async fn close(self) {
        // What was read was read.
        let _ = self.store.close().await;
    }
}

#[cfg(feature = "embedded")]
mod embedded {
    use std::{
        collections::BTreeMap,
        path::{Path, PathBuf},
    };

    use ::storage::embedded::{Member, NodeConfig, Salvage};
    use anyhow::anyhow;

    use super::{Failure, ReadStore};

    /// The directory of an embedded node; `None`: the URL is another's.
    pub(super) fn directory(url: &str) -> Option<PathBuf> {
        let path = url.strip_prefix("embedded:")?;
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        Some(PathBuf::from(path.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(path)))
    }

    /// Whether there is nothing of a node in a directory, or no directory.
    pub(super) fn is_nobodys(directory: &Path) -> Result<bool, Failure> {
        for of_a_node in ["identity", "log", "snapshots"] {
            let path = directory.join(of_a_node);
            let is_absent = storage_replica::disk::is_absent(&path);
            if !is_absent.map_err(|error| Failure::Missing(anyhow!("cannot read {}: {error}", path.display())))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A copy of a node's data, which nobody else knows.
    pub(super) struct Copy {
        directory: tempfile::TempDir,
    }

    pub(super) fn copy(from: &Path) -> Result<Copy, Failure> {
        if !from.is_dir() {
            return Err(Failure::Missing(anyhow!(
                "there is no node in {}: there is no such directory",
                from.display()
            )));
        }
        let salvage = Salvage::open(from)?;
        let directory = tempfile::tempdir().map_err(|error| Failure::Missing(error.into()))?;
        let mut config = NodeConfig::new(1, 1, directory.path().join("node"), "127.0.0.1:0");
        let member = Member { name: "node-1".to_owned(), peer_address: "127.0.0.1:0".to_owned(), ..Member::default() };
        config.founders = BTreeMap::from([(1, member)]);
        salvage.restore(&config, 0)?;
        Ok(Copy { directory })
    }

    impl Copy {
        pub(super) async fn start(self) -> Result<ReadStore, Failure> {
            let url = format!("embedded:{}", self.directory.path().join("node").display());
            Ok(ReadStore { store: ::storage::open(&url).await?, _copy: Some(self.directory) })
        }
    }
}
