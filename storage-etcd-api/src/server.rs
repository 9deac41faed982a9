//! The server of etcd's API in front of a node: port, threads, services, and how it ends.
//!
//! It runs on threads of its own: nothing that clients send or are slow to read may hold up raft's thread. It decides
//! nothing about writes.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use axum::middleware;
use futures::FutureExt;
use storage_core::{Backoff, Error, Result};
use storage_embedded::{
    Node, Refusals,
    connections::{Budget, CLIENTS},
    tls::TlsFiles,
};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    sync::watch,
    task::JoinHandle,
};
use tonic::{codec::CompressionEncoding::Gzip, service::Routes};
use tonic_reflection::server::Builder as Reflection;

use crate::{
    auth::AuthService,
    check::MAX_MESSAGE_BYTES,
    cluster::{self, ClusterService},
    connection,
    contest::Contests,
    context::Context,
    election::ElectionService,
    gateway::DESCRIPTORS,
    health::HealthService,
    http,
    incoming::{Port, connections},
    kv::KvService,
    lease::LeaseService,
    limits::WATCHES,
    lock::LockService,
    maintenance::MaintenanceService,
    passwords::{COST, COSTS, Passwords, TOKEN_TTL},
    places::NodePlaces,
    proto::{
        etcdserverpb::{
            auth_server::AuthServer, cluster_server::ClusterServer, kv_server::KvServer, lease_server::LeaseServer,
            maintenance_server::MaintenanceServer, watch_server::WatchServer,
        },
        health::health_server::HealthServer,
        v3electionpb::election_server::ElectionServer,
        v3lockpb::lock_server::LockServer,
    },
    requests::Requests,
    tls::{self, ServerTls},
    tokens::Tokens,
    watch::WatchService,
    who::Gate,
};

/// How a server is started.
#[derive(Debug)]
#[non_exhaustive]
pub struct Options {
    /// The name that a node is shown by which was taken in without one; empty: it has none to tell.
    pub name: String,
    /// The URLs that clients are told to reach this node at; empty: the address that it listens on.
    pub advertise: Vec<String>,
    /// With TLS, the certificates. With an authority among them, clients need certificates that it has signed.
    pub tls: Option<TlsFiles>,
    /// How many connections clients may have: 10,000, or fewer if the process may not have so many files open that enough is left for the
    /// log and for the other members ([`Budget`]). One more is closed at once.
    pub max_connections: usize,
    /// How many watches clients may have at this node: 262,144. One more is canceled.
    pub max_watches: usize,
    /// Where requests and connections are counted.
    pub requests: Requests,
    /// Other services of gRPC on the same port.
    pub more_services: Routes,
    /// The cost of bcrypt for passwords, from 4 to 16: each step doubles the time of a login. 10, as in etcd.
    pub bcrypt_cost: u32,
    /// How long a user's token is good after it was given or used: 5 minutes, as in etcd.
    pub token_ttl: Duration,
}

/// How many threads serve clients: while one of them reads a long request or writes a long answer, another goes on.
const THREADS: usize = 2;

impl Default for Options {
    fn default() -> Self {
        let max_connections = usize::try_from(CLIENTS).unwrap_or(usize::MAX);
        let (name, advertise, requests, more_services) = Default::default();
        let (bcrypt_cost, token_ttl) = (COST, TOKEN_TTL);
        let max_watches = WATCHES;
        Self {
            name,
            advertise,
            tls: None,
            max_connections,
            max_watches,
            requests,
            more_services,
            bcrypt_cost,
            token_ttl,
        }
    }
}

/// A server of the API, in front of a node. It stops when the node does, when it is asked to, or when it is dropped.
///
/// It works on threads of its own: whatever clients send, and however long it takes to read it and to write the answer, raft's thread is free.
#[derive(Debug)]
pub struct Server {
    /// `None` once it is given back.
    runtime: Option<Runtime>,
    address: SocketAddr,
    refusals: Arc<Refusals>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    /// Starts a server that listens on `listen`, `host:port`, where port 0 lets the system choose.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it cannot listen there, [`Error::InvalidArgument`] for TLS that cannot work.
    pub async fn start(node: Node, listen: &str, options: Options) -> Result<Self> {
        let cannot = |error| Error::unavailable(format!("cannot listen on {listen}: {error}"));
        let listener = TcpListener::bind(listen).await.map_err(cannot)?;
        let listener = listener.into_std().map_err(cannot)?;
        Self::start_on(node, listener, options).await
    }

