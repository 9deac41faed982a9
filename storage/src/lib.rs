//! One door to every backend: [`open`] takes a URL and gives a [`Store`], whose contract is that of `storage-core`.
//!
//! | URL | what it opens | cargo feature |
//! |---|---|---|
//! | `mem:` | a new store in the memory of this process | |
//! | `mem:NAME` | the store of that name in the memory of this process, shared by all who open it | |
//! | `embedded:/DIR` | a node of the embedded engine in this process, with its data in that directory | `embedded` (default) |
//! | `etcd://HOST:PORT,HOST:PORT` | an etcd cluster, with any of its servers named | `etcd` |
//! | `consul://HOST:PORT,HOST:PORT` | a Consul cluster | `consul` |
//! | `zk://HOST:PORT,HOST:PORT` | a ZooKeeper ensemble | `zk`; for `zks://`, with TLS, `zk-tls` |
//!
//! The parameters of a URL are in the documentation of the backend's crate. Everything that `storage-core` exports is
//! exported here too, so that one dependency is enough:
//!
//! ```
//! use storage::{Key, ReadOptions, Store, StoreExt};
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> storage::Result<()> {
//! let store = storage::open("mem:").await?;
//! let key = Key::new("channel/7")?;
//! let version = store.put(&key, "open").await?;
//!
//! // Of two replicas that try to move the same state, one succeeds.
//! assert!(store.compare_and_swap(&key, version, "claimed").await?.is_ok());
//! assert!(store.compare_and_swap(&key, version, "expired").await?.is_err());
//!
//! let entry = store.get(&key, ReadOptions::default()).await?;
//! assert_eq!(entry.map(|entry| entry.value), Some("claimed".into()));
//! store.close().await?;
//! # Ok(()) }
//! ```

mod hosts;
mod memory;
mod open;
mod registry;

pub use open::{open, schemes};
#[cfg(feature = "consul")]
pub use storage_consul as consul;
pub use storage_core::*;
#[cfg(feature = "embedded")]
pub use storage_embedded as embedded;
#[cfg(feature = "etcd")]
pub use storage_etcd as etcd;
#[cfg(feature = "zk")]
pub use storage_zk as zk;
