//! URLs of stores on servers: the grammar that all such backends share, so that a user who knows one knows all.
//!
//! `scheme://[user[:password]@]host[:port][,host[:port]...][/path][?name=value&...]`. General URL parsers know one host only: further
//! ones can be parameters as well, `?endpoint=host:port`. Reserved characters are percent-encoded.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use percent_encoding::percent_decode_str;
use url::Url;

use crate::{Error, Result};

/// The most endpoints: more than members of any sensible cluster.
pub const MAX_ENDPOINTS: usize = 32;

/// The parameter that names one more endpoint, and may stand several times.
const ENDPOINT: &str = "endpoint";

/// What a backend's URLs have of their own.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    /// The store's name in messages: `etcd`.
    pub store: &'static str,
    /// The scheme in the clear, and that with TLS.
    pub schemes: [&'static str; 2],
    /// The port of an endpoint that names none.
    pub default_port: u16,
    /// The names of all parameters, `endpoint` among them.
    pub parameters: &'static [&'static str],
}

/// A URL that has been read, but for what its parameters mean.
#[derive(Clone)]
pub struct ServerUrl {
    /// `host:port` each, in the order of the URL.
    pub endpoints: Vec<String>,
    /// What stands before the `@`.
    pub user: Option<String>,
    /// What stands behind the user's colon.
    pub password: Option<String>,
    /// Whether the scheme is that with TLS.
    pub secure: bool,
    /// What stands behind the endpoints, without slashes in front: any bytes.
    pub path: Vec<u8>,
    parameters: BTreeMap<String, String>,
    dialect: Dialect,
}

/// Which servers to trust, and who to be for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// The file with the certificates that may sign the servers' certificates, in PEM. Those of the system are never asked.
    pub ca: PathBuf,
    /// The files with the client's certificate and its key, in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A password or a token: `Debug` does not show it, so that what has one can be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the server alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// Makes `FromStr` and `TryFrom<&Url>` of a configuration that has a function `of(ServerUrl)`.
#[doc(hidden)]
#[macro_export]
macro_rules! __read_from_urls {
    ($config:ty, $dialect:expr) => {
        impl ::std::str::FromStr for $config {
            type Err = $crate::Error;

            fn from_str(text: &str) -> $crate::Result<Self> {
                Self::of($dialect.parse(text)?)
            }
        }

        impl ::std::convert::TryFrom<&::url::Url> for $config {
            type Error = $crate::Error;

            fn try_from(url: &::url::Url) -> $crate::Result<Self> {
                Self::of($dialect.read(url)?)
            }
        }
    };
}

impl Dialect {
    /// Reads a URL with any number of hosts.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with what is wrong, and the nearest known parameter for one that is not known.
    pub fn parse(&self, text: &str) -> Result<ServerUrl> {
        let store = self.store;
        if !text.contains("://") {
            return Err(invalid(format!("no URL of {store} (no `://`)")));
        }
        let url = parse_hosts(text).map_err(|error| invalid(format!("no URL of {store} ({error})")))?;
        self.read(&url)
    }

    /// Reads a URL that a general parser has taken apart.
    ///
    /// # Errors
    /// As [`Dialect::parse`].
    pub fn read(&self, url: &Url) -> Result<ServerUrl> {
        let Self { store, schemes: [plain, with_tls], .. } = self;
        if ![plain, with_tls].contains(&&url.scheme()) {
            let scheme = url.scheme();
            return Err(invalid(format!("a URL of {store} begins with {plain}:// or {with_tls}://, not {scheme}://")));
        }
        if url.fragment().is_some() {
            return Err(invalid(format!("a URL of {store} has no fragment")));
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| invalid("the URL names no host"))?;
        // A general parser takes hosts side by side for one, as long as only the last has a port.
        let hosts = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let more = url.query_pairs().filter(|(name, _)| name == ENDPOINT).map(|(_, value)| value.into_owned());
        let endpoints = self.endpoints(hosts.split(',').map(str::to_owned).chain(more))?;
        let user = Some(url.username()).filter(|user| !user.is_empty());
        // `scheme://:password@host` parses, and would log in as nobody.
        if user.is_none() && url.password().is_some() {
            return Err(invalid("the URL has a password and no user"));
        }
        Ok(ServerUrl {
            endpoints,
            user: user.map(|user| decoded("user", user)).transpose()?,
            password: url.password().map(|password| decoded("password", password)).transpose()?,
            secure: url.scheme() == *with_tls,
            path: percent_decode_str(url.path().trim_start_matches('/')).collect(),
            parameters: self.parameters(url)?,
            dialect: *self,
        })
    }

