//! From a URL to the configuration of a store on Consul.
//!
//! Everything is checked here: what is built is usable, but for certificates, which are read when the store is opened.
//! The token is never printed.

use std::time::Duration;

pub use storage_core::servers::TlsConfig;
use storage_core::{
    Error, Key, Result,
    servers::{Dialect, Secret, ServerUrl, read_from_urls},
};

/// The schemes of URLs of this backend: in the clear, and with TLS.
pub const SCHEMES: &[&str] = &["consul", "consuls"];

/// The parameters that such a URL may have.
pub const PARAMETERS: &[&str] = &["endpoint", "folder", "ca", "cert", "key", "server_name", "connect_timeout"];

const DIALECT: Dialect =
    Dialect { store: "Consul", schemes: ["consul", "consuls"], default_port: 8500, parameters: PARAMETERS };

/// The folder of the KV store that a store lies in, if the configuration names none.
const DEFAULT_FOLDER: &str = "storage";

/// The longest name of a folder: each key of a transaction has it in front, and the limit of bytes reckons with so many.
const MAX_FOLDER_BYTES: usize = 64;

/// How long an attempt to connect may take if the URL does not say: many round trips on any network, and short against the usual deadline of a
/// call, so that a server that is cut off leaves time for the others.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Where a Consul cluster is, and how to get in.
///
/// As a URL: `consul://[token@]host[:port][,host[:port]...][/prefix][?parameters]`, `consuls:` for TLS.
/// Since general URL parsers know one host only, further endpoints can be parameters as well: `?endpoint=host:port`.
/// Reserved characters in token and prefix are percent-encoded. With a prefix, the store is the namespace of keys
/// that begin with it.
///
/// | parameter | |
/// |---|---|
/// | `endpoint` | one more `host:port`; may stand several times |
/// | `folder` | the folder of Consul's KV store that all keys lie in; `storage` if not given |
/// | `ca` | file with the certificates (PEM) that may sign those of the servers; needed for TLS, since those of the system are never asked |
/// | `cert`, `key` | files with the client's own certificate and key (PEM), both or none |
/// | `server_name` | the name that the servers' certificates must have, if not their host: `server.dc1.consul` for those that Consul makes |
/// | `connect_timeout` | `250ms`, `2s`: how long one attempt to connect may take, TLS included; 1 s if not given |
///
/// ```
/// let config: storage_consul::ConsulConfig = "consul://a:8500,b:8500,[::1]:8501/mainnet/".parse()?;
/// assert_eq!(config.endpoints().collect::<Vec<_>>(), ["a:8500", "b:8500", "[::1]:8501"]);
/// # Ok::<(), storage_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulConfig {
    endpoints: Vec<String>,
    folder: String,
    token: Option<Secret>,
    tls: Option<TlsConfig>,
    server_name: Option<String>,
    connect_timeout: Duration,
    prefix: Option<Key>,
}

impl ConsulConfig {
    /// The cluster with these endpoints, `host:port` each.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for no endpoint, too many, or one that is no `host:port`.
    pub fn new<S: AsRef<str>>(endpoints: impl IntoIterator<Item = S>) -> Result<Self> {
        let endpoints = DIALECT.endpoints(endpoints)?;
        Ok(Self {
            endpoints,
            folder: DEFAULT_FOLDER.to_owned(),
            token: None,
            tls: None,
            server_name: None,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            prefix: None,
        })
    }

    fn of(url: ServerUrl) -> Result<Self> {
        if url.password.is_some() {
            return Err(invalid("a URL of Consul has a token and no password"));
        }
        let mut config = Self::new(&url.endpoints)?;
        config.tls = url.tls()?;
        config.server_name = url.parameter("server_name").map(str::to_owned);
        if config.server_name.is_some() && config.tls.is_none() {
            return Err(invalid("`server_name` needs the scheme `consuls`"));
        }
        config.connect_timeout = url.duration("connect_timeout")?.unwrap_or(DEFAULT_CONNECT_TIMEOUT);
        if let Some(folder) = url.parameter("folder") {
            config = config.with_folder(folder)?;
        }
        if !url.path.is_empty() {
            config.prefix = Some(Key::new(url.path)?);
        }
        match url.user {
            Some(token) => config.with_token(token),
            None => Ok(config),
        }
    }

