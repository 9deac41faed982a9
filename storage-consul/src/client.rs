//! One server, and the calls that are made of it: `/v1/kv` and `/v1/txn` of
//! <https://developer.hashicorp.com/consul/api-docs>.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Method};
use serde::{Deserialize, de::DeserializeOwned};
use storage_core::{
    Consistency, Error, Result,
    servers::{self, Failure},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    connection::{Connection, Connections},
    error,
};

/// The most calls under way to one server: each has a connection of its own, of which Consul allows a client 200
/// (`http_max_conns_per_client`), watches included. Further calls wait for their turn, within their deadlines.
const MAX_CALLS: usize = 64;

/// One server.
pub(crate) struct Server {
    connections: Connections,
    token: Option<HeaderValue>,
    calls: Arc<Semaphore>,
}

impl Server {
    pub(crate) fn new(connections: Connections, token: Option<HeaderValue>) -> Self {
        Self { connections, token, calls: Arc::new(Semaphore::new(MAX_CALLS)) }
    }

    /// A call that waits for no other: those of watches, each of which waits for minutes.
    ///
    /// # Errors
    /// As [`servers::Server::ready`].
    pub(crate) async fn call_of_watch(self: Arc<Self>) -> Result<Call> {
        let connection = self.connections.connection().await?;
        Ok(Call { server: self, connection, _permit: None })
    }
}

#[async_trait]
impl servers::Server for Server {
    type Ready = Call;

    /// `host:port`.
    fn name(&self) -> &str {
        self.connections.address()
    }

    async fn ready(self: Arc<Self>) -> Result<Call> {
        let permit = Arc::clone(&self.calls).acquire_owned().await.map_err(|_| Error::Closed)?;
        let connection = self.connections.connection().await?;
        Ok(Call { server: self, connection, _permit: Some(permit) })
    }
}

/// A connection to a server with the right to make one call.
pub(crate) struct Call {
    server: Arc<Server>,
    connection: Connection,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Call {
    /// One key.
    pub(crate) async fn read(self, key: &str, consistency: Consistency) -> Result<Option<Pair>, Failure> {
        let found: Found<Vec<Pair>> = self.found(format!("kv/{key}?{}", mode(consistency))).await?;
        Ok(found.data.and_then(|mut pairs| pairs.pop()))
    }

    /// The keys below a prefix, in order.
    pub(crate) async fn keys(self, prefix: &str, consistency: Consistency) -> Result<Found<Vec<String>>, Failure> {
        self.found(format!("kv/{prefix}?keys&{}", mode(consistency))).await
    }

    /// Everything below a prefix. With `after`, waits (see [`Wait`]) until something has changed since that index.
    pub(crate) async fn tree(self, prefix: &str, after: Option<Wait>) -> Result<Found<Vec<Pair>>, Failure> {
        let wait = after.map(|wait| format!("&index={}&wait={}s", wait.index, wait.seconds)).unwrap_or_default();
        self.found(format!("kv/{prefix}?recurse&{}{wait}", mode(Consistency::Linearizable))).await
    }

    /// `PUT /v1/txn`. One that only reads may say how fresh that has to be; one that writes goes through the log anyway.
    pub(crate) async fn transaction(self, body: Bytes, consistency: Consistency) -> Result<Answer, Failure> {
        self.ask(Method::PUT, format!("txn?{}", mode(consistency)), body).await
    }

    async fn found<T: DeserializeOwned>(self, what: String) -> Result<Found<T>, Failure> {
        let answer = self.ask(Method::GET, what, Bytes::new()).await?;
        match (answer.status, answer.index) {
            (200, Some(index)) => Ok(Found { data: Some(answer.parsed()?), index }),
            // Nothing is there. Without the index it is not Consul that says so.
            (404, Some(index)) => Ok(Found { data: None, index }),
            _ => Err(answer.failure()),
        }
    }

    /// `what` is a path below `/v1/` with its parameters. Keys in it are of digits, and a folder's name needs no escapes.
    async fn ask(self, method: Method, what: String, body: Bytes) -> Result<Answer, Failure> {
        let Self { server, connection, .. } = self;
        let answer = server.connections.ask(connection, method, &what, server.token.as_ref(), body).await?;
        let index = answer.headers().get("X-Consul-Index").and_then(|index| index.to_str().ok()?.parse().ok());
        Ok(Answer { status: answer.status().as_u16(), index, body: answer.into_body() })
    }
}

/// A key and its value, as Consul shows them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Pair {
    pub(crate) key: String,
    /// In base64. Missing in the answer to a write.
    pub(crate) value: Option<String>,
    pub(crate) create_index: u64,
    pub(crate) modify_index: u64,
}

/// For which change a call waits, and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    /// A change after this index.
    pub(crate) index: u64,
    /// Consul answers after so long (and up to a sixteenth more) in any case.
    pub(crate) seconds: u64,
}

/// What was found below a key or prefix.
#[derive(Debug)]
pub(crate) struct Found<T> {
    pub(crate) data: Option<T>,
    /// Every change up to this index is in it, and nothing in it is newer.
    pub(crate) index: u64,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    index: Option<u64>,
    body: Bytes,
}

impl Answer {
    pub(crate) fn parsed<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| error::garbled(&error))
    }

    pub(crate) fn failure(&self) -> Failure {
        match self.status {
            // Whoever answered a call of Consul so is something else.
            200..300 => Failure::Refused(Error::invalid_argument("the endpoint is no Consul")),
            status => error::answer(status, &self.body),
        }
    }
}

fn mode(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Linearizable => "consistent",
        Consistency::Stale => "stale",
    }
}
