//! A node that is an etcd, which this process starts, watches and stops.

mod members;
mod process;

use std::{
    collections::VecDeque,
    env, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use storage_core::{Backoff, Error, ReadOptions, Result, Store};
use storage_embedded::tls::TlsFiles;
use storage_etcd::{EtcdConfig, EtcdStore, TlsConfig};
use storage_membership::{MemberChange, Members, Node, Rows, StoreRows};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinHandle,
    time::Instant,
};

use self::process::Child;
use super::{
    managed::{ManagedNode, cannot_listen},
    owner_file,
};
use crate::config::{ClientTls, ClusterState, NodeSettings, NodeUrl};

/// An etcd that dies is started again, unless it has died so often
const MAX_DEATHS: usize = 5;
/// within this time: then something is wrong that a start does not mend.
const DEATHS_WITHIN: Duration = Duration::from_secs(60);
/// The first wait before a start again is at the most so long,
const REST_FLOOR: Duration = Duration::from_millis(250);
/// and later ones so long.
const REST_CEILING: Duration = Duration::from_secs(5);

/// etcd hands over its leadership and closes its log when it is asked to end; more than this is not waited for.
const STOPS_WITHIN: Duration = Duration::from_secs(10);

/// If this process was killed and is started again at once, its former etcd is just being killed too, and gone by then.
const PREDECESSOR_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// An etcd that is wrongly started ends within a moment; one that has run so long is taken for started.
const FAILS_WITHIN: Duration = Duration::from_secs(2);
/// How often it is asked meanwhile whether it serves already.
const ASKED_EVERY: Duration = Duration::from_millis(100);

/// An etcd that this process starts, watches and stops. It is started again when it dies, and dies with this process.
#[derive(Debug)]
struct EtcdNode {
    settings: NodeSettings,
    stop: watch::Sender<bool>,
    stopped: watch::Receiver<Option<Stopped>>,
    _keeping: JoinHandle<()>,
}

/// Why the etcd runs no more.
#[derive(Clone, Debug)]
enum Stopped {
    Asked,
    Failed(String),
}

/// Starts an etcd.
///
/// # Errors
/// Those of [`start`](super::start); [`Error::Unavailable`] if there is no program, or it ends at once, with what it said.
pub(super) async fn start(settings: NodeSettings) -> Result<Arc<dyn ManagedNode>> {
    Ok(Arc::new(EtcdNode::start(settings).await?))
}

impl EtcdNode {
    async fn start(settings: NodeSettings) -> Result<Self> {
        let program = program(settings.etcd_program.as_deref())?;
        // Before the ports: a directory of another node is a mistake that does not pass, and waiting would only hide
        // it.
        owner_file::check(&settings)?;
        for (what, url) in [("client", &settings.client_url), ("peer", &settings.peer_url)] {
            wait_for_port(what, url).await?;
        }
        owner_file::write(&settings, None)?;
        let arguments = arguments(&settings).await?;
        let start = move || {
            Child::start(&program, &arguments)
                .map_err(|error| Error::unavailable(format!("cannot start {}: {error}", program.display())))
        };
        let child = start()?;
        let (stop, stopping) = watch::channel(false);
        let (started, is_started) = oneshot::channel();
        let (stopped, is_stopped) = watch::channel(None);
        let (client_url, tls) = (settings.client_url.clone(), settings.tls.client());
        // The task owns the process from its first moment on: a caller that goes away while it starts leaves nothing
        // behind.
        let keeping = tokio::spawn(async move {
            let first = first_moments(child, &client_url, &tls).await;
            let reason = match first {
                Ok(child) => {
                    let _ = started.send(Ok(()));
                    keep(child, start, stopping).await
                }
                Err(error) => {
                    let reason = Stopped::Failed(error.to_string());
                    let _ = started.send(Err(error));
                    reason
                }
            };
            stopped.send_replace(Some(reason));
        });
        is_started.await.unwrap_or(Err(Error::Closed))?;
        Ok(Self { settings, stop, stopped: is_stopped, _keeping: keeping })
    }
}

impl Drop for EtcdNode {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

#[async_trait]
impl Node for EtcdNode {
    async fn store(&self, others: &[NodeUrl]) -> Result<Arc<dyn Store>> {
        let urls: Vec<_> = std::iter::once(&self.settings.client_url).chain(others).cloned().collect();
        connect(&urls, &self.settings.tls.client()).await
    }

