//! What the store is for, on plain records: the state of a channel moves by compare-and-swap, and a claim moves it
//! together with the record of the claim.

use std::time::Duration;

use tokio::time::Instant;

use super::locks::{crash, lock};
use crate::{
    Backoff, Entry, Expected, Key, Txn, WriteOptions,
    conformance::{
        context::{Context, Handle, PATIENCE, parallel, to_key},
        stop::{Checked, Stop, ensure, ensure_eq},
    },
};

/// How many replicas of a service take payments at once.
const REPLICAS: usize = 5;

/// One signed payment reaches every replica: one of them accepts it.
pub(super) async fn same_payment_on_two_replicas_once(context: &Context<'_>) -> Checked {
    let stores = context.open_many(REPLICAS).await?;
    let first = context.open().await?;
    for amount in (10..=80).step_by(10) {
        if amount == 10 {
            open_channel(&first).await?;
        }
        let paying = stores.iter().cloned().map(|store| async move { pay(&store, 0, amount).await });
        let accepted = parallel(paying).await?.into_iter().filter(|accepted| *accepted).count();
        ensure_eq!(accepted, 1, "how many replicas accepted the payment of {amount}");
        ensure_eq!(channel(&first).await?.1, Channel { nonce: 0, authorized: amount }, "the channel after it");
    }
    Ok(())
}

/// Payments arrive in any order: what is authorized never goes down, and ends at the highest.
pub(super) async fn lower_amount_rejected(context: &Context<'_>) -> Checked {
    const PAYMENTS: u64 = 8;
    let stores = context.open_many(REPLICAS).await?;
    let first = context.open().await?;
    open_channel(&first).await?;
    ensure!(pay(&first, 0, 5).await?, "the first payment was refused");
    for amount in [0, 4, 5] {
        ensure!(!pay(&first, 0, amount).await?, "{amount} was accepted although 5 are authorized");
    }
    let paying = (0u64..).zip(stores).map(|(place, store)| async move {
        let mut accepted = Vec::new();
        // Every replica has amounts of its own, up and down.
        for number in 0..PAYMENTS {
            let amount = 10 + (number * 5 % PAYMENTS) * 10 + place;
            if pay(&store, 0, amount).await? {
                accepted.push(amount);
            }
            let authorized = channel(&store).await?.1.authorized;
            ensure!(authorized >= amount, "{authorized} are authorized after {amount} was presented");
        }
        Ok(accepted)
    });
    let mut accepted = parallel(paying).await?.concat();
    let highest = 10 + (PAYMENTS - 1) * 10 + REPLICAS as u64 - 1;
    ensure_eq!(channel(&first).await?.1.authorized, highest, "what is authorized in the end");
    let count = accepted.len();
    accepted.sort_unstable();
    accepted.dedup();
    ensure_eq!(accepted.len(), count, "payments accepted, each once");
    Ok(())
}

/// A claim and a payment race for the same channel: the payment is in the claim, or it is refused.
pub(super) async fn claim_against_payment(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    open_channel(&one).await?;
    for round in 0..8 {
        ensure!(pay(&one, round, 100).await?, "round {round}: the payment before the race was refused");
        let (payer, claimer) = (one.clone(), other.clone());
        let race: [futures::future::BoxFuture<'static, Checked<bool>>; 2] = [
            Box::pin(async move { pay(&payer, round, 130).await }),
            Box::pin(async move {
                let deadline = Instant::now() + PATIENCE;
                let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(50));
                while !claimer.commit(claim(&channel(&claimer).await?)?).await?.is_committed() {
                    ensure!(Instant::now() < deadline, "round {round}: a claim got nowhere for {PATIENCE:?}");
                    backoff.wait().await;
                }
                Ok(true)
            }),
        ];
        let paid = parallel(race).await?.first().copied().unwrap_or(false);
        let claimed = if paid { "130" } else { "100" };
        ensure_eq!(one.value(claim_key(round)?).await?, Some(claimed.into()), "round {round}: claimed, paid: {paid}");
        let next = Channel { nonce: round + 1, authorized: 0 };
        ensure_eq!(channel(&other).await?.1, next, "round {round}: the channel after the claim");
        ensure!(!pay(&one, round, 200).await?, "round {round}: a payment for the claimed nonce was accepted");
    }
    Ok(())
}

