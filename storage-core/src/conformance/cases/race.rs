//! Cases of replicas that race for the same keys: one winner, no lost update, sums that hold.
//!
//! Each is repeated, since a store that checks and then writes may be lucky once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use crate::{
    Backoff, Entry, Error, Expected, Outcome, Txn, WriteOptions,
    conformance::{
        context::{Context, Handle, PATIENCE, parallel, to_key},
        register::{Action, Operation, check},
        stop::{Checked, Stop, ensure, ensure_eq},
    },
};

/// How many replicas race: more than a machine has cores, few enough for slow servers.
const REPLICAS: usize = 6;

pub(super) async fn n_cas_one_winner(context: &Context<'_>) -> Checked {
    let stores = context.open_many(REPLICAS).await?;
    let first = context.open().await?;
    let mut version = first.put("a", "start").await?;
    // One round may be decided by who was scheduled first; in several, a store that checks and then writes shows it.
    for round in 0..8 {
        let swaps = stores.iter().cloned().enumerate().map(|(place, store)| async move {
            Ok(store.put_expecting("a", Expected::Version(version), format!("{round} {place}")).await?.committed())
        });
        let (winner, committed) = only_winner(parallel(swaps).await?, round)?;
        let entry = first.present("a").await?;
        ensure_eq!(entry.value, format!("{round} {winner}"), "the value after the race: the winner's");
        ensure_eq!(committed.version(), Some(entry.version), "the version that the winner was given");
        version = entry.version;
    }
    Ok(())
}

pub(super) async fn n_put_if_absent_one_winner(context: &Context<'_>) -> Checked {
    let stores = context.open_many(REPLICAS).await?;
    for round in 0..8 {
        let puts = stores.iter().cloned().enumerate().map(|(place, store)| async move {
            Ok(store.put_expecting("a", Expected::Absent, place.to_string()).await?.committed())
        });
        let (winner, _) = only_winner(parallel(puts).await?, round)?;
        let store = stores.first().ok_or_else(|| Stop::failed("no handles"))?;
        ensure_eq!(store.present("a").await?.value, winner.to_string(), "the value after the race: the winner's");
        store.delete("a").await?;
    }
    Ok(())
}

pub(super) async fn n_deletes_one_winner(context: &Context<'_>) -> Checked {
    let stores = context.open_many(REPLICAS).await?;
    let first = context.open().await?;
    for round in 0..8 {
        let version = first.put("a", "1").await?;
        let deletes = stores
            .iter()
            .cloned()
            .map(|store| async move { Ok(store.delete_expecting("a", Expected::Version(version)).await?.committed()) });
        only_winner(parallel(deletes).await?, round)?;
        ensure_eq!(first.get("a").await?, None, "round {round}: after the race");
    }
    Ok(())
}

pub(super) async fn counter_loses_nothing(context: &Context<'_>) -> Checked {
    const INCREMENTS: u64 = 10;
    let stores = context.open_many(REPLICAS).await?;
    let first = context.open().await?;
    first.put("counter", "0").await?;
    let counting = stores.into_iter().map(|store| async move {
        for _ in 0..INCREMENTS {
            let mut backoff = contention();
            loop {
                let entry = store.present("counter").await?;
                let next = number(&entry)? + 1;
                let swap = store.put_expecting("counter", Expected::Version(entry.version), next.to_string());
                if swap.await?.is_committed() {
                    break;
                }
                backoff.wait().await;
            }
        }
        Ok(())
    });
    let counted = parallel(counting).await?.len() as u64 * INCREMENTS;
    ensure_eq!(number(&first.present("counter").await?)?, counted, "the sum of all increments");
    Ok(())
}

/// Transfers between accounts: no money appears or vanishes, and no account is overdrawn.
pub(super) async fn bank_sum_holds(context: &Context<'_>) -> Checked {
    const ACCOUNTS: u64 = 4;
    const START: u64 = 20;
    const TRANSFERS: u64 = 12;
    let stores = context.open_many(4).await?;
    let first = context.open().await?;
    let account = |number: u64| to_key(format!("account/{number}"));
    for number in 0..ACCOUNTS {
        first.put(account(number)?, START.to_string()).await?;
    }
    let transferring = (0..).zip(stores).map(|(seed, store)| async move {
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..TRANSFERS {
            let from = random.u64(0..ACCOUNTS);
            let to = (from + random.u64(1..ACCOUNTS)) % ACCOUNTS;
            let amount = random.u64(1..START);
            let mut backoff = contention();
            loop {
                let (source, target) = (store.present(account(from)?).await?, store.present(account(to)?).await?);
                let Some(rest) = number(&source)?.checked_sub(amount) else { break };
                let txn = Txn::new()
                    .guard(source.key.clone(), Expected::Version(source.version))
                    .guard(target.key.clone(), Expected::Version(target.version))
                    .put(source.key.clone(), rest.to_string())
                    .put(target.key.clone(), (number(&target)? + amount).to_string());
                if store.commit(txn).await?.is_committed() {
                    break;
                }
                backoff.wait().await;
            }
        }
        Ok(())
    });
    parallel(transferring).await?;
    let mut sum = 0;
    for entry in first.scan("account/").await? {
        sum += number(&entry)?;
    }
    ensure_eq!(sum, ACCOUNTS * START, "the sum of all accounts");
    Ok(())
}

