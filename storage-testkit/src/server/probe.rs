//! How one sees that a node serves.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::http::HttpAnswer;
use super::node::NodeContext;

/// One look at a node may take this long; a server that accepts and does not answer is not ready.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

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
