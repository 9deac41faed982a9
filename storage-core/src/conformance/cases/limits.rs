//! Cases of limits: what is declared is at least the contract's floor, is possible, and one more is refused without a
//! trace.
//!
//! Each refusal has to come before anything is written.

use bytes::Bytes;

use crate::{
    Capabilities, Error, Expected, Key, Txn, WatchSupport, WriteOptions,
    conformance::{
        context::{Context, Handle, PATIENCE, to_key},
        stop::{Checked, ensure, ensure_eq, ensure_error},
    },
};

pub(super) async fn floor_is_declared(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let declared = store.capabilities();
    ensure!(!declared.backend.is_empty(), "a backend has a name");
    for (what, declared, floor) in [
        ("max_value_bytes", declared.max_value_bytes, Capabilities::MIN_VALUE_BYTES),
        ("max_txn_ops", declared.max_txn_ops, Capabilities::MIN_TXN_OPS),
        ("max_txn_bytes", declared.max_txn_bytes, declared.max_value_bytes + Key::MAX_BYTES),
    ] {
        ensure!(declared >= floor, "{what} is {declared}, and has to be at least {floor}");
    }
    ensure!(declared.deduplicates != Some(0), "deduplicates: a write that is not remembered is not deduplicated");
    let ordered = declared.watch == WatchSupport::Ordered;
    ensure!(!ordered || declared.revisions, "an ordered watch resumes after a revision, so there have to be revisions");
    Ok(())
}

pub(super) async fn largest_key(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let keys = [b'k', 0x00, 0xff, b'/'].map(|byte| vec![byte; context.max_key_bytes()]);
    for key in &keys {
        let version = store.put(key, "1").await?;
        ensure_eq!(store.present(key).await?.version, version, "the version of a key of {} bytes", key.len());
        let swapped = store.put_expecting(key, Expected::Version(version), "2").await?;
        ensure!(swapped.is_committed(), "a swap of a key of {} bytes: {swapped:?}", key.len());
    }
    ensure_eq!(store.scan("").await?.len(), keys.len(), "entries");
    for key in &keys {
        // A scan goes on after a key of the greatest length, too.
        let page = store.page(b"", Some(to_key(key)?), 1).await?;
        ensure!(page.entries.iter().all(|entry| entry.key.as_bytes() > key.as_slice()), "a page begins too early");
        store.delete(key).await?;
        ensure_eq!(store.get(key).await?, None, "a deleted key of {} bytes", key.len());
    }
    Ok(())
}

pub(super) async fn largest_value(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    let value = large(one.capabilities().max_value_bytes);
    let longest = vec![b'k'; context.max_key_bytes()];
    let version = one.put(&longest, value.clone()).await?;
    ensure!(other.present(&longest).await?.value == value, "the largest value is not read as it was put");
    let swapped = one.put_expecting(&longest, Expected::Version(version), value.slice(1..)).await?;
    ensure!(swapped.is_committed(), "a swap of the largest value: {swapped:?}");
    let scanned = other.scan("").await?;
    ensure!(scanned.iter().all(|entry| entry.value == value.slice(1..)), "the value is not scanned as it was swapped");
    ensure_eq!(scanned.len(), 1, "entries");
    Ok(())
}

/// One transaction of as many bytes as are declared.
pub(super) async fn largest_txn(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let limits = store.capabilities();
    let mut left = limits.max_txn_bytes;
    let (mut txn, mut sizes) = (Txn::new(), Vec::new());
    while txn.ops.len() < limits.max_txn_ops {
        let key = to_key(format!("k{}", txn.ops.len()))?;
        let Some(room) = left.checked_sub(key.as_bytes().len()).filter(|room| *room > 0) else { break };
        let size = room.min(limits.max_value_bytes);
        left = room - size;
        sizes.push((key.clone(), size));
        txn = txn.put(key, large(size));
    }
    store.committed(txn).await?;
    for (key, size) in sizes {
        ensure!(store.present(&key).await?.value == large(size), "{key} does not have the {size} bytes that were put");
    }
    Ok(())
}

pub(super) async fn over_value_rejected_unapplied(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    store.put("a", "before").await?;
    let over = large(store.capabilities().max_value_bytes + 1);
    for txn in [
        Txn::new().put(to_key("a")?, over.clone()),
        Txn::new().put(to_key("b")?, over.clone()),
        Txn::new().put(to_key("c")?, "1").put(to_key("b")?, over.clone()),
        Txn::new().guard(to_key("a")?, Expected::Value(over)).put(to_key("c")?, "1"),
    ] {
        rejected(&store, txn).await?;
    }
    only_a_is_there(&store).await
}

