//! One run: replicas of a service, their clients, claims, an operator and the blockchain, all at once, over a bad network.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::{FutureExt, StreamExt, TryStreamExt, future::join_all};
use parking_lot::Mutex;
use payment_channels::{
    AfterClaim, ChannelSource, Claim, Error, MemoryChain, Options, Payments, Rejection, Reservation, ReservationId,
};
use storage_core::{
    Key, ReadOptions, Store, StoreExt, WatchEvent, WatchOptions, WatchStream, WatchSupport,
    channel::{Amount, BlockNumber, ChannelState, Nonce},
};
use tokio::sync::Notify;

use super::{
    history::Model,
    lossy::{Lossy, Weather},
    support::{BLOCK, LEDGER, channel, key_of, pay, replica_with},
};

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// The longest wait before and after a call.
    pub(crate) call: Duration,
    /// The lease of a reservation.
    pub(crate) lease: Duration,
}

/// How often what happened: a run in which nothing happens proves nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) accepted: usize,
    pub(crate) refused: usize,
    pub(crate) busy: usize,
    pub(crate) released: usize,
    pub(crate) lost_leases: usize,
    pub(crate) left_in_doubt: usize,
    pub(crate) claims: usize,
    pub(crate) unlocked: usize,
    pub(crate) fenced: usize,
    pub(crate) prepaid: usize,
    pub(crate) crashes_before: usize,
    pub(crate) crashes_after: usize,
    pub(crate) lost_replies: usize,
    pub(crate) late_writes: usize,
    pub(crate) failures: usize,
}

macro_rules! add_all {
    ($to:ident, $from:ident: $($field:ident)*) => { $($to.$field += $from.$field;)* };
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        add_all!(self, other: accepted refused busy released lost_leases left_in_doubt claims unlocked fenced prepaid
            crashes_before crashes_after lost_replies late_writes failures);
    }
}

/// Little, so that the end of it is often reached.
const DEPOSIT: u64 = 60;
/// What each replica does before it is done.
const ACTS: usize = 8;

/// What everybody in a run shares besides the store.
struct World {
    chain: Arc<MemoryChain>,
    weather: Arc<Weather>,
    pace: Pace,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    counts: Counts,
    /// The payments whose commit was acknowledged.
    accepted: Vec<(Nonce, Amount)>,
    /// The reservations that were definitely not committed.
    not_charged: Vec<ReservationId>,
    /// The claims that the contract has paid.
    paid: Vec<Claim>,
    deposited: u64,
    /// What closing claims gave back to the sender.
    returned: u64,
    /// What is in the channel in the end.
    left: u64,
    /// A reserved payment that could not be committed although nobody was ahead of it: a call that is not paid.
    unpaid: Option<String>,
}

/// Runs everything that `seed` gives, a replica on each of `stores`, and checks what has to hold.
///
/// # Errors
/// What did not hold.
pub(crate) async fn run(seed: u64, stores: &[Arc<dyn Store>], pace: Pace) -> Result<Counts, String> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let world = Arc::new(World {
        chain: super::support::chain(DEPOSIT),
        weather: Weather::new(rng.u64(..), pace.call),
        pace,
        log: Mutex::new(Log { deposited: DEPOSIT, ..Log::default() }),
    });
    let [first, ..] = stores else { return Err("a run needs a store".to_owned()) };
    let watch = match first.capabilities().watch {
        WatchSupport::Ordered => Some(first.watch(b"", WatchOptions::default()).await.map_err(text)?),
        WatchSupport::Latest => None,
    };
    let replicas = (0..).zip(stores).map(|(number, store)| {
        let rng = rng.fork();
        Replica::new(Arc::clone(&world), format!("replica {number}"), Arc::clone(store), rng).live()
    });
    join_all(replicas).await;
    world.weather.clears().await;
    check(&world, first, watch).await
}

/// What a replica does in a run.
struct Replica {
    world: Arc<World>,
    name: String,
    store: Arc<dyn Store>,
    rng: fastrand::Rng,
}

