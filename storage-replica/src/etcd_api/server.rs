use std::{future::Future, net::SocketAddr, sync::Arc};

use axum::middleware;
use futures::{FutureExt, TryStreamExt};
use storage_core::{Backoff, Error, Result};
use storage_embedded::{Node, Refusals, tls::TlsFiles};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tonic::{service::Routes, transport::server::TcpIncoming};

use super::{
    check::MAX_MESSAGE_BYTES,
    cluster::{self, ClusterService},
    context::Context,
    health::HealthService,
    http,
    kv::KvService,
    lease::LeaseService,
    maintenance::MaintenanceService,
    proto::{
        etcdserverpb::{
            cluster_server::ClusterServer, kv_server::KvServer, lease_server::LeaseServer,
            maintenance_server::MaintenanceServer, watch_server::WatchServer,
        },
        health::health_server::HealthServer,
    },
    requests::{self, Connection, Requests},
    tls::{self, ServerTls, connections},
    watch::WatchService,
};

/// How a server is started.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// The name that a node is shown by which was taken in without one; empty: it has none to tell.
    pub name: String,
    /// The URLs that clients are told to reach this node at; empty: the address that it listens on.
    pub advertise: Vec<String>,
    /// With TLS, the certificates. With an authority among them, clients need certificates that it has signed.
    pub tls: Option<TlsFiles>,
    /// Where the server works.
    pub place: Place,
    /// Where requests and connections are counted.
    pub requests: Arc<Requests>,
}

/// Where a server works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// On the node's own thread, which is fastest: a request and its way through raft need no switch of threads.
    #[default]
    Node,
    /// On the runtime that starts it, so that large answers cannot delay the node's heartbeats.
    Caller,
}

/// A server of the API, in front of a node. It stops when the node does, when it is asked to, or when it is dropped.
#[derive(Debug)]
pub struct Server {
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
        let refusals = Arc::new(Refusals::new("client"));
        let tls = options.tls.map(tls::load).transpose()?.map(|tls| (tls, Arc::clone(&refusals)));
        let (stop, stopping) = watch::channel(false);
        let runtime = match options.place {
            Place::Node => node.runtime().clone(),
            Place::Caller => tokio::runtime::Handle::current(),
        };
        // On the runtime that will serve: a socket belongs to one.
        let task = async move {
            let stopped = stopped(node.clone(), stopping);
            tokio::select! {
                () = publish(&node, &options.name, &advertise).then(|()| std::future::pending()) => {}
                () = serve(tls, &node, listener, options.requests, stopped) => {}
            }
        };
        Ok(Self { address, refusals, stop, task: runtime.spawn(task) })
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Which clients were refused at the handshake of TLS, and why.
    pub fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    /// Stops the server: calls that are under way are finished, streams are ended.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        // It fails only if the node's runtime has ended, and the server with it.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    tls: Option<(ServerTls, Arc<Refusals>)>,
    node: &Node,
    listener: std::net::TcpListener,
    requests: Arc<Requests>,
    stopped: impl Future<Output = ()>,
) {
    let listener = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot serve the etcd API"),
    };
    let context = Context { mvcc: node.mvcc() };
    macro_rules! limited {
        ($service:expr) => {
            $service.max_decoding_message_size(MAX_MESSAGE_BYTES)
        };
    }
    let routes = Routes::new(limited!(KvServer::new(KvService(context.clone()))))
        .add_service(limited!(WatchServer::new(WatchService(context.clone()))))
        .add_service(limited!(LeaseServer::new(LeaseService(context.clone()))))
        .add_service(limited!(ClusterServer::new(ClusterService(context.clone()))))
        .add_service(limited!(MaintenanceServer::new(MaintenanceService(context.clone()))))
        .add_service(limited!(HealthServer::new(HealthService(context.clone()))));
    // Probes and scripts speak the older HTTP.
    let routes = http::beside(routes, context).into_axum_router();
    let routes = routes.layer(middleware::from_fn_with_state(Arc::clone(&requests), requests::count));
    let router = tonic::transport::Server::builder().accept_http1(true).add_routes(routes.into());
    let served = async {
        match tls {
            Some((tls, refusals)) => {
                let incoming = connections(listener, tls, refusals);
                let incoming = incoming.map_ok(|stream| Connection::new(stream, Arc::clone(&requests)));
                router.serve_with_incoming(incoming).await
            }
            None => {
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                let incoming = incoming.map_ok(|stream| Connection::new(stream, Arc::clone(&requests)));
                router.serve_with_incoming(incoming).await
            }
        }
    };
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
