//! From a URL to the configuration of a store on ZooKeeper.
//!
//! Everything is checked here: what is built is usable, but for certificates, which are read when the store is opened.
//! The password is never printed.

use std::time::Duration;

pub use storage_core::servers::TlsConfig;
use storage_core::{
    Error, Result,
    servers::{Dialect, Secret, ServerUrl, read_from_urls},
};

/// The schemes of URLs of this backend: in the clear, and with TLS (cargo feature `tls`, `zk-tls` in the facade).
pub const SCHEMES: &[&str] = &["zk", "zks"];

/// The parameters that such a URL may have.
pub const PARAMETERS: &[&str] = &["endpoint", "reads", "session_timeout", "ca", "cert", "key"];

const DIALECT: Dialect =
    Dialect { store: "ZooKeeper", schemes: ["zk", "zks"], default_port: 2181, parameters: PARAMETERS };

/// The node below which a store lives, if the URL names none.
const DEFAULT_ROOT: &str = "/storage";

/// The longest root, in bytes: each operation of a transaction carries it, and a request may have 1 MiB.
const MAX_ROOT_BYTES: usize = 256;

/// The usual [`ZkConfig::session_timeout`]. A server is given up after two fifths of it without an answer.
/// Servers with the usual settings accept 4 s to 40 s.
const DEFAULT_SESSION_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a ZooKeeper ensemble is, how to get in, and below which node the store lives.
///
/// As a URL: `zk://[user:password@]host[:port][,host[:port]...][/root][?parameters]`, `zks:` for TLS.
/// Since general URL parsers know one host only, further endpoints can be parameters as well: `?endpoint=host:port`.
/// With user and password (digest), the nodes of the store are for this user alone. The root is created if it is absent.
///
/// | parameter | |
/// |---|---|
/// | `endpoint` | one more `host:port`; may stand several times |
/// | `reads` | `quorum` (usual) or `sync`, see [`Reads`] |
/// | `session_timeout` | `5s`, `800ms`: a server that is silent for two fifths of this is given up; 5 s if not given |
/// | `ca` | file with the certificates (PEM) that may sign the servers' |
/// | `cert`, `key` | files with the client's own certificate and key (PEM), both or none |
///
/// ```
/// let config: storage_zk::ZkConfig = "zk://a:2181,b:2181,[::1]:2182/mainnet".parse()?;
/// assert_eq!(config.endpoints().collect::<Vec<_>>(), ["a:2181", "b:2181", "[::1]:2182"]);
/// assert_eq!(config.root(), "/mainnet");
/// # Ok::<(), storage_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZkConfig {
    endpoints: Vec<String>,
    credentials: Option<(String, Secret)>,
    tls: Option<TlsConfig>,
    root: String,
    reads: Reads,
    session_timeout: Duration,
}

/// What makes a linearizable read so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reads {
    /// An empty transaction goes through a majority before the read; reads that wait at the same time share one. The
    /// contract holds to the letter. It costs an entry in the servers' logs.
    #[default]
    Quorum,
    /// ZooKeeper's own `sync` goes before the read. Cheaper, and **not linearizable in one case**: a leader that was replaced and
    /// does not know it yet (it was stopped, or cut off, for less than `syncLimit` ticks) may answer with what was true
    /// before: <https://issues.apache.org/jira/browse/ZOOKEEPER-2136>.
    Sync,
}

impl ZkConfig {
    /// The ensemble with these endpoints, `host:port` each.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for no endpoint, too many, or one that is no `host:port`.
    pub fn new<S: AsRef<str>>(endpoints: impl IntoIterator<Item = S>) -> Result<Self> {
        let endpoints = DIALECT.endpoints(endpoints)?;
        Ok(Self {
            endpoints,
            credentials: None,
            tls: None,
            root: DEFAULT_ROOT.to_owned(),
            reads: Reads::default(),
            session_timeout: DEFAULT_SESSION_TIMEOUT,
        })
    }

    fn of(url: ServerUrl) -> Result<Self> {
        let mut config = Self::new(&url.endpoints)?;
        config.tls = url.tls()?;
        config.session_timeout = url.duration("session_timeout")?.unwrap_or(DEFAULT_SESSION_TIMEOUT);
        config.reads = match url.parameter("reads") {
            None | Some("quorum") => Reads::Quorum,
            Some("sync") => Reads::Sync,
            Some(other) => return Err(invalid(format!("`reads` is `quorum` or `sync`, not `{other}`"))),
        };
        if !url.path.is_empty() {
            let root = String::from_utf8(url.path).map_err(|_| invalid("the root in the URL is no UTF-8"))?;
            config = config.with_root(format!("/{root}"))?;
        }
        match url.user {
            Some(user) => Ok(config.with_credentials(user, url.password.unwrap_or_default())),
            None => Ok(config),
        }
    }

