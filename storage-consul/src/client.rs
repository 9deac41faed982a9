//! One server, and the three calls that are made of it.
//!
//! The requests are those of `consulrs`, with one more for transactions; what carries them is our own. Its client takes an answer
//! with status 404 or 409 for an error and drops the index of Consul and the list of failed guards, and reads answers of any length.

use std::fmt;

use async_trait::async_trait;
use consulrs::api::{
    EndpointMiddleware, Features,
    features::{Blocking, ConsistencyMode, FeaturedEndpoint},
    kv::{
        common::KVPair,
        requests::{ReadKeyRequest, ReadKeysRequest},
    },
};
use rustify::{
    Endpoint,
    client::Client,
    enums::{RequestMethod, RequestType, ResponseType},
    errors::ClientError,
};
use serde::de::DeserializeOwned;
use storage_core::{Consistency, Error};
use tokio::sync::Semaphore;

use crate::error::{self, Failure};

/// The most bytes of one answer (64 MiB): three times a read of as many of the largest values as fit a transaction. What can
/// come near is a list of a million keys, and the state of a prefix for a watch.
pub(crate) const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// The most calls under way to one server: each has a connection of its own, of which Consul allows a client 200
/// (`http_max_conns_per_client`), watches included. Further calls wait for their turn, within their deadlines.
pub(crate) const MAX_CALLS: usize = 64;

/// The version of the API in all paths.
const API_VERSION: &str = "v1";

/// One server.
pub(crate) struct Server {
    transport: Transport,
    token: Option<String>,
    pub(crate) calls: Semaphore,
}

impl Server {
    pub(crate) fn new(http: reqwest::Client, base: String, token: Option<String>) -> Self {
        Self { transport: Transport { http, base }, token, calls: Semaphore::new(MAX_CALLS) }
    }

    /// `http://host:port`.
    pub(crate) fn name(&self) -> &str {
        &self.transport.base
    }

    /// One key.
    pub(crate) async fn read(&self, key: String, consistency: Consistency) -> Result<Option<KVPair>, Failure> {
        let request = ReadKeyRequest { key, features: Some(mode(consistency)), ..ReadKeyRequest::default() };
        let found: Found<Vec<KVPair>> = self.found(request).await?;
        Ok(found.data.and_then(|mut pairs| pairs.pop()))
    }

    /// The keys below a prefix, in order.
    pub(crate) async fn keys(&self, prefix: String, consistency: Consistency) -> Result<Found<Vec<String>>, Failure> {
        let features = Some(mode(consistency));
        self.found(ReadKeysRequest { key: prefix, keys: true, features, ..ReadKeysRequest::default() }).await
    }

    /// Everything below a prefix. With `after`, waits (see [`Wait`]) until something has changed since that index.
    pub(crate) async fn tree(&self, prefix: String, after: Option<Wait>) -> Result<Found<Vec<KVPair>>, Failure> {
        let blocking = after.map(|wait| Blocking { index: wait.index, wait: Some(format!("{}s", wait.seconds)) });
        let features = Some(Features { blocking, ..mode(Consistency::Linearizable) });
        self.found(ReadKeyRequest { key: prefix, recurse: Some(true), features, ..ReadKeyRequest::default() }).await
    }

    /// `PUT /v1/txn`. One that only reads may say how fresh that has to be; one that writes goes through the log anyway.
    pub(crate) async fn transaction(&self, body: Vec<u8>, consistency: Consistency) -> Result<Answer, Failure> {
        self.ask(TransactionRequest { body, consistency }).await
    }

    async fn found<T: DeserializeOwned>(&self, request: impl Endpoint + FeaturedEndpoint) -> Result<Found<T>, Failure> {
        let answer = self.ask(request).await?;
        match (answer.status, answer.index) {
            (200, Some(index)) => Ok(Found { data: Some(answer.parsed()?), index }),
            // Nothing is there. Without the index it is not Consul who says so.
            (404, Some(index)) => Ok(Found { data: None, index }),
            _ => Err(answer.failure()),
        }
    }

    async fn ask(&self, request: impl Endpoint + FeaturedEndpoint) -> Result<Answer, Failure> {
        let (features, token) = (request.features(), self.token.clone());
        let middleware = EndpointMiddleware { features, token, version: API_VERSION.to_owned() };
        let answer = request.with_middleware(&middleware).exec(&self.transport).await;
        let answer = answer.map_err(error::client)?.response;
        let index = answer.headers().get("X-Consul-Index").and_then(|index| index.to_str().ok()?.parse().ok());
        Ok(Answer { status: answer.status().as_u16(), index, body: answer.into_body() })
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
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
    body: Vec<u8>,
}

impl Answer {
    pub(crate) fn parsed<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| Failure::garbled(&error))
    }

    pub(crate) fn failure(&self) -> Failure {
        match self.status {
            // Whoever answered a call of Consul so is something else.
            200..300 => Failure::Refused(Error::invalid_argument("the endpoint is no Consul")),
            status => error::answer(status, &self.body),
        }
    }
}

fn mode(consistency: Consistency) -> Features {
    let mode = match consistency {
        Consistency::Linearizable => ConsistencyMode::CONSISTENT,
        Consistency::Stale => ConsistencyMode::STALE,
    };
    Features { mode: Some(mode), ..Features::default() }
}

/// The call that `consulrs` does not have. <https://developer.hashicorp.com/consul/api-docs/txn>
#[derive(Debug)]
struct TransactionRequest {
    body: Vec<u8>,
    consistency: Consistency,
}

impl Endpoint for TransactionRequest {
    type Response = ();
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        "txn".to_owned()
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::PUT
    }

    fn body(&self) -> Result<Option<Vec<u8>>, ClientError> {
        Ok(Some(self.body.clone()))
    }
}

impl FeaturedEndpoint for TransactionRequest {
    fn features(&self) -> Option<Features> {
        Some(mode(self.consistency))
    }
}

/// Sends requests, and takes every answer for an answer.
struct Transport {
    http: reqwest::Client,
    base: String,
}

#[async_trait]
impl Client for Transport {
    async fn send(&self, request: http::Request<Vec<u8>>) -> Result<http::Response<Vec<u8>>, ClientError> {
        let (method, url) = (request.method().to_string(), request.uri().to_string());
        let request =
            reqwest::Request::try_from(request).map_err(|source| ClientError::ReqwestBuildError { source })?;
        let answer = self.http.execute(request).await;
        let mut answer = answer.map_err(|error| ClientError::RequestError { source: error.into(), url, method })?;
        let mut head = http::Response::builder().status(answer.status());
        if let Some(headers) = head.headers_mut() {
            *headers = std::mem::take(answer.headers_mut());
        }
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(lost)? {
            if body.len() + piece.len() > MAX_ANSWER_BYTES {
                return Err(lost(AnswerTooLarge));
            }
            body.extend_from_slice(&piece);
        }
        head.body(body).map_err(lost)
    }

    fn base(&self) -> &str {
        &self.base
    }

    /// Without the look at the status that is usual there.
    async fn execute(&self, request: http::Request<Vec<u8>>) -> Result<http::Response<Vec<u8>>, ClientError> {
        self.send(request).await
    }
}

fn lost(error: impl std::error::Error + Send + Sync + 'static) -> ClientError {
    ClientError::ResponseError { source: error.into() }
}

/// An answer of more than [`MAX_ANSWER_BYTES`].
#[derive(Debug)]
pub(crate) struct AnswerTooLarge;

impl fmt::Display for AnswerTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an answer of more than {MAX_ANSWER_BYTES} bytes")
    }
}

impl std::error::Error for AnswerTooLarge {}
