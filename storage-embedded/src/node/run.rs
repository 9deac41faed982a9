//! The life of a node: it is put together, runs on a thread of its own, and is taken down in order.

use std::{net::SocketAddr, sync::Arc};

use openraft::{ServerState, async_runtime::watch::WatchReceiver};
use storage_core::{Error, Result};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    task::JoinSet,
};

use super::{Inner, Node, NodeConfig, Raft, Stopped, calls::Callers, leader::Leader, sessions::Sessions};
use crate::{
    disk::Disk,
    error::{from_file, from_log},
    host::{self, TcpListener},
    log::{DataDir, Log, LogOptions},
    network::{
        peer::{PeerContext, Peers},
        security::Security,
        server::Server,
    },
    snapshot::SnapshotStore,
    state_machine::{SharedState, StateMachine},
};

/// Everything of a running node that its handles share.
struct Parts {
    address: SocketAddr,
    raft: Raft,
    state: SharedState,
    snapshots: SnapshotStore,
    log: Log,
    leader: Leader,
    peers: Arc<PeerContext>,
    runtime: Handle,
}

/// Starts a node, on `listener` if one is given and otherwise on the configured address.
pub(super) async fn start(config: NodeConfig, listener: Option<std::net::TcpListener>) -> Result<Node> {
    let raft_config = Arc::new(config.raft()?);
    let (id, cluster) = (config.id, config.cluster);
    let (stopping, stop) = watch::channel(false);
    let (stopped, is_stopped) = watch::channel(None);
    let (started, parts) = oneshot::channel();
    apart(Work { config, listener, raft_config, started, stop }, stopped)?;
    let parts = parts.await.unwrap_or(Err(Error::Closed))?;
    Ok(Node(Arc::new(Inner {
        id,
        cluster,
        address: parts.address,
        raft: parts.raft,
        state: parts.state,
        snapshots: parts.snapshots,
        log: parts.log,
        leader: parts.leader,
        sessions: Sessions::default(),
        callers: Callers::default(),
        peers: parts.peers,
        runtime: parts.runtime,
        stopping,
        stopped: is_stopped,
    })))
}

/// What a node begins with.
struct Work {
    config: NodeConfig,
    listener: Option<std::net::TcpListener>,
    raft_config: Arc<openraft::Config>,
    started: oneshot::Sender<Result<Parts>>,
    stop: watch::Receiver<bool>,
}

/// Runs a node on a thread and runtime of its own, and tells when it has stopped.
#[cfg(not(simulated))]
fn apart(work: Work, stopped: watch::Sender<Option<Stopped>>) -> Result<()> {
    /// How long a node that stops waits for its last file operations (a snapshot that is being written) before it leaves them behind.
    const LAST_WORK: std::time::Duration = std::time::Duration::from_secs(5);
    std::thread::Builder::new()
        .name(format!("storage-node-{}", work.config.id))
        .spawn(move || {
            let reason = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    let reason = runtime.block_on(run(work));
                    runtime.shutdown_timeout(LAST_WORK);
                    reason
                }
                Err(error) => {
                    let _ = work.started.send(Err(Error::unavailable(error)));
                    Stopped::Asked
                }
            };
            stopped.send_replace(Some(reason));
        })
        .map_err(Error::unavailable)?;
    Ok(())
}

/// Runs a node as a task of the simulated machine that it is on.
#[cfg(simulated)]
fn apart(work: Work, stopped: watch::Sender<Option<Stopped>>) -> Result<()> {
    tokio::task::spawn_local(async move { stopped.send_replace(Some(run(work).await)) });
    Ok(())
}

async fn run(Work { config, listener, raft_config, started, mut stop }: Work) -> Stopped {
    let mut tasks = JoinSet::new();
    let parts = match assemble(&config, listener, raft_config, &mut tasks).await {
        Ok(parts) => parts,
        Err(error) => {
            let _ = started.send(Err(error));
            return Stopped::Asked;
        }
    };
    let (raft, log) = (parts.raft.clone(), parts.log.clone());
    if started.send(Ok(parts)).is_err() {
        // The caller of `start` has gone, and with it the only handle.
        return shut_down(&raft, &log, tasks, Stopped::Asked).await;
    }
    // A task of its own: it looks at each batch, and the runtime's main future is woken by a system call.
    let (failed, failure) = oneshot::channel();
    let supervised = (raft.clone(), log.clone());
    tasks.spawn(async move {
        let _ = failed.send(supervise(&supervised.0, &supervised.1).await);
    });
    let reason = tokio::select! {
        _ = stop.wait_for(|stop| *stop) => Stopped::Asked,
        reason = failure => Stopped::Failed(reason.unwrap_or_else(|_| "its supervision has ended".to_owned())),
    };
    if let Stopped::Failed(reason) = &reason {
        tracing::error!(node = config.id, reason, "the node cannot go on");
    }
    shut_down(&raft, &log, tasks, reason).await
}

