//! What a build without the client of etcd answers, in the place of `etcd`.

use std::sync::Arc;

use storage_core::{Error, Result, Store};

use super::managed::ManagedNode;
use crate::config::{ClientTls, NodeSettings, NodeUrl};

pub(super) async fn start(_: NodeSettings) -> Result<Arc<dyn ManagedNode>> {
    Err(missing("a node that is an etcd"))
}

pub(crate) async fn connect(_: &[NodeUrl], _: &ClientTls) -> Result<Arc<dyn Store>> {
    Err(missing("a replica that reaches the nodes of others"))
}

fn missing(what: &str) -> Error {
    Error::Unsupported { feature: format!("{what} in this build: build it with the cargo feature `etcd`") }
}
