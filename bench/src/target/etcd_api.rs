//! The embedded engine as etcd's clients see it: nodes in processes of their own, called by the same client library as etcd.

use futures::FutureExt;
use storage_servers::Servers;

use super::{
    Backend, nodes,
    servers::{backend, start, start_to_kill},
};
use crate::Result;

pub(super) const BACKEND: Backend = Backend {
    what: "the embedded engine in processes of its own, through its etcd v3 API and the same client library as for etcd",
    durability: nodes::DURABILITY,
    most_nodes: nodes::MOST_NODES,
    needs_snet: true,
    needs: || nodes::program().map(drop),
    ..backend(
        "embedded-etcd-api",
        |nodes, directory| async move { start(servers()?, nodes, directory).await }.boxed(),
        |nodes, directory| async move { start_to_kill(servers()?, nodes, directory).await }.boxed(),
    )
};

fn servers() -> Result<Servers> {
    Ok(Servers {
        scheme: "etcd",
        spec: nodes::spec(nodes::program()?),
        installed: || Ok(()),
        ask: |node| nodes::ask(node).boxed(),
    })
}
