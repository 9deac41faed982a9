//! The embedded engine as etcd's clients see it: nodes in processes of their own, called by the same client library as etcd.

use std::path::Path;

use futures::FutureExt;

use super::{Backend, Starting, killable::Breaking, nodes, servers::Servers};
use crate::Result;

pub(super) const BACKEND: Backend = Backend {
    what: "the embedded engine in processes of its own, through its etcd v3 API and the same client library as for etcd",
    most_nodes: nodes::MOST_NODES,
    needs_snet: true,
    needs: || nodes::program().map(drop),
    kill: Some(kill),
    ..Backend::servers("embedded-etcd-api", nodes::DURABILITY, start)
};

fn servers() -> Result<Servers> {
    Ok(Servers { scheme: "etcd", spec: nodes::spec(nodes::program()?), about: |node| nodes::about(node).boxed() })
}

fn start(nodes: usize, directory: &Path) -> Starting<'_> {
    async move { servers()?.start(nodes, directory).await }.boxed()
}

fn kill(nodes: usize, directory: &Path) -> Breaking<'_> {
    async move { servers()?.start_to_kill(nodes, directory).await }.boxed()
}
