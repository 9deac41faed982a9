//! Connections of clients are bounded, and those that nothing comes of do not last.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use storage_core::{Key, StoreExt};
use storage_embedded::{LocalCluster, NodeConfig, Refusal};
use storage_etcd::{EtcdConfig, EtcdStore};
use storage_etcd_api::{Options, Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

const SOON: Duration = Duration::from_secs(60);

async fn served(dir: &std::path::Path, most: usize) -> (LocalCluster, Server) {
    let cluster = LocalCluster::start(dir, 1, NodeConfig::fast).await.unwrap();
    let mut options = Options::default();
    options.max_connections = most;
    let server = Server::start(cluster.node(0).unwrap().clone(), "127.0.0.1:0", options).await.unwrap();
    (cluster, server)
}

async fn put(server: &Server, key: &str) -> storage_core::Result<()> {
    let store = EtcdStore::new(EtcdConfig::new([server.address().to_string()]).unwrap()).await?;
    store.put(&Key::try_from(key).unwrap(), "v").await.map(drop)
}

/// Whether the other side closes a connection at once. One that stays open says nothing either.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = timeout(Duration::from_secs(1), stream.read(&mut [0; 64])).await;
    read.is_ok_and(|read| read.map_or(true, |read| read == 0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_full_sends_clients_away_and_serves_those_that_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let (_cluster, server) = served(dir.path(), 4).await;
    let client = EtcdStore::new(EtcdConfig::new([server.address().to_string()]).unwrap()).await.unwrap();
    client.put(&Key::new("a").unwrap(), "1").await.unwrap();
    let mut idle = Vec::new();
    let deadline = Instant::now() + SOON;
    while server.refusals().count(Refusal::TooMany) == 0 {
        assert!(Instant::now() < deadline && idle.len() <= 8, "nobody is sent away");
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        if !is_closed(&mut stream).await {
            idle.push(stream);
        }
    }
    assert_eq!(idle.len(), 3);
    client.put(&Key::new("a").unwrap(), "2").await.unwrap();
    drop(idle);
    // Its places are free when the server has seen that they have gone.
    let deadline = Instant::now() + SOON;
    while let Err(error) = put(&server, "b").await {
        assert!(Instant::now() < deadline, "{error}");
    }
}

/// On the real clock: the server waits half a minute for a first request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_asks_nothing_is_closed_and_one_that_has_asked_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (_cluster, server) = served(dir.path(), 100).await;
    let client = EtcdStore::new(EtcdConfig::new([server.address().to_string()]).unwrap()).await.unwrap();
    client.put(&Key::new("a").unwrap(), "1").await.unwrap();
    let mut silent = TcpStream::connect(server.address()).await.unwrap();
    // It has shaken hands, and has nothing to ask.
    let mut greeted = TcpStream::connect(server.address()).await.unwrap();
    greeted.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut greeting = Vec::new();
    let ended = timeout(SOON, async {
        // An end or a reset, as the system sees it.
        let _ = silent.read(&mut [0; 64]).await;
        let _ = greeted.read_to_end(&mut greeting).await;
    });
    ended.await.expect("they are closed");
    assert!(!greeting.is_empty(), "the server has greeted");
    assert_eq!(server.refusals().count(Refusal::Silent), 2);
    client.put(&Key::new("a").unwrap(), "2").await.unwrap();
}

/// Clients of Go send such authorities, of which the crate below has ended the stream. One connection, byte for byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_served_whatever_their_authority() {
    let dir = tempfile::tempdir().unwrap();
    let (_cluster, server) = served(dir.path(), 100).await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let frame = |kind: u8, flags: u8, id: u8, payload: &[u8]| {
        [&[0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, id], payload].concat()
    };
    stream.write_all(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat()).await.unwrap();
    let authorities = ["127.0.0.1:2379", "http://127.0.0.1:2379", "%2Fdir%2Fname", "127.0.0.1:2379"];
    for (id, authority) in (1..).step_by(2).zip(authorities) {
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/etcdserverpb.Maintenance/Status"),
            (":authority", authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        // Into the table, as clients of Go do.
        let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let block: Vec<u8> =
            fields.iter().flat_map(|(name, value)| [vec![0x40], text(name), text(value)].concat()).collect();
        stream.write_all(&[frame(1, 4, id, &block), frame(0, 1, id, &[0; 5])].concat()).await.unwrap();
        let answered = timeout(SOON, async {
            loop {
                let mut head = [0; 9];
                stream.read_exact(&mut head).await.unwrap();
                let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
                stream.read_exact(&mut payload).await.unwrap();
                assert!(![3, 7].contains(&head[3]), "{authority}: reset or closed");
                if head[3] == 0 && head[8] == id {
                    return payload.len();
                }
            }
        });
        assert!(answered.await.expect("it is answered") > 5, "{authority}");
    }
}
