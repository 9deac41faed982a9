//! A client of the rehearsed service: it pays for call after call, and now and then tries to spend twice.
//!
//! It notes in its book before it sends, and what it was told after. It must not learn anything from the store: an
//! audit by the suspect is none.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use payment_channels::{Operation, Payment, Refusal, UsageChange};
use storage::channel::Amount as Tokens;
use tokio::sync::oneshot;

use super::{
    Traffic,
    replica::name,
    request::{Ask, Reply, Request},
    world::{Channel, World},
};
use bench::{Amount, Error, Latencies, PRICE, Result};

/// A client that was not served waits between these before it tries again; twice as long each time.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(60));

/// If nobody's payment goes through for so long, the store is gone.
const SILENCE: Duration = Duration::from_secs(30);

/// One of so many payments is sent to two replicas at once, and one of so many that were served is sent again.
const ATTACK: u32 = 16;

/// Beside one of so many payments the client uses something that it has paid for in advance.
const PREPAID: u32 = 16;

/// A client: it pays for one call after the other.
pub(super) struct Client {
    world: Arc<World>,
    /// The place of its channel; 0 is the hot one.
    channel: usize,
    /// The replica that it called last. It stays there while that one answers.
    replica: usize,
    rng: fastrand::Rng,
    latencies: Latencies,
}

impl Client {
    pub(super) fn new(world: Arc<World>, number: usize, channel: usize, rng: fastrand::Rng) -> Self {
        let replica = number % world.mailboxes.len().max(1);
        Self { world, channel, replica, rng, latencies: Latencies::default() }
    }

    /// Pays until the end. Tells how long payments took, and whether the channel was the hot one.
    pub(super) async fn live(mut self) -> Result<(bool, Latencies)> {
        while self.may_go_on() {
            let began = Instant::now();
            if !self.pay().await? {
                break;
            }
            self.latencies.record(began.elapsed());
            if self.world.rehearsal.traffic == Traffic::Everything && self.is_alone() && self.rng.u32(..PREPAID) == 0 {
                self.use_prepaid().await?;
            }
        }
        Ok((!self.is_alone(), self.latencies))
    }

    fn may_go_on(&self) -> bool {
        let in_number = match self.world.rehearsal.amount {
            Amount::Iterations(payments) => self.world.counts.begun.fetch_add(1, Relaxed) < payments,
            Amount::Time(_) => true,
        };
        in_number && !self.world.is_over()
    }

    /// Whether the channel is its own.
    fn is_alone(&self) -> bool {
        self.channel > 0
    }

    fn channel(&self) -> Result<&Channel> {
        self.world.channels.get(self.channel).ok_or_else(|| Error::Usage("a client without a channel".to_owned()))
    }

    /// Pays for one call. `false`: the end came first.
    async fn pay(&mut self) -> Result<bool> {
        let mut backoff = BACKOFF.0;
        while !self.world.is_over() {
            // Signed anew for each try: others may have paid from the hot channel meanwhile.
            let payment = self.channel()?.sign()?;
            if self.offer(&payment).await? {
                self.world.note_payment();
                if self.attacks() {
                    // Once more what was served already.
                    self.world.counts.double_spends.fetch_add(1, Relaxed);
                    let replica = self.another_replica();
                    let answer = self.send(replica, &payment).await;
                    self.hear(&payment, &answer)?;
                }
                return Ok(true);
            }
            if self.world.silence() > SILENCE {
                return Err(storage::Error::unavailable(self.why_silent()).into());
            }
            self.world.pause(backoff.mul_f64(self.rng.f64())).await;
            backoff = (2 * backoff).min(BACKOFF.1);
        }
        Ok(false)
    }

    fn why_silent(&self) -> String {
        let (seconds, counts, last) = (SILENCE.as_secs(), &self.world.counts, self.world.last_failure.lock());
        let [busy, stale, unknown, failed] =
            [&counts.busy, &counts.stale, &counts.unknown, &counts.failed].map(|counter| counter.load(Relaxed));
        let last = if last.is_empty() { "no failure was seen" } else { last.as_str() };
        format!(
            "no payment went through for {seconds} s; {last} (so far {busy} busy, {stale} stale, {unknown} unknown, {failed} failed)"
        )
    }

