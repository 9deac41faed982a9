//! The contract on etcd v3.
//!
//! [`open`] takes a URL, [`EtcdStore::new`] an [`EtcdConfig`]. Every call becomes one native call of etcd: a put without
//! guards a `Put`, a compare-and-swap one `Txn` whose `else` branch reads what is in the way, a page one `Range`.
//! docs/mapping.md says clause by clause how the contract is fulfilled, and what is not promised.
//!
//! ```no_run
//! use storage_core::{Key, StoreExt};
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> storage_core::Result<()> {
//! let url = "etcd://10.0.0.1:2379?endpoint=10.0.0.2:2379&endpoint=10.0.0.3:2379";
//! let store = storage_etcd::EtcdStore::new(url.parse()?).await?;
//! store.put(&Key::new("channel/7")?, "open").await?;
//! # Ok(()) }
//! ```

mod config;
mod endpoint;
mod error;
mod pool;
mod range;
pub mod server;
mod store;
mod txn;
mod watch;

pub use config::{EtcdConfig, PARAMETERS, SCHEMES, TlsConfig};
pub use store::{EtcdStore, open};