/// A replica dies while it claims: the channel moved and the claim can be listed, or neither.
pub(super) async fn claim_crash_is_atomic(context: &Context<'_>) -> Checked {
    const CRASHES: u32 = 16;
    let (one, other) = context.open_two().await?;
    open_channel(&one).await?;
    for crash in 0..CRASHES {
        let (_, before) = channel(&one).await?;
        ensure!(pay(&one, before.nonce, before.authorized + 10).await?, "crash {crash}: the payment was refused");
        let current = channel(&one).await?;
        let (txn, before) = (claim(&current)?, current.1);
        let store = one.store().clone();
        let claiming = tokio::spawn(async move { store.commit(txn, WriteOptions::default()).await });
        // Where in the commit the replica dies is the subject, so time passes.
        tokio::time::sleep(Duration::from_micros(30) * crash * crash).await;
        claiming.abort();
        // The last write of the dead replica may still be on its way: whoever comes next swaps, and so knows.
        let deadline = Instant::now() + PATIENCE;
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(50));
        let after = loop {
            let (entry, after) = channel(&other).await?;
            let again = other.put_expecting("channel", Expected::Version(entry.version), entry.value.clone()).await?;
            if again.is_committed() {
                break after;
            }
            ensure!(Instant::now() < deadline, "crash {crash}: the channel changed for {PATIENCE:?}");
            backoff.wait().await;
        };
        let listed = other.value(claim_key(before.nonce)?).await?;
        if after == before {
            ensure_eq!(listed, None, "crash {crash}: the claim of a channel that did not move");
        } else {
            ensure_eq!(after, Channel { nonce: before.nonce + 1, authorized: 0 }, "crash {crash}: the channel");
            let amount = before.authorized.to_string();
            ensure_eq!(listed, Some(amount.into()), "crash {crash}: the claim of a channel that moved");
        }
    }
    Ok(())
}

/// A replica dies between taking a channel and writing its payment: another one goes on after the lease, and the dead
/// one, should it wake, is refused.
pub(super) async fn crashed_holder_recovers(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    open_channel(&one).await?;
    let crashing = lock(&one, "crashing", Duration::from_millis(1500)).await?;
    let late = Txn::new().fenced(&crashing).put(to_key("channel")?, Channel { nonce: 0, authorized: 10 }.encode());
    crash(crashing);
    let next = lock(&other, "next", PATIENCE).await?;
    let paid = Channel { nonce: 0, authorized: 20 };
    other.committed(Txn::new().fenced(&next).put(to_key("channel")?, paid.encode())).await?;
    one.conflict(late.clone()).await?;
    next.release().await?;
    one.conflict(late).await?;
    ensure_eq!(channel(&one).await?.1, paid, "the channel after a late write of the replica that crashed");
    Ok(())
}

/// The state of the one channel of a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Channel {
    nonce: u64,
    authorized: u64,
}

impl Channel {
    fn encode(self) -> String {
        format!("{} {}", self.nonce, self.authorized)
    }

    fn decode(entry: &Entry) -> Checked<Self> {
        let text = std::str::from_utf8(&entry.value).ok();
        let parts = text.and_then(|text| text.split_once(' '));
        let parsed = parts.and_then(|(nonce, authorized)| {
            Some(Self { nonce: nonce.parse().ok()?, authorized: authorized.parse().ok()? })
        });
        parsed.ok_or_else(|| Stop::failed(format_args!("the channel holds {:?}, which nobody wrote", entry.value)))
    }
}

async fn open_channel(store: &Handle) -> Checked {
    store.put("channel", Channel { nonce: 0, authorized: 0 }.encode()).await?;
    Ok(())
}

async fn channel(store: &Handle) -> Checked<(Entry, Channel)> {
    let entry = store.present("channel").await?;
    let channel = Channel::decode(&entry)?;
    Ok((entry, channel))
}

/// Presents a payment; whether it was accepted.
async fn pay(store: &Handle, nonce: u64, amount: u64) -> Checked<bool> {
    let deadline = Instant::now() + PATIENCE;
    let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(50));
    loop {
        let (entry, channel) = channel(store).await?;
        if channel.nonce != nonce || channel.authorized >= amount {
            return Ok(false);
        }
        let next = Channel { nonce, authorized: amount }.encode();
        if store.put_expecting("channel", Expected::Version(entry.version), next).await?.is_committed() {
            return Ok(true);
        }
        ensure!(Instant::now() < deadline, "a payment got nowhere for {PATIENCE:?}");
        backoff.wait().await;
    }
}

/// Moves the channel to its next nonce and records what there is to claim, in one transaction.
fn claim((entry, channel): &(Entry, Channel)) -> Checked<Txn> {
    let next = Channel { nonce: channel.nonce + 1, authorized: 0 };
    let record = claim_key(channel.nonce)?;
    Ok(Txn::new()
        .guard(entry.key.clone(), Expected::Version(entry.version))
        .guard(record.clone(), Expected::Absent)
        .put(entry.key.clone(), next.encode())
        .put(record, channel.authorized.to_string()))
}

fn claim_key(nonce: u64) -> crate::Result<Key> {
    to_key(format!("claim/{nonce:06}"))
}
