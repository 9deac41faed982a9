//! The links between the servers of an ensemble, so that one of them can be cut off without root.
//!
//! Each server has a configuration of its own, and finds each peer on ports of ours, which pass on to that peer. ZooKeeper
//! keeps these addresses: a server takes over another's configuration only if its version is newer, and all have version 0.
//! A cut link is silent: connections stay, and nothing arrives, as over a network that was cut.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use storage_testkit::suite::LINKS;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Which of a server's ports a link leads to.
#[derive(Clone, Copy)]
pub(crate) enum Port {
    Peer = 0,
    Election = 1,
}

impl Port {
    /// How long a link waits for the server behind it to listen.
    ///
    /// A new leader opens its port a moment after it was elected. Followers try again while they are refused; but a link has
    /// accepted them already, and if it hung up, they would look for another leader while this one waits for them for
    /// `initLimit` ticks, and so on: elections took 10 to 50 s.
    fn patience(self) -> Duration {
        match self {
            Self::Peer => Duration::from_secs(5),
            Self::Election => Duration::ZERO,
        }
    }
}

pub(crate) struct Links {
    nodes: usize,
    /// For each pair of servers and kind of port: the port of ours, and where it leads.
    links: Vec<(u16, Arc<AtomicU16>)>,
    cut_off: watch::Sender<Option<usize>>,
}

impl Links {
    pub(crate) fn open(nodes: usize) -> Arc<Self> {
        let cut_off = watch::Sender::new(None);
        let mut links = Vec::new();
        for from in 0..nodes {
            for to in 0..nodes {
                for port in [Port::Peer, Port::Election] {
                    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                    listener.set_nonblocking(true).unwrap();
                    let target = Arc::new(AtomicU16::new(0));
                    links.push((listener.local_addr().unwrap().port(), Arc::clone(&target)));
                    let cut = cut_off.subscribe();
                    LINKS.spawn(pass_on(listener, target, cut, [from, to], port.patience()));
                }
            }
        }
        Arc::new(Self { nodes, links, cut_off })
    }

    /// The port on which `from` finds the port `listens` of `to`.
    pub(crate) fn port(&self, from: usize, to: usize, port: Port, listens: u16) -> u16 {
        if from == to {
            return listens;
        }
        let (ours, target) = &self.links[(from * self.nodes + to) * 2 + port as usize];
        target.store(listens, Ordering::SeqCst);
        *ours
    }

    pub(crate) fn cut_off(&self, server: usize) {
        self.cut_off.send_replace(Some(server));
    }

    pub(crate) fn heal(&self) {
        self.cut_off.send_replace(None);
    }
}

/// Ends when the links are dropped.
async fn pass_on(
    listener: std::net::TcpListener,
    target: Arc<AtomicU16>,
    mut cut: watch::Receiver<Option<usize>>,
    ends: [usize; 2],
    patience: Duration,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => match accepted { Ok((client, _)) => client, Err(_) => return },
            changed = cut.changed() => match changed { Ok(()) => continue, Err(_) => return },
        };
        let (target, cut) = (target.load(Ordering::SeqCst), cut.clone());
        LINKS.spawn(async move {
            let mut client = client;
            let Some(mut server) = connect(target, patience).await else { return };
            let (mut from_client, mut to_client) = client.split();
            let (mut from_server, mut to_server) = server.split();
            tokio::select! {
                _ = pump(&mut from_client, &mut to_server, cut.clone(), ends) => {}
                _ = pump(&mut from_server, &mut to_client, cut, ends) => {}
            }
        });
    }
}

/// Connects to a port as soon as somebody listens on it.
async fn connect(port: u16, patience: Duration) -> Option<TcpStream> {
    let deadline = Instant::now() + patience;
    loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
            Ok(stream) => return Some(stream),
            Err(_) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(_) => return None,
        }
    }
}

async fn pump(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    mut cut: watch::Receiver<Option<usize>>,
    ends: [usize; 2],
) -> Option<()> {
    let mut piece = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut piece).await.ok().filter(|length| *length > 0)?;
        cut.wait_for(|server| server.is_none_or(|server| !ends.contains(&server))).await.ok()?;
        to.write_all(&piece[..length]).await.ok()?;
    }
}
