//! A node that was restored stands for no election before it has begun: it may have voted and forgotten it. The other founders are played here.

use std::{
    fs, io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use storage_core::{Key, StoreExt};
use tokio::net::TcpListener;

use crate::{
    ClusterToken, LocalCluster, Member, Node, NodeConfig,
    log::Phase,
    network::{
        belonging::Belonging, frame::put_frame, handshake::accept, hello::Channel, message::Standing,
        security::Security,
    },
    restore,
};

const SOON: Duration = Duration::from_secs(60);

/// A node asks each of two others ten times a second: in this time it could stand for election several times.
const ASKED: u64 = 100;

/// The founders that are played: how far they say to be, and what they were called for.
struct Others {
    phase: Mutex<Phase>,
    asked: AtomicU64,
    campaigns: AtomicU64,
}

impl Others {
    /// Plays one of them.
    async fn play(self: Arc<Self>, listener: TcpListener) -> io::Result<()> {
        let security = Security::new(ClusterToken::default(), None).unwrap();
        loop {
            let (stream, _) = listener.accept().await?;
            let Ok((hello, mut connection)) = accept(stream, &security, |_, _| Ok(()), |_| Belonging::Admitted).await
            else {
                continue;
            };
            match hello.channel {
                Channel::Founding => {
                    let standing = Standing { phase: *self.phase.lock(), origin: hello.origin };
                    let mut out = Vec::new();
                    put_frame(&mut out, |out| standing.encode(out));
                    let _ = connection.writer.send(&out).await;
                    self.asked.fetch_add(1, Relaxed);
                }
                // For a vote, as nobody leads.
                Channel::Control => {
                    self.campaigns.fetch_add(1, Relaxed);
                }
                _ => {}
            }
        }
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waits = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(SOON, waits).await.unwrap_or_else(|_| panic!("{what}: not within {SOON:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_node_campaigns_when_it_has_begun_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let old = LocalCluster::start(dir.path().join("old"), 1, NodeConfig::fast).await.unwrap();
    old.store().unwrap().put(&Key::new("a").unwrap(), "1").await.unwrap();
    let pieces = old.node(0).unwrap().open_snapshot(SOON).await.unwrap().map(Result::unwrap);
    let file = dir.path().join("saved");
    fs::write(&file, pieces.flatten().collect::<Vec<u8>>()).unwrap();

    let others = Arc::new(Others { phase: Mutex::new(Phase::New), asked: 0.into(), campaigns: 0.into() });
    let mut config = NodeConfig::new(1, 7, dir.path().join("new"), "127.0.0.1:0").fast();
    config.founders.insert(1, Member { name: "n1".to_owned(), ..Member::default() });
    for id in [2, 3] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer_address = listener.local_addr().unwrap().to_string();
        config.founders.insert(id, Member { name: format!("n{id}"), peer_address, ..Member::default() });
        tokio::spawn(Arc::clone(&others).play(listener));
    }
    restore(&file, &config, 0).unwrap();
    let node = Node::start(config).await.unwrap();
    others.until("it asks", |others| others.asked.load(Relaxed) > ASKED).await;
    assert_eq!(others.campaigns.load(Relaxed), 0, "it has not begun");
    *others.phase.lock() = Phase::Prepared;
    others.until("it campaigns", |others| others.campaigns.load(Relaxed) > 0).await;
    node.stop().await;
}
