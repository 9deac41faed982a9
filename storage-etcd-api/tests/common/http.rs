//! Plain HTTP/1.1, byte for byte.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: Option<String>,
    pub(crate) body: String,
}

pub(crate) async fn request(endpoint: &str, method: &str, path: &str) -> Answer {
    exchange(endpoint, method, path, "", "").await
}

pub(crate) async fn get(endpoint: &str, path: &str) -> Answer {
    request(endpoint, "GET", path).await
}

/// Posts a body, with further header lines.
pub(crate) async fn post(endpoint: &str, path: &str, headers: &str, body: &str) -> Answer {
    let headers = format!("{headers}Content-Length: {}\r\n", body.len());
    exchange(endpoint, "POST", path, &headers, body).await
}

/// Posts a body, and gives the connection to read from.
pub(crate) async fn open(endpoint: &str, path: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(endpoint).await.unwrap();
    let length = body.len();
    let request = format!("POST {path} HTTP/1.1\r\nHost: {endpoint}\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads until what was read has this in it.
pub(crate) async fn read_until(stream: &mut TcpStream, read: &mut String, wanted: &str) {
    let reading = async {
        while !read.contains(wanted) {
            let mut piece = [0; 4096];
            let length = stream.read(&mut piece).await.unwrap();
            assert!(length > 0, "it ended without {wanted}: {read}");
            read.push_str(std::str::from_utf8(&piece[..length]).unwrap());
        }
    };
    timeout(DEADLINE, reading).await.unwrap_or_else(|_| panic!("never: {wanted}"));
}

async fn exchange(endpoint: &str, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(endpoint).await.unwrap();
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: {endpoint}\r\nConnection: close\r\n{headers}\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(DEADLINE, exchange).await.expect("it is answered");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
    let header = |wanted: &str| {
        head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
        })
    };
    let is_chunked = header("transfer-encoding").is_some_and(|encoding| encoding == "chunked");
    let body = if is_chunked { unchunked(body) } else { body.to_owned() };
    Answer { status, content_type: header("content-type"), body }
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        whole.push_str(&rest[..length]);
        body = rest[length..].strip_prefix("\r\n").unwrap_or_default();
    }
    whole
}
