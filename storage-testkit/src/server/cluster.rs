//! A cluster of real server processes: started, killed, paused, restarted, wiped.
//!
//! Invariants: no process outlives the cluster, and what it took of ports and folders is given back after that. A
//! failing test keeps the folders. Nothing here knows a backend: how a server is started is data.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::error::ServerError;
use super::network::Network;
use super::node::{MAX_NODES, NodeContext};
use super::ports::Reservation;
use super::process::Process;
use super::spec::ServerSpec;

/// How often a start is tried on new ports when another program took one first.
const START_ATTEMPTS: usize = 3;

/// A node that starts is asked this often whether it is ready.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Every thread of a node has to stand still so long after SIGSTOP: one that waits for a slow disk stops after that.
const STOPS_WITHIN: Duration = Duration::from_secs(10);

/// So much of each log is shown when a start fails.
const LOG_TAIL_LINES: usize = 15;

/// Set to anything, this environment variable keeps the folders of all clusters.
const KEEP: &str = "STORAGE_TESTKIT_KEEP";

/// How a cluster is started.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterOptions {
    /// All nodes have to be ready within this time, at the start and after a restart. Default 60 seconds:
    /// servers take one to five on an idle machine of two cores, and test machines are not idle.
    pub ready_within: Duration,
    /// The folder that holds the cluster's folder; the system's temporary folder by default. Name a real disk here where
    /// the cost of fsync matters, since that one may be in memory.
    pub parent_dir: Option<PathBuf>,
    /// The network that the nodes are in, each with an address of its own there; the loopback interface by default.
    pub network: Option<Arc<Network>>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { ready_within: Duration::from_secs(60), parent_dir: None, network: None }
    }
}

/// Real server processes on loopback, with folders and ports of their own.
///
/// Dropping the cluster kills the servers and removes their folders. When the test is failing (its thread panics), the
/// folders stay and their path is printed; so they do with `STORAGE_TESTKIT_KEEP` set.
#[derive(Debug)]
pub struct Cluster {
    spec: ServerSpec,
    options: ClusterOptions,
    // Fields drop in this order: the servers die before their folders and ports are given back.
    nodes: Vec<Node>,
    dir: Option<TempDir>,
    _ports: Reservation,
}

