//! A node that this process has started, as replicas and the monitor see it, whichever engine it is.

use std::{io, sync::Arc};

use storage_core::Error;
use storage_embedded::Refusals;
use storage_membership::Node;

use crate::config::{NodeSettings, NodeUrl};

/// A node that this process has started.
pub trait ManagedNode: Node {
    /// What the node was started with.
    fn settings(&self) -> &NodeSettings;

    /// How many connections were refused, for each port that refuses by itself: an etcd tells its log alone.
    fn refusals(&self) -> Vec<(&'static str, Arc<Refusals>)> {
        Vec::new()
    }

    /// Which founding nodes are waited for, with what is known of each, in words. An etcd tells its log alone.
    fn waits_for(&self) -> Option<String> {
        None
    }

    /// The node's metrics in the text format of Prometheus. An etcd has its own, on `/metrics` of its client URL.
    fn metrics(&self) -> String {
        String::new()
    }
}

/// Why a port cannot be listened on.
pub(crate) fn cannot_listen(what: &str, url: &NodeUrl, error: &io::Error) -> Error {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(": another program uses this port; stop it, or choose another port for the {what} URL")
        }
        io::ErrorKind::AddrNotAvailable => format!(": the {what} URL needs an address of this machine"),
        _ => String::new(),
    };
    Error::unavailable(format!("cannot listen on {url}: {error}{advice}"))
}
