//! The links between the servers of a cluster, so that one of them can be cut off without root.
//!
//! Every server advertises a port of ours to its peers, and what comes in there is passed on to it. etcd says in the head
//! of each request between servers who is asking, so that all links of one server, in both directions, can be cut.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use storage_testkit::suite::LINKS;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The head of a request between servers is a few hundred bytes.
const MAX_HEAD: usize = 16 * 1024;

/// A server: its place, and its name among its peers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server {
    pub(crate) place: usize,
    pub(crate) member: u64,
}

pub(crate) struct Peers {
    ports: Vec<u16>,
    targets: Vec<AtomicU16>,
    cut_off: watch::Sender<Option<Server>>,
}

impl Peers {
    pub(crate) fn open(count: usize) -> Arc<Self> {
        let listeners: Vec<_> =
            (0..count).map(|_| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
        let ports = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        let targets = (0..count).map(|_| AtomicU16::new(0)).collect();
        let peers = Arc::new(Self { ports, targets, cut_off: watch::Sender::new(None) });
        for (place, listener) in listeners.into_iter().enumerate() {
            listener.set_nonblocking(true).unwrap();
            let peers = Arc::downgrade(&peers);
            LINKS.spawn(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((client, _)) = listener.accept().await {
                    let Some(peers) = peers.upgrade() else { return };
                    LINKS.spawn(async move { peers.pass_on(client, place).await });
                }
            });
        }
        peers
    }

    /// The port that a server advertises to its peers, after being told where it listens.
    pub(crate) fn advertised(&self, place: usize, listens: u16) -> u16 {
        self.targets[place].store(listens, Ordering::SeqCst);
        self.ports[place]
    }

    pub(crate) fn cut_off(&self, server: Server) {
        self.cut_off.send_replace(Some(server));
    }

    pub(crate) fn heal(&self) {
        self.cut_off.send_replace(None);
    }

    async fn pass_on(&self, mut client: TcpStream, to: usize) -> Option<()> {
        let (head, from) = read_head(&mut client).await?;
        let mut cut_off = self.cut_off.subscribe();
        let cut = move |server: &Option<Server>| {
            server.is_some_and(|server| server.place == to || Some(server.member) == from)
        };
        let passing = async {
            let port = self.targets[to].load(Ordering::SeqCst);
            let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
            server.write_all(&head).await.ok()?;
            copy_bidirectional(&mut client, &mut server).await.ok()
        };
        tokio::select! {
            biased;
            _ = cut_off.wait_for(cut) => None,
            _ = passing => None,
        }
    }
}

/// The head of the first request, with whatever came along, and the member that sent it. A connection is of one member.
async fn read_head(client: &mut TcpStream) -> Option<(Vec<u8>, Option<u64>)> {
    let mut head = Vec::new();
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        if client.read_buf(&mut head).await.ok()? == 0 || head.len() > MAX_HEAD {
            return None;
        }
    }
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let from = text.lines().find_map(|line| line.strip_prefix("x-server-from:"));
    let from = from.and_then(|member| u64::from_str_radix(member.trim(), 16).ok());
    Some((head, from))
}
