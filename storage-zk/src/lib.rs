//! The contract on ZooKeeper: [`open`] a URL `zk://host:port,host:port/root`, or [`ZkStore::open`] a [`ZkConfig`].
//!
//! A compare-and-swap is one `setData` with a version, a transaction one `multi`. docs/mapping.md has every clause of the
//! contract with its mechanism; docs/decisions/0005-zookeeper-versions.md argues why a version never repeats although
//! ZooKeeper's own restart at 0.
//!
//! ```no_run
//! # async fn example() -> storage_core::Result<()> {
//! use storage_core::{Key, StoreExt};
//!
//! let store = storage_zk::open(&"zk://127.0.0.1:2181/channels".parse().expect("a URL")).await?;
//! let version = store.put(&Key::new("channel/7")?, "open").await?;
//! # let _ = version;
//! # Ok(())
//! # }
//! ```

mod barrier;
mod cell;
mod config;
mod error;
mod garbage;
mod handle;
mod layout;
mod listing;
mod node;
mod path;
mod plan;
mod read;
mod scan;
pub mod server;
mod session;
mod store;
mod tombstones;
mod watch;

pub use config::{PARAMETERS, Reads, SCHEMES, TlsConfig, ZkConfig};
pub use store::{ZkStore, open};
