//! The questions of [`bootstrap`](super::bootstrap), over gRPC on the client URLs of replicas that have no node yet.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use storage_core::{Error, Result};
use storage_embedded::Refusals;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};

use super::{
    bootstrap::{Answer, Question},
    decide::ReplicaId,
    identity::ReplicaDir,
    seal,
};
use crate::{
    admin,
    config::{ClientTls, GrowingReplica, Token},
    etcd_api::{
        proto::bootstrap::{
            Sealed,
            bootstrap_client::BootstrapClient,
            bootstrap_server::{Bootstrap, BootstrapServer},
        },
        requests::{Connection, Requests},
        tls,
    },
    node,
};

/// How long connecting may take.
const CONNECTS_WITHIN: Duration = Duration::from_secs(1);

/// A question as it travels: nobody can take it for one of another two.
#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    from: ReplicaId,
    to: ReplicaId,
    nonce: u64,
    question: Question,
}

/// Asks another replica.
///
/// # Errors
/// [`Error::Unavailable`] if it does not answer, or with another token. A node that runs there does not know the question.
pub(super) async fn ask(
    from: ReplicaId,
    to: &GrowingReplica,
    question: Question,
    token: &Token,
    client_tls: &ClientTls,
    timeout: Duration,
) -> Result<Answer> {
    let nonce = getrandom::u64().map_err(|error| Error::unavailable(error.to_string()))?;
    let body = seal::to_json(&Asked { from, to: to.id, nonce, question });
    let proof = seal::prove(token, &[b"question", &body]);
    let request = Sealed { body: Bytes::from(body.clone()), proof: Bytes::from(proof) };
    let asked = async { BootstrapClient::new(connect(to, client_tls)?).ask(request).await.map_err(Error::unavailable) };
    let answer = tokio::time::timeout(timeout, asked).await.map_err(|_| Error::deadline(timeout))??.into_inner();
    if !seal::proves(token, &[b"answer", &body, &answer.body], &answer.proof) {
        return Err(Error::PermissionDenied { source: format!("replica {} has another token", to.id).into() });
    }
    seal::from_json(&answer.body).ok_or_else(|| Error::corrupt("an answer that is none"))
}

fn connect(to: &GrowingReplica, client_tls: &ClientTls) -> Result<Channel> {
    let wrong = |error: tonic::transport::Error| Error::invalid_argument(format!("{}: {error}", to.client_url));
    let mut endpoint = Endpoint::from_shared(to.client_url.to_string()).map_err(wrong)?;
    if to.client_url.is_tls() {
        endpoint = endpoint.tls_config(admin::tls::config(client_tls)?).map_err(wrong)?;
    }
    Ok(endpoint.connect_timeout(CONNECTS_WITHIN).tcp_nodelay(true).connect_lazy())
}

/// Answers the questions of others until it is stopped.
#[derive(Debug)]
pub(super) struct Answering {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Answering {
    /// Listens on the client URL of a replica.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if that cannot be done, [`Error::InvalidArgument`] for certificates that cannot be used.
    pub(super) async fn start(own: &GrowingReplica, token: Token, dir: Arc<Mutex<ReplicaDir>>) -> Result<Self> {
        let url = &own.client_url;
        let listener = TcpListener::bind(url.authority()).await;
        let listener = listener.map_err(|error| node::cannot_listen("client", url, &error))?;
        let service = BootstrapServer::new(Answers { own: own.id, token, dir });
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        let router = Server::builder().add_service(service);
        let task = if url.is_tls() {
            let files = own.tls.server().map_err(Error::invalid_argument)?;
            let tls = tls::load(files)?;
            let requests = Arc::new(Requests::default());
            let incoming = tls::connections(listener, tls, Arc::new(Refusals::new("client")));
            let incoming = incoming.map_ok(move |stream| Connection::new(stream, Arc::clone(&requests)));
            tokio::spawn(async move { drop(router.serve_with_incoming_shutdown(incoming, stopped).await) })
        } else {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            tokio::spawn(async move { drop(router.serve_with_incoming_shutdown(incoming, stopped).await) })
        };
        Ok(Self { stop, task })
    }

    /// The port is free when this returns.
    pub(super) async fn stop(self) {
        let Self { stop, mut task } = self;
        let _ = stop.send(());
        // Who asks holds a connection, which the server would wait for.
        if tokio::time::timeout(Duration::from_millis(100), &mut task).await.is_err() {
            task.abort();
            let _ = task.await;
        }
    }
}

#[derive(Debug)]
struct Answers {
    own: ReplicaId,
    token: Token,
    dir: Arc<Mutex<ReplicaDir>>,
}

#[tonic::async_trait]
impl Bootstrap for Answers {
    async fn ask(&self, request: Request<Sealed>) -> std::result::Result<Response<Sealed>, Status> {
        let Sealed { body, proof } = request.into_inner();
        if !seal::proves(&self.token, &[b"question", &body], &proof) {
            return Err(Status::permission_denied("the token of the cluster is another one"));
        }
        let asked = seal::from_json::<Asked>(&body).filter(|asked| asked.to == self.own);
        let asked = asked.ok_or_else(|| Status::invalid_argument(format!("this is replica {}", self.own)))?;
        let answer = answer(&self.dir, asked.question).map_err(|error| Status::unavailable(error.to_string()))?;
        let answer = seal::to_json(&answer);
        let proof = seal::prove(&self.token, &[b"answer", &body, &answer]);
        Ok(Response::new(Sealed { body: Bytes::from(answer), proof: Bytes::from(proof) }))
    }
}

/// Answers for the replica of a directory. What it promises is on stable storage when this returns.
pub(super) fn answer(dir: &Mutex<ReplicaDir>, question: Question) -> Result<Answer> {
    let mut dir = dir.lock().unwrap_or_else(PoisonError::into_inner);
    match dir.identity().cluster {
        Some(cluster) => Ok(Answer::Exists(cluster)),
        None => dir.change(|identity| identity.promises.answer(question)),
    }
}
