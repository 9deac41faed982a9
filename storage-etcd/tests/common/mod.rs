//! Clusters of real servers, shared by the tests of one program, and what can be broken in them.

#![allow(dead_code, reason = "each test program uses a part of it")]

mod peers;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use etcd_client::{Client, CompactionOptions, DeleteOptions, StatusResponse};
use storage_core::conformance::{FaultError, FaultResult};
use storage_core::{Error, Result, Store};
use storage_etcd::server::{HEALTH_PATH, Member, PROGRAM, ServerTls, is_healthy};
use storage_etcd::{EtcdConfig, EtcdStore};
use storage_testkit::programs;
use storage_testkit::server::{Launch, NodeContext, Probe, ServerError, ServerSpec};
use storage_testkit::suite::{self, Processes, case_prefix};

pub(crate) use storage_testkit::suite::Backend;

use peers::{Peers, Server};

/// The servers of a cluster.
pub(crate) struct Etcd {
    processes: Processes,
    peers: Arc<Peers>,
}

impl Etcd {
    /// A cluster of the caller's own. Fails the test with what is missing.
    pub(crate) async fn start_with(nodes: usize, tls: Option<ServerTls>) -> Arc<Self> {
        let peers = Peers::open(nodes);
        let processes = Processes::start(spec(Arc::clone(&peers), tls), nodes).await;
        Arc::new(Self { processes, peers })
    }

    pub(crate) fn config(&self) -> EtcdConfig {
        EtcdConfig::new(self.endpoints()).unwrap()
    }

    pub(crate) async fn open(&self) -> EtcdStore {
        EtcdStore::new(self.config()).await.unwrap()
    }

    /// A handle that knows one server only.
    pub(crate) async fn open_on(&self, node: usize) -> EtcdStore {
        EtcdStore::new(EtcdConfig::new([&self.endpoints()[node]]).unwrap()).await.unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.endpoints(), None).await.unwrap()
    }

    /// The name of a server among its peers.
    async fn member(&self, place: usize) -> u64 {
        let deadline = Instant::now() + suite::RECOVERY;
        loop {
            if let Some(status) = self.status(place).await {
                return status.header().unwrap().member_id();
            }
            assert!(Instant::now() < deadline, "server {place} does not say who it is");
        }
    }

    async fn status(&self, place: usize) -> Option<StatusResponse> {
        let server = [&self.endpoints()[place]];
        suite::told(async { Client::connect(server, None).await.ok()?.status().await.ok() }).await
    }
}

#[async_trait]
impl Backend for Etcd {
    const NAME: &'static str = "etcd";

    async fn start(nodes: usize) -> Arc<Self> {
        Self::start_with(nodes, None).await
    }

    fn processes(&self) -> &Processes {
        &self.processes
    }

    async fn leads(&self) -> Option<usize> {
        for place in 0..self.endpoints().len() {
            if let Some(status) = self.status(place).await
                && status.leader() != 0
                && status.leader() == status.header().unwrap().member_id()
            {
                return Some(place);
            }
        }
        None
    }

    async fn cut_off(&self, place: usize) {
        self.peers.cut_off(Server { place, member: self.member(place).await });
    }

    async fn has_noticed(&self, place: usize) -> bool {
        self.status(place).await.is_some_and(|status| status.leader() == 0)
    }

    fn rejoin(&self) {
        self.peers.heal();
    }

    async fn open_at(&self, endpoints: &[String]) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(EtcdStore::new(EtcdConfig::new(endpoints)?).await?))
    }

    async fn remove_case(&self, case: usize) -> Result<()> {
        let all = DeleteOptions::new().with_prefix();
        let removed = self.client().await.delete(case_prefix(case)?.as_bytes(), Some(all)).await;
        removed.map(|_| ()).map_err(Error::unavailable)
    }

    async fn forget_history(&self) -> FaultResult {
        let failed = |error: etcd_client::Error| FaultError::Failed(error.into());
        let mut client = self.client().await;
        let revision = client.get("\0", None).await.map_err(failed)?.header().map(|header| header.revision());
        let options = CompactionOptions::new().with_physical();
        client.compact(revision.unwrap_or_default(), Some(options)).await.map_err(failed)?;
        Ok(())
    }
}

fn spec(peers: Arc<Peers>, tls: Option<ServerTls>) -> ServerSpec {
    let secure = tls.is_some();
    let spec = ServerSpec::new(PROGRAM, move |node| {
        let listens = node.port("peer")?;
        let members = node.nodes().map(|node| member(&node, &peers, tls.as_ref()));
        let members = members.collect::<std::result::Result<Vec<_>, ServerError>>()?;
        let mut arguments = members[node.index()].arguments(&members, node.token());
        let place = arguments.iter().position(|argument| argument == "--listen-peer-urls").unwrap();
        arguments[place + 1] = format!("http://127.0.0.1:{listens}");
        Ok(Launch::new(programs::find(PROGRAM)?).args(arguments))
    });
    let spec = spec.port("client").port("peer").client_url("127.0.0.1:{client}");
    if secure {
        // The health endpoint wants a certificate too: that the port answers has to do.
        return spec.ready_when(Probe::custom(|node| async move {
            tokio::net::TcpStream::connect(("127.0.0.1", node.port("client").unwrap())).await.is_ok()
        }));
    }
    spec.ready_when(Probe::http("client", HEALTH_PATH, |answer, _| is_healthy(&answer.body)))
}

fn member(node: &NodeContext, peers: &Peers, tls: Option<&ServerTls>) -> std::result::Result<Member, ServerError> {
    Ok(Member {
        name: node.name(),
        data_dir: node.data_dir().join("member"),
        client_port: node.port("client")?,
        peer_port: peers.advertised(node.index(), node.port("peer")?),
        tls: tls.cloned(),
    })
}