    fn rows(&self, store: &Arc<dyn Store>) -> Arc<dyn Rows> {
        Arc::new(StoreRows(Arc::clone(store)))
    }

    async fn members(&self) -> Result<Option<Members>> {
        members::seen_by(&self.settings).await
    }

    async fn change(&self, seen: &Members, change: MemberChange) -> Result<Option<u64>> {
        members::change(&self.settings, seen, change).await
    }

    async fn stopped(&self) -> Result<()> {
        let mut stopped = self.stopped.clone();
        match stopped.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Stopped::Failed(reason))) => Err(Error::corrupt(reason.clone())),
            _ => Ok(()),
        }
    }

    async fn stop(&self) {
        self.stop.send_replace(true);
        let _ = self.stopped().await;
    }
}

impl ManagedNode for EtcdNode {
    fn settings(&self) -> &NodeSettings {
        &self.settings
    }
}

/// A store on the client URLs of a cluster.
///
/// # Errors
/// [`Error::InvalidArgument`] for no URLs, some with TLS and some without, and for files that cannot be used.
pub(crate) async fn connect(client_urls: &[NodeUrl], tls: &ClientTls) -> Result<Arc<dyn Store>> {
    let mut config = EtcdConfig::new(client_urls.iter().map(NodeUrl::authority))?;
    match client_urls.iter().filter(|url| url.is_tls()).count() {
        0 => {}
        some if some < client_urls.len() => {
            return Err(Error::invalid_argument("client URLs are of one kind, http or https"));
        }
        _ if tls.ca.is_none() => {
            return Err(Error::invalid_argument(
                "https needs the certificate of the authority that signs those of the nodes: `trusted_ca_file`",
            ));
        }
        _ => {
            let (ca, identity) = (tls.ca.clone(), tls.identity.clone());
            config = config.with_tls(TlsConfig { ca, identity, server_name: None });
        }
    }
    if let Some(login) = &tls.login {
        config = config.with_credentials(login.user(), login.password()?);
    }
    Ok(Arc::new(EtcdStore::new(config).await?))
}

/// Looks whether a port is free, which is only to tell it well: etcd would say so in its log.
async fn wait_for_port(what: &str, url: &NodeUrl) -> Result<()> {
    let deadline = Instant::now() + PREDECESSOR_ENDS_WITHIN;
    loop {
        match TcpListener::bind(url.authority()).await {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse || Instant::now() >= deadline => {
                return Err(cannot_listen(what, url, &error));
            }
            Err(_) => tokio::time::sleep(ASKED_EVERY).await,
        }
    }
}

/// Sees an etcd through its first moments, in which one that is wrongly started ends.
async fn first_moments(mut child: Child, client_url: &NodeUrl, tls: &ClientTls) -> Result<Child> {
    let serves = async {
        let store = connect(std::slice::from_ref(client_url), tls).await?;
        while store.ping(ReadOptions::default().timeout(ASKED_EVERY)).await.is_err() {
            tokio::time::sleep(ASKED_EVERY).await;
        }
        store.close().await
    };
    tokio::select! {
        how = child.ended() => Err(Error::unavailable(format!("etcd ended at once: {how}"))),
        _ = serves => Ok(child),
        () = tokio::time::sleep(FAILS_WITHIN) => Ok(child),
    }
}

/// Starts an etcd again whenever it dies, until it is asked to stop or dies too often.
async fn keep(mut child: Child, start: impl Fn() -> Result<Child>, mut stop: watch::Receiver<bool>) -> Stopped {
    let mut deaths = VecDeque::new();
    let mut backoff = Backoff::new(REST_FLOOR, REST_CEILING);
    loop {
        let died = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => None,
            how = child.ended() => Some(how),
        };
        let Some(how) = died else {
            child.stop(STOPS_WITHIN).await;
            return Stopped::Asked;
        };
        let now = Instant::now();
        deaths.push_back(now);
        deaths.retain(|death| now.duration_since(*death) < DEATHS_WITHIN);
        if deaths.len() > MAX_DEATHS {
            return Stopped::Failed(format!("etcd died {} times within {DEATHS_WITHIN:?}: {how}", deaths.len()));
        }
        // The death before is so long ago that the waits begin anew.
        if deaths.len() == 1 {
            backoff = Backoff::new(REST_FLOOR, REST_CEILING);
        }
        tracing::warn!(how, "etcd died and is started again");
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Stopped::Asked,
            () = backoff.wait() => {}
        }
        child = match start() {
            Ok(child) => child,
            Err(error) => return Stopped::Failed(error.to_string()),
        };
    }
}