type Life = Payments<Lossy, Arc<MemoryChain>>;

impl Replica {
    fn new(world: Arc<World>, name: String, store: Arc<dyn Store>, rng: fastrand::Rng) -> Self {
        Self { world, name, store, rng }
    }

    async fn live(mut self) {
        let crash = Arc::new(Notify::new());
        let store = Lossy {
            store: Arc::clone(&self.store),
            weather: Arc::clone(&self.world.weather),
            crash: Arc::clone(&crash),
        };
        let mut payments = self.start(&store);
        for _ in 0..ACTS {
            tokio::select! {
                biased;
                // A replica that starts again remembers nothing.
                () = crash.notified() => payments = self.start(&store),
                () = self.act(&payments) => {}
            }
        }
    }

    fn start(&mut self, store: &Lossy) -> Life {
        let lease = self.world.pace.lease.mul_f64(0.5 + self.rng.f64());
        let wait = self.rng.choice([Duration::ZERO, lease, 4 * lease]).unwrap_or_default();
        let options = Options::new(&self.name).lease(lease).wait(wait);
        replica_with(store.clone(), &self.world.chain, options)
    }

    async fn act(&mut self, payments: &Life) {
        match self.rng.u32(..100) {
            0..70 => self.pay(payments).await,
            70..80 => {
                let after = if self.rng.u32(..4) == 0 { AfterClaim::Close } else { AfterClaim::Continue };
                let started = payments.start_claim(channel(), after).await.is_ok();
                self.world.log.lock().counts.claims += usize::from(started);
            }
            80..90 => self.world.settle_claims(payments).await,
            90..95 => {
                let unlocked = payments.operator().force_unlock(channel()).await.is_ok();
                self.world.log.lock().counts.unlocked += usize::from(unlocked);
            }
            _ => self.world.deposit(20),
        }
    }

    /// A client comes with a payment: often the one that others have, sometimes a wrong one.
    async fn pay(&mut self, payments: &Life) {
        let Ok(state) = peek(&*self.store).await else { return };
        let (nonce, authorized) = state
            .map_or((0, 0), |state| (state.nonce.to_u64().unwrap_or(0), state.authorized_amount.to_u64().unwrap_or(0)));
        let nonce = if self.rng.u32(..12) == 0 { self.rng.u64(..=nonce + 1) } else { nonce };
        let amount = (authorized + 10 * self.rng.u64(..5)).saturating_sub(10);
        let price = Amount::from(10 * self.rng.u64(..2));
        let reservation = match payments.reserve(&pay(nonce, amount), price).await {
            Ok(reservation) => reservation,
            Err(error) => {
                let counts = &mut self.world.log.lock().counts;
                match error {
                    Error::Refused(_) => counts.refused += 1,
                    Error::Busy { .. } => counts.busy += 1,
                    _ => {}
                }
                return;
            }
        };
        self.call(payments, reservation).await;
    }

    /// The call that was paid for: it takes a while, and may fail.
    async fn call(&mut self, payments: &Life, mut reservation: Reservation) {
        let lease = self.world.pace.lease;
        match self.rng.u32(..100) {
            0..20 => tokio::time::sleep(lease.mul_f64(4.0 * self.rng.f64())).await,
            20..30 => drop(payments.renew(&mut reservation).await),
            // The process forgets what it was doing.
            30..35 => return,
            _ => {}
        }
        let (charge, prepaid) = (self.rng.u32(..5) != 0, self.rng.u32(..3) == 0);
        let mut in_doubt = false;
        for _ in 0..self.rng.u32(1..4) {
            let settled = async {
                match (charge, prepaid) {
                    (true, true) => payments.commit_prepaid(&reservation).await,
                    (true, false) => payments.commit(&reservation).await,
                    (false, _) => payments.release(&reservation).await,
                }
            };
            // A caller in a hurry drops the call, which is then done or not.
            let hurry = self.rng.u32(..6) == 0;
            let patience = if hurry { 2 * self.world.pace.call } else { Duration::from_secs(60) };
            let Ok(result) = tokio::time::timeout(patience, settled).await else {
                in_doubt = true;
                continue;
            };
            let mut log = self.world.log.lock();
            match result {
                Ok(()) if charge => {
                    log.counts.accepted += 1;
                    log.accepted.push((reservation.payment().nonce(), reservation.payment().amount()));
                }
                Ok(()) => {
                    log.counts.released += 1;
                    log.not_charged.push(reservation.id());
                }
                Err(Error::LeaseLost) => {
                    log.counts.lost_leases += 1;
                    log.not_charged.push(reservation.id());
                }
                Err(Error::Refused(why)) => {
                    log.unpaid = Some(format!("{reservation} was refused when it was committed: {why}"));
                }
                Err(error) => {
                    in_doubt |= error.may_be_applied();
                    continue;
                }
            }
            return;
        }
        let mut log = self.world.log.lock();
        log.counts.left_in_doubt += usize::from(in_doubt);
        if !in_doubt {
            log.not_charged.push(reservation.id());
        }
    }
}

