//! Cases of errors: deadlines, closed handles, lost replies, dead leaders and stores without a quorum.
//!
//! What they hold a store to is honesty: whatever it says of a write has to be true, also later. How soon it is back is
//! not judged, but for a bound so long that a busy machine keeps it.

use std::{future::Future, time::Duration};

use futures::FutureExt;
use tokio::time::Instant;

use crate::{
    Error, Expected, Key, OperationId, Outcome, ReadOptions, ScanOptions, Store, Txn, WatchOptions, WriteOptions,
    conformance::{
        context::{Context, Handle, PATIENCE, to_key},
        stop::{Checked, Stop, ensure, ensure_eq, ensure_error},
    },
};

/// How much later than its deadline a call may end. The contract says 100 ms; the rest is for a machine that runs many
/// tests at once on few cores.
const LATE: Duration = Duration::from_millis(1500);

pub(super) async fn invalid_key(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    ensure_error!(Key::new(""), Error::InvalidArgument { .. }, "a key of no bytes");
    ensure_error!(Key::new(vec![b'k'; Key::MAX_BYTES + 1]), Error::TooLarge { .. }, "a key that is too long");
    ensure_eq!(store.scan("").await?, [], "entries");
    Ok(())
}

pub(super) async fn closed_handle(context: &Context<'_>) -> Checked {
    let (closed, open) = context.open_two().await?;
    closed.put("a", "1").await?;
    closed.close().await?;
    let store = closed.store();
    let key = to_key("a")?;
    let (read, write) = (ReadOptions::default(), WriteOptions::default());
    ensure_error!(store.get(&key, read).await, Error::Closed, "get");
    ensure_error!(store.get_many(std::slice::from_ref(&key), read).await, Error::Closed, "get_many");
    ensure_error!(store.scan(b"", ScanOptions::default()).await, Error::Closed, "scan");
    ensure_error!(store.commit(Txn::new().put(key.clone(), "2"), write).await, Error::Closed, "commit");
    let watch = store.watch(b"", WatchOptions::default()).await.map(|_| ());
    ensure_error!(watch, Error::Closed, "watch");
    ensure_error!(store.ping(read).await, Error::Closed, "ping");
    ensure_eq!(open.present("a").await?.value, "1", "the value, read on a handle that is still open");
    open.put("a", "3").await?;
    Ok(())
}

pub(super) async fn closed_twice(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    store.put("a", "1").await?;
    for time in ["first", "second", "third"] {
        ensure!(store.close().await.is_ok(), "the {time} close failed");
    }
    let again = context.open().await?;
    ensure_eq!(again.present("a").await?.value, "1", "the value, read on a new handle");
    Ok(())
}

/// Whatever a call answers, it answers in time.
pub(super) async fn short_deadline_honoured(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    for timeout in [0, 1, 20].map(Duration::from_millis) {
        every_call_in_time(&store, timeout).await?;
    }
    Ok(())
}

/// A write that is said to be not applied is not applied, not even later.
pub(super) async fn short_deadline_tells_the_truth(context: &Context<'_>) -> Checked {
    const WRITES: u32 = 40;
    let store = context.open().await?;
    let mut unapplied = Vec::new();
    for number in 0..WRITES {
        let key = to_key(format!("k{number:02}"))?;
        let timeout = Duration::from_micros(100) * number;
        let answer =
            store.store().commit(Txn::new().put(key.clone(), "1"), WriteOptions::default().timeout(timeout)).await;
        match answer {
            Ok(outcome) => ensure_eq!(store.get(&key).await?.map(|e| e.version), version(outcome), "{key}, committed"),
            Err(Error::UnknownOutcome { .. }) => {}
            Err(error) if error.is_retryable() => unapplied.push(key),
            Err(error) => return Err(error.into()),
        }
    }
    // Everything that was sent before is applied before this.
    store.put("end", "").await?;
    for key in unapplied {
        ensure_eq!(store.get(&key).await?, None, "{key}, which was said to be not applied");
    }
    Ok(())
}