async fn assemble(
    config: &NodeConfig,
    listener: Option<std::net::TcpListener>,
    raft_config: Arc<openraft::Config>,
    tasks: &mut JoinSet<()>,
) -> Result<Parts> {
    let listener = match listener {
        Some(listener) => host::listener(listener),
        None => TcpListener::bind(&*config.listen).await,
    };
    let listener =
        listener.map_err(|error| Error::unavailable(format!("cannot listen on {}: {error}", config.listen)))?;
    let address = listener.local_addr().map_err(Error::unavailable)?;
    let security = Security::new(config.token.clone(), config.tls.as_ref())?;
    let (disk, log) = machine(config);
    let dir = DataDir::open(disk.clone(), &config.data_dir, config.cluster, config.id).map_err(from_log)?;
    let machine = StateMachine::open(disk, config.data_dir.join("snapshots")).map_err(from_file)?;
    // Last, since it begins a new segment: a node that cannot start leaves its directory as it was.
    let log = Log::open(dir, &log).map_err(from_log)?;
    let (state, snapshots) = (machine.shared(), machine.snapshots());
    let peers = Arc::new(PeerContext::new(config.cluster, config.id, security));
    let raft =
        Raft::new(config.id, raft_config, Peers(Arc::clone(&peers)), log.clone(), machine).await.map_err(fatal)?;
    let leader = Leader::start(raft.clone(), Arc::clone(&peers), state.clone(), tasks);
    let server =
        Server { context: Arc::clone(&peers), raft: raft.clone(), snapshots: snapshots.clone(), calls: leader.clone() };
    tasks.spawn(server.run(listener));
    tasks.spawn(sync_as_suits(raft.clone(), log.clone()));
    if !config.founders.is_empty() && !raft.is_initialized().await.map_err(fatal)? {
        // Every founder does this with the same members, which is safe: the votes decide who leads.
        raft.initialize(config.founders.clone())
            .await
            .map_err(|error| Error::invalid_argument(format!("the founding members: {error}")))?;
    }
    Ok(Parts { address, raft, state, snapshots, log, leader, peers, runtime: Handle::current() })
}

/// The disk of the machine, and how the log is kept on it.
#[cfg(not(simulated))]
fn machine(_: &NodeConfig) -> (Arc<dyn Disk>, LogOptions) {
    (Arc::new(crate::disk::RealDisk), LogOptions::default())
}

/// The disk of the simulated machine, and how the log is kept on it.
#[cfg(simulated)]
fn machine(config: &NodeConfig) -> (Arc<dyn Disk>, LogOptions) {
    let machine = config.machine.clone();
    let log = LogOptions {
        segment_bytes: machine.segment_bytes(),
        cache_bytes: machine.cache_bytes(),
        ..LogOptions::default()
    };
    (Arc::new(machine.disk()), LogOptions { machine: Some(machine), seed: Some(host::random_u64()), ..log })
}

/// Chooses how the log is synced. On a leader with followers a thread does it, so that entries travel meanwhile; otherwise
/// there is nothing else to do meanwhile, and syncing in place makes every waiting caller one batch. docs/decisions/0003-engine.md.
async fn sync_as_suits(raft: Raft, log: Log) {
    let mut metrics = raft.server_metrics();
    loop {
        let inline = {
            let metrics = metrics.borrow_and_update();
            let alone = metrics.membership_config.membership().nodes().count() < 2;
            alone || metrics.state != ServerState::Leader
        };
        log.sync_inline(inline);
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// Ends when the node cannot go on, with the reason.
async fn supervise(raft: &Raft, log: &Log) -> String {
    let (mut metrics, mut log_failure) = (raft.metrics(), log.watch_failure());
    tokio::select! {
        biased;
        Ok(failure) = log_failure.wait_for(Option::is_some) => {
            failure.as_ref().map_or_else(|| "the log has stopped".to_owned(), ToString::to_string)
        }
        failed = metrics.wait_until(|metrics| metrics.running_state.is_err()) => {
            // Raft ends when the log does, and says less about it.
            let raft_says = failed.ok().and_then(|metrics| metrics.running_state.err()).map(|error| error.to_string());
            let log_says = log.failure().map(|failure| failure.to_string());
            log_says.or(raft_says).unwrap_or_else(|| "raft has ended".to_owned())
        }
    }
}

async fn shut_down(raft: &Raft, log: &Log, mut tasks: JoinSet<()>, reason: Stopped) -> Stopped {
    if let Err(error) = raft.shutdown().await {
        tracing::error!(%error, "raft did not end in order");
    }
    tasks.shutdown().await;
    if let Err(error) = log.close() {
        tracing::error!(%error, "the log did not close in order");
    }
    reason
}

fn fatal(error: openraft::errors::Fatal<crate::raft::TypeConfig>) -> Error {
    Error::corrupt(error.to_string())
}
