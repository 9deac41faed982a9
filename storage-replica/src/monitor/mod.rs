//! What operators watch: metrics for Prometheus, and whether the replica is healthy and ready, on a port of its own.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | the text format of Prometheus; docs/operations.md lists every metric |
//! | `/health` | 200 while the process and its node run, 503 when the node has stopped: start it again |
//! | `/ready` | 200 if a linearizable read succeeds now, 503 with the reason and the members that do not answer |
//!
//! The port has neither TLS nor passwords: bind it to an address that only operators reach.

mod process;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing,
};
use futures::FutureExt as _;
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, metrics::counter::ConstCounter};
use storage_core::{Error, ReadOptions, Registry, Result, Store};
use storage_embedded::{Refusals, connections::Budget};
use storage_etcd_api::{Port, connections, note_request};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::service::Routes;

use self::process::Process;
use crate::{
    config::NodeUrl,
    exposition::{self, labelled},
    node::{self, ManagedNode},
};

/// How long a linearizable read may take for the replica to count as ready.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// The port of the operators. It is closed when this is dropped.
#[derive(Debug)]
pub struct Monitor {
    address: SocketAddr,
    refusals: Arc<Refusals>,
    task: JoinHandle<()>,
}

/// What is watched.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) node: Option<Arc<dyn ManagedNode>>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) calls: Arc<Registry>,
}

/// What is watched, and the port itself.
#[derive(Clone, Debug)]
struct MonitorState {
    watched: Watched,
    refusals: Arc<Refusals>,
}

/// How many connections this port itself has refused.
#[derive(Debug)]
struct Refused(Arc<Refusals>);

impl Collector for Refused {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Connections to this port that were refused, by reason.";
        let counts = self.0.iter().map(|(refusal, count)| ([("reason", refusal.name())], ConstCounter::new(count)));
        labelled(&mut encoder, "storage_admin_refused_connections", help, counts)
    }
}

impl Monitor {
    /// Listens on `url`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if that cannot be done, [`Error::InvalidArgument`] for `https`.
    pub(crate) async fn start(watched: Watched, url: &NodeUrl) -> Result<Self> {
        if url.is_tls() {
            return Err(Error::invalid_argument(format!("{url}: the admin URL has no TLS, write http://")));
        }
        let cannot = |error| node::cannot_listen("admin", url, &error);
        let listener = TcpListener::bind(url.authority()).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let port = Port::new("admin", Budget::of_this_process().admin);
        let refusals = Arc::clone(port.refusals());
        let routes = Router::new()
            .route("/metrics", routing::get(metrics))
            .route("/health", routing::get(health))
            .route("/ready", routing::get(ready))
            .with_state(MonitorState { watched, refusals: Arc::clone(&refusals) })
            .layer(middleware::from_fn(note_request));
        let server = storage_etcd_api::server().add_routes(Routes::from(routes));
        let task = tokio::spawn(async move {
            if let Err(error) = server.serve_with_incoming(connections(listener, None, port)).await {
                tracing::error!(%error, "metrics and health are served no more");
            }
        });
        Ok(Self { address, refusals, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Which connections were refused, and why.
    pub fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    /// Closes the port. It is free when this returns.
    pub(crate) async fn stop(&self) {
        self.task.abort();
        while !self.task.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn metrics(State(MonitorState { watched, refusals }): State<MonitorState>) -> Response {
    let mut process = prometheus_client::registry::Registry::default();
    process.register_collector(Box::new(Process));
    process.register_collector(Box::new(Refused(refusals)));
    let mut text = watched.node.as_ref().map(|node| node.metrics()).unwrap_or_default();
    text += &watched.calls.render();
    text += &exposition::text(&process);
    ([(header::CONTENT_TYPE, exposition::CONTENT_TYPE)], text).into_response()
}

async fn health(State(MonitorState { watched, .. }): State<MonitorState>) -> Response {
    let trouble = match &watched.node {
        Some(node) => node.stopped().now_or_never().map(|stopped| match stopped {
            Err(error) => error.to_string(),
            Ok(()) => "the node has stopped".to_owned(),
        }),
        None => None,
    };
    answer("healthy", trouble, Vec::new())
}

async fn ready(State(MonitorState { watched, .. }): State<MonitorState>) -> Response {
    match watched.store.ping(ReadOptions::default().timeout(ANSWERS_WITHIN)).await {
        Ok(()) => answer("ready", None, Vec::new()),
        Err(error) => {
            let missing = match &watched.node {
                Some(node) => node::missing(&node.settings().cluster).await,
                None => Vec::new(),
            };
            let missing = missing.into_iter().map(|member| format!("{} ({})", member.name, member.peer_url));
            answer("ready", Some(error.to_string()), missing.collect())
        }
    }
}

/// `{"ready":true}`, or 503 and `{"ready":false,"reason":"...","waiting_for":["n2 (http://...)"]}`.
fn answer(what: &str, trouble: Option<String>, waiting_for: Vec<String>) -> Response {
    let (status, body) = match trouble {
        None => (StatusCode::OK, serde_json::json!({ what: true })),
        Some(reason) => {
            let body = serde_json::json!({ what: false, "reason": reason, "waiting_for": waiting_for });
            (StatusCode::SERVICE_UNAVAILABLE, body)
        }
    };
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
