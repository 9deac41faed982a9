//! Servers of Consul.

use std::{net::Ipv4Addr, path::Path};

use futures::FutureExt;
use serde_json::Value;
use storage::consul::server::{Agent, LEADER_PATH, PROGRAM, has_leader};
use storage_testkit::{
    programs,
    server::{Launch, MAX_NODES, NodeContext, Probe, ServerError, ServerSpec},
};

use super::{About, Backend, Starting, killable::Breaking, servers::Servers};
use crate::{Error, Result};

pub(super) const BACKEND: Backend =
    Backend { needs, most_nodes: MAX_NODES, kill: Some(kill), ..Backend::servers("consul", DURABILITY, start) };

const DURABILITY: &str =
    "fsync of the raft log on a majority before a write is acknowledged (default); reads with `?consistent`";

fn needs() -> Result<()> {
    programs::find(PROGRAM).map_err(ServerError::from)?;
    Ok(())
}

fn servers() -> Servers {
    Servers { scheme: "consul", spec: spec(), about: |node| about(node).boxed() }
}

fn start(nodes: usize, directory: &Path) -> Starting<'_> {
    servers().start(nodes, directory).boxed()
}

fn kill(nodes: usize, directory: &Path) -> Breaking<'_> {
    servers().start_to_kill(nodes, directory).boxed()
}

pub(crate) fn spec() -> ServerSpec {
    let spec = ServerSpec::new(PROGRAM, |node| {
        let agents = node.nodes().map(|node| agent(&node)).collect::<Result<Vec<_>, _>>()?;
        Ok(Launch::new(programs::find(PROGRAM)?).args(agent(node)?.arguments(&agents)))
    });
    let spec = spec.port("client").port("server").port("serf");
    spec.ready_when(Probe::http("client", LEADER_PATH, |answer, _| has_leader(&answer.body)))
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

/// Whether this server leads. One that does not answer does not.
pub(crate) async fn leads(node: NodeContext) -> bool {
    about(&node).await.is_ok_and(|told| told.leads)
}

async fn about(node: &NodeContext) -> Result<About> {
    let agent = node.http_get("client", "/v1/agent/self").await.map_err(Error::io("ask Consul for its version"))?;
    let leader = node.http_get("client", LEADER_PATH).await.map_err(Error::io("ask Consul who leads"))?;
    let agent = serde_json::from_str::<Value>(&agent.body).ok();
    Ok(About {
        version: agent.and_then(|agent| Some(agent.pointer("/Config/Version")?.as_str()?.to_owned())),
        leads: leader.body.contains(&format!(":{}\"", node.port("server")?)),
    })
}
