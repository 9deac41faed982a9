//! Cases of locks: one holder at a time, leases that end, tokens that rise, and writes of stale holders that are
//! fenced.
//!
//! Locks are records that any store carries, so that these cases prove the store's transactions as much as the lock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    Error, Lock, LockOptions, Store, Txn,
    conformance::{
        context::{Context, Handle, PATIENCE, parallel, to_key},
        stop::{Checked, Stop, ensure, ensure_eq, ensure_error},
    },
};

/// A lease that somebody has to wait for: long enough for a round trip on a busy machine, short enough for a test.
const SHORT_TTL: Duration = Duration::from_millis(1500);

/// The name of the lock of each case; its namespace is its own.
const NAME: &str = "lock";

pub(super) type Held = Lock<Arc<dyn Store>>;

pub(super) async fn exclusive(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    let held = lock(&one, "one", PATIENCE).await?;
    ensure!(held.is_held(), "a lock that was just acquired is lost");
    for store in [&other, &one] {
        let second =
            Lock::acquire(store.store().clone(), to_key(NAME)?, LockOptions::new("second").wait(Duration::ZERO));
        ensure_error!(second.await, Error::LockHeld { .. }, "a second holder of a lock");
    }
    other.committed(Txn::new().fenced(&held).put(to_key("data")?, "1")).await?;
    held.release().await?;
    let next = lock(&other, "other", PATIENCE).await?;
    next.release().await?;
    Ok(())
}

pub(super) async fn critical_sections_do_not_overlap(context: &Context<'_>) -> Checked {
    const ROUNDS: u64 = 3;
    let stores = context.open_many(4).await?;
    let first = context.open().await?;
    first.put("counter", "0").await?;
    let inside = Arc::new(AtomicBool::new(false));
    let working = stores.into_iter().enumerate().map(|(place, store)| {
        let inside = Arc::clone(&inside);
        async move {
            for _ in 0..ROUNDS {
                let held = lock(&store, &format!("replica {place}"), PATIENCE).await?;
                ensure!(!inside.swap(true, Ordering::SeqCst), "replica {place} got a lock that another one holds");
                // Neither read nor write looks at the version: the lock alone keeps others away.
                let count = store.present("counter").await?;
                let count: u64 = std::str::from_utf8(&count.value).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
                store.committed(Txn::new().fenced(&held).put(to_key("counter")?, (count + 1).to_string())).await?;
                inside.store(false, Ordering::SeqCst);
                held.release().await?;
            }
            Ok(())
        }
    });
    let counted = parallel(working).await?.len() as u64 * ROUNDS;
    ensure_eq!(first.value("counter").await?, Some(counted.to_string().into()), "the sum counted under the lock");
    Ok(())
}

pub(super) async fn ttl_frees_after_crash(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    crash(lock(&one, "crashes", SHORT_TTL).await?);
    let second = Lock::acquire(other.store().clone(), to_key(NAME)?, LockOptions::new("x").wait(Duration::ZERO)).await;
    ensure_error!(second, Error::LockHeld { .. }, "the lock of a crashed holder whose lease still runs");
    let next = lock(&other, "next", PATIENCE).await?;
    next.release().await?;
    Ok(())
}

pub(super) async fn token_increases(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    let mut last = None;
    for round in 0..5 {
        let store = if round % 2 == 0 { &one } else { &other };
        let held = lock(store, "holder", if round == 2 { SHORT_TTL } else { PATIENCE }).await?;
        ensure!(Some(held.token()) > last, "round {round}: the token {} after {last:?}", held.token());
        last = Some(held.token());
        match round {
            2 => crash(held),
            3 => {
                let forced = Lock::force_release(one.store(), &to_key(NAME)?).await?.map(|status| status.token);
                ensure!(forced > last, "a forced release raised the token from {last:?} to {forced:?}");
                last = forced;
                crash(held);
            }
            _ => held.release().await?,
        }
    }
    Ok(())
}

pub(super) async fn stale_holder_is_fenced(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    let stale = lock(&one, "stale", SHORT_TTL).await?;
    let late = |value: &'static str| -> crate::Result<Txn> {
        Ok(Txn { guards: vec![stale.guard()], ..Txn::new().put(to_key("data")?, value) })
    };
    let (in_time, too_late) = (late("in time")?, late("too late")?);
    one.committed(in_time).await?;
    crash(stale);
    let next = lock(&other, "next", PATIENCE).await?;
    one.conflict(too_late.clone()).await?;
    other.committed(Txn::new().fenced(&next).put(to_key("data")?, "next")).await?;
    next.release().await?;
    one.conflict(too_late).await?;
    ensure_eq!(other.present("data").await?.value, "next", "the write of the rightful holder");
    Ok(())
}

pub(super) async fn foreign_release_rejected(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    let overtaken = lock(&one, "overtaken", PATIENCE).await?;
    Lock::force_release(other.store(), &to_key(NAME)?).await?;
    let next = lock(&other, "next", PATIENCE).await?;
    ensure_error!(overtaken.release().await, Error::LeaseLost, "the release of a lock that somebody else holds");
    let status = Lock::status(one.store(), &to_key(NAME)?).await?;
    let status = status.map(|status| (status.held, status.owner, status.token));
    ensure_eq!(status, Some((true, "next".to_owned(), next.token())), "the lock after a foreign release");
    other.committed(Txn::new().fenced(&next).put(to_key("data")?, "1")).await?;
    next.release().await?;
    Ok(())
}

pub(super) async fn loss_is_signalled(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    let held = lock(&one, "held", SHORT_TTL * 2).await?;
    Lock::force_release(other.store(), &to_key(NAME)?).await?;
    if tokio::time::timeout(PATIENCE, held.lost()).await.is_err() {
        return Err(Stop::failed(format_args!("a holder was not told for {PATIENCE:?} that its lock was taken away")));
    }
    ensure!(!held.is_held(), "a lock that was taken away counts as held");
    Ok(())
}

/// Acquires the lock of the case, waiting for it if need be.
pub(super) async fn lock(store: &Handle, owner: &str, ttl: Duration) -> crate::Result<Held> {
    Lock::acquire(store.store().clone(), to_key(NAME)?, LockOptions::new(owner).ttl(ttl).wait(PATIENCE)).await
}

/// What a crash of the holder leaves: a lock that nobody releases or renews.
pub(super) fn crash(held: Held) {
    drop(held);
}