    /// Sends a payment to a replica, or to two of them at once. Whether it was served.
    async fn offer(&mut self, payment: &Payment) -> Result<bool> {
        let first = self.replica;
        if !self.attacks() {
            let answer = self.send(first, payment).await;
            return self.hear(payment, &answer);
        }
        self.world.counts.double_spends.fetch_add(1, Relaxed);
        let second = self.another_replica();
        let (one, other) = tokio::join!(self.send(first, payment), self.send(second, payment));
        let served = [self.hear(payment, &one)?, self.hear(payment, &other)?];
        Ok(served.contains(&true))
    }

    fn attacks(&mut self) -> bool {
        self.world.rehearsal.traffic == Traffic::Everything && self.rng.u32(..ATTACK) == 0
    }

    fn another_replica(&mut self) -> usize {
        self.rng.usize(..self.world.mailboxes.len().max(1))
    }

    async fn send(&self, replica: usize, payment: &Payment) -> Option<Reply> {
        send(&self.world, replica, self.channel, Ask::Pay(*payment)).await
    }

    /// Notes an answer (`None`: the replica was down, and got nothing) and learns from it. Whether the payment was served.
    fn hear(&mut self, payment: &Payment, answer: &Option<Reply>) -> Result<bool> {
        let world = Arc::clone(&self.world);
        let (counts, channel) = (&world.counts, self.channel()?);
        let Some((nonce, amount)) = name(payment) else { return Ok(false) };
        let counter = match answer {
            Some(Reply::Done) => {
                channel.book.lock().acknowledge((nonce, amount));
                channel.learn(nonce, amount);
                return Ok(true);
            }
            Some(Reply::Refused(Refusal::StaleAmount { authorized, .. })) => {
                channel.learn(nonce, authorized.to_u64().unwrap_or(0));
                &counts.stale
            }
            Some(Reply::Refused(Refusal::IncorrectNonce { expected, .. })) => {
                channel.learn(expected.to_u64().unwrap_or(0), 0);
                &counts.stale
            }
            Some(Reply::Busy) => &counts.busy,
            Some(Reply::LeaseLost) => &counts.lost_leases,
            Some(Reply::Unknown) => {
                // From here on it may be charged or not, and the audit takes either.
                channel.book.lock().doubt((nonce, amount));
                self.replica = self.another_replica();
                &counts.unknown
            }
            None => {
                self.replica = self.another_replica();
                return Ok(false);
            }
            Some(Reply::Refused(refusal)) => {
                *world.last_failure.lock() = refusal.to_string();
                &counts.failed
            }
            Some(Reply::Failed(what)) => {
                world.last_failure.lock().clone_from(what);
                &counts.failed
            }
            Some(Reply::Wrong(what)) => {
                channel.book.lock().impossible(what.clone());
                return Ok(false);
            }
        };
        counter.fetch_add(1, Relaxed);
        Ok(false)
    }

    /// Pays for three units in advance, uses two, and gets one back, each change as often as it takes to be told that it counts.
    async fn use_prepaid(&mut self) -> Result<()> {
        let changes = [(3, UsageChange::Plan as fn(Tokens) -> _), (2, UsageChange::Use), (1, UsageChange::Refund)];
        for (units, change) in changes {
            if !self.change(change(Tokens::from(units * PRICE))).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// `false`: the end came first.
    async fn change(&mut self, change: UsageChange) -> Result<bool> {
        let operation = Operation::random();
        let mut in_doubt = false;
        while !self.world.is_over() {
            let answer = send(&self.world, self.replica, self.channel, Ask::Change(operation, change)).await;
            match answer {
                Some(Reply::Done) => {
                    self.channel()?.book.lock().change(change, true);
                    self.world.counts.prepaid.fetch_add(1, Relaxed);
                    return Ok(true);
                }
                Some(Reply::Wrong(what)) => {
                    self.channel()?.book.lock().impossible(what);
                    return Ok(false);
                }
                Some(Reply::Unknown) => in_doubt = true,
                _ => {}
            }
            self.replica = self.another_replica();
            self.world.pause(BACKOFF.1.mul_f64(self.rng.f64())).await;
        }
        if in_doubt {
            self.channel()?.book.lock().change(change, false);
        }
        Ok(false)
    }
}

/// Sends a request. `None`: the replica is down, and it certainly got nothing. A replica that dies with the request answers
/// [`Reply::Unknown`], as a broken connection does.
async fn send(world: &World, replica: usize, channel: usize, ask: Ask) -> Option<Reply> {
    let mailbox = world.mailboxes.get(replica)?.lock().clone()?;
    let (reply, answer) = oneshot::channel();
    mailbox.send(Request { channel, ask, reply }).await.ok()?;
    Some(answer.await.unwrap_or(Reply::Unknown))
}
