use std::fmt;
use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::node::NodeContext;

/// One look at a node may take this long; a server that accepts and does not answer is not ready.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Health answers are a few hundred bytes; more than this is not one.
const MAX_ANSWER: u64 = 1024 * 1024;

type HttpPredicate = dyn Fn(&HttpAnswer, &NodeContext) -> bool + Send + Sync;
type TcpPredicate = dyn Fn(&str, &NodeContext) -> bool + Send + Sync;
type Look = dyn Fn(NodeContext) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync;

/// How one sees that a node serves. It is asked again and again until it says yes or the deadline has come.
#[derive(Clone)]
#[non_exhaustive]
pub enum Probe {
    /// The process runs.
    Running,
    /// `GET path` on a port, and the answer satisfies a predicate. See [`Probe::http`].
    Http {
        /// The port's name.
        port: String,
        /// The path, with its query.
        path: String,
        /// Whether this answer means ready.
        ready: Arc<HttpPredicate>,
    },
    /// A word is sent to a port, and the text that comes back satisfies a predicate. See [`Probe::tcp`].
    Tcp {
        /// The port's name.
        port: String,
        /// What is sent.
        word: String,
        /// Whether this answer means ready.
        ready: Arc<TcpPredicate>,
    },
    /// A look of the specification's own. See [`Probe::custom`].
    Custom(Arc<Look>),
    /// All of these.
    All(Vec<Probe>),
}

impl Probe {
    /// Ready when `GET path` on the port called `port` answers, and `ready` likes the answer.
    pub fn http(
        port: impl Into<String>,
        path: impl Into<String>,
        ready: impl Fn(&HttpAnswer, &NodeContext) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self::Http { port: port.into(), path: path.into(), ready: Arc::new(ready) }
    }

    /// Ready when the port called `port` answers `word`, and `ready` likes the text.
    pub fn tcp(
        port: impl Into<String>,
        word: impl Into<String>,
        ready: impl Fn(&str, &NodeContext) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self::Tcp { port: port.into(), word: word.into(), ready: Arc::new(ready) }
    }

    /// Ready when the future says so. It is dropped after a second and asked again.
    pub fn custom<F>(look: impl Fn(NodeContext) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        Self::Custom(Arc::new(move |node| Box::pin(look(node))))
    }

    /// Looks once.
    pub(super) async fn is_ready(&self, node: &NodeContext) -> bool {
        timeout(PROBE_TIMEOUT, self.look(node)).await.unwrap_or(false)
    }

    async fn look(&self, node: &NodeContext) -> bool {
        match self {
            Self::Running => true,
            Self::Http { port, path, ready } => {
                node.http_get(port, path).await.is_ok_and(|answer| ready(&answer, node))
            }
            Self::Tcp { port, word, ready } => node.tcp_word(port, word).await.is_ok_and(|text| ready(&text, node)),
            Self::Custom(look) => look(node.clone()).await,
            Self::All(probes) => {
                for probe in probes {
                    if !Box::pin(probe.look(node)).await {
                        return false;
                    }
                }
                true
            }
        }
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("Running"),
            Self::Http { port, path, .. } => write!(f, "Http({port}, {path})"),
            Self::Tcp { port, word, .. } => write!(f, "Tcp({port}, {word})"),
            Self::Custom(_) => f.write_str("Custom"),
            Self::All(probes) => f.debug_tuple("All").field(probes).finish(),
        }
    }
}

/// What a server answered to a `GET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The status, for example 200.
    pub status: u16,
    /// The body, with bytes that are not UTF-8 replaced.
    pub body: String,
}

/// `GET path` on a loopback port, without a deadline of its own.
///
/// # Errors
/// What the connection says, or `InvalidData` when the answer is not HTTP.
pub async fn http_get(port: u16, path: &str) -> io::Result<HttpAnswer> {
    http_get_from(Ipv4Addr::LOCALHOST, port, path).await
}

pub(super) async fn http_get_from(host: Ipv4Addr, port: u16, path: &str) -> io::Result<HttpAnswer> {
    // HTTP/1.0: the body ends with the connection, so nothing is chunked.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n");
    let text = exchange(host, port, &request).await?;
    parse_http(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer"))
}

/// Sends a word to a loopback port and reads until the server closes, as ZooKeeper's four-letter words want it.
///
/// # Errors
/// What the connection says.
pub async fn tcp_word(port: u16, word: &str) -> io::Result<String> {
    exchange(Ipv4Addr::LOCALHOST, port, word).await
}

pub(super) async fn exchange(host: Ipv4Addr, port: u16, request: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect((host, port)).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn parse_http(text: &str) -> Option<HttpAnswer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(HttpAnswer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_http_answer_is_status_and_body() {
        let answer = parse_http("HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\n{\"health\":\"false\"}").unwrap();
        assert_eq!(answer, HttpAnswer { status: 503, body: "{\"health\":\"false\"}".to_owned() });
    }

    #[test]
    fn what_is_not_http_is_refused() {
        for text in ["", "imok", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 many\r\n\r\n", "SSH-2.0 200\r\n\r\n"] {
            assert_eq!(parse_http(text), None, "{text:?}");
        }
    }
}
