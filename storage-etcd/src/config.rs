//! From a URL to the configuration of a store on etcd.
//!
//! Everything is checked here: what is built is usable, but for certificates, which are read when the store is opened.
//! The password is never printed.

use std::{path::PathBuf, time::Duration};

use storage_core::{
    Error, Key, Result,
    servers::{Dialect, Secret, ServerUrl, read_from_urls},
};

/// The schemes of URLs of this backend: in the clear, and with TLS.
pub const SCHEMES: &[&str] = &["etcd", "etcds"];

/// The parameters that such a URL may have.
pub const PARAMETERS: &[&str] = &["endpoint", "ca", "cert", "key", "server_name", "connect_timeout"];

const DIALECT: Dialect =
    Dialect { store: "etcd", schemes: ["etcd", "etcds"], default_port: 2379, parameters: PARAMETERS };

/// How long an attempt to connect may take if the URL does not say: many round trips on any network, and short against the usual deadline of a
/// call, so that a server that is cut off leaves time for the others.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Where an etcd cluster is, and how to get in.
///
/// As a URL: `etcd://[user:password@]host[:port][,host[:port]...][/prefix][?parameters]`, `etcds:` for TLS.
/// Since general URL parsers know one host only, further endpoints can be parameters as well: `?endpoint=host:port`.
/// Reserved characters in user, password and prefix are percent-encoded. With a prefix, the store is the namespace of keys
/// that begin with it.
///
/// | parameter | |
/// |---|---|
/// | `endpoint` | one more `host:port`; may stand several times |
/// | `ca` | file with the certificates (PEM) that may sign those of the servers; needed for TLS, since those of the system are never asked |
/// | `cert`, `key` | files with the client's own certificate and key (PEM), both or none |
/// | `server_name` | the name that the servers' certificates must have, if not their host |
/// | `connect_timeout` | `250ms`, `2s`: how long one attempt to connect may take, TLS and log-in included; 1 s if not given |
///
/// ```
/// let config: storage_etcd::EtcdConfig = "etcd://a:2379,b:2379,[::1]:2380/mainnet/".parse()?;
/// assert_eq!(config.endpoints().collect::<Vec<_>>(), ["a:2379", "b:2379", "[::1]:2380"]);
/// # Ok::<(), storage_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdConfig {
    endpoints: Vec<String>,
    credentials: Option<(String, Secret)>,
    tls: Option<TlsConfig>,
    connect_timeout: Duration,
    prefix: Option<Key>,
}

/// Which servers to trust, and who to be for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// The file with the certificates that may sign the servers' certificates, in PEM. Those of the system are never
    /// asked, so that without this no server is trusted.
    pub ca: Option<PathBuf>,
    /// The files with the client's certificate and its key, in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that the servers' certificates must have, if not the host of the endpoint.
    pub server_name: Option<String>,
}

impl EtcdConfig {
    /// The cluster with these endpoints, `host:port` each.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for no endpoint, too many, or one that is no `host:port`.
    pub fn new<S: AsRef<str>>(endpoints: impl IntoIterator<Item = S>) -> Result<Self> {
        let endpoints = DIALECT.endpoints(endpoints)?;
        Ok(Self { endpoints, credentials: None, tls: None, connect_timeout: DEFAULT_CONNECT_TIMEOUT, prefix: None })
    }

    fn of(url: ServerUrl) -> Result<Self> {
        let prefix = if url.path.is_empty() { None } else { Some(Key::new(url.path.clone())?) };
        Ok(Self {
            tls: tls(&url)?,
            connect_timeout: url.duration("connect_timeout")?.unwrap_or(DEFAULT_CONNECT_TIMEOUT),
            credentials: url.user.map(|user| (user, Secret::from(url.password.unwrap_or_default()))),
            prefix,
            endpoints: url.endpoints,
        })
    }

    /// This configuration, logging in as `user`.
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

    /// The endpoints, `host:port` each.
    pub fn endpoints(&self) -> impl ExactSizeIterator<Item = &str> {
        self.endpoints.iter().map(String::as_str)
    }

    pub(crate) fn credentials(&self) -> Option<&(String, Secret)> {
        self.credentials.as_ref()
    }

    pub(crate) fn tls(&self) -> Option<&TlsConfig> {
        self.tls.as_ref()
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    pub(crate) fn prefix(&self) -> Option<&Key> {
        self.prefix.as_ref()
    }
}

read_from_urls!(EtcdConfig, DIALECT);

/// Which servers to trust, for a URL with TLS.
fn tls(url: &ServerUrl) -> Result<Option<TlsConfig>> {
    let server_name = url.parameter("server_name").map(str::to_owned);
    match url.tls()? {
        Some(tls) => Ok(Some(TlsConfig { ca: Some(tls.ca), identity: tls.identity, server_name })),
        None if server_name.is_some() => Err(Error::invalid_argument("`server_name` needs the scheme `etcds`")),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    #[test]
    fn everything_has_its_place() {
        let url = "etcds://us%40er:p%3Aw@a,b:7/main%00net/?ca=/c&cert=c&key=k&server_name=n&connect_timeout=250ms";
        let config: EtcdConfig = url.parse().unwrap();
        let identity = Some(("c".into(), "k".into()));
        let tls = TlsConfig { ca: Some("/c".into()), identity, server_name: Some("n".to_owned()) };
        let expected = EtcdConfig::new(["a:2379", "b:7"]).unwrap().with_credentials("us@er", "p:w").with_tls(tls);
        let (prefix, connect_timeout) = (Some(Key::new("main\0net/").unwrap()), Duration::from_millis(250));
        assert_eq!(config, EtcdConfig { prefix, connect_timeout, ..expected });
        assert!(!format!("{config:?}").contains("p:w"), "a password is never shown");
        assert_eq!("etcd://a".parse::<EtcdConfig>().unwrap(), EtcdConfig::new(["a"]).unwrap());
        let by_general_parser = Url::parse("etcd://a,b:7?endpoint=c:8").unwrap();
        assert_eq!(EtcdConfig::try_from(&by_general_parser).unwrap().endpoints, ["a:2379", "b:7", "c:8"]);
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_reason() {
        for (url, reason) in [
            ("http://a:2379", "begins with etcd://"),
            ("etcd://a?conect_timeout=1s", "did you mean `connect_timeout`?"),
            ("etcd://a?connect_timeout=1", "`ms` or `s`"),
            ("etcd://a?server_name=x", "needs the scheme `etcds`"),
            ("etcds://a", "needs `ca`"),
        ] {
            let error = url.parse::<EtcdConfig>().expect_err(url).to_string();
            assert!(error.contains(reason), "{url}: {error}");
        }
    }
}
