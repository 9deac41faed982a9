//! Ensembles of real servers, shared by the tests of one program, and what can be broken in them.

#![allow(dead_code, reason = "each test program uses a part of it")]

mod links;

use std::sync::Arc;

use async_trait::async_trait;
use storage_core::{Result, Store};
use storage_testkit::programs;
use storage_testkit::server::{Launch, Probe, ServerError, ServerSpec, tcp_word};
use storage_testkit::suite::{self, Processes, among};
use storage_zk::server::{
    CLASSPATH, CONFIG_FILE, LEADS, NAME, PORTS, PROGRAM, Peer, READY, ServerTls, arguments, files,
};
use storage_zk::{ZkConfig, ZkStore};

pub(crate) use storage_testkit::suite::Backend;

use links::{Links, Port};

/// The name of the port on which a server of [`ZooKeeper::start_with`] has TLS.
pub(crate) const SECURE: &str = "secure";

/// The servers of an ensemble.
pub(crate) struct ZooKeeper {
    processes: Processes,
    links: Arc<Links>,
}

impl ZooKeeper {
    /// An ensemble of the caller's own, which may serve its clients with TLS too. Fails the test with what is missing.
    pub(crate) async fn start_with(nodes: usize, tls: Option<ServerTls>) -> Arc<Self> {
        let links = Links::open(nodes);
        let processes = Processes::start(spec(Arc::clone(&links), tls), nodes).await;
        Arc::new(Self { processes, links })
    }

    pub(crate) fn config(&self) -> ZkConfig {
        ZkConfig::new(self.endpoints()).unwrap()
    }

    pub(crate) async fn open(&self) -> ZkStore {
        ZkStore::open(&self.config()).await.unwrap()
    }

    /// A handle that knows one server only.
    pub(crate) async fn open_on(&self, node: usize) -> ZkStore {
        ZkStore::open(&ZkConfig::new([&self.endpoints()[node]]).unwrap()).await.unwrap()
    }

    /// What a server says of itself.
    async fn status(&self, place: usize) -> String {
        let port = self.endpoints()[place].rsplit_once(':').unwrap().1.parse().unwrap();
        suite::told(async { tcp_word(port, READY.0).await.ok() }).await.unwrap_or_default()
    }
}

#[async_trait]
impl Backend for ZooKeeper {
    const NAME: &'static str = "zookeeper";

    async fn start(nodes: usize) -> Arc<Self> {
        Self::start_with(nodes, None).await
    }

    fn processes(&self) -> &Processes {
        &self.processes
    }

    async fn leads(&self) -> Option<usize> {
        for place in 0..self.endpoints().len() {
            if self.status(place).await.contains(LEADS) {
                return Some(place);
            }
        }
        None
    }

    async fn cut_off(&self, place: usize) {
        self.links.cut_off(place);
    }

    async fn has_noticed(&self, place: usize) -> bool {
        let status = self.status(place).await;
        // One that is too busy to answer may still serve.
        !status.is_empty() && !status.contains(READY.1)
    }

    fn rejoin(&self) {
        self.links.heal();
    }

    async fn open_at(&self, endpoints: &[String]) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(ZkStore::open(&ZkConfig::new(endpoints)?).await?))
    }

    /// Each case has a root of its own.
    async fn open_case(&self, case: usize, on: Option<usize>) -> Result<Arc<dyn Store>> {
        let config = ZkConfig::new(among(self.endpoints(), on))?.with_root(format!("/case/{case}"))?;
        // On a busy machine a disk that is synced by many may stand still for two seconds, after which a server would be given up.
        let config = config.with_session_timeout(std::time::Duration::from_secs(15));
        Ok(Arc::new(ZkStore::open(&config).await?))
    }

    fn case_bytes(&self, _case: usize) -> usize {
        0
    }
}

fn spec(links: Arc<Links>, tls: Option<ServerTls>) -> ServerSpec {
    let spec = ServerSpec::new(NAME, move |node| {
        let peers = node.nodes().map(|peer| {
            let seen =
                |port, name| Ok::<_, ServerError>(links.port(node.index(), peer.index(), port, peer.port(name)?));
            let (election, quorum) = (seen(Port::Election, "election")?, seen(Port::Peer, "peer")?);
            Ok(Peer { client: peer.port("client")?, peer: quorum, election })
        });
        let peers = peers.collect::<std::result::Result<Vec<_>, ServerError>>()?;
        let classpath = programs::variable(CLASSPATH.0, CLASSPATH.1)?;
        let launch = Launch::new(programs::find(PROGRAM)?).args(arguments(&classpath));
        let secure = tls.as_ref().map(|tls| Ok::<_, ServerError>(tls.settings(node.port(SECURE)?))).transpose()?;
        let files = files(node.index(), &peers).into_iter().map(|(path, text)| match &secure {
            Some(settings) if path == CONFIG_FILE => (path, text + settings),
            _ => (path, text),
        });
        Ok(files.fold(launch, |launch, (path, text)| launch.file(path, text)))
    });
    let spec = PORTS.iter().chain([&SECURE]).fold(spec, |spec, port| spec.port(*port));
    spec.client_url("127.0.0.1:{client}").ready_when(Probe::tcp("client", READY.0, |text, _| text.contains(READY.1)))
}
