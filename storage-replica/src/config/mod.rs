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
//!     token = "4b0e9c0f6a6d4f2a9d3c1e5b7a8f6e2d"
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
mod login;
mod mistakes;
mod replicas;
mod secret;
mod settings;
mod tls;
mod tree;

pub use cluster::{InitialCluster, Member};
pub use environment::VARIABLES;
pub use file::{Config, Format, LoadError};
pub use growing::{Growing, parse_bootstrap};
pub use login::Login;
pub use mistakes::{Location, Mistake, Mistakes};
pub use replicas::{NodeRow, ReplicaRow};
pub use secret::{check_token, token_in};
pub use settings::{
    ClusterState, Engine, Log, LogFormat, LogLevel, LogOutput, NodeSettings, Settings, parse_bytes, parse_connections,
};
pub use storage_embedded::{Bounds, disk::exposure, secret_in};
pub use storage_membership::{Bootstrap, NodeUrl, Timing, Token};
pub use tls::{ClientTls, Tls, exposed};

/// How long a replica waits for its cluster if the configuration does not say: as long as the original daemon did.
pub const DEFAULT_STARTUP_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);