/// A deadline that no clock can tell is a long one, and breaks nothing.
pub(super) async fn endless_deadline_is_no_fault(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let (key, timeout) = (to_key("a")?, Duration::MAX);
    let (read, write) = (ReadOptions::default().timeout(timeout), WriteOptions::default().timeout(timeout));
    let scan = ScanOptions { read, ..ScanOptions::default() };
    let store: &dyn Store = store.store();
    let put = store.commit(Txn::new().put(key.clone(), "1"), write).await?;
    ensure!(put.is_committed(), "a put without a guard: {put:?}");
    let guarded = Txn::new().guard(key.clone(), Expected::Exists).put(key.clone(), "2").put(to_key("b")?, "2");
    let guarded = store.commit(guarded, write).await?;
    ensure!(guarded.is_committed(), "a put whose guard holds: {guarded:?}");
    ensure_eq!(store.get(&key, read).await?.map(|entry| entry.value), Some("2".into()), "get");
    ensure_eq!(store.get_many(std::slice::from_ref(&key), read).await?.len(), 1, "the answers of get_many");
    ensure_eq!(store.scan(b"", scan).await?.entries.len(), 2, "entries in a scan");
    store.ping(read).await?;
    drop(store.watch(b"", WatchOptions { timeout, ..WatchOptions::default() }).await?);
    Ok(())
}

