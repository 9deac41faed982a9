//! The conformance suite on a store in a file.

use std::sync::Arc;

use async_trait::async_trait;
use file_backend::FileStore;
use storage_core::{
    Error, Result, Store,
    conformance::{Harness, Injected, Namespace, Servers},
};
use tempfile::TempDir;

storage_core::conformance_tests!(file, harness);

async fn harness() -> Injected<File> {
    Injected::new(File)
}

/// A directory for each namespace.
struct File;

#[async_trait]
impl Harness for File {
    fn name(&self) -> &str {
        "file"
    }
    fn servers(&self) -> Servers {
        Servers::Own
    }
    async fn namespace(&self) -> Result<Box<dyn Namespace>> {
        Ok(Box::new(Space(tempfile::tempdir().map_err(Error::unavailable)?)))
    }
}

struct Space(TempDir);

/// All handles are closed before a namespace is opened again, and with the last of them its data leaves the memory: so
/// opening reads the file.
#[async_trait]
impl Namespace for Space {
    async fn open(&self) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(FileStore::open(self.0.path().join("store")).await?))
    }
}
