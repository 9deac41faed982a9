//! How the table of a cluster of embedded nodes is asked: over gRPC, on the client URLs, beside the etcd API, in which nothing of it is seen.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use futures::future::select_ok;
use storage_core::{Error, Result};
use storage_membership::{AnsweringTable, AskTable, NodeUrl, Proved};
use tonic::{
    Code, Request, Response, Status,
    transport::{Channel, Endpoint},
};

use self::proto::{
    Sealed,
    own_table_client::OwnTableClient,
    own_table_server::{OwnTable, OwnTableServer},
};
use crate::{admin, config::ClientTls};

mod proto {
    #![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
    tonic::include_proto!("snet.membership");
}

/// The largest question: a change of some rows. A table has at most some hundred KiB, and an answer may have all of it.
const MAX_QUESTION_BYTES: usize = 1 << 20;
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// The nodes of a cluster, by their client URLs.
#[derive(Debug)]
pub(crate) struct Nodes(Vec<Node>);

#[derive(Debug)]
struct Node {
    url: NodeUrl,
    endpoint: Endpoint,
    /// Connected when it is needed, and kept. A question that is given up leaves the connection to the next: a handshake that is broken off
    /// costs a node more than an answer.
    channel: Channel,
}

impl Nodes {
    /// # Errors
    /// [`Error::InvalidArgument`] for none, and for URLs or files that cannot be used.
    pub(crate) fn new(client_urls: &[NodeUrl], tls: &ClientTls) -> Result<Self> {
        if client_urls.is_empty() {
            return Err(Error::invalid_argument("no client URL of a node is given"));
        }
        let nodes = client_urls.iter().map(|url| {
            let endpoint = admin::endpoint(url, tls)?;
            Ok(Node { url: url.clone(), channel: endpoint.connect_lazy(), endpoint })
        });
        nodes.collect::<Result<_>>().map(Self)
    }
}

#[async_trait]
impl AskTable for Nodes {
    async fn ask(&self, question: Proved, changes: bool, timeout: Duration) -> Result<Proved> {
        if !changes {
            // One that is cut off says so late: all are asked at once.
            let asked = self.0.iter().map(|node| Box::pin(ask(node, node.channel.clone(), &question, false)));
            let first = tokio::time::timeout(timeout, select_ok(asked)).await;
            return first.map_err(|_| Error::deadline(timeout))?.map(|(answer, _)| answer);
        }
        let asked = async {
            let mut last = Error::unavailable("no node was asked");
            for node in &self.0 {
                // Connected first, so that it is known that nothing was sent to one that is not there.
                let answer = match node.endpoint.connect().await {
                    Ok(channel) => ask(node, channel, &question, true).await,
                    Err(error) => Err(Error::unavailable(format!("{}: {error}", node.url))),
                };
                match answer {
                    // Nothing was done there: another may do it.
                    Err(error @ Error::Unavailable { .. }) => last = error,
                    answer => return answer,
                }
            }
            Err(last)
        };
        tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| Err(Error::deadline_after_send(timeout)))
    }
}

async fn ask(Node { url, .. }: &Node, channel: Channel, question: &Proved, changes: bool) -> Result<Proved> {
    let sealed = Sealed { body: question.body.clone(), proof: question.proof.clone() };
    let mut client = OwnTableClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
    let Sealed { body, proof } = client.ask(sealed).await.map_err(|status| error(url, &status, changes))?.into_inner();
    Ok(Proved { body, proof })
}

/// What a node says when it has certainly done nothing. A status without it may be the connection's.
const NOTHING_DONE: &str = "nothing was done: ";

fn error(url: &NodeUrl, status: &Status, changes: bool) -> Error {
    let told = format!("{url}: {}", status.message());
    match status.code() {
        Code::PermissionDenied => Error::PermissionDenied { source: format!("{url} has another token").into() },
        // A node of an earlier release, or of a cluster that does not grow, or one without a node.
        Code::Unimplemented => Error::unavailable(format!("{url} has no table of a cluster that grows by itself")),
        Code::InvalidArgument => Error::invalid_argument(told),
        _ if changes && !status.message().starts_with(NOTHING_DONE) => Error::unknown_outcome(told),
        _ => Error::unavailable(told),
    }
}

/// Answers, on the port of the etcd API.
pub(super) fn service(table: AnsweringTable) -> OwnTableServer<impl OwnTable> {
    OwnTableServer::new(Answers(table)).max_decoding_message_size(MAX_QUESTION_BYTES)
}

struct Answers(AnsweringTable);

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answers")
    }
}

#[tonic::async_trait]
impl OwnTable for Answers {
    async fn ask(&self, request: Request<Sealed>) -> Result<Response<Sealed>, Status> {
        let Sealed { body, proof } = request.into_inner();
        match self.0.answer(Proved { body, proof }).await {
            Ok(Proved { body, proof }) => Ok(Response::new(Sealed { body, proof })),
            Err(Error::PermissionDenied { source }) => Err(Status::permission_denied(source.to_string())),
            Err(Error::InvalidArgument { reason }) => Err(Status::invalid_argument(reason)),
            Err(error) if error.may_be_applied() => Err(Status::unknown(error.to_string())),
            Err(error) => Err(Status::unavailable(format!("{NOTHING_DONE}{error}"))),
        }
    }
}