pub(super) async fn most_txn_ops(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let keys = numbered(store.capabilities().max_txn_ops)?;
    let puts = keys.iter().fold(Txn::new(), |txn, key| txn.put(key.clone(), key.clone().into_bytes()));
    let committed = store.committed(puts).await?;
    ensure_eq!(committed.versions.len(), keys.len(), "versions");
    let read: Vec<_> = store.scan("").await?.into_iter().map(|entry| (entry.key, Some(entry.version))).collect();
    let expected: Vec<_> = keys.iter().cloned().zip(committed.versions).collect();
    ensure_eq!(read, expected, "the keys and versions of the largest transaction");
    store.committed(keys.iter().fold(Txn::new(), |txn, key| txn.delete(key.clone()))).await?;
    ensure_eq!(store.scan("").await?, [], "after the transaction with the most deletes");
    Ok(())
}

pub(super) async fn most_txn_guards(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let most = store.capabilities().max_txn_ops;
    let keys = numbered(most)?;
    let absent = |keys: &[Key]| keys.iter().fold(Txn::new(), |txn, key| txn.guard(key.clone(), Expected::Absent));
    store.committed(absent(&keys)).await?;
    let half = keys.get(..most / 2).unwrap_or_default();
    store.committed(half.iter().fold(absent(half), |txn, key| txn.put(key.clone(), "1"))).await?;
    ensure_eq!(store.scan("").await?.len(), half.len(), "entries");
    let reversed: Vec<_> = keys.iter().rev().cloned().collect();
    let conflict = store.conflict(absent(&reversed)).await?;
    ensure_eq!(conflict.guard, most - half.len(), "the guard that does not hold, of {most}");
    Ok(())
}

pub(super) async fn over_txn_ops_unapplied(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    store.put("a", "before").await?;
    let keys = numbered(store.capabilities().max_txn_ops + 1)?;
    rejected(&store, keys.iter().fold(Txn::new(), |txn, key| txn.put(key.clone(), "1"))).await?;
    rejected(&store, keys.iter().fold(Txn::new(), |txn, key| txn.guard(key.clone(), Expected::Absent))).await?;
    // Guards and operations count together.
    let mixed = keys.iter().enumerate().fold(Txn::new(), |txn, (place, key)| match place % 2 {
        0 => txn.put(key.clone(), "1"),
        _ => txn.guard(key.clone(), Expected::Absent),
    });
    rejected(&store, mixed).await?;
    only_a_is_there(&store).await
}

pub(super) async fn over_txn_bytes_unapplied(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    store.put("a", "before").await?;
    let limits = store.capabilities();
    let keys = numbered(limits.max_txn_ops)?;
    let needed = limits.max_txn_bytes / limits.max_value_bytes + 1;
    let value = large(limits.max_value_bytes);
    let Some(keys) = keys.get(..needed) else {
        // So many values do not fit one transaction by their number: that limit has its own case.
        return only_a_is_there(&store).await;
    };
    rejected(&store, keys.iter().fold(Txn::new(), |txn, key| txn.put(key.clone(), value.clone()))).await?;
    only_a_is_there(&store).await
}

pub(super) async fn most_keys_in_get_many(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let keys = numbered(store.capabilities().max_txn_ops)?;
    for key in keys.iter().step_by(3) {
        store.put(key, key.clone().into_bytes()).await?;
    }
    for (place, (key, entry)) in keys.iter().zip(store.get_many(&keys).await?).enumerate() {
        let expected = (place % 3 == 0).then_some(key.as_bytes());
        ensure_eq!(entry.as_ref().map(|entry| entry.value.as_ref()), expected, "the value of {key}");
    }
    Ok(())
}

pub(super) async fn over_get_many_rejected(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let keys = numbered(store.capabilities().max_txn_ops + 1)?;
    ensure_error!(store.get_many(&keys).await, Error::TooLarge { .. }, "one key more than declared");
    Ok(())
}

async fn rejected(store: &Handle, txn: Txn) -> Checked {
    let options = WriteOptions::default().timeout(PATIENCE);
    ensure_error!(store.store().commit(txn, options).await, Error::TooLarge { .. }, "a transaction over a limit");
    Ok(())
}

/// What every rejected transaction has to leave, and the handle has to go on working.
async fn only_a_is_there(store: &Handle) -> Checked {
    let values: Vec<_> = store.scan("").await?.into_iter().map(|entry| (entry.key, entry.value)).collect();
    ensure_eq!(values, [(to_key("a")?, "before".into())], "what there is after rejected transactions");
    store.put("a", "after").await?;
    Ok(())
}

/// Bytes that do not compress to nothing.
fn large(size: usize) -> Bytes {
    let mut generator = fastrand::Rng::with_seed(7);
    let mut bytes = vec![0; size];
    generator.fill(&mut bytes);
    bytes.into()
}

fn numbered(count: usize) -> crate::Result<Vec<Key>> {
    (0..count).map(|number| to_key(format!("k{number:06}"))).collect()
}
