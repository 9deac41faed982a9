//! Hostile clients: connections without end, deletes of everything else, abandoned calls, watches that nobody reads.
//!
//! They use what any client has, and no knowledge of the servers' inside. The keys of the workload are spared, or its
//! checks would prove nothing.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{FutureExt, StreamExt, stream};
use storage_core::{Key, ReadOptions, Result, ScanOptions, Txn, WatchOptions, WriteOptions};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinHandle, time::timeout};

use super::{Fault, NemesisError, Strike, Victims, files_full::limits};
use crate::workload::Handle;

/// Connections that are opened at a time to all servers together, at the most: thousands.
const MOST_CONNECTIONS: usize = 6000;

/// Of the files that this process may have open, the part that connections may take.
const OWN_SHARE: u64 = 2;

/// A server on this machine takes a connection within this time, or does not want it.
const CONNECTS_WITHIN: Duration = Duration::from_secs(2);

/// Connections are begun for so long; a busy machine has fewer by then.
const CONNECTED_FOR: Duration = Duration::from_secs(3);

/// Connections that are under way at one time.
const AT_ONCE: usize = 64;

/// Writes that are begun and not waited for, at a time.
const ABANDONED: usize = 200;

/// Watches of everything that nobody reads.
const WATCHES: usize = 20;

/// How long one call of a hostile client takes at the most.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A hostile client does something within this time after it was let loose, or does not bite.
const BITES_WITHIN: Duration = Duration::from_secs(5);

/// Names that may mean something to a cluster, and such as mean nothing to anybody.
const NAMES: [&str; 9] = [
    "\0",
    "snet/membership/intent",
    "snet/membership/replicas/1",
    "snet/membership/table",
    "members/1",
    "session/1",
    "0",
    "zz",
    "\u{10ffff}",
];

/// A client that does harm as far as a client can, until it is sent away.
#[derive(Debug, Default)]
pub(super) struct HostileClient {
    connections: Vec<TcpStream>,
    work: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

#[async_trait]
impl Fault for HostileClient {
    fn name(&self) -> &'static str {
        "client"
    }

    async fn strike(&mut self, victims: &mut Victims, rng: &mut fastrand::Rng) -> Result<Strike, NemesisError> {
        let harm = rng.choice(Harm::ALL).unwrap_or(Harm::Deletes);
        let bit = match harm {
            Harm::Idle | Harm::HalfOpen => {
                self.connections = connect(victims, rng, harm).await;
                !self.connections.is_empty()
            }
            _ => {
                let Some(open) = victims.clients.clone() else {
                    return Ok(Strike { target: "none".to_owned(), bit: false });
                };
                let Ok(Ok(store)) = timeout(BITES_WITHIN, open(rng.usize(..64))).await else {
                    return Ok(Strike { target: harm.words().to_owned(), bit: false });
                };
                let (ended, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
                let client = Hostile {
                    store,
                    spared: victims.spared.clone(),
                    ended: Arc::clone(&ended),
                    done: Arc::clone(&done),
                    rng: rng.fork(),
                };
                self.work = Some((ended, tokio::spawn(client.work(harm))));
                let bites = async {
                    while done.load(Relaxed) == 0 {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                };
                timeout(BITES_WITHIN, bites).await.is_ok()
            }
        };
        let target = match self.connections.len() {
            0 => harm.words().to_owned(),
            count => format!("{count} {}", harm.words()),
        };
        Ok(Strike { target, bit })
    }

    async fn mend(&mut self, _: &mut Victims) -> Result<(), NemesisError> {
        self.connections.clear();
        if let Some((ended, work)) = self.work.take() {
            ended.store(true, Relaxed);
            // Its calls end with their time; a client that hangs is no reason to go on with it.
            let _ = timeout(TIMEOUT * 2, work).await;
        }
        Ok(())
    }
}

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Deletes,
    Names,
    Abandoned,
    Large,
    Watches,
    Idle,
    HalfOpen,
}

impl Harm {
    const ALL: [Self; 7] =
        [Self::Deletes, Self::Names, Self::Abandoned, Self::Large, Self::Watches, Self::Idle, Self::HalfOpen];

    fn words(self) -> &'static str {
        match self {
            Self::Deletes => "deletes of everything else",
            Self::Names => "writes under every prefix",
            Self::Abandoned => "calls begun and left",
            Self::Large => "the largest values",
            Self::Watches => "watches that nobody reads",
            Self::Idle => "idle connections",
            Self::HalfOpen => "half-open handshakes",
        }
    }
}

/// One that calls the store.
struct Hostile {
    store: Handle,
    /// The keys that the workload has: all others are fair game.
    spared: Vec<u8>,
    ended: Arc<AtomicBool>,
    /// Calls that were answered, or begun where that is the harm.
    done: Arc<AtomicUsize>,
    rng: fastrand::Rng,
}

