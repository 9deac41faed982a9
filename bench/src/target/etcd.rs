//! Servers of etcd.

use std::path::Path;

use futures::FutureExt;
use serde_json::Value;
use storage::etcd::server::{HEALTH_PATH, Member, PROGRAM, is_healthy};
use storage_testkit::{
    programs,
    server::{Launch, MAX_NODES, NodeContext, Probe, ServerError, ServerSpec},
};

use super::{About, Backend, Starting, killable::Breaking, servers::Servers};
use crate::{Error, Result};

pub(super) const BACKEND: Backend =
    Backend { needs, most_nodes: MAX_NODES, kill: Some(kill), ..Backend::servers("etcd", DURABILITY, start) };

const DURABILITY: &str = "fsync of the write-ahead log on a majority before a write is acknowledged (default)";

fn needs() -> Result<()> {
    programs::find(PROGRAM).map_err(ServerError::from)?;
    Ok(())
}

fn servers() -> Servers {
    Servers { scheme: "etcd", spec: spec(), about: |node| about(node).boxed() }
}

fn start(nodes: usize, directory: &Path) -> Starting<'_> {
    servers().start(nodes, directory).boxed()
}

fn kill(nodes: usize, directory: &Path) -> Breaking<'_> {
    servers().start_to_kill(nodes, directory).boxed()
}

pub(crate) fn spec() -> ServerSpec {
    let spec = ServerSpec::new(PROGRAM, |node| {
        let members = node.nodes().map(|node| member(&node)).collect::<Result<Vec<_>, _>>()?;
        Ok(Launch::new(programs::find(PROGRAM)?).args(member(node)?.arguments(&members, node.token())))
    });
    spec.port("client")
        .port("peer")
        .ready_when(Probe::http("client", HEALTH_PATH, |answer, _| is_healthy(&answer.body)))
}

fn member(node: &NodeContext) -> Result<Member, ServerError> {
    Ok(Member {
        name: node.name(),
        data_dir: node.data_dir().join("member"),
        client_port: node.port("client")?,
        peer_port: node.port("peer")?,
        tls: None,
    })
}

/// Whether this server leads. One that does not answer does not.
pub(crate) async fn leads(node: NodeContext) -> bool {
    about(&node).await.is_ok_and(|told| told.leads)
}

async fn about(node: &NodeContext) -> Result<About> {
    let version = node.http_get("client", "/version").await.map_err(Error::io("ask etcd for its version"))?;
    let metrics = node.http_get("client", "/metrics").await.map_err(Error::io("ask etcd who leads"))?;
    let version = serde_json::from_str::<Value>(&version.body).ok();
    Ok(About {
        version: version.and_then(|version| Some(version.get("etcdserver")?.as_str()?.to_owned())),
        leads: metrics.body.lines().any(|line| line == "etcd_server_is_leader 1"),
    })
}