impl World {
    /// Lets the contract pay what is to be claimed, and finishes that.
    async fn settle_claims(&self, payments: &Life) {
        let Ok(claims) = payments.claims().try_collect::<Vec<_>>().await else { return };
        for claim in claims {
            self.pay_claim(&claim);
        }
        // Whether or not somebody else comes in between, or it dies halfway.
        drop(payments.settle_claims().await);
    }

    fn pay_claim(&self, claim: &Claim) -> Option<Rejection> {
        let mut log = self.log.lock();
        let before = self.left();
        match self.chain.pay_claim(claim) {
            Ok(()) => log.paid.push(*claim),
            Err(rejection) => return Some(rejection),
        }
        if claim.after == AfterClaim::Close {
            log.returned += before - claim.payment.amount().to_u64().unwrap_or(0);
        }
        None
    }

    fn left(&self) -> u64 {
        let channel = self.chain.channel(channel()).now_or_never().and_then(Result::ok).flatten();
        channel.and_then(|channel| channel.full_amount.to_u64()).unwrap_or(0)
    }

    fn deposit(&self, amount: u64) {
        let mut log = self.log.lock();
        let expiration = BlockNumber::from(2 * BLOCK);
        if self.chain.extend_and_add_funds(channel(), expiration, Amount::from(amount)).is_ok() {
            log.deposited += amount;
        }
    }
}

/// What has to hold when everything has come to rest.
async fn check(world: &World, store: &Arc<dyn Store>, watch: Option<WatchStream>) -> Result<Counts, String> {
    // Whoever died, the channel is free after a lease: the next payment pays, or is refused for what it is.
    let state = peek(&**store).await.map_err(text)?;
    let patient = Options::new("last").wait(20 * world.pace.lease + Duration::from_secs(5));
    let last = replica_with(Arc::clone(store), &world.chain, patient);
    let (nonce, authorized) = state.map_or((Nonce::ZERO, Amount::ZERO), |state| (state.nonce, state.authorized_amount));
    let amount = authorized.to_u64().unwrap_or(0) + 10;
    match last.reserve(&pay(nonce.to_u64().unwrap_or(0), amount), Amount::from(10)).await {
        Ok(reservation) => {
            last.commit(&reservation).await.map_err(|error| format!("the last payment: {error}"))?;
            world.log.lock().accepted.push((nonce, Amount::from(amount)));
        }
        Err(Error::Refused(_)) => {}
        Err(error) => return Err(format!("the last payment: {error}")),
    }
    // Every claim can be paid, in order, and the contract finds nothing wrong with it.
    let listed: Vec<Claim> = last.claims().try_collect().await.map_err(|error| error.to_string())?;
    for claim in &listed {
        let was_paid = world.log.lock().paid.contains(claim);
        if !was_paid && let Some(rejection) = world.pay_claim(claim) {
            return Err(format!("a claim cannot be paid: {rejection}: {claim:?}"));
        }
    }
    let settled = last.settle_claims().await.map_err(|error| error.to_string())?;
    let left: Vec<Claim> = last.operator().claims().try_collect().await.map_err(|error| error.to_string())?;
    if !left.is_empty() || settled.claims.iter().any(|settled| !settled.is_finished) {
        return Err(format!("claims are left that the chain has passed: {left:?}"));
    }
    let left = world.left();
    world.log.lock().left = left;
    let state = peek(&**store).await.map_err(text)?;
    let (mut counts, not_charged) = audit(world, state.as_ref())?;
    if let Some(watch) = watch {
        (counts.fenced, counts.prepaid) = follow(store, watch, &not_charged).await?;
    }
    let struck = &world.weather.struck;
    counts.crashes_before = struck.crashes_before.load(Ordering::Relaxed);
    counts.crashes_after = struck.crashes_after.load(Ordering::Relaxed);
    counts.lost_replies = struck.lost_replies.load(Ordering::Relaxed);
    counts.late_writes = struck.late_writes.load(Ordering::Relaxed);
    counts.failures = struck.failures.load(Ordering::Relaxed);
    Ok(counts)
}