impl Hostile {
    async fn work(mut self, harm: Harm) {
        let mut kept = Vec::new();
        while !self.ended.load(Relaxed) {
            let did = match harm {
                Harm::Deletes => self.delete_everything().await,
                Harm::Names => self.write_every_name().await,
                Harm::Large => self.write_the_largest().await,
                Harm::Watches => {
                    if kept.len() < WATCHES {
                        let watched = timeout(TIMEOUT, self.store.watch(b"", WatchOptions::default())).await;
                        kept.extend(watched.into_iter().flatten().map(|watch| watch.map(drop).boxed()));
                    } else {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    Ok(())
                }
                Harm::Abandoned | Harm::Idle | Harm::HalfOpen => {
                    self.begin_and_leave(&mut kept).await;
                    Ok(())
                }
            };
            match did {
                Ok(()) => drop(self.done.fetch_add(1, Relaxed)),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        let _ = timeout(TIMEOUT, self.store.close()).await;
    }

    /// Everything under its own prefix, and everything that is not the workload's.
    async fn delete_everything(&mut self) -> Result<()> {
        let own = (0..8).map(|place| key(&format!("hostile/{place}")));
        self.commit(own.fold(Txn::new(), |txn, key| txn.put(key, "mine"))).await?;
        let (read, mut after) = (ReadOptions::default().timeout(TIMEOUT), None);
        loop {
            let mut options = ScanOptions::default().limit(64);
            (options.read, options.after) = (read, after.take());
            let page = self.store.scan(b"", options).await?;
            let others = page.entries.iter().filter(|entry| !entry.key.starts_with(&self.spared));
            let txn = others.fold(Txn::new(), |txn, entry| txn.delete(entry.key.clone()));
            if !txn.ops.is_empty() {
                self.commit(txn).await?;
            }
            after = page.next;
            if after.is_none() || self.ended.load(Relaxed) {
                return Ok(());
            }
        }
    }

    async fn write_every_name(&mut self) -> Result<()> {
        let name = self.rng.choice(NAMES).unwrap_or("0");
        let suffix = if self.rng.bool() { String::new() } else { format!("/{}", self.rng.u8(..)) };
        self.commit(Txn::new().put(key(&format!("{name}{suffix}")), "mine")).await
    }

    async fn write_the_largest(&mut self) -> Result<()> {
        let (most, place) = (self.store.capabilities().max_value_bytes, self.rng.u8(..4));
        let value = vec![self.rng.u8(..); most];
        self.commit(Txn::new().put(key(&format!("hostile/large/{place}")), value)).await
    }

    /// A write that is begun, and kept without being asked for, or dropped: the oldest go at random.
    async fn begin_and_leave(&mut self, kept: &mut Vec<stream::BoxStream<'static, ()>>) {
        let (store, place) = (Arc::clone(&self.store), self.rng.u8(..16));
        let write = async move {
            let put = Txn::new().put(key(&format!("hostile/begun/{place}")), "begun");
            let _ = store.commit(put, WriteOptions::default().timeout(TIMEOUT)).await;
        };
        let mut write = stream::once(write).boxed();
        // Asked a few times, so that it is on its way.
        for _ in 0..self.rng.u8(1..4) {
            let _ = write.next().now_or_never();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if self.rng.bool() {
            kept.push(write);
        }
        if kept.len() >= ABANDONED {
            drop(kept.swap_remove(self.rng.usize(..kept.len())));
        }
    }

    async fn commit(&self, txn: Txn) -> Result<()> {
        self.store.commit(txn, WriteOptions::default().timeout(TIMEOUT)).await.map(drop)
    }
}

/// As many connections to all ports of all servers as may be. Some say the beginning of something.
async fn connect(victims: &Victims, rng: &mut fastrand::Rng, harm: Harm) -> Vec<TcpStream> {
    let places = victims.members_now.iter().filter_map(|place| victims.cluster.node(*place).ok());
    let contexts = places.map(|node| node.context());
    let ports: Vec<SocketAddr> = contexts
        .flat_map(|node| node.ports().map(|(_, port)| SocketAddr::from((node.host(), port))).collect::<Vec<_>>())
        .collect();
    let own = limits(std::process::id()).map_or(0, |(soft, _)| soft / OWN_SHARE);
    let most = MOST_CONNECTIONS.min(usize::try_from(own).unwrap_or(MOST_CONNECTIONS));
    let each = most / ports.len().max(1);
    // TLS, HTTP/2, HTTP/1, and nothing that anybody knows; each without an end.
    let beginnings: [&[u8]; 4] = [&[0x16, 3, 1, 2, 0], b"PRI * HTTP/2.0\r\n", b"GET / HTTP/1.1\r\nHost: ", &[0xff; 7]];
    let begun = ports.iter().flat_map(|port| std::iter::repeat_n(*port, each)).map(|port| {
        let says = if harm == Harm::HalfOpen { rng.choice(beginnings) } else { None };
        async move {
            let mut stream = timeout(CONNECTS_WITHIN, TcpStream::connect(port)).await.ok()?.ok()?;
            if let Some(says) = says {
                timeout(CONNECTS_WITHIN, stream.write_all(says)).await.ok()?.ok()?;
            }
            Some(stream)
        }
    });
    let begun: Vec<_> = begun.collect();
    let until = tokio::time::sleep(CONNECTED_FOR);
    let connected = stream::iter(begun).buffer_unordered(AT_ONCE).filter_map(std::future::ready);
    connected.take_until(Box::pin(until)).collect().await
}

#[expect(clippy::expect_used, reason = "the names made here are keys")]
fn key(text: &str) -> Key {
    Key::new(text.to_owned()).expect("a short name is a key")
}