    /// This configuration, logging in as `user`, for whom alone the nodes of the store then are.
    #[must_use]
    pub fn with_credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some((user.into(), Secret::from(password.into())));
        self
    }

    /// This configuration with TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: TlsConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    /// This configuration, for the store below this node: `/mainnet`, `/storage/mainnet`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for what is no path of letters, digits, `-`, `_` and single dots, or is too long.
    pub fn with_root(mut self, root: impl Into<String>) -> Result<Self> {
        let root = root.into();
        let usable = |part: &str| {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            !part.is_empty() && part != "." && part != ".." && part.bytes().all(good)
        };
        let parts = root.strip_prefix('/').filter(|parts| parts.split('/').all(usable));
        if parts.is_none() || root.len() > MAX_ROOT_BYTES {
            return Err(invalid(format!(
                "a root is a path such as /storage/mainnet, of at most {MAX_ROOT_BYTES} letters, digits, `-`, `_` and `.`, not `{root}`"
            )));
        }
        if root == "/zookeeper" || root.starts_with("/zookeeper/") {
            return Err(invalid("the node /zookeeper is ZooKeeper's own"));
        }
        self.root = root;
        Ok(self)
    }

    /// This configuration with this session timeout.
    #[must_use]
    pub fn with_session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// The endpoints, `host:port` each.
    pub fn endpoints(&self) -> impl ExactSizeIterator<Item = &str> {
        self.endpoints.iter().map(String::as_str)
    }

    /// The hosts of the endpoints, an address of IPv6 without its brackets.
    #[cfg(feature = "tls")]
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &str> {
        self.endpoints().filter_map(|endpoint| endpoint.rsplit_once(':')).map(|(host, _)| host.trim_matches(['[', ']']))
    }

    /// The node below which the store lives.
    pub fn root(&self) -> &str {
        &self.root
    }

    pub(crate) fn credentials(&self) -> Option<&(String, Secret)> {
        self.credentials.as_ref()
    }

    pub(crate) fn tls(&self) -> Option<&TlsConfig> {
        self.tls.as_ref()
    }

    pub(crate) fn reads(&self) -> Reads {
        self.reads
    }

    pub(crate) fn session_timeout(&self) -> Duration {
        self.session_timeout
    }
}

read_from_urls!(ZkConfig, DIALECT);

fn invalid(reason: impl Into<String>) -> Error {
    Error::invalid_argument(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_with_everything_is_read() {
        let text =
            "zks://al%40ice:se%3Acret@a,b:2182/x/y?reads=sync&session_timeout=800ms&ca=/c&cert=/d&key=/e&endpoint=c:1";
        let config: ZkConfig = text.parse().unwrap();
        let tls = TlsConfig { ca: "/c".into(), identity: Some(("/d".into(), "/e".into())) };
        let expected = ZkConfig::new(["a:2181", "c:1", "b:2182"]).unwrap().with_credentials("al@ice", "se:cret");
        let expected = expected.with_tls(tls).with_root("/x/y").unwrap();
        let expected = expected.with_session_timeout(Duration::from_millis(800));
        assert_eq!(config, ZkConfig { reads: Reads::Sync, ..expected });
        assert!(!format!("{config:?}").contains("cret"));
    }

    #[test]
    fn a_url_with_little_has_the_usual_rest() {
        for text in ["zk://a", "zk://a:2181/", "zk://a:2181/storage?reads=quorum&session_timeout=5s"] {
            assert_eq!(text.parse::<ZkConfig>().unwrap(), ZkConfig::new(["a"]).unwrap(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, reason) in [
            ("etcd://a", "zk://"),
            ("zk://a/x//y", "a root is"),
            ("zk://a/x/", "a root is"),
            ("zk://a/%00", "a root is"),
            ("zk://a/zookeeper/x", "own"),
            ("zk://a?read=sync", "did you mean `reads`"),
            ("zk://a?reads=stale", "not `stale`"),
            ("zk://a?session_timeout=0s", "`ms` or `s`"),
            ("zks://a", "needs `ca`"),
        ] {
            let error = text.parse::<ZkConfig>().unwrap_err();
            assert!(
                matches!(error, Error::InvalidArgument { .. }) && error.to_string().contains(reason),
                "{text}: {error}"
            );
        }
    }
}