/// The program: what the settings say, the environment variable `ETCD_BIN`, or `etcd` on the path.
fn program(said: Option<&Path>) -> Result<PathBuf> {
    let on_path = || env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join("etcd")).find(|path| path.is_file());
    let found = said.map(Path::to_path_buf).or_else(|| env::var_os("ETCD_BIN").map(PathBuf::from)).or_else(on_path);
    found.ok_or_else(|| {
        Error::unavailable("there is no program `etcd` on the path: install it, or set ETCD_BIN to where it is")
    })
}

/// So many revisions an etcd keeps whose replicas write heartbeats.
const REVISIONS_KEPT: u64 = 500_000;

/// The flags of etcd.
async fn arguments(settings: &NodeSettings) -> Result<Vec<String>> {
    let NodeSettings { name, token, client_url, peer_url, cluster, state, data_dir, log, tls, bounds, .. } = settings;
    let founds = matches!(state, ClusterState::New | ClusterState::Given { founds: true, .. });
    // etcd makes the id of its cluster of the token: one that is minted makes one that never was.
    let (token, grows) = match state {
        ClusterState::Given { cluster, .. } => (format!("{cluster:032x}"), true),
        _ => (token.as_str().to_owned(), false),
    };
    let mut arguments = vec![
        ("--name", name.clone()),
        ("--data-dir", data_dir.display().to_string()),
        ("--listen-client-urls", listen_url(client_url).await?),
        ("--advertise-client-urls", client_url.to_string()),
        ("--listen-peer-urls", listen_url(peer_url).await?),
        ("--initial-advertise-peer-urls", peer_url.to_string()),
        ("--initial-cluster", cluster.to_string()),
        ("--initial-cluster-state", if founds { "new" } else { "existing" }.to_owned()),
        ("--initial-cluster-token", token),
        ("--log-level", log.level.name().to_owned()),
        ("--quota-backend-bytes", bounds.quota_backend_bytes.to_string()),
    ];
    if grows {
        // Heartbeats are writes: without an end to the history they would fill the disk.
        arguments.push(("--auto-compaction-mode", "revision".to_owned()));
        arguments.push(("--auto-compaction-retention", REVISIONS_KEPT.to_string()));
    }
    if !log.outputs.is_empty() {
        let outputs: Vec<_> = log.outputs.iter().map(ToString::to_string).collect();
        arguments.push(("--log-outputs", outputs.join(",")));
    }
    let mut switches = Vec::new();
    let mut show = |flags: [&'static str; 5], files: TlsFiles| {
        let [cert, key, ca, auth, crl] = flags;
        arguments.push((cert, files.cert.display().to_string()));
        arguments.push((key, files.key.display().to_string()));
        if let Some(file) = files.ca {
            arguments.push((ca, file.display().to_string()));
            switches.push(auth.to_owned());
        }
        if let Some(file) = files.crl {
            arguments.push((crl, file.display().to_string()));
        }
    };
    if client_url.is_tls() {
        let files = tls.server().map_err(Error::invalid_argument)?;
        let flags = ["--cert-file", "--key-file", "--trusted-ca-file", "--client-cert-auth", "--client-crl-file"];
        show(flags, files);
    }
    if peer_url.is_tls() {
        let files = tls.peer().map_err(Error::invalid_argument)?;
        let flags = [
            "--peer-cert-file",
            "--peer-key-file",
            "--peer-trusted-ca-file",
            "--peer-client-cert-auth",
            "--peer-crl-file",
        ];
        show(flags, files);
    }
    let arguments = arguments.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
    Ok(arguments.chain(switches).collect())
}

/// etcd listens on addresses only, so a name is looked up.
async fn listen_url(url: &NodeUrl) -> Result<String> {
    let unknown = |why: String| Error::unavailable(format!("cannot find the address of {}: {why}", url.host()));
    let mut addresses = tokio::net::lookup_host(url.authority()).await.map_err(|error| unknown(error.to_string()))?;
    let address = addresses.next().ok_or_else(|| unknown("it has none".to_owned()))?;
    Ok(format!("{}://{address}", if url.is_tls() { "https" } else { "http" }))
}
