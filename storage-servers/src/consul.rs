//! How servers of Consul are started on this machine, and asked about themselves.

use std::{io, net::Ipv4Addr};

use futures::FutureExt;
use serde_json::Value;
use storage::consul::server::{Agent, LEADER_PATH, PROGRAM, has_leader};
use storage_testkit::{
    programs,
    server::{Launch, NodeContext, Probe, ServerError, ServerSpec},
};

use crate::{Servers, Told};

/// Servers of Consul.
pub fn consul() -> Servers {
    let spec = ServerSpec::new(PROGRAM, |node| {
        let agents = node.nodes().map(|node| agent(&node)).collect::<Result<Vec<_>, _>>()?;
        Ok(program()?.args(agent(node)?.arguments(&agents)))
    });
    let spec = spec.port("client").port("server").port("serf");
    let spec = spec.ready_when(Probe::http("client", LEADER_PATH, |answer, _| has_leader(&answer.body)));
    Servers { scheme: "consul", spec, installed: || program().map(drop), ask: |node| ask(node).boxed() }
}

fn program() -> Result<Launch, ServerError> {
    Ok(Launch::new(programs::find(PROGRAM)?))
}

fn agent(node: &NodeContext) -> Result<Agent, ServerError> {
    Ok(Agent {
        name: node.name(),
        data_dir: node.data_dir().join("agent"),
        bind: Ipv4Addr::LOCALHOST,
        advertise: Ipv4Addr::LOCALHOST,
        http_port: node.port("client")?,
        server_port: node.port("server")?,
        serf_port: node.port("serf")?,
        hcl: String::new(),
    })
}

async fn ask(node: &NodeContext) -> io::Result<Told> {
    let agent = node.http_get("client", "/v1/agent/self").await?;
    let leader = node.http_get("client", LEADER_PATH).await?;
    let port = node.port("server").map_err(io::Error::other)?;
    let agent = serde_json::from_str::<Value>(&agent.body).ok();
    Ok(Told {
        version: agent.and_then(|agent| Some(agent.pointer("/Config/Version")?.as_str()?.to_owned())),
        leads: leader.body.contains(&format!(":{port}\"")),
    })
}