/// A commit whose future is dropped is applied as a whole or not at all.
pub(super) async fn cancelled_commit_is_whole(context: &Context<'_>) -> Checked {
    const KEYS: usize = 6;
    const ROUNDS: u64 = 16;
    let store = context.open().await?;
    for round in 0..ROUNDS {
        let mut txn = Txn::new();
        for number in 0..KEYS {
            txn = txn.put(to_key(format!("r{round:02}/{number}"))?, "1");
        }
        let commit = store.store().commit(txn, WriteOptions::default());
        if round == 0 {
            // Polled once and dropped.
            let _ = commit.now_or_never();
        } else {
            let _ = tokio::time::timeout(Duration::from_micros(50 * round * round), commit).await;
        }
    }
    store.put("end", "").await?;
    let deadline = Instant::now() + PATIENCE;
    for round in 0..ROUNDS {
        loop {
            let found = store.scan(format!("r{round:02}/")).await?.len();
            if found == 0 || found == KEYS {
                break;
            }
            // A transaction that is applied while a scan of several steps reads may look torn for a moment.
            ensure!(Instant::now() < deadline, "round {round}: {found} of {KEYS} writes of one transaction are there");
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

/// A write with an operation id is applied once, however often it is sent, and answers the same each time. A store
/// that does not deduplicate refuses ids.
pub(super) async fn same_operation_id_once(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    let Some(remembered) = one.capabilities().deduplicates else {
        let refused = named(&one, Txn::new().put(to_key("a")?, "1"), fresh_id()).await;
        ensure_error!(refused, Error::Unsupported { .. }, "an operation id, which the store does not declare");
        ensure_eq!(one.get("a").await?, None, "after the write with an operation id was refused");
        return Ok(());
    };
    let (put_id, swap_id, delete_id) = (fresh_id(), fresh_id(), fresh_id());
    let put = Txn::new().put(to_key("a")?, "first");
    let first = named(&one, put.clone(), put_id).await?;
    let created = one.put("b", "0").await?;
    let swap = Txn::new().guard(to_key("b")?, Expected::Version(created)).put(to_key("b")?, "1");
    let swapped = named(&one, swap.clone(), swap_id).await?;
    ensure!(swapped.is_committed(), "a swap with an operation id: {swapped:?}");
    let delete = Txn::new().guard(to_key("c")?, Expected::Absent).put(to_key("c")?, "1");
    let deleted = named(&one, delete.clone(), delete_id).await?;
    other.put("a", "second").await?;
    other.put("c", "changed").await?;
    let before = other.scan("").await?;
    // So many other writes with an id may come in between.
    for number in 0..remembered.saturating_sub(3).min(50) {
        let put = named(&other, Txn::new().put(to_key("other")?, number.to_string()), fresh_id()).await?;
        ensure!(put.is_committed(), "a put without a guard: {put:?}");
    }
    other.delete("other").await?;
    for store in [&one, &other] {
        for (txn, id, answer) in [(&put, put_id, &first), (&swap, swap_id, &swapped), (&delete, delete_id, &deleted)] {
            let again = named(store, txn.clone(), id).await?;
            ensure_eq!(versions(again), versions(answer.clone()), "the answer to the same write, sent again");
        }
        ensure_eq!(store.scan("").await?, before, "after writes were sent again");
    }
    Ok(())
}

pub(super) async fn different_operation_ids_each(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    if store.capabilities().deduplicates.is_none() {
        return Err(Stop::skipped("the store is not declared to deduplicate"));
    }
    // A store that cuts the id to 64 bits, or hashes it to fewer, takes two of these for one.
    let base = fresh_id().0;
    // They differ in one bit each, at both ends and where a shorter integer would be cut off.
    for bit in [0, 1, 31, 32, 63, 64, 65, 96, 127] {
        let id = OperationId(base ^ (1 << bit));
        let written = named(&store, Txn::new().put(to_key("a")?, format!("{bit}")), id).await?;
        let entry = store.present("a").await?;
        ensure_eq!(entry.value, bit.to_string(), "the value after a write with an id of its own");
        ensure_eq!(version(written), Some(entry.version), "the version that it was given");
    }
    // The same transaction under two ids is two writes.
    let before = store.present("a").await?.version;
    let again = named(&store, Txn::new().put(to_key("a")?, "127"), fresh_id()).await?;
    ensure!(again.is_committed(), "a put without a guard: {again:?}");
    ensure!(store.present("a").await?.version != before, "an equal write with another id was not applied");
    Ok(())
}

pub(super) async fn lost_reply_is_unknown(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let losing = context.track(context.faults()?.open_losing_reply().await?);
    let options = WriteOptions::default().timeout(Duration::from_secs(2));
    let answer = losing.store().commit(Txn::new().put(to_key("a")?, "1"), options).await;
    match answer {
        Err(Error::UnknownOutcome { .. }) => {}
        // One that deduplicates may send it again by itself and learn the outcome.
        Ok(outcome) if losing.capabilities().deduplicates.is_some() => {
            ensure_eq!(version(outcome), Some(store.present("a").await?.version), "the version after a lost reply");
        }
        other => return Err(Stop::failed(format_args!("a commit without a reply answered {other:?}"))),
    }
    ensure_eq!(store.value("a").await?, Some("1".into()), "the value whose write got no reply");
    // The handle goes on working.
    losing.put("b", "2").await?;
    ensure_eq!(store.value("b").await?, Some("2".into()), "the value written afterwards");
    Ok(())
}

/// The write is sent again with its id on another handle, and the first answer comes although it was applied long ago.
pub(super) async fn lost_reply_is_resolved_by_its_id(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    if store.capabilities().deduplicates.is_none() {
        return Err(Stop::skipped("the store is not declared to deduplicate"));
    }
    let losing = context.faults()?.open_losing_reply().await?;
    context.track(losing.clone());
    let txn = Txn::new().guard(to_key("a")?, Expected::Absent).put(to_key("a")?, "1");
    let options = WriteOptions::default().timeout(Duration::from_secs(2)).operation_id(fresh_id());
    match losing.commit(txn.clone(), options).await {
        Err(Error::UnknownOutcome { .. }) => {}
        Ok(outcome) => ensure!(outcome.is_committed(), "its own write stands in its way: {outcome:?}"),
        Err(error) => return Err(error.into()),
    }
    let again = store.store().commit(txn, options.timeout(PATIENCE)).await?;
    ensure_eq!(version(again), Some(store.present("a").await?.version), "the answer when it is sent again");
    Ok(())
}

pub(super) async fn unavailable_is_unapplied(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let faults = context.faults()?;
    store.put("a", "before").await?;
    // Shorter than any election, so that the answers are about the outage and not about its end.
    faults.outage().await?;
    let timeout = Duration::from_millis(400);
    let mut unapplied = Vec::new();
    for number in 0..4 {
        let key = to_key(format!("k{number}"))?;
        let txn = Txn::new().put(key.clone(), "1");
        match store.store().commit(txn, WriteOptions::default().timeout(timeout)).await {
            Err(Error::UnknownOutcome { .. }) => {}
            Err(error) if error.is_retryable() => unapplied.push(key),
            other => return Err(Stop::failed(format_args!("a commit during an outage answered {other:?}"))),
        }
        let read = store.store().get(&to_key("a")?, ReadOptions::default().timeout(timeout)).await;
        let failed = read.as_ref().is_err_and(Error::is_retryable);
        ensure!(failed, "a read during an outage has to be unavailable, and answered {read:?}");
    }
    faults.heal().await?;
    // Servers that stood still may elect a leader once more, and a write meet that.
    store.put_again("end", "").await?;
    for key in unapplied {
        ensure_eq!(store.get(&key).await?, None, "{key}, which was said to be not applied");
    }
    ensure_eq!(store.present("a").await?.value, "before", "after the outage");
    Ok(())
}

pub(super) async fn deadline_honoured_in_outage(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let faults = context.faults()?;
    store.put("a", "before").await?;
    faults.outage().await?;
    for timeout in [50, 400].map(Duration::from_millis) {
        every_call_in_time(&store, timeout).await?;
    }
    faults.heal().await?;
    store.put_again("a", "after").await?;
    Ok(())
}

/// Makes every call with this deadline, and looks at when and how each ends.
async fn every_call_in_time(store: &Handle, timeout: Duration) -> Checked {
    let key = to_key("a")?;
    let (read, write) = (ReadOptions::default().timeout(timeout), WriteOptions::default().timeout(timeout));
    let scan = ScanOptions { read, ..ScanOptions::default() };
    let store: &dyn Store = store.store();
    in_time("get", timeout, false, store.get(&key, read)).await?;
    in_time("get_many", timeout, false, store.get_many(std::slice::from_ref(&key), read)).await?;
    in_time("scan", timeout, false, store.scan(b"", scan)).await?;
    in_time("ping", timeout, false, store.ping(read)).await?;
    in_time("commit", timeout, true, store.commit(Txn::new().put(key.clone(), "1"), write)).await?;
    let txn = Txn::new().guard(key.clone(), Expected::Absent).put(key, "1").put(to_key("b")?, "1");
    in_time("a commit of two", timeout, true, store.commit(txn, write)).await?;
    in_time("watch", timeout, false, store.watch(b"", WatchOptions { timeout, ..WatchOptions::default() })).await
}

async fn in_time<T>(
    what: &str,
    timeout: Duration,
    writes: bool,
    call: impl Future<Output = crate::Result<T>>,
) -> Checked {
    let started = Instant::now();
    let answer = tokio::time::timeout(timeout + LATE, call).await;
    let Ok(answer) = answer else {
        return Err(Stop::failed(format_args!(
            "{what} with a deadline of {timeout:?} took over {:?}",
            started.elapsed()
        )));
    };
    match answer {
        Ok(_) => Ok(()),
        Err(Error::UnknownOutcome { .. }) if writes => Ok(()),
        Err(error) if error.is_retryable() => Ok(()),
        Err(error) => {
            Err(Stop::failed(format_args!("{what} whose deadline passed answered {}: {error}", error.kind())))
        }
    }
}

async fn named(store: &Handle, txn: Txn, id: OperationId) -> crate::Result<Outcome> {
    store.store().commit(txn, WriteOptions::default().timeout(PATIENCE).operation_id(id)).await
}

/// Random, since a namespace of a shared server may not be alone with its operation ids.
fn fresh_id() -> OperationId {
    OperationId::random()
}

fn version(outcome: Outcome) -> Option<crate::Version> {
    outcome.committed().and_then(|committed| committed.version())
}

fn versions(outcome: Outcome) -> Option<Vec<Option<crate::Version>>> {
    outcome.committed().map(|committed| committed.versions)
}