    /// Endpoints in their usual form, `host:port` each.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for no endpoint, more than [`MAX_ENDPOINTS`], or one that is no `host:port`.
    pub fn endpoints<S: AsRef<str>>(&self, texts: impl IntoIterator<Item = S>) -> Result<Vec<String>> {
        let endpoints = texts.into_iter().map(|text| self.endpoint(text.as_ref())).collect::<Result<Vec<_>>>()?;
        if !(1..=MAX_ENDPOINTS).contains(&endpoints.len()) {
            return Err(invalid(format!("1 to {MAX_ENDPOINTS} endpoints are possible, not {}", endpoints.len())));
        }
        Ok(endpoints)
    }

    fn endpoint(&self, text: &str) -> Result<String> {
        let no_endpoint = || invalid(format!("an endpoint is host:port, not `{text}`"));
        let url = Url::parse(&format!("http://{text}")).map_err(|_| no_endpoint())?;
        let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.path() == "/";
        let host = url.host_str().filter(|_| plain).ok_or_else(no_endpoint)?;
        // The general parser hides the default port of http.
        match url.port().unwrap_or(if text.ends_with(":80") { 80 } else { self.default_port }) {
            0 => Err(no_endpoint()),
            port => Ok(format!("{host}:{port}")),
        }
    }

    fn parameters(&self, url: &Url) -> Result<BTreeMap<String, String>> {
        let mut parameters = BTreeMap::new();
        for (name, value) in url.query_pairs().filter(|(name, _)| name != ENDPOINT) {
            if !self.parameters.contains(&name.as_ref()) {
                return Err(self.unknown_parameter(&name));
            }
            if parameters.insert(name.to_string(), value.into_owned()).is_some() {
                return Err(invalid(format!("the parameter `{name}` stands twice")));
            }
        }
        Ok(parameters)
    }

    fn unknown_parameter(&self, name: &str) -> Error {
        let (hint, all) = (did_you_mean(name, self.parameters.iter().copied()), self.parameters.join(", "));
        invalid(format!("a URL of {} has no parameter `{name}`{hint} (it has {all})", self.store))
    }
}

impl ServerUrl {
    /// A parameter's value.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// A parameter that is a time: a whole number above 0 with `ms` or `s`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for anything else.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>> {
        let Some(text) = self.parameter(name) else { return Ok(None) };
        let number = |digits: &str| digits.parse().ok().filter(|number| *number > 0);
        let duration = match text.strip_suffix("ms") {
            Some(digits) => number(digits).map(Duration::from_millis),
            None => text.strip_suffix('s').and_then(number).map(Duration::from_secs),
        };
        let duration = duration.ok_or_else(|| invalid(format!("`{name}` is a number with `ms` or `s`, not `{text}`")));
        duration.map(Some)
    }

    /// The parameters `ca`, `cert` and `key`, which go with the scheme for TLS. `None` without it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if one is missing, or stands in a URL without TLS.
    pub fn tls(&self) -> Result<Option<TlsConfig>> {
        let [_, with_tls] = self.dialect.schemes;
        let path = |name| self.parameter(name).map(PathBuf::from);
        let identity = match (path("cert"), path("key")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(invalid("`cert` and `key` go together")),
        };
        match (self.secure, path("ca")) {
            (true, Some(ca)) => Ok(Some(TlsConfig { ca, identity })),
            (true, None) => Err(invalid(format!("`{with_tls}` needs `ca`, a file with the certificates to trust"))),
            (false, None) if identity.is_none() => Ok(None),
            (false, _) => Err(invalid(format!("`ca`, `cert` and `key` need the scheme `{with_tls}`"))),
        }
    }
}

/// Without what may be secret: some stores have a token for a user.
impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ServerUrl");
        shown.field("store", &self.dialect.store).field("secure", &self.secure).field("endpoints", &self.endpoints);
        shown.field("path", &self.path).field("parameters", &self.parameters).finish_non_exhaustive()
    }
}

/// Parses a URL that may name several hosts, side by side: all but the first become parameters `endpoint`, since general parsers know
/// one host only.
///
/// # Errors
/// Those of [`Url::parse`].
pub fn parse_hosts(text: &str) -> Result<Url, url::ParseError> {
    let Some((scheme, rest)) = text.split_once("://") else { return Url::parse(text) };
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // A password may have an `@` of its own: the last one ends it.
    let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    let mut hosts = hosts.split(',');
    let first = hosts.next().unwrap_or_default();
    let mut url = Url::parse(&format!("{scheme}://{user}{first}{tail}"))?;
    for host in hosts {
        url.query_pairs_mut().append_pair(ENDPOINT, host);
    }
    Ok(url)
}

/// `, did you mean ...?` with the nearest of the words, if one is near enough to have been meant.
pub fn did_you_mean<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> String {
    /// Below this likeness (Jaro-Winkler, 0 to 1) a suggestion is more likely to confuse than to help.
    const NEAR: f64 = 0.75;
    let likeness = |known: &&str| strsim::jaro_winkler(word, known);
    let nearest = words.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|known| likeness(known) > NEAR);
    nearest.map_or_else(String::new, |known| format!(", did you mean `{known}`?"))
}

