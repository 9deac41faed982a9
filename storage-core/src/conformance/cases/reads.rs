//! Cases of what reads see: own writes, writes of others, never an older state than was known, and stale reads that end
//! up fresh.
//!
//! They wait for conditions and not for times, except that a stale read has to become fresh within the suite's
//! patience.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    Backoff, Expected, ReadOptions, ScanOptions, Txn, WriteOptions,
    conformance::{
        context::{Context, PATIENCE, parallel, to_key},
        stop::{Checked, Stop, ensure, ensure_eq},
    },
};

pub(super) async fn own_writes(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    for round in 0..30 {
        let version = store.put("a", round.to_string()).await?;
        ensure_eq!(store.present("a").await?.version, version, "round {round}: get after put");
        let many = store.get_many(&[to_key("a")?]).await?;
        ensure!(many.iter().flatten().all(|entry| entry.version == version), "round {round}: get_many after put");
        let scanned: Vec<_> = store.scan("a").await?.into_iter().map(|entry| entry.version).collect();
        ensure_eq!(scanned, [version], "round {round}: scan after put");
        if round % 3 == 0 {
            store.delete("a").await?;
            ensure_eq!(store.get("a").await?, None, "round {round}: get after delete");
            ensure_eq!(store.scan("a").await?, [], "round {round}: scan after delete");
        }
    }
    Ok(())
}

pub(super) async fn second_handle_sees(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    for round in 0..20 {
        // Several rounds each way: a reader that writes in between might drop a cache that should not be there.
        let (writer, reader) = if round / 5 % 2 == 0 { (&one, &other) } else { (&other, &one) };
        let version = writer.put("a", round.to_string()).await?;
        ensure_eq!(reader.present("a").await?.version, version, "round {round}: get on another handle");
        let many = reader.get_many(&[to_key("a")?, to_key("a")?]).await?;
        ensure!(many.iter().flatten().all(|entry| entry.version == version), "round {round}: get_many, another handle");
        let scanned: Vec<_> = reader.scan("").await?.into_iter().map(|entry| entry.version).collect();
        ensure_eq!(scanned, [version], "round {round}: scan on another handle");
    }
    Ok(())
}

/// Nobody reads an older state than anybody has read before, or than was acknowledged before.
pub(super) async fn monotonic(context: &Context<'_>) -> Checked {
    const WRITES: u64 = 60;
    let writer = context.open().await?;
    let readers = context.open_many(3).await?;
    writer.put("a", "0").await?;
    // The newest state that anybody knows of.
    let newest = Arc::new(AtomicU64::new(0));
    let writing = {
        let newest = Arc::clone(&newest);
        async move {
            for number in 1..=WRITES {
                writer.put("a", number.to_string()).await?;
                newest.fetch_max(number, Ordering::SeqCst);
            }
            Ok(())
        }
    };
    let reading = readers.into_iter().enumerate().map(|(place, reader)| {
        let newest = Arc::clone(&newest);
        async move {
            loop {
                let known = newest.load(Ordering::SeqCst);
                let entry = reader.present("a").await?;
                let seen = std::str::from_utf8(&entry.value).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
                ensure!(seen >= known, "reader {place} saw state {seen} after state {known} was known");
                newest.fetch_max(seen, Ordering::SeqCst);
                if seen == WRITES {
                    return Ok(());
                }
            }
        }
    });
    let writing: futures::future::BoxFuture<'static, Checked> = Box::pin(writing);
    let reading = reading.map(|reading| Box::pin(reading) as futures::future::BoxFuture<'static, Checked>);
    parallel([writing].into_iter().chain(reading)).await?;
    Ok(())
}

/// A stale read gives a state that there was, and in the end the last.
pub(super) async fn stale_is_answered(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    one.put("a", "1").await?;
    one.put("a", "2").await?;
    let options = ReadOptions::default().timeout(PATIENCE).stale();
    let (deadline, mut backoff) = (Instant::now() + PATIENCE, Backoff::new(Duration::from_millis(10), PATIENCE / 10));
    loop {
        let alone = other.store().get(&to_key("a")?, options).await?;
        let many = other.store().get_many(&[to_key("a")?], options).await?.into_iter().flatten().next();
        let scan = ScanOptions { read: options, ..ScanOptions::default() };
        let scanned = other.store().scan(b"", scan).await?.entries.into_iter().next();
        let values = [alone, many, scanned].map(|entry| entry.map(|entry| entry.value));
        for value in values.iter().flatten() {
            ensure!(value == "1" || value == "2", "a stale read gave {value:?}, which was never there");
        }
        if values.iter().all(|value| value.as_deref() == Some(b"2")) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "stale reads still give {values:?} after {PATIENCE:?}");
        backoff.wait().await;
    }
}

