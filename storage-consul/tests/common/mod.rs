//! Clusters of real servers, shared by the tests of one program, and what can be broken in them.

#![allow(dead_code, reason = "each test program uses a part of it")]

mod peers;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use storage_consul::server::{Agent, LEADER_PATH, PROGRAM, has_leader};
use storage_consul::{ConsulConfig, ConsulStore};
use storage_core::{Result, Store};
use storage_testkit::programs;
use storage_testkit::server::{Launch, NodeContext, Probe, ServerError, ServerSpec, http_get, http_send};
use storage_testkit::suite::{self, Processes, case_prefix};

pub(crate) use storage_testkit::suite::Backend;

use peers::{Peers, Ports, advertised, bound};

/// The servers of a cluster.
pub(crate) struct Consul {
    processes: Processes,
    peers: Arc<Peers>,
}

impl Consul {
    /// A cluster whose servers have more configuration, each its own.
    pub(crate) async fn start_with(
        nodes: usize,
        hcl: impl Fn(&NodeContext) -> String + Send + Sync + 'static,
    ) -> Arc<Self> {
        let peers = Peers::new();
        let processes = Processes::start(spec(Arc::clone(&peers), hcl), nodes).await;
        Arc::new(Self { processes, peers })
    }

    pub(crate) fn config(&self) -> ConsulConfig {
        ConsulConfig::new(self.endpoints()).unwrap()
    }

    pub(crate) async fn open(&self) -> ConsulStore {
        ConsulStore::new(self.config()).await.unwrap()
    }

    /// A handle that knows one server only.
    pub(crate) async fn open_on(&self, node: usize) -> ConsulStore {
        ConsulStore::new(ConsulConfig::new([&self.endpoints()[node]]).unwrap()).await.unwrap()
    }

    pub(crate) async fn http_port(&self, node: usize) -> u16 {
        self.cluster().lock().await.node(node).unwrap().port("client").unwrap()
    }

    /// What a server says who leads, if it answers.
    async fn asked_for_leader(&self, node: usize) -> Option<String> {
        let port = self.http_port(node).await;
        suite::told(async { http_get(port, LEADER_PATH).await.ok().map(|answer| answer.body) }).await
    }

    async fn leader_known_to(&self, node: usize) -> Option<usize> {
        let answer = self.asked_for_leader(node).await?;
        let cluster = self.cluster().lock().await;
        (0..self.endpoints().len()).find(|place| {
            let port = cluster.node(*place).unwrap().port("server").unwrap();
            answer.contains(&format!("\"{}:{port}\"", advertised(*place)))
        })
    }
}

#[async_trait]
impl Backend for Consul {
    const NAME: &'static str = "consul";

    async fn start(nodes: usize) -> Arc<Self> {
        Self::start_with(nodes, |_| String::new()).await
    }

    fn processes(&self) -> &Processes {
        &self.processes
    }

    /// As a majority says.
    async fn leads(&self) -> Option<usize> {
        let mut votes = BTreeMap::new();
        for node in 0..self.endpoints().len() {
            if let Some(leader) = self.leader_known_to(node).await {
                *votes.entry(leader).or_insert(0) += 1;
            }
        }
        votes.into_iter().find(|(_, votes)| votes * 2 > self.endpoints().len()).map(|(leader, _)| leader)
    }

    async fn cut_off(&self, place: usize) {
        self.peers.cut_off(place);
    }

    async fn has_noticed(&self, place: usize) -> bool {
        // One that is too busy to answer may still know a leader.
        self.asked_for_leader(place).await.is_some_and(|answer| !has_leader(&answer))
    }

    fn rejoin(&self) {
        self.peers.heal();
    }

    async fn open_at(&self, endpoints: &[String]) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(ConsulStore::new(ConsulConfig::new(endpoints)?).await?))
    }

    /// Consul's own way, which the store does not need.
    async fn remove_case(&self, case: usize) -> Result<()> {
        let digits: String = case_prefix(case)?.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let path = format!("/v1/kv/storage/{digits}?recurse=true");
        match http_send(self.http_port(0).await, "DELETE", &path, &[], "").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            answer => Err(storage_core::Error::unavailable(format!("{answer:?}"))),
        }
    }
}

fn spec(peers: Arc<Peers>, hcl: impl Fn(&NodeContext) -> String + Send + Sync + 'static) -> ServerSpec {
    let spec = ServerSpec::new(PROGRAM, move |node| {
        let ports = node.nodes().map(|node| Ok(Ports { server: node.port("server")?, serf: node.port("serf")? }));
        let ports = ports.collect::<std::result::Result<Vec<_>, ServerError>>()?;
        peers.open(&ports).unwrap_or_else(|error| panic!("the links between the servers: {error}"));
        let agents = node.nodes().map(|node| agent(&node, hcl(&node)));
        let agents = agents.collect::<std::result::Result<Vec<_>, ServerError>>()?;
        Ok(Launch::new(programs::find(PROGRAM)?).args(agents[node.index()].arguments(&agents)))
    });
    let spec = spec.port("client").port("server").port("serf").port("tls").client_url("127.0.0.1:{client}");
    spec.ready_when(Probe::http("client", LEADER_PATH, |answer, _| has_leader(&answer.body)))
}

fn agent(node: &NodeContext, hcl: String) -> std::result::Result<Agent, ServerError> {
    Ok(Agent {
        name: node.name(),
        data_dir: node.data_dir().join("agent"),
        bind: bound(node.index()),
        advertise: advertised(node.index()),
        http_port: node.port("client")?,
        server_port: node.port("server")?,
        serf_port: node.port("serf")?,
        hcl,
    })
}