/// The bytes of a file with certificates or a key, in PEM.
///
/// # Errors
/// [`Error::InvalidArgument`] if it cannot be read.
pub async fn read_pem(path: &Path) -> Result<Vec<u8>> {
    let file = tokio::fs::read(path).await;
    file.map_err(|error| invalid(format!("cannot read {}: {error}", path.display())))
}

fn decoded(what: &str, text: &str) -> Result<String> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(String::from).map_err(|_| invalid(format!("the {what} in the URL is no UTF-8")))
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::invalid_argument(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIALECT: Dialect = Dialect {
        store: "Shelf",
        schemes: ["shelf", "shelves"],
        default_port: 7000,
        parameters: &[ENDPOINT, "ca", "cert", "key", "patience"],
    };

    #[test]
    fn endpoints_stand_side_by_side_or_as_parameters() {
        for url in [
            "shelf://a:7000,b:7000,c:7000",
            "shelf://a:7000/?endpoint=b:7000&endpoint=c:7000",
            "shelf://a,b,c",
            "shelf://user@a,b,c:7000",
            "shelf://a:7000,b,c:7000?patience=1s",
        ] {
            assert_eq!(DIALECT.parse(url).unwrap().endpoints, ["a:7000", "b:7000", "c:7000"], "{url}");
        }
        assert_eq!(DIALECT.parse("shelf://[::1]:80,10.0.0.1:5").unwrap().endpoints, ["[::1]:80", "10.0.0.1:5"]);
        let by_general_parser = Url::parse("shelf://a,b:7?endpoint=c:8").unwrap();
        assert_eq!(DIALECT.read(&by_general_parser).unwrap().endpoints, ["a:7000", "b:7", "c:8"]);
    }

    #[test]
    fn everything_has_its_place() {
        let url = "shelves://us%40er:p%3Aw@a/main%00net/?ca=/c a&cert=c&key=k&patience=250ms";
        let url = DIALECT.parse(url).unwrap();
        assert_eq!((url.user.as_deref(), url.password.as_deref()), (Some("us@er"), Some("p:w")));
        assert_eq!(url.path, b"main\0net/");
        assert!(!format!("{url:?}").contains("p:w"), "a password is never shown");
        assert_eq!(url.duration("patience").unwrap(), Some(Duration::from_millis(250)));
        let identity = Some(("c".into(), "k".into()));
        assert_eq!(url.tls().unwrap(), Some(TlsConfig { ca: "/c a".into(), identity }));
        let bare = DIALECT.parse("shelf://a").unwrap();
        assert!(!bare.secure && bare.user.is_none() && bare.path.is_empty());
        assert_eq!((bare.tls().unwrap(), bare.duration("patience").unwrap()), (None, None));
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::from("p:w".to_owned());
        assert_eq!((secret.reveal(), format!("{secret:?}").as_str()), ("p:w", ".."));
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_reason() {
        for (url, reason) in [
            ("a:7000", "no URL of Shelf"),
            ("http://a:7000", "begins with shelf:// or shelves://"),
            ("shelf://", "no host"),
            ("shelf://a:99999", "no URL"),
            ("shelf://a?endpoint=b:c", "host:port, not `b:c`"),
            ("shelf://a?endpoint=b/c", "host:port"),
            ("shelf://a?endpoint=b:0", "host:port"),
            ("shelf://a?patients=1s", "did you mean `patience`?"),
            ("shelf://a?zzz=1", "it has endpoint, ca"),
            ("shelf://a?patience=1s&patience=2s", "stands twice"),
            ("shelf://:pw@a", "no user"),
            ("shelf://%ff@a", "no UTF-8"),
            ("shelf://a#x", "no fragment"),
        ] {
            let error = DIALECT.parse(url).expect_err(url).to_string();
            assert!(error.contains(reason), "{url}: {error}");
        }
        for (url, reason) in [
            ("shelf://a?ca=x", "need the scheme `shelves`"),
            ("shelf://a?cert=x&key=y", "need the scheme `shelves`"),
            ("shelves://a", "needs `ca`"),
            ("shelves://a?ca=x&cert=y", "go together"),
        ] {
            let error = DIALECT.parse(url).unwrap().tls().expect_err(url).to_string();
            assert!(error.contains(reason), "{url}: {error}");
        }
        for patience in ["1", "0s", "-1s", "s", "1m"] {
            let url = DIALECT.parse(&format!("shelf://a?patience={patience}")).unwrap();
            assert!(url.duration("patience").unwrap_err().to_string().contains("`ms` or `s`"), "{patience}");
        }
        assert!(DIALECT.endpoints(Vec::<String>::new()).is_err());
        assert!(DIALECT.endpoints(["a"; MAX_ENDPOINTS + 1]).is_err());
    }
}
