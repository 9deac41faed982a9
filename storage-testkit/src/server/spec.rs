//! How one kind of server is started: a name, ports, a launch and a probe, as plain data.
//!
//! The kit knows no backend; each backend gives its specification. A launch is asked for before every start, so that it
//! may write files anew.

use std::fmt;
use std::sync::Arc;

use super::error::ServerError;
use super::node::{Launch, NodeContext};
use super::probe::Probe;

type LaunchFn = dyn Fn(&NodeContext) -> Result<Launch, ServerError> + Send + Sync;

/// How one kind of server is started: plain data and one function, given by the crate that knows the server.
///
/// ```
/// use storage_testkit::programs;
/// use storage_testkit::server::{Launch, Probe, ServerSpec};
///
/// let spec = ServerSpec::new("example", |node| {
///     let program = programs::find("example")?;
///     Ok(Launch::new(program)
///         .args(["--name".into(), node.name()])
///         .args(["--listen".into(), format!("127.0.0.1:{}", node.port("client")?)])
///         .file("example.conf", "fsync = true\n"))
/// })
/// .port("client")
/// .ready_when(Probe::http("client", "/health", |answer, _| answer.status == 200))
/// .client_url("http://127.0.0.1:{client}");
/// assert_eq!(spec.name(), "example");
/// ```
#[derive(Clone)]
pub struct ServerSpec {
    name: String,
    ports: Vec<String>,
    launch: Arc<LaunchFn>,
    ready: Probe,
    client_url: String,
}

impl ServerSpec {
    /// A server called `name`, whose nodes are started as `launch` says. `launch` is called before every start of a node,
    /// and sees the ports and folders of all nodes.
    pub fn new(
        name: impl Into<String>,
        launch: impl Fn(&NodeContext) -> Result<Launch, ServerError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            ports: Vec::new(),
            launch: Arc::new(launch),
            ready: Probe::Running,
            client_url: "127.0.0.1:{client}".to_owned(),
        }
    }

    /// Every node gets a loopback port under this name, free for TCP and UDP.
    #[must_use]
    pub fn port(mut self, name: impl Into<String>) -> Self {
        self.ports.push(name.into());
        self
    }

    /// When a node serves. Without this a node counts as ready as soon as its process runs.
    #[must_use]
    pub fn ready_when(mut self, probe: Probe) -> Self {
        self.ready = probe;
        self
    }

    /// What a client is given to reach one node; `{name}` stands for the port of that name.
    /// Without this it is `127.0.0.1:{client}`.
    #[must_use]
    pub fn client_url(mut self, template: impl Into<String>) -> Self {
        self.client_url = template.into();
        self
    }

    /// The server's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn ports(&self) -> &[String] {
        &self.ports
    }

    pub(super) fn launch(&self, node: &NodeContext) -> Result<Launch, ServerError> {
        (self.launch)(node)
    }

    pub(super) fn ready(&self) -> &Probe {
        &self.ready
    }

    pub(super) fn client_url_of(&self, node: &NodeContext) -> String {
        let url = node
            .ports()
            .fold(self.client_url.clone(), |url, (name, port)| url.replace(&format!("{{{name}}}"), &port.to_string()));
        node.relocated(&url)
    }
}

impl fmt::Debug for ServerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSpec").field("name", &self.name).field("ports", &self.ports).finish_non_exhaustive()
    }
}