    /// This configuration, with its keys in the folder of this name.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for anything but 1 to 64 letters, digits, `-`, `_` and `.`, the first a letter or digit.
    pub fn with_folder(mut self, name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        let begins = name.starts_with(|first: char| first.is_ascii_alphanumeric());
        if !(plain && begins && name.len() <= MAX_FOLDER_BYTES) {
            let form =
                format!("1 to {MAX_FOLDER_BYTES} letters, digits, `-`, `_` and `.`, the first a letter or digit");
            return Err(invalid(format!("a folder has {form}: not `{name}`")));
        }
        self.folder = name;
        Ok(self)
    }

    /// This configuration with a token of Consul's access control.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a token that is not of visible ASCII.
    pub fn with_token(mut self, token: impl Into<String>) -> Result<Self> {
        let token = token.into();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(invalid("a token is of visible ASCII characters"));
        }
        self.token = Some(Secret::from(token));
        Ok(self)
    }

    /// This configuration with TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: TlsConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    /// This configuration, with the name that the servers' certificates must have, if not the host of the endpoint.
    #[must_use]
    pub fn with_server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// The endpoints, `host:port` each.
    pub fn endpoints(&self) -> impl ExactSizeIterator<Item = &str> {
        self.endpoints.iter().map(String::as_str)
    }

    pub(crate) fn folder(&self) -> &str {
        &self.folder
    }

    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_ref().map(Secret::reveal)
    }

    pub(crate) fn tls(&self) -> Option<&TlsConfig> {
        self.tls.as_ref()
    }

    pub(crate) fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    pub(crate) fn prefix(&self) -> Option<&Key> {
        self.prefix.as_ref()
    }
}

read_from_urls!(ConsulConfig, DIALECT);

fn invalid(reason: impl Into<String>) -> Error {
    Error::invalid_argument(reason)
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    #[test]
    fn everything_has_its_place() {
        let url =
            "consuls://se%2Fcret@a,b:7/main%00net/?folder=pay&ca=/c&cert=c&key=k&server_name=n&connect_timeout=250ms";
        let config: ConsulConfig = url.parse().unwrap();
        let tls = TlsConfig { ca: "/c".into(), identity: Some(("c".into(), "k".into())) };
        let expected = ConsulConfig::new(["a:8500", "b:7"])
            .unwrap()
            .with_token("se/cret")
            .unwrap()
            .with_tls(tls)
            .with_server_name("n");
        let expected = expected.with_folder("pay").unwrap();
        let (prefix, connect_timeout) = (Some(Key::new("main\0net/").unwrap()), Duration::from_millis(250));
        assert_eq!(config, ConsulConfig { prefix, connect_timeout, ..expected });
        assert!(!format!("{config:?}").contains("cret"), "a token is never shown");
        assert_eq!("consul://a".parse::<ConsulConfig>().unwrap(), ConsulConfig::new(["a"]).unwrap());
        assert_eq!(config.folder(), "pay");
        assert_eq!("consul://a".parse::<ConsulConfig>().unwrap().folder(), "storage");
        let by_general_parser = Url::parse("consul://a,b:7?endpoint=c:8").unwrap();
        assert_eq!(ConsulConfig::try_from(&by_general_parser).unwrap().endpoints, ["a:8500", "b:7", "c:8"]);
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_reason() {
        for (url, reason) in [
            ("http://a:8500", "begins with consul://"),
            ("consul://a?foldr=1s", "did you mean `folder`?"),
            ("consul://a?connect_timeout=0s", "`ms` or `s`"),
            ("consul://a?server_name=n", "needs the scheme `consuls`"),
            ("consul://a?folder=", "letters, digits"),
            ("consul://a?folder=..", "letters, digits"),
            ("consul://a?folder=x/y", "letters, digits"),
            ("consul://t%20oken@a", "visible ASCII"),
            ("consul://user:pw@a", "no password"),
            ("consuls://a", "needs `ca`"),
        ] {
            let error = url.parse::<ConsulConfig>().expect_err(url).to_string();
            assert!(error.contains(reason), "{url}: {error}");
        }
    }
}