    /// Starts a server on a socket that is bound already, so that its address can be told to others beforehand.
    ///
    /// # Errors
    /// Those of [`Server::start`].
    pub async fn start_on(node: Node, listener: std::net::TcpListener, options: Options) -> Result<Self> {
        let address = listener.local_addr().map_err(Error::unavailable)?;
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let advertise =
            if options.advertise.is_empty() { vec![format!("{scheme}://{address}")] } else { options.advertise };
        let places = options.max_connections.min(Budget::of_this_process().clients);
        let port = Port::new("client", places).counted(options.requests.connections.clone());
        let refusals = Arc::clone(port.refusals());
        let tls = options.tls.map(tls::load).transpose()?;
        if !COSTS.contains(&options.bcrypt_cost) {
            let (least, most) = (COSTS.start(), COSTS.end());
            return Err(Error::invalid_argument(format!("the cost of bcrypt is from {least} to {most}")));
        }
        let gate = Gate { passwords: Passwords::new(options.bcrypt_cost), tokens: Tokens::new(options.token_ttl) };
        let places = NodePlaces::counted(options.max_watches, &options.requests);
        let context = Context { mvcc: node.mvcc(), gate: Arc::new(gate), places };
        let (stop, stopping) = watch::channel(false);
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name(format!("etcd-api-{}", node.id()))
            .enable_all()
            .build()
            .map_err(Error::unavailable)?;
        // On the runtime that will serve: a socket belongs to one.
        let task = async move {
            let stopped = stopped(node.clone(), stopping);
            tokio::select! {
                () = publish(&node, &options.name, &advertise).then(|()| std::future::pending()) => {}
                () = serve(tls, context, listener, port, options.requests, options.more_services, stopped) => {}
            }
        };
        Ok(Self { address, refusals, stop, task: runtime.spawn(task), runtime: Some(runtime) })
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Which connections of clients were refused, and why.
    pub fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    /// Stops the server: calls that are under way are finished, streams are ended.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        // It fails only if it has panicked.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        // Its streams end with it. It may be dropped by a task, which must not wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(
    tls: Option<ServerTls>,
    context: Context,
    listener: std::net::TcpListener,
    port: Port,
    requests: Requests,
    more_services: Routes,
    stopped: impl Future<Output = ()>,
) {
    let listener = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot serve the etcd API"),
    };
    macro_rules! limited {
        ($service:expr) => {
            $service.max_decoding_message_size(MAX_MESSAGE_BYTES).accept_compressed(Gzip)
        };
    }
    let routes = more_services
        .add_service(limited!(KvServer::new(KvService(context.clone()))))
        .add_service(limited!(WatchServer::new(WatchService::new(context.clone()))))
        .add_service(limited!(AuthServer::new(AuthService(context.clone()))))
        .add_service(limited!(LeaseServer::new(LeaseService(context.clone()))))
        .add_service(limited!(ClusterServer::new(ClusterService(context.clone()))))
        .add_service(limited!(MaintenanceServer::new(MaintenanceService(context.clone()))))
        .add_service(limited!(LockServer::new(LockService(Contests(context.clone())))))
        .add_service(limited!(ElectionServer::new(ElectionService(Contests(context.clone())))))
        .add_service(limited!(HealthServer::new(HealthService(context.clone()))));
    let routes = match (reflection().build_v1(), reflection().build_v1alpha()) {
        (Ok(newest), Ok(alpha)) => routes.add_service(newest).add_service(alpha),
        (Err(error), _) | (_, Err(error)) => return tracing::error!(%error, "cannot serve the etcd API"),
    };
    // Probes and scripts speak the older HTTP, and so do clients of the gateway.
    let routes = http::with_plain_http(routes, context, requests);
    let routes = routes.layer(middleware::from_fn(connection::note_request));
    let router = connection::server().add_routes(routes.into());
    let served = router.serve_with_incoming(connections(listener, tls, port));
    // Streams never end by themselves, so that nothing is waited for.
    tokio::select! {
        served = served => {
            if let Err(error) = served {
                tracing::error!(%error, "the etcd API serves no more");
            }
        }
        () = stopped => {}
    }
}

/// What tells clients which services there are.
fn reflection() -> Reflection<'static> {
    Reflection::configure().register_encoded_file_descriptor_set(DESCRIPTORS)
}

/// Ends when the server is asked to stop, or the node has stopped.
async fn stopped(node: Node, mut stopping: watch::Receiver<bool>) {
    tokio::select! {
        _ = stopping.wait_for(|stop| *stop) => {}
        _ = node.stopped() => {}
    }
}

/// Tells the cluster the name of this node and where clients reach it, as soon as there is one that listens.
async fn publish(node: &Node, name: &str, advertise: &[String]) {
    let mut backoff = Backoff::new(std::time::Duration::from_millis(100), std::time::Duration::from_secs(5));
    while let Err(error) = cluster::publish(node, name, advertise).await {
        tracing::debug!(%error, "cannot tell the cluster where clients reach this node");
        backoff.wait().await;
    }
}
