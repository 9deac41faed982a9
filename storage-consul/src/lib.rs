//! The contract on Consul KV.
//!
//! [`open`] takes a URL, [`ConsulStore::new`] a [`ConsulConfig`]. Every write becomes one `PUT /v1/txn`, and so does a read of
//! several keys. docs/mapping.md says clause by clause how the contract is fulfilled, and what is not promised.
//!
//! ```no_run
//! use storage_core::{Key, StoreExt};
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> storage_core::Result<()> {
//! let url = "consul://10.0.0.1:8500?endpoint=10.0.0.2:8500&endpoint=10.0.0.3:8500";
//! let store = storage_consul::ConsulStore::new(url.parse()?).await?;
//! store.put(&Key::new("channel/7")?, "open").await?;
//! # Ok(()) }
//! ```
//!
//! # In the KV store
//! All keys lie in one folder (`storage/`, if the configuration names no other), which is what a policy names: a token needs
//! `key_prefix "storage/" { policy = "write" }`. Consul leaves out of lists and transactions what a token may not
//! read, so with a policy for a part of the folder the rest would look absent.

mod client;
mod config;
mod connection;
mod encoding;
mod error;
mod pool;
mod scan;
pub mod server;
mod store;
mod txn;
mod watch;

pub use config::{ConsulConfig, PARAMETERS, SCHEMES, TlsConfig};
pub use store::{ConsulStore, open};
