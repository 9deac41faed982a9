//! What a replica does, as a file or as values.
//!
//! A file lists all replicas of a service and is the same on each machine: docs/cluster.example.toml has one with every key
//! explained. The original daemon's JSON files, which describe one replica each, are read as well. Every mistake in a
//! file is reported with its line, not only the first.
//!
//! ```
//! use storage_replica::config::{Config, Format};
//!
//! let text = r#"
//!     token = "unique-token"
//!     replicas = [
//!         { id = 1, start_node = "yes", node_name = "n1", client_url = "http://10.0.1.1:2379", peer_url = "http://10.0.1.1:2380" },
//!         { id = 2, start_node = "no" },
//!     ]
//! "#;
//! let (config, _warnings) = Config::parse(text, Format::Toml, |_| None)?;
//! assert!(config.settings(Some(2))?.node.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cluster;
mod daemon;
mod environment;
mod fields;
mod file;
mod growing;
mod mistakes;
mod replicas;
mod settings;
mod tls;
mod tree;
mod url;

pub use cluster::{InitialCluster, Member};
pub use environment::VARIABLES;
pub use file::{Config, Format, LoadError, NodeRow, ReplicaRow};
pub use growing::{Bootstrap, Growing, GrowingReplica, Timing};
pub use mistakes::{Mistake, Mistakes, Place};
pub use settings::{ClusterState, Engine, Log, LogFormat, LogLevel, LogOutput, NodeSettings, Settings, Token};
pub use tls::{ClientTls, Tls, exposed};
pub use url::NodeUrl;

/// How long a replica waits for its cluster if the configuration does not say: as long as the original daemon did.
pub const DEFAULT_STARTUP_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);