/// Writers of different keys are in nobody's way: none of their swaps conflicts.
pub(super) async fn disjoint_keys_progress(context: &Context<'_>) -> Checked {
    let stores = context.open_many(REPLICAS).await?;
    let swapping = stores.into_iter().enumerate().map(|(place, store)| async move {
        let key = format!("own/{place}");
        let mut version = store.put(&key, "start").await?;
        for round in 0..15 {
            let swapped = store.put_expecting(&key, Expected::Version(version), round.to_string()).await?;
            let committed = swapped.committed().ok_or_else(|| {
                Stop::failed(format_args!("replica {place}, round {round}: a conflict on a key of its own"))
            })?;
            version = committed.version().ok_or_else(|| Stop::failed("a committed put has no version"))?;
        }
        Ok(())
    });
    parallel(swapping).await?;
    Ok(())
}

/// Reads and swaps of one key by several replicas at once can be put in one order that explains all answers.
pub(super) async fn register_is_linearizable(context: &Context<'_>) -> Checked {
    const OPERATIONS: usize = 40;
    let stores = context.open_many(4).await?;
    let (clock, seed) = (Arc::new(AtomicU64::new(0)), fastrand::u64(..));
    let clients = (0u64..).zip(stores).map(|(client, store)| {
        let clock = Arc::clone(&clock);
        async move {
            let mut random = fastrand::Rng::with_seed(seed.wrapping_add(client));
            // Old on purpose: a swap that expects what this client read some time ago has to conflict if anybody wrote since.
            let (mut history, mut last) = (Vec::with_capacity(OPERATIONS), None);
            for step in 0..OPERATIONS as u64 {
                let value = client * 1_000_000 + step;
                let called = clock.fetch_add(1, Ordering::SeqCst);
                let done = act(&store, &mut random, value, &mut last).await?;
                let returned = clock.fetch_add(1, Ordering::SeqCst);
                history.push(match done {
                    Done::Known(action) => Operation { called, returned: Some(returned), action },
                    Done::Unknown(action) => Operation { called, returned: None, action },
                });
            }
            Ok(history)
        }
    });
    let history: Vec<_> = parallel(clients).await?.into_iter().flatten().collect();
    check(&history).map_err(|why| Stop::failed(format_args!("seed {seed}: {why}")))
}

enum Done {
    Known(Action),
    Unknown(Action),
}

/// One random operation on the register; `last` is what this client read last.
async fn act(store: &Handle, random: &mut fastrand::Rng, value: u64, last: &mut Option<Entry>) -> Checked<Done> {
    let from = last.as_ref().map(number).transpose()?;
    if random.u8(0..10) < 4 {
        *last = store.get("register").await?;
        return Ok(Done::Known(Action::Read(last.as_ref().map(number).transpose()?)));
    }
    let key = to_key("register")?;
    let expected = last.as_ref().map_or(Expected::Absent, |entry| Expected::Version(entry.version));
    let txn = Txn::new().guard(key.clone(), expected).put(key, value.to_string());
    let action = |done| Action::Swap { from, to: value, done };
    match store.store().commit(txn, WriteOptions::default().timeout(PATIENCE)).await {
        Ok(outcome) => Ok(Done::Known(action(matches!(outcome, Outcome::Committed(_))))),
        Err(Error::UnknownOutcome { .. }) => Ok(Done::Unknown(action(true))),
        // Certainly not applied, so nothing happened: as good as a read that was not looked at.
        Err(error) if error.is_retryable() => {
            *last = store.get("register").await?;
            Ok(Done::Known(Action::Read(last.as_ref().map(number).transpose()?)))
        }
        Err(error) => Err(error.into()),
    }
}

/// The one that was committed, with its place.
fn only_winner<T>(outcomes: Vec<Option<T>>, round: usize) -> Checked<(usize, T)> {
    let racers = outcomes.len();
    let mut winners = outcomes.into_iter().enumerate().filter_map(|(place, won)| won.map(|won| (place, won)));
    let winner = winners.next();
    let others = winners.count();
    ensure!(others == 0, "round {round}: {} of {racers} racers won", others + 1);
    winner.ok_or_else(|| Stop::failed(format_args!("round {round}: none of {racers} racers won")))
}

fn number(entry: &Entry) -> Checked<u64> {
    let text = std::str::from_utf8(&entry.value).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| {
        let value: &Bytes = &entry.value;
        Stop::failed(format_args!("{} holds {value:?}, which nobody wrote", entry.key))
    })
}

fn contention() -> Backoff {
    Backoff::new(Duration::from_millis(2), Duration::from_millis(100))
}
