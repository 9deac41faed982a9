//! Links that break: each fault as a client and a server see it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::future::Future;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::Duration;

use storage_testkit::proxy::{LinkFault, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Long enough for anything that should happen.
const SOON: Duration = Duration::from_secs(10);

/// Long enough to believe that something does not happen.
const NEVER: Duration = Duration::from_millis(150);

/// A server that answers each byte with its successor, and tells what it was sent.
struct Server {
    port: u16,
    seen: mpsc::UnboundedReceiver<u8>,
}

async fn server() -> Server {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                while let Ok(byte) = stream.read_u8().await {
                    if tell.send(byte).is_err() || stream.write_u8(byte + 1).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Server { port, seen }
}

async fn connect(proxy: &Proxy) -> TcpStream {
    soon(TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port()))).await.unwrap()
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.expect("it should have happened by now")
}

/// A request and its reply.
async fn call(stream: &mut TcpStream, request: u8) -> std::io::Result<u8> {
    stream.write_u8(request).await?;
    soon(stream.read_u8()).await
}

async fn assert_reset(stream: &mut TcpStream) {
    let error = call(stream, 99).await.unwrap_err();
    let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::UnexpectedEof];
    assert!(kinds.contains(&error.kind()), "{error:?}");
}

#[tokio::test]
async fn a_link_without_a_fault_passes_everything_on() {
    let (server, mut streams) = (server().await, Vec::new());
    let proxy = Proxy::start(server.port).await.unwrap();
    for request in 0..5 {
        let mut stream = connect(&proxy).await;
        assert_eq!(call(&mut stream, request).await.unwrap(), request + 1);
        streams.push(stream);
    }
    for mut stream in streams {
        assert_eq!(call(&mut stream, 7).await.unwrap(), 8);
    }
}

#[tokio::test]
async fn what_is_sent_into_a_black_hole_arrives_when_it_is_over() {
    let mut server = server().await;
    let proxy = Proxy::start(server.port).await.unwrap();
    let mut stream = connect(&proxy).await;
    assert_eq!(call(&mut stream, 1).await.unwrap(), 2);
    assert_eq!(server.seen.recv().await, Some(1));

    proxy.set(LinkFault::Blackhole).await;
    stream.write_u8(10).await.unwrap();
    let mut late = connect(&proxy).await;
    late.write_u8(10).await.unwrap();
    assert!(timeout(NEVER, server.seen.recv()).await.is_err(), "the request stays away");

    proxy.set(LinkFault::None).await;
    assert_eq!(soon(stream.read_u8()).await.unwrap(), 11);
    assert_eq!(soon(late.read_u8()).await.unwrap(), 11);
}

/// The fault comes while replies stream through: what was read from the server before it is not written to the client after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_comes_through_any_more_when_a_fault_is_set() {
    const ROUNDS: usize = 200;
    /// The server answers each byte by itself, which takes it long enough for the fault to come in between.
    static REQUESTS: [u8; 50_000] = [1; 50_000];
    /// The proxy writes within microseconds after it has read.
    const LATE: Duration = Duration::from_micros(500);
    let server = server().await;
    let proxy = Proxy::start(server.port).await.unwrap();
    let (mut timely, mut late) = (0, 0);
    for round in 0..ROUNDS {
        let fault = [LinkFault::Blackhole, LinkFault::LoseReplies, LinkFault::Refuse][round % 3];
        let mut stream = connect(&proxy).await;
        stream.write_all(&REQUESTS).await.unwrap();
        soon(stream.read_u8()).await.unwrap();
        let mut stream = stream.into_std().unwrap();
        proxy.set(fault).await;
        // On loopback, what was written to one end can be read from the other, or soon: on a busy machine the system takes its time.
        let before = readable(&mut stream);
        std::thread::sleep(LATE);
        let after = readable(&mut stream);
        late += usize::from(after > 0);
        timely += usize::from(before + after + 1 < REQUESTS.len());
        proxy.set(LinkFault::None).await;
    }
    assert!(timely > ROUNDS / 2, "only {timely} faults came while there were replies");
    assert!(late <= ROUNDS / 20, "replies came {late} times after a fault was set");
}

/// How many bytes there are to read from a stream that does not block; none from one that was reset.
fn readable(stream: &mut std::net::TcpStream) -> usize {
    let mut bytes = Vec::new();
    let _ = std::io::Read::read_to_end(stream, &mut bytes);
    bytes.len()
}

#[tokio::test]
async fn a_lost_reply_leaves_the_request_done() {
    let mut server = server().await;
    let proxy = Proxy::start(server.port).await.unwrap();
    let mut stream = connect(&proxy).await;
    proxy.set(LinkFault::LoseReplies).await;
    stream.write_u8(20).await.unwrap();
    assert_eq!(soon(server.seen.recv()).await, Some(20), "the server has done it");
    assert!(timeout(NEVER, stream.read_u8()).await.is_err(), "the client is not told");

    proxy.set(LinkFault::None).await;
    assert_reset(&mut stream).await;
    assert_eq!(call(&mut connect(&proxy).await, 30).await.unwrap(), 31);
}

#[tokio::test]
async fn a_link_that_refuses_cuts_what_there_is_and_lets_nobody_in_until_it_is_over() {
    let server = server().await;
    let proxy = Proxy::start(server.port).await.unwrap();
    let mut stream = connect(&proxy).await;
    assert_eq!(call(&mut stream, 1).await.unwrap(), 2);
    for _ in 0..3 {
        proxy.set(LinkFault::Refuse).await;
        assert_reset(&mut stream).await;
        let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        proxy.set(LinkFault::None).await;
        stream = connect(&proxy).await;
        assert_eq!(call(&mut stream, 50).await.unwrap(), 51);
    }
}

#[tokio::test]
async fn a_cut_ends_the_connections_there_are_and_no_later_one() {
    let server = server().await;
    let proxy = Proxy::start(server.port).await.unwrap();
    let mut stream = connect(&proxy).await;
    assert_eq!(call(&mut stream, 1).await.unwrap(), 2);
    proxy.cut().await;
    assert_reset(&mut stream).await;
    assert_eq!(call(&mut connect(&proxy).await, 60).await.unwrap(), 61);
}

#[tokio::test]
async fn a_dropped_proxy_ends_its_connections() {
    let server = server().await;
    let proxy = Proxy::start(server.port).await.unwrap();
    let mut stream = connect(&proxy).await;
    assert_eq!(call(&mut stream, 1).await.unwrap(), 2);
    drop(proxy);
    assert_reset(&mut stream).await;
}
