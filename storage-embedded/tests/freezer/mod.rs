//! A cluster with one node that can be made not to hear: the bytes that others send to it wait, while its own calls of others go on.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use storage_embedded::{Member, Node, NodeConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

const SOON: Duration = Duration::from_secs(90);

/// Three nodes of which the first leads, and what freezes the way to the last of them.
pub(crate) async fn start(
    dir: &Path,
    configure: impl Fn(NodeConfig) -> NodeConfig,
) -> (Vec<Node>, watch::Sender<bool>) {
    let listeners: Vec<_> = (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let mut addresses: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    let (through, frozen) = freezer(addresses[2]).await;
    addresses[2] = through;
    let member = |address: &SocketAddr| Member { peer_address: address.to_string(), ..Member::default() };
    let founders: BTreeMap<_, _> = (1..).zip(addresses.iter().map(member)).collect();
    let mut nodes = Vec::new();
    for (id, listener) in (1..).zip(listeners) {
        let mut config = configure(NodeConfig::new(id, 7, dir.join(id.to_string()), "127.0.0.1:0"));
        config.founders.clone_from(&founders);
        nodes.push(Node::start_on(config, listener).await.unwrap());
    }
    // Leaders come and go at the start.
    let deadline = Instant::now() + SOON;
    while nodes.iter().any(|node| node.leader() != Some(1)) {
        assert!(Instant::now() < deadline, "the first node does not lead");
        let _ = nodes[0].transfer_leadership(1, Duration::from_secs(1)).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (nodes, frozen)
}

/// Passes bytes on to a node, and while it is frozen takes connections and passes on nothing, as the system of a process does that is stopped.
async fn freezer(to: SocketAddr) -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (frozen, is_frozen) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((caller, _)) = listener.accept().await {
            let mut is_frozen = is_frozen.clone();
            tokio::spawn(async move {
                if is_frozen.wait_for(|frozen| !frozen).await.is_err() {
                    return;
                }
                let called = TcpStream::connect(to).await.unwrap();
                let (from_caller, to_caller) = caller.into_split();
                let (from_called, to_called) = called.into_split();
                tokio::join!(pass(from_caller, to_called, is_frozen.clone()), pass(from_called, to_caller, is_frozen));
            });
        }
    });
    (address, frozen)
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut frozen: watch::Receiver<bool>,
) {
    let mut piece = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut piece).await.unwrap_or(0);
        if frozen.wait_for(|frozen| !frozen).await.is_err() || read == 0 || to.write_all(&piece[..read]).await.is_err()
        {
            return;
        }
    }
}