/// Holds what everybody was told against the channel as it is in the end and what the contract has paid.
fn audit(world: &World, state: Option<&ChannelState>) -> Result<(Counts, Vec<ReservationId>), String> {
    let log = &mut *world.log.lock();
    if let Some(why) = log.unpaid.take() {
        return Err(why);
    }
    // A payment is accepted once at the most, over all replicas, and no acknowledged one is lost.
    let distinct: BTreeSet<_> = log.accepted.iter().collect();
    if distinct.len() != log.accepted.len() {
        return Err(format!("a payment was accepted twice: {:?}", log.accepted));
    }
    for (nonce, amount) in &log.accepted {
        let claimed = log.paid.iter().any(|claim| claim.payment.nonce() == *nonce && claim.payment.amount() >= *amount);
        let stands = state.is_some_and(|state| state.nonce == *nonce && state.authorized_amount >= *amount);
        if !claimed && !stands {
            return Err(format!("{amount} at nonce {nonce} was acknowledged and is lost: {state:?} {:?}", log.paid));
        }
    }
    let claimed: u64 = log.paid.iter().filter_map(|claim| claim.payment.amount().to_u64()).sum();
    // A claim that closes gives what is left back to the sender; no other token comes or goes.
    let accounted = claimed + log.left + log.returned;
    if accounted != log.deposited {
        let Log { deposited, left, returned, .. } = log;
        return Err(format!(
            "{claimed} were claimed, {returned} returned and {left} are left, of {deposited} deposited"
        ));
    }
    Ok((log.counts, std::mem::take(&mut log.not_charged)))
}

/// Follows every commit with the model. Returns how often a holder was fenced, and how often usage was planned.
async fn follow(
    store: &Arc<dyn Store>,
    watch: WatchStream,
    not_charged: &[ReservationId],
) -> Result<(usize, usize), String> {
    let end = Key::try_from("the end").map_err(text)?;
    store.put(&end, "").await.map_err(text)?;
    let mut watch = watch;
    let (mut model, mut commit): (Model, Vec<WatchEvent>) = Default::default();
    loop {
        let event = watch.next().await.ok_or("the watch ended")?.map_err(text)?;
        if commit.first().is_some_and(|first| first.revision() != event.revision()) {
            model.follow(&commit).map_err(|why| format!("{why}, in {commit:?}"))?;
            commit.clear();
        }
        if *event.key() == end {
            break;
        }
        commit.push(event);
    }
    match not_charged.iter().find(|id| model.committed.contains(id)) {
        Some(id) => Err(format!("reservation {id} was told that it is not charged, and is")),
        None => Ok((model.fenced, model.prepaid)),
    }
}

async fn peek(store: &dyn Store) -> storage_core::Result<Option<ChannelState>> {
    let entry = store.get(&key_of(channel()), ReadOptions::default()).await?;
    Ok(entry.and_then(|entry| ChannelState::decode(LEDGER.open(&entry).ok()?).ok()))
}

fn text(error: storage_core::Error) -> String {
    error.to_string()
}
