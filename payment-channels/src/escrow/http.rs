//! JSON-RPC to a node by plain HTTP, with a bound on what it may answer.
//!
//! There is no TLS here, and there will be none: whoever needs it has an HTTP client of his own.

use std::time::Duration;

use async_trait::async_trait;
use storage_core::Cause;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::JsonRpc;

/// A node at an `http:` address, such as one on the same machine or in the same private network. A connection a request.
///
/// There is no TLS here: for a node behind `https:` implement [`JsonRpc`] with the HTTP client that the service has anyway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpNode {
    /// HOST:PORT
    authority: String,
    path: String,
}

/// The longest answer, in bytes: one to a batch of two calls has some hundred.
const MAX_ANSWER: u64 = 1 << 20;

impl HttpNode {
    /// The node at `http://HOST:PORT` or `http://HOST:PORT/PATH`; `None`: it is no such address.
    pub fn new(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("http://")?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        let has_port =
            authority.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        (has_port && is_plain(authority) && is_plain(path))
            .then(|| Self { authority: authority.to_owned(), path: format!("/{path}") })
    }
}

#[async_trait]
impl JsonRpc for HttpNode {
    async fn post(&self, body: String, timeout: Duration) -> Result<String, Cause> {
        let Self { authority, path } = self;
        let exchange = async {
            let mut stream = TcpStream::connect(authority).await?;
            // Of version 1.0: the answer then ends with the connection, and comes in one piece.
            let head = format!(
                "POST {path} HTTP/1.0\r\nHost: {authority}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await?;
            let mut answer = Vec::new();
            stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = tokio::time::timeout(timeout, exchange).await.map_err(|_| "it did not answer in time")??;
        let answer = String::from_utf8(answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("it did not answer with HTTP")?;
        let status = head.lines().next().unwrap_or_default();
        match status.split(' ').nth(1) {
            Some("200") => Ok(body.to_owned()),
            _ => Err(format!("it answered {status:?}").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_nodes_are_read() {
        let node = HttpNode::new("http://127.0.0.1:8545").unwrap();
        assert_eq!((node.authority.as_str(), node.path.as_str()), ("127.0.0.1:8545", "/"));
        assert_eq!(HttpNode::new("http://node:80/v3/key").unwrap().path, "/v3/key");
        for url in ["https://node:443", "http://node", "http://:80", "node:80", "http://a:80/ HTTP/1.0\r\nX: y"] {
            assert_eq!(HttpNode::new(url), None, "{url}");
        }
    }
}
