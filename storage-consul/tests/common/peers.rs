//! The links between the servers of a cluster, so that one of them can be cut off without root.
//!
//! Each server has a loopback address of its own and advertises another one, where these links listen on the same ports: TCP for
//! calls and raft, TCP and UDP for the gossip. The address that something comes from says which server has sent it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use storage_testkit::suite::LINKS;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// The largest packet of the gossip is far smaller.
const MAX_PACKET: usize = 64 * 1024;

/// Where a server listens.
pub(crate) fn bound(place: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 7, 1 + u8::try_from(place).unwrap())
}

/// Where the others think it listens.
pub(crate) fn advertised(place: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 1, 7, 1 + u8::try_from(place).unwrap())
}

fn place_of(sender: SocketAddr) -> Option<usize> {
    (0..8).find(|place| sender.ip() == IpAddr::V4(bound(*place)))
}

/// The ports of one server for the others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) server: u16,
    pub(crate) serf: u16,
}

pub(crate) struct Peers {
    cut_off: watch::Sender<Option<usize>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Peers {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { cut_off: watch::Sender::new(None), tasks: Mutex::default() })
    }

    /// Opens the links to the servers with these ports, once: a cluster keeps its ports.
    pub(crate) fn open(&self, servers: &[Ports]) -> std::io::Result<()> {
        let mut tasks = self.tasks.lock().unwrap();
        if !tasks.is_empty() {
            return Ok(());
        }
        let mut gossip = Vec::new();
        for (place, ports) in servers.iter().enumerate() {
            gossip.push(Arc::new(LINKS.block_on_anywhere(UdpSocket::bind((advertised(place), ports.serf)))?));
            for port in [ports.server, ports.serf] {
                let listener = LINKS.block_on_anywhere(TcpListener::bind((advertised(place), port)))?;
                let cut_off = self.cut_off.subscribe();
                tasks.push(LINKS.spawn(accept(listener, place, port, cut_off)).abort_handle());
            }
        }
        for place in 0..servers.len() {
            let packets = packets(gossip.clone(), servers.to_vec(), place, self.cut_off.subscribe());
            tasks.push(LINKS.spawn(packets).abort_handle());
        }
        Ok(())
    }

    pub(crate) fn cut_off(&self, place: usize) {
        self.cut_off.send_replace(Some(place));
    }

    pub(crate) fn heal(&self) {
        self.cut_off.send_replace(None);
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        for task in self.tasks.lock().unwrap().drain(..) {
            task.abort();
        }
    }
}

trait Anywhere {
    /// Waits for a future of this runtime, also inside of another one.
    fn block_on_anywhere<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T;
}

impl Anywhere for Runtime {
    fn block_on_anywhere<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.spawn(async move { sender.send(future.await) });
        receiver.recv().unwrap()
    }
}

async fn accept(listener: TcpListener, to: usize, port: u16, cut_off: watch::Receiver<Option<usize>>) {
    while let Ok((client, from)) = listener.accept().await {
        let mut cut_off = cut_off.clone();
        LINKS.spawn(async move {
            let from = place_of(from);
            let cut = |server: &Option<usize>| server.is_some_and(|server| server == to || Some(server) == from);
            tokio::select! {
                biased;
                _ = cut_off.wait_for(cut) => {}
                () = pass_on(client, SocketAddr::from((bound(to), port))) => {}
            }
        });
    }
}

async fn pass_on(mut client: TcpStream, server: SocketAddr) {
    if let Ok(mut server) = TcpStream::connect(server).await {
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}

/// Passes packets for one server on, from the address that their sender advertises, where an answer goes.
async fn packets(links: Vec<Arc<UdpSocket>>, servers: Vec<Ports>, to: usize, cut_off: watch::Receiver<Option<usize>>) {
    let mut packet = vec![0; MAX_PACKET];
    while let Ok((length, sender)) = links[to].recv_from(&mut packet).await {
        let Some(from) = place_of(sender) else { continue };
        let cut = cut_off.borrow().is_some_and(|server| server == to || server == from);
        if !cut {
            let _ = links[from].send_to(&packet[..length], (bound(to), servers[to].serf)).await;
        }
    }
}
