//! Servers of each backend that faults can strike, and how clients reach them.

use std::sync::Arc;

use bench::{Error, Result};
use futures::FutureExt;
use storage_servers::Servers;
use storage_testkit::{nemesis::Victims, workload::Open};

use crate::wanted::{Started, Wanted};

/// Starts what is wanted.
pub(super) async fn start(wanted: Wanted<'_>) -> Result<Started> {
    match wanted.backend {
        #[cfg(feature = "embedded")]
        "embedded" => embedded(wanted).await,
        #[cfg(all(feature = "embedded", feature = "etcd"))]
        "growing" => crate::growing::start(wanted).await,
        scheme => match storage_servers::named(scheme) {
            Some(kind) => servers(wanted, kind).await,
            None => Err(Error::Usage(format!("there is no backend `{scheme}` to soak in this build"))),
        },
    }
}

async fn servers(wanted: Wanted<'_>, kind: Servers) -> Result<Started> {
    let leads = kind.leads();
    let victims = Victims::start(kind.spec, wanted.nodes, wanted.directory, wanted.needs, leads).await?;
    let (scheme, servers) = (kind.scheme, victims.cluster.client_urls());
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

    use crate::members::{Ids, Rotation, Step};

    let (founders, program) = (wanted.nodes, wanted.program);
    let places = founders + usize::from(wanted.changing);
    let ids: Ids = Arc::new(Mutex::new((1..=places as u64).collect()));
    let known = Arc::clone(&ids);
    let spec = ServerSpec::new("embedded", move |node: &NodeContext| {
        let id = known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(node.index()).copied();
        let id = id.unwrap_or_default();
        let mut launch = Launch::new(&program).args(["node".to_owned(), "--id".to_owned(), id.to_string()]);
        launch =
            launch.args(["--data-dir".to_owned(), node.data_dir().join(crate::node::DIRECTORY).display().to_string()]);
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
    let victims = Victims::start(spec, places, wanted.directory, wanted.needs, leads).await?;
    let nodes = victims.cluster.nodes().iter();
    let addresses: Vec<SocketAddr> = nodes
        .map(|node| Ok(SocketAddr::from((node.context().host(), node.port("client")?))))
        .collect::<Result<_, ServerError>>()?;
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
    let mut victims = victims.called_by(Arc::clone(&open));
    if wanted.changing {
        victims.cluster.kill(founders)?;
        victims.members_now.remove(&founders);
        let rotation = Rotation { ids, next: places as u64 + 1, spare: founders, step: Step::Idle };
        victims = victims.changing(rotation);
    }
    Ok(Started { victims, open })
}
