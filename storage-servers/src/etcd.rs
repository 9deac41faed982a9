//! How servers of etcd are started on this machine, and asked about themselves.

use std::io;

use futures::FutureExt;
use serde_json::Value;
use storage::etcd::server::{HEALTH_PATH, Member, PROGRAM, is_healthy};
use storage_testkit::{
    programs,
    server::{Launch, NodeContext, Probe, ServerError, ServerSpec},
};

use crate::{Servers, Told};

/// Servers of etcd.
pub fn etcd() -> Servers {
    let spec = ServerSpec::new(PROGRAM, |node| {
        let members = node.nodes().map(|node| member(&node)).collect::<Result<Vec<_>, _>>()?;
        Ok(program()?.args(member(node)?.arguments(&members, node.token())))
    });
    let spec = spec.port("client").port("peer");
    let spec = spec.ready_when(Probe::http("client", HEALTH_PATH, |answer, _| is_healthy(&answer.body)));
    Servers { scheme: "etcd", spec, installed: || program().map(drop), ask: |node| ask(node).boxed() }
}

fn program() -> Result<Launch, ServerError> {
    Ok(Launch::new(programs::find(PROGRAM)?))
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

async fn ask(node: &NodeContext) -> io::Result<Told> {
    let version = node.http_get("client", "/version").await?;
    let metrics = node.http_get("client", "/metrics").await?;
    let version = serde_json::from_str::<Value>(&version.body).ok();
    Ok(Told {
        version: version.and_then(|version| Some(version.get("etcdserver")?.as_str()?.to_owned())),
        leads: metrics.body.lines().any(|line| line == "etcd_server_is_leader 1"),
    })
}
