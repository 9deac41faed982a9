//! The life of a node: it is put together, runs on a thread of its own, and is taken down in order.

use std::{collections::BTreeMap, net::SocketAddr, panic::AssertUnwindSafe, path::Path, sync::Arc, time::Duration};

use futures::FutureExt;
use openraft::{ServerState, async_runtime::watch::WatchReceiver};
use storage_core::{Error, Result};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use super::{
    Inner, Node, NodeConfig, Stopped, calls::Callers, comparison, founding, leader::Leader, quota::Quota, removal,
    request_numbers::RequestNumbers, stopped::removed_before,
};
use crate::{
    connections::Budget,
    disk::Disk,
    error::{from_file, from_log},
    host::{self, TcpListener},
    log::{DataDir, Log, LogOptions, Phase},
    network::{
        admission::{Admission, Verdict},
        peer::{PeerContext, Peers, Reach},
        security::Security,
        server::{Places, Server},
    },
    panics,
    raft::Member,
    snapshot::SnapshotStore,
    state_machine::{Raft, SharedState, StateMachine},
};

/// How long a node that others have told to stop finishes what it was asked before, and takes up nothing new.
const ANSWERS_FOR: Duration = Duration::from_millis(500);

/// Everything of a running node that its handles share.
struct Parts {
    address: Option<SocketAddr>,
    raft: Raft,
    state: SharedState,
    snapshots: SnapshotStore,
    log: Log,
    leader: Leader,
    peers: Arc<PeerContext>,
    compared: watch::Receiver<Option<u64>>,
    runtime: Handle,
    #[cfg(not(simulated))]
    reserve: Arc<crate::disk::Reserve>,
}

/// Starts a node, on `listener` if one is given and otherwise on the configured address.
pub(super) async fn start(mut config: NodeConfig, listener: Option<std::net::TcpListener>) -> Result<Node> {
    if let Some(listener) = &listener {
        config.listen = listener.local_addr().map_err(Error::unavailable)?.to_string();
    }
    let raft_config = Arc::new(config.raft()?);
    config.check_secret()?;
    let (id, cluster, quota_bytes) = (config.id, config.cluster, config.bounds.quota_backend_bytes);
    let (stopping, stop) = watch::channel(false);
    let (stopped, mut is_stopped) = watch::channel(None);
    let (started, parts) = oneshot::channel();
    spawn(Start { config, listener, raft_config, started, stop }, stopped)?;
    let parts = match parts.await {
        Ok(parts) => parts?,
        // It has ended before it was put together.
        Err(_) => {
            let reason = is_stopped.wait_for(Option::is_some).await.ok().and_then(|reason| reason.as_ref()?.as_error());
            return Err(reason.unwrap_or(Error::Closed));
        }
    };
    let node = Arc::new(Inner {
        id,
        cluster,
        address: parts.address,
        raft: parts.raft,
        state: parts.state,
        snapshots: parts.snapshots,
        log: parts.log,
        leader: parts.leader,
        quota_bytes,
        space: watch::Sender::default(),
        request_numbers: Arc::new(RequestNumbers::default()),
        callers: Callers::default(),
        peers: parts.peers,
        compared: parts.compared,
        runtime: parts.runtime,
        stopping,
        stopped: is_stopped,
    });
    #[cfg(not(simulated))]
    node.runtime.spawn(super::space::watch(Arc::downgrade(&node), parts.reserve));
    Ok(Node(node))
}

/// What a node begins with.
struct Start {
    config: NodeConfig,
    listener: Option<std::net::TcpListener>,
    raft_config: Arc<openraft::Config>,
    started: oneshot::Sender<Result<Parts>>,
    stop: watch::Receiver<bool>,
}

