//! One question to a port of a node, and its answer: as much of HTTP as health checks need, and no connection that is kept.

use std::io;
use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Health answers are a few hundred bytes; more than this is not one.
const MAX_ANSWER: u64 = 1024 * 1024;

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

/// A request with a body, and with more headers, on a loopback port, without a deadline of its own.
///
/// # Errors
/// As [`http_get`].
pub async fn http_send(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<HttpAnswer> {
    send_to(Ipv4Addr::LOCALHOST, port, method, path, headers, body).await
}

pub(super) async fn http_get_from(host: Ipv4Addr, port: u16, path: &str) -> io::Result<HttpAnswer> {
    send_to(host, port, "GET", path, &[], "").await
}

async fn send_to(
    host: Ipv4Addr,
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<HttpAnswer> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    // HTTP/1.0: the body ends with the connection, so nothing is chunked.
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {host}:{port}\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
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
