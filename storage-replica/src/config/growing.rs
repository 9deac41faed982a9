//! What one replica does in a cluster that grows by itself, as a configuration says it.

use std::{path::PathBuf, time::Duration};

use storage_membership::{Bootstrap, Settings};

use super::{Bounds, ClientTls, Engine, Log, NodeUrl, Tls, mistakes::did_you_mean};

/// What one replica does in a cluster that grows by itself: see [`storage_membership`].
#[derive(Clone, Debug)]
pub struct Growing {
    /// What it is told of the cluster.
    pub membership: Settings,
    /// What a node is.
    pub engine: Engine,
    /// Bounds of what an embedded node keeps on its disk.
    pub bounds: Bounds,
    /// How many connections clients of an embedded node may have at the most.
    pub max_connections: usize,
    /// The program of an etcd; `None`: the environment variable `ETCD_BIN`, or `etcd` on the path.
    pub etcd_program: Option<PathBuf>,
    /// Its certificates.
    pub tls: Tls,
    /// How it reaches client URLs with `https`.
    pub client_tls: ClientTls,
    /// How long it waits until the cluster serves.
    pub startup_timeout: Duration,
    /// What it logs, and where.
    pub log: Log,
    /// Where metrics and health are served, if anywhere.
    pub admin_url: Option<NodeUrl>,
}

/// What a replica without data does, as it is written: `join`, `new` or `quorum`.
///
/// # Errors
/// Which words there are.
pub fn parse_bootstrap(text: &str) -> Result<Bootstrap, String> {
    match text {
        "join" => Ok(Bootstrap::Join),
        "new" => Ok(Bootstrap::New),
        "quorum" => Ok(Bootstrap::Quorum),
        _ => {
            let hint = did_you_mean(text, ["join", "new", "quorum"]);
            Err(format!("there is no way `{text}` to begin, only join, new and quorum{hint}"))
        }
    }
}
