//! One node of a cluster as its specification sees it, and the command that starts it.
//!
//! Ports, folders and addresses of a node are the same over all its restarts: a restart is of the same node with the
//! same data.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::ServerError;
use super::http::{HttpAnswer, exchange, http_get_from};

/// The largest cluster: the published etcd comparison ends at 11 nodes.
pub const MAX_NODES: usize = 11;

/// One node as its specification sees it: its number, ports and folders, and those of its peers.
#[derive(Clone, Debug)]
pub struct NodeContext {
    node: Arc<NodePlace>,
    all: Arc<[Arc<NodePlace>]>,
    token: Arc<str>,
}

/// What a node keeps over restarts.
#[derive(Debug)]
struct NodePlace {
    index: usize,
    dir: PathBuf,
    ports: BTreeMap<String, u16>,
    host: Ipv4Addr,
}

impl NodeContext {
    /// The contexts of a whole cluster, one a port map, with their folders below `dir`, on the addresses that `host` gives.
    pub(super) fn cluster(
        dir: &Path,
        token: &str,
        ports: Vec<BTreeMap<String, u16>>,
        host: impl Fn(usize) -> Ipv4Addr,
    ) -> Vec<Self> {
        let all: Arc<[Arc<NodePlace>]> = ports
            .into_iter()
            .enumerate()
            .map(|(index, ports)| {
                Arc::new(NodePlace { index, dir: dir.join(format!("n{index}")), ports, host: host(index) })
            })
            .collect();
        let token: Arc<str> = token.into();
        all.iter()
            .map(|node| Self { node: Arc::clone(node), all: Arc::clone(&all), token: Arc::clone(&token) })
            .collect()
    }

    /// The node's number, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.node.index
    }

    /// The node's name: `n0`, `n1` and so on.
    #[must_use]
    pub fn name(&self) -> String {
        format!("n{}", self.node.index)
    }

    /// How many nodes the cluster has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// All nodes of the cluster in order, this one among them.
    pub fn nodes(&self) -> impl Iterator<Item = NodeContext> + '_ {
        self.all.iter().map(|node| Self {
            node: Arc::clone(node),
            all: Arc::clone(&self.all),
            token: Arc::clone(&self.token),
        })
    }

    /// The address of the node: that of the loopback interface, unless the cluster has a [`Network`](super::Network).
    #[must_use]
    pub fn host(&self) -> Ipv4Addr {
        self.node.host
    }

    /// `GET path` on the port of this name, without a deadline of its own.
    ///
    /// # Errors
    /// What the connection says, or `InvalidData` when the answer is not HTTP.
    pub async fn http_get(&self, port: &str, path: &str) -> io::Result<HttpAnswer> {
        http_get_from(self.host(), self.port(port).map_err(io::Error::other)?, path).await
    }

    /// Sends a word to the port of this name and reads until the server closes, without a deadline of its own.
    ///
    /// # Errors
    /// What the connection says.
    pub async fn tcp_word(&self, port: &str, word: &str) -> io::Result<String> {
        exchange(self.host(), self.port(port).map_err(io::Error::other)?, word).await
    }

    /// A text that names loopback addresses, with those of the cluster's network in their places: those that stand before a
    /// port are of the node with that port, any other is this node's own.
    pub(super) fn relocated(&self, text: &str) -> String {
        if self.host() == Ipv4Addr::LOCALHOST {
            return text.to_owned();
        }
        let all = self.all.iter().flat_map(|place| place.ports.values().map(|port| (place.host, *port)));
        let text = all.fold(text.to_owned(), |text, (host, port)| {
            text.replace(&format!("127.0.0.1:{port}"), &format!("{host}:{port}"))
        });
        // What has no port of a node behind it is where this node itself listens.
        text.replace("127.0.0.1", &self.host().to_string())
    }

    /// The port of this name.
    ///
    /// # Errors
    /// [`ServerError::UnknownPort`] when the specification does not ask for one.
    pub fn port(&self, name: &str) -> Result<u16, ServerError> {
        self.node.ports.get(name).copied().ok_or_else(|| ServerError::UnknownPort { name: name.to_owned() })
    }

    /// The node's folder: the server's working directory, with its configuration files and its log.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.node.dir
    }

    /// Where the node keeps its data, `data` in its folder. It exists before the start, and a wiped disk is this folder empty.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.node.dir.join("data")
    }

    /// A word that no other cluster has, for servers that want one so that clusters do not mix.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    pub(crate) fn ports(&self) -> impl Iterator<Item = (&str, u16)> {
        self.node.ports.iter().map(|(name, port)| (name.as_str(), *port))
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.node.dir.join("server.log")
    }
}

/// The command that starts one node, and the files it wants to find.
#[derive(Clone, Debug)]
pub struct Launch {
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) files: Vec<(PathBuf, String)>,
}

impl Launch {
    /// Starts `program`, which is an absolute path or a name on `PATH`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), args: Vec::new(), env: Vec::new(), files: Vec::new() }
    }

    /// The same in the network of a node: with its addresses, and started through `enter`.
    pub(super) fn relocated(self, node: &NodeContext, enter: &[String]) -> Self {
        let Some((first, rest)) = enter.split_first() else { return self };
        let own = self.args.iter().map(|arg| node.relocated(arg));
        let args = rest.iter().cloned().chain([self.program.display().to_string()]).chain(own).collect();
        let env = self.env.into_iter().map(|(name, value)| (name, node.relocated(&value))).collect();
        let files = self.files.into_iter().map(|(path, text)| (path, node.relocated(&text))).collect();
        Self { program: first.into(), args, env, files }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable of the server.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Writes a file before each start; the path is relative to the node's folder, `data/..` is inside its data.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        self.files.push((path.into(), text.into()));
        self
    }
}
