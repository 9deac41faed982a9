//! URLs of nodes: scheme, host and port, and nothing else.
//!
//! The identity leaves the scheme out, as ids of nodes are made of it and must stay when TLS is turned on.

use std::{fmt, net::IpAddr, str::FromStr};

use url::Url;

/// Where a node is reached, by clients or by other nodes: `http://host:port`, or `https://host:port` with TLS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeUrl {
    host: String,
    port: u16,
    is_tls: bool,
}

impl NodeUrl {
    /// `http://` this host and port. An IPv6 address is written in brackets.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, is_tls: false }
    }

    /// The same with `https://`.
    #[must_use]
    pub fn with_tls(self) -> Self {
        Self { is_tls: true, ..self }
    }

    /// Whether TLS is spoken there.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Whether nobody reaches it from another machine.
    pub fn is_loopback(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        host.parse::<IpAddr>().map_or(host == "localhost", |address| address.is_loopback())
    }

    /// The host: a name or an address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// What stays the same when TLS is turned on: `http://host:port`. The ids of nodes are made of it.
    pub fn identity(&self) -> String {
        format!("http://{}:{}", self.host, self.port)
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl FromStr for NodeUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = |why: &str| format!("`{text}` {why}: it is written http://HOST:PORT or https://HOST:PORT");
        let (rest, is_tls) = match text.split_once("://") {
            Some(("http", rest)) => (rest, false),
            Some(("https", rest)) => (rest, true),
            Some(_) => return Err(wanted("has another scheme")),
            None => return Err(wanted("is no URL")),
        };
        let url = Url::parse(text).map_err(|error| wanted(&format!("is no URL ({error})")))?;
        let plain = url.username().is_empty() && url.password().is_none() && matches!(url.path(), "/" | "");
        if !plain || url.query().is_some() || url.fragment().is_some() {
            return Err(wanted("has more than host and port"));
        }
        // The parser drops the port that HTTP has anyway, so it is read from the text.
        let port = rest.trim_end_matches('/').rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        match (url.host_str(), port) {
            (Some(host), Some(port)) if port > 0 => Ok(Self { host: host.to_owned(), port, is_tls }),
            _ => Err(wanted("has no port")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_host_and_a_port() {
        for (text, host, port) in [
            ("http://10.0.1.1:2379", "10.0.1.1", 2379),
            ("http://node-1.example:80/", "node-1.example", 80),
            ("http://[::1]:2380", "[::1]", 2380),
            ("https://a:443", "a", 443),
        ] {
            let url: NodeUrl = text.parse().unwrap();
            assert_eq!((url.host(), url.port()), (host, port), "{text}");
            assert_eq!(url.to_string(), text.trim_end_matches('/'));
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_reason() {
        for (text, expected) in [
            ("10.0.1.1:2379", "is no URL: it is written http://HOST:PORT"),
            ("tcp://a:1", "another scheme"),
            ("https://a", "has no port"),
            ("http://a", "has no port"),
            ("http://a:0", "has no port"),
            ("http://a:70000", "is no URL"),
            ("http://:80", "is no URL"),
            ("http://a:1/x", "more than host and port"),
            ("http://u@a:1", "more than host and port"),
            ("http://a:1?x", "more than host and port"),
        ] {
            let reason = text.parse::<NodeUrl>().unwrap_err();
            assert!(reason.contains(expected), "{text}: {reason}");
        }
    }
}