impl Cluster {
    /// Starts `nodes` servers and waits until all of them are ready.
    ///
    /// # Errors
    /// [`ServerError::NotReady`] and [`ServerError::Exited`] show the end of each node's log. A start that lost a race for a
    /// port is tried again on others first.
    ///
    /// # Cancel safety
    /// Dropping the future kills what it has started.
    pub async fn start(spec: ServerSpec, nodes: usize, options: ClusterOptions) -> Result<Self, ServerError> {
        if nodes == 0 || nodes > MAX_NODES {
            return Err(ServerError::ClusterSize { asked: nodes, max: MAX_NODES });
        }
        let mut attempt = 1;
        loop {
            let mut cluster = Self::prepare(spec.clone(), nodes, options.clone())?;
            match cluster.restart_all().await {
                Ok(()) => return Ok(cluster),
                // Ports are reserved among tests only: any other program may take one before the server does.
                Err(error) if error.is_port_race() && attempt < START_ATTEMPTS => attempt += 1,
                Err(error) => {
                    if matches!(error, ServerError::Exited { .. } | ServerError::NotReady { .. }) {
                        cluster.keep_dir();
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Reserves ports and folders for `count` servers, none of which runs yet: for clusters that grow. See [`Cluster::restart`].
    ///
    /// # Errors
    /// [`ServerError::Io`] if there is no folder or no port to be had.
    pub fn prepare(spec: ServerSpec, count: usize, options: ClusterOptions) -> Result<Self, ServerError> {
        let parent = options.parent_dir.clone().unwrap_or_else(env::temp_dir);
        let prefix = format!("{}-", spec.name());
        let dir = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(&parent)
            .map_err(ServerError::io(format!("create a folder in {}", parent.display())))?;
        let mut ports = Reservation::default();
        let mut port_maps = Vec::with_capacity(count);
        for _ in 0..count {
            let named = spec.ports().iter().map(|name| Ok((name.clone(), ports.port()?)));
            port_maps.push(named.collect::<Result<BTreeMap<_, _>, ServerError>>()?);
        }
        // The folder is new and its name therefore is: no other cluster on this machine has it.
        let token = dir.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut nodes = Vec::with_capacity(count);
        let host = |node| options.network.as_ref().map_or(Ipv4Addr::LOCALHOST, |network| network.host(node));
        for context in NodeContext::cluster(dir.path(), &token, port_maps, host) {
            let data = context.data_dir();
            fs::create_dir_all(&data).map_err(ServerError::io(format!("create {}", data.display())))?;
            nodes.push(Node { client_url: spec.client_url_of(&context), context, process: None });
        }
        Ok(Self { spec, options, nodes, dir: Some(dir), _ports: ports })
    }

    /// How many nodes the cluster has, running or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// A cluster has nodes: this is always false, and here because [`Cluster::len`] is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// One node, by its number from 0.
    ///
    /// # Errors
    /// [`ServerError::NoSuchNode`].
    pub fn node(&self, index: usize) -> Result<&Node, ServerError> {
        self.nodes.get(index).ok_or(ServerError::NoSuchNode { index, count: self.nodes.len() })
    }

    /// All nodes, in order.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// What a client is given to reach each node, in the order of the nodes, running or not.
    #[must_use]
    pub fn client_urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.client_url.clone()).collect()
    }

    /// The folder that holds the folders of the nodes.
    #[must_use]
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_ref().map(TempDir::path)
    }

    /// Kills a node with SIGKILL and returns when it is gone. A node that does not run stays so.
    ///
    /// # Errors
    /// [`ServerError::NoSuchNode`].
    pub fn kill(&mut self, index: usize) -> Result<(), ServerError> {
        self.node_mut(index)?.process = None;
        Ok(())
    }

    /// Kills all nodes at once, as a power cut would, and returns when they are gone.
    pub fn kill_all(&mut self) {
        // All signals before the first wait: none serves on while another is waited for.
        for process in self.nodes.iter_mut().filter_map(|node| node.process.as_mut()) {
            process.kill();
        }
        for node in &mut self.nodes {
            node.process = None;
        }
    }

    /// Stops a node with SIGSTOP and returns when every thread of it is stopped: it holds its connections and answers nothing.
    ///
    /// # Errors
    /// [`ServerError::NotRunning`] and [`ServerError::NoSuchNode`]; [`ServerError::Io`] if a thread does not stop in time.
    pub fn pause(&mut self, index: usize) -> Result<(), ServerError> {
        self.node_mut(index)?.pause()
    }

    /// Lets a stopped node go on, with SIGCONT.
    ///
    /// # Errors
    /// [`ServerError::NotRunning`] and [`ServerError::NoSuchNode`].
    pub fn resume(&mut self, index: usize) -> Result<(), ServerError> {
        self.node_mut(index)?.signal("CONT")
    }

    /// The last lines of each node's log.
    #[must_use]
    pub fn logs(&self) -> String {
        self.log_tails()
    }

    /// Asks a node to end, with SIGTERM; [`Cluster::is_running`] says when it has.
    ///
    /// # Errors
    /// As [`Cluster::resume`].
    pub fn terminate(&mut self, index: usize) -> Result<(), ServerError> {
        self.node_mut(index)?.terminate()
    }

    /// Whether a node's process runs; a paused one does.
    ///
    /// # Errors
    /// [`ServerError::NoSuchNode`].
    pub fn is_running(&mut self, index: usize) -> Result<bool, ServerError> {
        Ok(self.node_mut(index)?.process.as_mut().is_some_and(Process::is_running))
    }

    /// Starts a node again, on the same ports and data. It does not wait: see [`Cluster::ready`].
    ///
    /// # Errors
    /// [`ServerError::AlreadyRunning`], [`ServerError::Io`] and what the specification says.
    pub fn restart(&mut self, index: usize) -> Result<(), ServerError> {
        let spec = self.spec.clone();
        let enter = self.options.network.as_ref().map(|network| network.enter(index)).unwrap_or_default();
        self.node_mut(index)?.start(&spec, &enter)
    }

    /// Starts all nodes that do not run, and waits until every node is ready.
    ///
    /// # Errors
    /// As [`Cluster::restart`] and [`Cluster::ready`].
    pub async fn restart_all(&mut self) -> Result<(), ServerError> {
        for index in 0..self.nodes.len() {
            if !self.is_running(index)? {
                self.restart(index)?;
            }
        }
        let deadline = Instant::now() + self.options.ready_within;
        for index in 0..self.nodes.len() {
            self.ready_by(index, deadline).await?;
        }
        Ok(())
    }

    /// Waits until a node is ready, for as long as the options say.
    ///
    /// # Errors
    /// [`ServerError::NotReady`] at the deadline, and [`ServerError::Exited`] at once when the process has ended.
    pub async fn ready(&mut self, index: usize) -> Result<(), ServerError> {
        self.ready_by(index, Instant::now() + self.options.ready_within).await
    }

    /// Kills a node if it runs and removes its data, as if its disk were replaced.
    ///
    /// # Errors
    /// [`ServerError::Io`] and [`ServerError::NoSuchNode`].
    pub fn wipe(&mut self, index: usize) -> Result<(), ServerError> {
        self.kill(index)?;
        let data = self.node(index)?.data_dir();
        fs::remove_dir_all(&data)
            .and_then(|()| fs::create_dir(&data))
            .map_err(ServerError::io(format!("wipe {}", data.display())))
    }

    async fn ready_by(&mut self, index: usize, deadline: Instant) -> Result<(), ServerError> {
        let context = self.node(index)?.context.clone();
        let probe = self.spec.ready().clone();
        loop {
            // Looked at before the probe: what answers on this port must be our own process.
            if !self.is_running(index)? {
                return Err(ServerError::Exited {
                    server: self.spec.name().to_owned(),
                    node: context.name(),
                    dir: self.dir().unwrap_or(Path::new("")).to_owned(),
                    logs: self.log_tails(),
                });
            }
            if probe.is_ready(&context).await {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(ServerError::NotReady {
                    server: self.spec.name().to_owned(),
                    node: context.name(),
                    waited: self.options.ready_within,
                    dir: self.dir().unwrap_or(Path::new("")).to_owned(),
                    logs: self.log_tails(),
                });
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn log_tails(&self) -> String {
        let tails = self.nodes.iter().map(|node| {
            let log = fs::read(node.log_path()).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            let skipped = lines.len().saturating_sub(LOG_TAIL_LINES);
            let tail: Vec<&str> = lines.into_iter().skip(skipped).collect();
            format!("--- {}\n{}\n", node.name(), tail.join("\n"))
        });
        tails.collect()
    }

    fn node_mut(&mut self, index: usize) -> Result<&mut Node, ServerError> {
        let count = self.nodes.len();
        self.nodes.get_mut(index).ok_or(ServerError::NoSuchNode { index, count })
    }

    fn keep_dir(&mut self) {
        if let Some(dir) = self.dir.take() {
            let _ = dir.keep();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill_all();
        if let Some(dir) = self.dir()
            && (thread::panicking() || env::var_os(KEEP).is_some())
        {
            eprintln!("the logs and data of this {} cluster are in {}", self.spec.name(), dir.display());
            self.keep_dir();
        }
    }
}

/// One server of a cluster.
#[derive(Debug)]
pub struct Node {
    context: NodeContext,
    client_url: String,
    process: Option<Process>,
}

impl Node {
    /// The node's name: `n0`, `n1` and so on.
    #[must_use]
    pub fn name(&self) -> String {
        self.context.name()
    }

    /// The process id of the server itself, unless the node was killed.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// The node as its specification sees it.
    #[must_use]
    pub fn context(&self) -> &NodeContext {
        &self.context
    }

    /// The port of this name.
    ///
    /// # Errors
    /// [`ServerError::UnknownPort`].
    pub fn port(&self, name: &str) -> Result<u16, ServerError> {
        self.context.port(name)
    }

    /// What a client is given to reach this node.
    #[must_use]
    pub fn client_url(&self) -> &str {
        &self.client_url
    }

    /// Where the node keeps its data.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.context.data_dir()
    }

    /// What the server has printed, over all its starts.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.context.log_path()
    }

    fn start(&mut self, spec: &ServerSpec, enter: &[String]) -> Result<(), ServerError> {
        if self.process.as_mut().is_some_and(Process::is_running) {
            return Err(ServerError::AlreadyRunning { node: self.name() });
        }
        // Reaps a process that ended by itself before its successor writes to the same data.
        self.process = None;
        let launch = spec.launch(&self.context)?.relocated(&self.context, enter);
        for (path, text) in &launch.files {
            let path = self.context.dir().join(path);
            fs::write(&path, text).map_err(ServerError::io(format!("write {}", path.display())))?;
        }
        let process = Process::start(&launch, self.context.dir(), &self.log_path())
            .map_err(ServerError::io(format!("start {}", launch.program.display())))?;
        self.process = Some(process);
        Ok(())
    }

    fn pause(&mut self) -> Result<(), ServerError> {
        self.signal("STOP")?;
        let stopped = self.running()?.wait_until_stopped(STOPS_WITHIN);
        stopped.map_err(ServerError::io(format!("see every thread of {} stopped within {STOPS_WITHIN:?}", self.name())))
    }

    fn signal(&mut self, name: &str) -> Result<(), ServerError> {
        let node = self.name();
        self.running()?.signal(name).map_err(|_| ServerError::NotRunning { node })
    }

    fn terminate(&mut self) -> Result<(), ServerError> {
        let process = self.running()?;
        match process.signal("TERM") {
            Ok(()) => Ok(()),
            // The server can end, and its watchdog with it, before the watchdog has answered.
            Err(_) => process.wait().map_err(ServerError::io("wait for a server that was told to end")),
        }
    }

    fn running(&mut self) -> Result<&mut Process, ServerError> {
        let node = self.name();
        if let Some(process) = &mut self.process
            && process.is_running()
        {
            return Ok(process);
        }
        Err(ServerError::NotRunning { node })
    }
}
