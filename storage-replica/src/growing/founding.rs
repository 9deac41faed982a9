//! How replicas without a node ask each other who founds the cluster: over gRPC, on the client URLs that their nodes will have.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use axum::middleware;
use storage_core::{Error, Result};
use storage_embedded::connections::Budget;
use storage_etcd_api::{Port, connections, note_request, tls};
use storage_membership::{AnswerQuestion, Listener, NodeUrl, Proved};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tonic::{Request, Response, Status, service::Routes};

use self::proto::{
    Sealed,
    bootstrap_client::BootstrapClient,
    bootstrap_server::{Bootstrap, BootstrapServer},
};
use crate::{
    admin,
    config::{ClientTls, Tls},
    node,
};

mod proto {
    #![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
    tonic::include_proto!("snet.bootstrap");
}

/// How long calls that are under way may take to end when nobody listens any more.
const ENDS_WITHIN: Duration = Duration::from_millis(100);

/// Asks the replica at a client URL. A node that runs there does not know the question.
pub(super) async fn ask(
    client_url: &NodeUrl,
    Proved { body, proof }: Proved,
    client_tls: &ClientTls,
    timeout: Duration,
) -> Result<Proved> {
    let channel = admin::endpoint(client_url, client_tls)?.connect_lazy();
    let asked = async { BootstrapClient::new(channel).ask(Sealed { body, proof }).await.map_err(Error::unavailable) };
    let answer = tokio::time::timeout(timeout, asked).await.map_err(|_| Error::deadline(timeout))??;
    let Sealed { body, proof } = answer.into_inner();
    Ok(Proved { body, proof })
}

/// Answers the questions of others until it is stopped.
#[derive(Debug)]
struct Answering {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Listens on the client URL of this replica.
///
/// # Errors
/// [`Error::Unavailable`] if that cannot be done, [`Error::InvalidArgument`] for certificates that cannot be used.
pub(super) async fn listen(url: &NodeUrl, tls: &Tls, answer: AnswerQuestion) -> Result<Box<dyn Listener>> {
    let listener = TcpListener::bind(url.authority()).await;
    let listener = listener.map_err(|error| node::cannot_listen("client", url, &error))?;
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async { drop(stopped.await) };
    let tls = if url.is_tls() { Some(tls::load(tls.server().map_err(Error::invalid_argument)?)?) } else { None };
    let asked = Routes::new(BootstrapServer::new(Answers(answer))).into_axum_router();
    let router = storage_etcd_api::server().add_routes(asked.layer(middleware::from_fn(note_request)).into());
    let incoming = connections(listener, tls, Port::new("client", Budget::of_this_process().clients));
    let task = tokio::spawn(async move { drop(router.serve_with_incoming_shutdown(incoming, stopped).await) });
    Ok(Box::new(Answering { stop, task }))
}

#[async_trait]
impl Listener for Answering {
    async fn stop(self: Box<Self>) {
        let Self { stop, mut task } = *self;
        let _ = stop.send(());
        // Whoever asks holds a connection, which the server would wait for.
        if tokio::time::timeout(ENDS_WITHIN, &mut task).await.is_err() {
            task.abort();
            let _ = task.await;
        }
    }
}

struct Answers(AnswerQuestion);

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answers")
    }
}

#[tonic::async_trait]
impl Bootstrap for Answers {
    async fn ask(&self, request: Request<Sealed>) -> Result<Response<Sealed>, Status> {
        let Sealed { body, proof } = request.into_inner();
        match (self.0)(Proved { body, proof }) {
            Ok(Proved { body, proof }) => Ok(Response::new(Sealed { body, proof })),
            Err(error) => Err(match error {
                Error::PermissionDenied { source } => Status::permission_denied(source.to_string()),
                Error::InvalidArgument { reason } => Status::invalid_argument(reason),
                error => Status::unavailable(error.to_string()),
            }),
        }
    }
}
