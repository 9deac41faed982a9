//! What everybody in a rehearsal shares: channels, mailboxes of the replicas, counters, and the end.
//!
//! The chain is in memory and never fails, so that whatever goes wrong is the service's or the store's. All keys are
//! below one prefix.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bench::{Error, PRICE, Result, Wallet, terms};
use futures::{
    FutureExt,
    future::{BoxFuture, ready},
};
use parking_lot::Mutex;
use payment_channels::{Claim, MemoryChain, Options, Payment, Payments};
use storage::{
    Key, Metered, Prefixed, Registry, Store,
    channel::{Amount, ChannelId, Nonce},
};
use tokio::sync::{mpsc, watch};

use super::{Rehearsal, book::Book, request::Request};

/// Opens the store for one replica: a handle of its own, with a connection of its own where there are connections.
pub type Open = Arc<dyn Fn(usize) -> BoxFuture<'static, storage::Result<Arc<dyn Store>>> + Send + Sync>;

/// Lets each replica have the next of these handles.
pub fn in_turn(handles: Vec<Arc<dyn Store>>) -> Open {
    Arc::new(move |replica| {
        let handle = handles.iter().cycle().nth(replica % handles.len().max(1)).map(Arc::clone);
        ready(handle.ok_or(storage::Error::Closed)).boxed()
    })
}

/// A replica's way to the store: the keys of this rehearsal, counted.
pub(super) type Handle = Metered<Prefixed<Arc<dyn Store>>>;
pub(super) type Service = Payments<Handle, Arc<MemoryChain>>;

/// What everybody in a rehearsal shares besides the store.
pub(super) struct World {
    pub(super) rehearsal: Rehearsal,
    pub(super) open: Open,
    /// What the keys of this rehearsal begin with.
    pub(super) prefix: Key,
    pub(super) chain: Arc<MemoryChain>,
    pub(super) registry: Arc<Registry>,
    pub(super) channels: Vec<Channel>,
    /// Where each replica takes requests; `None`: it is down.
    pub(super) mailboxes: Vec<Mutex<Option<mpsc::Sender<Request>>>>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) counts: Counts,
    /// What the store said last when it failed.
    pub(super) last_failure: Mutex<String>,
    began: Instant,
}

/// A client's side of one channel. Several clients share the hot one.
pub(super) struct Channel {
    pub(super) wallet: Wallet,
    pub(super) book: Mutex<Book>,
    /// The nonce and what the clients believe to be authorized at it.
    pub(super) belief: Mutex<(u64, u64)>,
    /// The claims that the contract has paid.
    pub(super) paid: Mutex<Vec<Claim>>,
}

/// What happened so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) payments: AtomicU64,
    pub(super) busy: AtomicU64,
    pub(super) stale: AtomicU64,
    pub(super) unknown: AtomicU64,
    pub(super) lost_leases: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) kills: AtomicU64,
    pub(super) double_spends: AtomicU64,
    pub(super) prepaid: AtomicU64,
    /// Payments that were begun, where their number is given.
    pub(super) begun: AtomicU64,
    /// When a payment was acknowledged last, in milliseconds since the beginning.
    last_payment: AtomicU64,
}

impl World {
    pub(super) fn new(rehearsal: Rehearsal, open: Open) -> Result<Self> {
        let chain = Arc::new(MemoryChain::new());
        // The first is the hot one, if anybody uses it.
        let channels = (0..=rehearsal.own_clients()).map(|number| Channel::open(number as u64, &chain));
        let channels = channels.collect::<Result<_>>()?;
        let prefix = Key::new(format!("snet-rehearse/{:032x}/", storage::unique_id()))?;
        let mailboxes = (0..rehearsal.replicas).map(|_| Mutex::default()).collect();
        let registry = Arc::new(Registry::new());
        let (stop, counts, began) = (watch::Sender::new(false), Counts::default(), Instant::now());
        let last_failure = Mutex::default();
        Ok(Self { rehearsal, open, prefix, chain, registry, channels, mailboxes, stop, counts, last_failure, began })
    }

    /// Payments on a new handle, for one who calls itself so.
    pub(super) async fn service(&self, number: usize, name: String, wait: Duration) -> Result<Service> {
        let store = Prefixed::new((self.open)(number).await?, self.prefix.clone());
        let store = Metered::new(store, Arc::clone(&self.registry) as Arc<dyn storage::Metrics>);
        let options = Options::new(name).lease(self.rehearsal.lease).wait(wait);
        Payments::new(store, Arc::clone(&self.chain), terms(), options).map_err(|error| Error::Usage(error.to_string()))
    }

    /// Longer than anybody dead blocks a channel.
    pub(super) fn patience(&self) -> Duration {
        4 * self.rehearsal.lease + Duration::from_secs(5)
    }

    pub(super) fn is_over(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits, but not beyond the end.
    pub(super) async fn pause(&self, wait: Duration) {
        let mut stop = self.stop.subscribe();
        // Both ends of the channel are here, so that it cannot fail.
        let _ = tokio::time::timeout(wait, stop.wait_for(|stop| *stop)).await;
    }

    pub(super) fn note_payment(&self) {
        self.counts.payments.fetch_add(1, Ordering::Relaxed);
        self.counts.last_payment.store(self.millis(), Ordering::Relaxed);
    }

    /// For how long nobody's payment was acknowledged.
    pub(super) fn silence(&self) -> Duration {
        Duration::from_millis(self.millis().saturating_sub(self.counts.last_payment.load(Ordering::Relaxed)))
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Channel {
    fn open(number: u64, chain: &MemoryChain) -> Result<Self> {
        let wallet = Wallet::open(number, ChannelId::from(number), chain)?;
        Ok(Self { wallet, book: Default::default(), belief: Default::default(), paid: Default::default() })
    }

    pub(super) fn id(&self) -> ChannelId {
        self.wallet.channel
    }

    /// Signs the next payment as far as is known, and notes that it exists.
    pub(super) fn sign(&self) -> Result<Payment> {
        let (nonce, authorized) = *self.belief.lock();
        let payment = self.wallet.sign(Nonce::from(nonce), Amount::from(authorized + PRICE))?;
        self.book.lock().sign((nonce, authorized + PRICE));
        Ok(payment)
    }

    /// Learns what is authorized at a nonce. What is older than what is known says nothing.
    pub(super) fn learn(&self, nonce: u64, authorized: u64) {
        let mut belief = self.belief.lock();
        *belief = (*belief).max((nonce, authorized));
    }
}