/// Runs a node on a thread and runtime of its own, and tells when it has stopped.
#[cfg(not(simulated))]
fn spawn(start: Start, stopped: watch::Sender<Option<Stopped>>) -> Result<()> {
    /// How long a node that stops waits for its last file operations (a snapshot that is being written) before it leaves them behind.
    const LAST_WORK: std::time::Duration = std::time::Duration::from_secs(5);
    std::thread::Builder::new()
        .name(format!("storage-node-{}", start.config.id))
        .spawn(move || {
            let reason = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    let reason = runtime.block_on(live(start));
                    runtime.shutdown_timeout(LAST_WORK);
                    reason
                }
                Err(error) => {
                    let _ = start.started.send(Err(Error::unavailable(error)));
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
fn spawn(start: Start, stopped: watch::Sender<Option<Stopped>>) -> Result<()> {
    tokio::task::spawn_local(async move { stopped.send_replace(Some(live(start).await)) });
    Ok(())
}

/// Runs a node to its end. A panic ends it, with what that says.
async fn live(start: Start) -> Stopped {
    let ended = AssertUnwindSafe(run(start)).catch_unwind().await;
    ended.unwrap_or_else(|panic| Stopped::Failed(panics::words(&*panic)))
}

async fn run(Start { config, listener, raft_config, started, mut stop }: Start) -> Stopped {
    let mut tasks = JoinSet::new();
    // Who finds out that the node cannot go on: the first is heard.
    let (ending, mut ends) = mpsc::channel(1);
    let parts = match assemble(&config, listener, raft_config, &ending, &mut tasks).await {
        Ok(parts) => parts,
        Err(error) => {
            let _ = started.send(Err(error));
            return Stopped::Asked;
        }
    };
    let (raft, log, snapshots) = (parts.raft.clone(), parts.log.clone(), parts.snapshots.clone());
    if started.send(Ok(parts)).is_err() {
        // The caller of `start` has gone, and with it the only handle.
        return shut_down(&raft, &log, &snapshots, tasks, Stopped::Asked).await;
    }
    // A task of its own: it looks at each batch, and the runtime's main future is woken by a system call.
    let supervised = (raft.clone(), log.clone());
    tasks.spawn(async move {
        let reason = supervise(&supervised.0, &supervised.1).await;
        let _ = ending.try_send(Stopped::Failed(reason));
    });
    let reason = tokio::select! {
        _ = stop.wait_for(|stop| *stop) => Stopped::Asked,
        reason = ends.recv() => reason.unwrap_or_else(|| Stopped::Failed("its supervision has ended".to_owned())),
        words = panicked(&mut tasks) => Stopped::Failed(words),
    };
    if let Stopped::Failed(reason) | Stopped::Forgot(reason) | Stopped::Differs(reason) | Stopped::Removed(reason) =
        &reason
    {
        tracing::error!(node = config.id, reason, "the node cannot go on");
    }
    shut_down(&raft, &log, &snapshots, tasks, reason).await
}

async fn assemble(
    config: &NodeConfig,
    listener: Option<std::net::TcpListener>,
    raft_config: Arc<openraft::Config>,
    ending: &mpsc::Sender<Stopped>,
    tasks: &mut JoinSet<()>,
) -> Result<Parts> {
    let id = config.id;
    let listener = listen(config, listener).await?;
    let address = listener.as_ref().map(TcpListener::local_addr).transpose().map_err(Error::unavailable)?;
    let security = Security::new(config.token.clone(), config.tls.as_ref())?;
    #[cfg(not(simulated))]
    let reserve = crate::disk::Reserve::of(&config.data_dir);
    #[cfg(not(simulated))]
    let (disk, log) = machine(config, &reserve);
    #[cfg(simulated)]
    let (disk, log) = machine(config);
    let dir = DataDir::open(disk.clone(), &config.data_dir, config.cluster, id).map_err(from_log)?;
    let identity = dir.identity();
    if identity.phase() == Phase::Removed {
        return Err(removed_before());
    }
    if identity.phase() != Phase::Begun && !config.founders.is_empty() && !config.founders.contains_key(&id) {
        return Err(Error::invalid_argument(format!("node {id} is not among the founding members")));
    }
    let machine = StateMachine::open(disk, dir.snapshots()).map_err(from_file)?;
    // Last, since it begins a new segment: a node that cannot start leaves its directory as it was.
    let log = Log::open(dir, &log).map_err(from_log)?;
    machine.catch_up(|next| log.committed_from(next)).map_err(from_log)?;
    let (state, snapshots) = (machine.shared(), machine.snapshots());
    let founds = !config.founders.is_empty();
    let admission = Admission::new(id, founds, identity, log.clone(), snapshots.clone(), state.clone());
    check_data(&admission, &config.data_dir)?;
    let founders = admission.founders(&config.founders);
    // The state of a node that was restored says already that it votes. Until it has begun it must not.
    let enable_elect = !admission.is_only_restored();
    let raft_config = Arc::new(openraft::Config { enable_elect, ..openraft::Config::clone(&raft_config) });
    let reach = match (config.listens(), config.is_local()) {
        (false, _) => Reach::Alone,
        (true, true) => Reach::Loopback,
        (true, false) => Reach::Anywhere,
    };
    if reach == Reach::Alone
        && state.read(|replica| replica.membership.membership().nodes().any(|(node, _)| *node != id))
    {
        let dir = config.data_dir.display();
        return Err(Error::invalid_argument(format!(
            "the node of {dir} has others with it, and needs an address to listen on"
        )));
    }
    let peers = Arc::new(PeerContext::new(config.cluster, id, security, reach, admission));
    let raft = Raft::new(id, raft_config, Peers(Arc::clone(&peers)), log.clone(), machine).await.map_err(fatal)?;
    peers.admission.follow(raft.metrics());
    let quota = Quota { bytes: config.bounds.quota_backend_bytes, node: id };
    let leader =
        Leader::start(raft.clone(), log.clone(), Arc::clone(&peers), state.clone(), quota, config.silence(), tasks);
    let server = Server {
        context: Arc::clone(&peers),
        raft: raft.clone(),
        state: state.clone(),
        snapshots: snapshots.clone(),
        calls: leader.clone(),
        places: Places::new(&Budget::of(host::descriptors())),
    };
    if let Some(listener) = listener {
        tasks.spawn(server.run(listener));
    }
    let followed = Arc::clone(&peers);
    tasks.spawn(async move { followed.security.follow_files().await });
    tasks.spawn(sync_as_suits(raft.clone(), log.clone()));
    tasks.spawn(config.bounds.keep(raft.clone(), log.clone(), snapshots.clone()));
    let (compared, is_compared) = watch::channel(None);
    tasks.spawn(comparison::compare(raft.clone(), Arc::clone(&peers), state.clone(), compared));
    let (judged, ends) = (Arc::clone(&peers), ending.clone());
    tasks.spawn(async move {
        let verdict = judged.admission.verdict().await;
        // Whoever asked it for its own removal is answered, and so are founders who ask what it was restored from.
        if matches!(verdict, Verdict::Removed { .. } | Verdict::RestoredOtherwise { .. }) {
            tokio::time::sleep(ANSWERS_FOR).await;
        }
        let _ = ends.try_send(verdict.into());
    });
    let (watched, ends) = (removal::watch(raft.clone(), Arc::clone(&peers), leader.clone()), ending.clone());
    tasks.spawn(async move {
        if let Err(error) = watched.await {
            let _ = ends.try_send(Stopped::Failed(format!("it cannot remember whether it is a member: {error}")));
        }
    });
    if peers.admission.phase() != Phase::Begun {
        let alone = founders.len() == 1;
        let begins = begin(raft.clone(), Arc::clone(&peers), founders);
        if alone {
            // There is nobody to wait for.
            begins.await.map_err(Error::unavailable)?;
        } else {
            let ends = ending.clone();
            tasks.spawn(async move {
                if let Err(reason) = begins.await {
                    let _ = ends.try_send(Stopped::Failed(reason));
                }
            });
        }
    }
    Ok(Parts {
        address,
        raft,
        state,
        snapshots,
        log,
        leader,
        peers,
        compared: is_compared,
        runtime: Handle::current(),
        #[cfg(not(simulated))]
        reserve,
    })
}

/// The peer port: on `listener` if one is given, otherwise on the configured address. A node alone has none.
async fn listen(config: &NodeConfig, listener: Option<std::net::TcpListener>) -> Result<Option<TcpListener>> {
    let listener = match listener {
        Some(listener) => host::listener(listener),
        None if !config.listens() => return Ok(None),
        None => TcpListener::bind(&*config.listen).await,
    };
    listener.map(Some).map_err(|error| Error::unavailable(format!("cannot listen on {}: {error}", config.listen)))
}

/// Compares what there is with how far the node has come.
fn check_data(admission: &Admission, dir: &Path) -> Result<()> {
    let dir = dir.display();
    match (admission.phase(), admission.has_data()) {
        (Phase::Begun, false) => Err(Error::corrupt(format!(
            "{dir} has no entries and no snapshot any more, and its node has run: its data are lost. What it voted must not be \
             forgotten, so remove it from its cluster and take it in anew, with an empty directory"
        ))),
        (Phase::New | Phase::Prepared, true) if admission.is_only_restored() => Ok(()),
        (Phase::New, true) => {
            Err(Error::corrupt(format!("{dir} has data, and its identity says that there never were any")))
        }
        (Phase::Prepared, true) => admission.advance(Phase::Begun).map_err(Error::unavailable),
        (Phase::New | Phase::Prepared, false) | (Phase::Begun, true) => Ok(()),
        (Phase::Removed, _) => Err(removed_before()),
    }
}

/// Founds a cluster, or waits to be taken in, until the node has data.
async fn begin(raft: Raft, peers: Arc<PeerContext>, founders: BTreeMap<u64, Member>) -> Result<(), String> {
    if !founders.is_empty() {
        return founding::found(raft, peers, founders).await;
    }
    let applied = raft.metrics().wait_until(|metrics| metrics.last_applied.is_some()).await;
    match applied {
        Ok(_) => peers.admission.advance(Phase::Begun).map_err(|error| error.to_string()),
        // Raft has ended, which others tell.
        Err(_) => Ok(()),
    }
}

/// The disk of the machine, and how the log is kept on it.
#[cfg(not(simulated))]
fn machine(config: &NodeConfig, reserve: &Arc<crate::disk::Reserve>) -> (Arc<dyn Disk>, LogOptions) {
    // What is made here is for its owner alone. An earlier release, or somebody else, may have made the directory.
    crate::disk::warn_if_exposed(&config.data_dir);
    (Arc::new(crate::disk::ReservedDisk(Arc::clone(reserve))), LogOptions::default())
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
    (Arc::new(machine.disk()), LogOptions { machine: Some(machine), seed: host::random_u64().ok(), ..log })
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

/// Ends when one of the node's tasks has panicked, with what that says. They end otherwise when raft does.
async fn panicked(tasks: &mut JoinSet<()>) -> String {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && let Ok(panic) = error.try_into_panic()
        {
            return panics::words(&*panic);
        }
    }
    std::future::pending().await
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

async fn shut_down(
    raft: &Raft,
    log: &Log,
    snapshots: &SnapshotStore,
    mut tasks: JoinSet<()>,
    reason: Stopped,
) -> Stopped {
    // Raft waits for them, and would wait for ever.
    log.wait_no_more();
    snapshots.wait_no_more();
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

#[cfg(test)]
#[cfg(not(simulated))]
mod tests {
    use storage_core::{Store, StoreExt};

    use super::*;
    use crate::LocalCluster;

    const SOON: Duration = Duration::from_secs(20);

    /// The state is ahead of the log: what is applied next is no longer what follows.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_broken_invariant_ends_the_node_with_its_words_and_nobody_hangs() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = LocalCluster::start(dir.path(), 1, |config| config).await.unwrap();
        let (node, store) = (cluster.node(0).unwrap().clone(), cluster.store().unwrap());
        let key = storage_core::Key::new("a").unwrap();
        store.put(&key, "1").await.unwrap();
        node.state().write(|replica| {
            if let Some(last) = &mut replica.last_applied {
                last.index += 1;
            }
        });
        let refused = tokio::time::timeout(SOON, store.put(&key, "2")).await.expect("a caller hangs").unwrap_err();
        assert!(refused.may_be_applied(), "{refused}");
        let stopped = tokio::time::timeout(SOON, node.stopped()).await.expect("the node goes on").unwrap_err();
        assert!(stopped.to_string().contains("an entry is applied out of order"), "{stopped}");
        let read = tokio::time::timeout(SOON, store.get(&key, Default::default())).await.expect("a reader hangs");
        assert!(read.unwrap_err().to_string().contains("an entry is applied out of order"));
    }

    #[tokio::test]
    async fn a_task_that_panics_is_told_of_with_its_words() {
        let mut tasks = JoinSet::new();
        tasks.spawn(async {});
        tasks.spawn(async { panic!("an invariant is broken") });
        assert_eq!(panicked(&mut tasks).await, "an invariant is broken");
    }
}