/// What was acknowledged before the leader died is there under the next one, and writes go on.
pub(super) async fn after_leader_kill(context: &Context<'_>) -> Checked {
    const WRITES: usize = 20;
    let (one, other) = context.open_two().await?;
    let faults = context.faults()?;
    for number in 0..WRITES {
        one.put(format!("k{number:02}"), number.to_string()).await?;
    }
    let before = one.scan("").await?;
    faults.kill_leader().await?;
    for store in [&other, &one] {
        ensure_eq!(store.scan("").await?, before, "what was acknowledged before the leader was killed");
    }
    let version = before.first().map(|entry| entry.version).ok_or_else(|| Stop::failed("nothing was written"))?;
    ensure!(other.swap_again("k00", version, "swapped").await?, "a swap under the next leader conflicts");
    ensure!(!one.swap_again("k00", version, "swapped twice").await?, "a second swap on the same version was committed");
    faults.heal().await?;
    ensure_eq!(one.present("k00").await?.value, "swapped", "after the killed server came back");
    ensure_eq!(other.scan("").await?.len(), WRITES, "entries after the killed server came back");
    Ok(())
}

pub(super) async fn minority_never_serves(context: &Context<'_>) -> Checked {
    let majority = context.open().await?;
    let faults = context.faults()?;
    majority.put("a", "old").await?;
    let minority = context.track(faults.isolate_minority().await?);
    majority.put_again("a", "new").await?;
    let timeout = Duration::from_millis(800);
    for round in 0..2 {
        let read = minority.store().get(&to_key("a")?, ReadOptions::default().timeout(timeout)).await;
        ensure!(read.is_err(), "round {round}: a minority served a read: {read:?}");
        let scanned = ScanOptions { read: ReadOptions::default().timeout(timeout), ..ScanOptions::default() };
        let scanned = minority.store().scan(b"", scanned).await;
        ensure!(scanned.is_err(), "round {round}: a minority served a scan: {scanned:?}");
        let write = Txn::new().put(to_key(format!("minority/{round}"))?, "1");
        let written = minority.store().commit(write, WriteOptions::default().timeout(timeout)).await;
        ensure!(written.is_err(), "round {round}: a minority answered a write: {written:?}");
        let guard = Txn::new().guard(to_key("a")?, Expected::Absent);
        let guarded = minority.store().commit(guard, WriteOptions::default().timeout(timeout)).await;
        ensure!(guarded.is_err(), "round {round}: a minority checked a guard: {guarded:?}");
    }
    faults.heal().await?;
    ensure_eq!(minority.present("a").await?.value, "new", "read by the minority after it was healed");
    Ok(())
}

pub(super) async fn restart_loses_nothing(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    if !store.capabilities().durable {
        return Err(Stop::skipped("the store is not declared to be durable"));
    }
    let faults = context.faults()?;
    for number in 0..20 {
        store.put(format!("k{number:02}"), number.to_string()).await?;
    }
    store.delete("k19").await?;
    let before = store.scan("").await?;
    faults.restart_all().await?;
    let store = context.open().await?;
    ensure_eq!(store.scan("").await?, before, "what was acknowledged before every server was killed");
    Ok(())
}
