//! Servers of each backend as victims, and the handles on them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::FutureExt;
use storage_testkit::{
    nemesis::{Needs, Victims},
    workload::Open,
};

use crate::{Error, Result};

/// Servers, and how a client gets a handle of its own on them.
pub(super) struct Started {
    pub(super) victims: Victims,
    pub(super) open: Open,
}

/// What is started.
pub(super) struct Wanted<'a> {
    pub(super) backend: &'a str,
    pub(super) nodes: usize,
    pub(super) needs: Needs,
    /// Whether members shall join and leave, where they can.
    pub(super) changing: bool,
    pub(super) directory: &'a Path,
    /// The program that is a node of the embedded engine when its first argument is `node`.
    pub(super) program: PathBuf,
}

impl Wanted<'_> {
    pub(super) async fn start(self) -> Result<Started> {
        match self.backend {
            #[cfg(feature = "embedded")]
            "embedded" => embedded(self).await,
            #[cfg(feature = "etcd")]
            "etcd" => {
                let leads = Arc::new(|node| crate::target::etcd::leads(node).boxed());
                servers(self, "etcd", crate::target::etcd::spec(), leads).await
            }
            #[cfg(feature = "consul")]
            "consul" => {
                let leads = Arc::new(|node| crate::target::consul::leads(node).boxed());
                servers(self, "consul", crate::target::consul::spec(), leads).await
            }
            #[cfg(feature = "zk")]
            "zk" => {
                let leads = Arc::new(|node| crate::target::zk::leads(node).boxed());
                servers(self, "zk", crate::target::zk::spec(), leads).await
            }
            other => Err(Error::Usage(format!("there is no backend `{other}` to soak in this build"))),
        }
    }
}

#[cfg(any(feature = "etcd", feature = "consul", feature = "zk"))]
async fn servers(
    wanted: Wanted<'_>,
    scheme: &'static str,
    spec: storage_testkit::server::ServerSpec,
    leads: storage_testkit::nemesis::Leads,
) -> Result<Started> {
    let victims = Victims::start(spec, wanted.nodes, wanted.directory, wanted.needs, leads).await?;
    let servers = victims.cluster.client_urls();
    let open: Open = Arc::new(move |client| {
        // Each client has all servers, and begins with another one.
        let mut servers = servers.clone();
        let first = client % servers.len().max(1);
        servers.rotate_left(first);
        async move { storage::open(&format!("{scheme}://{}", servers.join(","))).await }.boxed()
    });
    Ok(Started { victims, open })
}

#[cfg(feature = "embedded")]
async fn embedded(wanted: Wanted<'_>) -> Result<Started> {
    use std::{net::SocketAddr, sync::Mutex};

    use storage::{Store, embedded::EmbeddedStore};
    use storage_testkit::{
        nemesis::Leads,
        remote::Remote,
        server::{Launch, NodeContext, Probe, ServerError, ServerSpec},
    };

    use super::members::{Ids, Rotation, Step};

    let (founders, program) = (wanted.nodes, wanted.program);
    let places = founders + usize::from(wanted.changing);
    let ids: Ids = Arc::new(Mutex::new((1..=places as u64).collect()));
    let known = Arc::clone(&ids);
    let spec = ServerSpec::new("embedded", move |node: &NodeContext| {
        let id = known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(node.index()).copied();
        let id = id.unwrap_or_default();
        let mut launch = Launch::new(&program).args(["node".to_owned(), "--id".to_owned(), id.to_string()]);
        launch = launch.args(["--data-dir".to_owned(), node.data_dir().join("node").display().to_string()]);
        launch = launch.args(["--listen".to_owned(), format!("127.0.0.1:{}", node.port("peer")?)]);
        launch = launch.args(["--serve".to_owned(), format!("127.0.0.1:{}", node.port("client")?)]);
        // Only those that found the cluster are told of it; others wait until it takes them in.
        if id <= founders as u64 {
            for (id, peer) in (1..=founders).zip(node.nodes()) {
                let member = format!("{id}=127.0.0.1:{}", peer.port("peer")?);
                launch = launch.args(["--member".to_owned(), member]);
            }
        }
        Ok::<_, ServerError>(launch)
    });
    let spec = spec.port("client").port("peer");
    let spec = spec.ready_when(Probe::tcp("client", "leads\n", |answer, _| answer == "yes" || answer == "no"));
    let leads: Leads = Arc::new(|node| {
        async move { node.tcp_word("client", "leads\n").await.is_ok_and(|answer| answer == "yes") }.boxed()
    });
    let mut victims = Victims::start(spec, places, wanted.directory, wanted.needs, leads).await?;
    let nodes = victims.cluster.nodes().iter();
    let addresses: Vec<SocketAddr> = nodes
        .map(|node| Ok(SocketAddr::from((node.context().host(), node.port("client")?))))
        .collect::<Result<_, ServerError>>()?;
    if wanted.changing {
        victims.cluster.kill(founders)?;
        victims.members_now.remove(&founders);
        let rotation = Rotation { ids, next: places as u64 + 1, spare: founders, step: Step::Idle };
        victims = victims.changing(rotation);
    }
    let open: Open = Arc::new(move |client| {
        let mut capabilities = storage::Capabilities::new("embedded");
        capabilities.max_value_bytes = EmbeddedStore::MAX_VALUE_BYTES;
        capabilities.max_txn_ops = EmbeddedStore::MAX_TXN_OPS;
        capabilities.max_txn_bytes = EmbeddedStore::MAX_TXN_BYTES;
        capabilities.revisions = true;
        capabilities.native_value_compare = true;
        capabilities.conflict_reports_current = true;
        capabilities.atomic_get_many = true;
        capabilities.watch = storage::WatchSupport::Ordered;
        let store = Arc::new(Remote::new(capabilities, addresses.clone(), client)) as Arc<dyn Store>;
        async move { Ok(store) }.boxed()
    });
    Ok(Started { victims, open })
}
