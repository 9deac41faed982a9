//! Cases of versions: each write gives a new one, no other thing does, and none ever returns, not even after a delete.
//!
//! Everything that guards by versions stands on these.

use std::collections::HashSet;

use crate::{
    Expected, Txn,
    conformance::{
        context::{Context, to_key},
        stop::{Checked, ensure, ensure_eq},
    },
};

pub(super) async fn changes_at_each_put(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let mut seen = HashSet::new();
    for round in 0..10 {
        let version = store.put("a", round.to_string()).await?;
        ensure!(seen.insert(version), "{version} was given twice");
    }
    Ok(())
}

pub(super) async fn changes_on_the_same_value(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let first = store.put("a", "same").await?;
    let second = store.put("a", "same").await?;
    ensure!(first != second, "a write of the same value kept the version {first}");
    ensure_eq!(store.present("a").await?.version, second, "the version that is read");
    let stale = store.put_expecting("a", Expected::Version(first), "other").await?;
    ensure!(!stale.is_committed(), "the version from before the write of the same value still holds");
    Ok(())
}

pub(super) async fn get_matches_put(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    for round in 0..5 {
        let version = one.put("a", round.to_string()).await?;
        ensure_eq!(one.present("a").await?.version, version, "the version read on the same handle");
        ensure_eq!(other.present("a").await?.version, version, "the version read on another handle");
    }
    Ok(())
}

pub(super) async fn get_many_matches_get(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let keys = [to_key("a")?, to_key("b")?, to_key("c")?];
    for key in &keys {
        store.put(key, "1").await?;
    }
    store.put("b", "2").await?;
    for (key, entry) in keys.iter().zip(store.get_many(&keys).await?) {
        ensure_eq!(entry, store.get(key).await?, "{key} read with others and alone");
    }
    Ok(())
}

pub(super) async fn scan_matches_get(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    for name in ["a", "b", "c"] {
        store.put(name, "1").await?;
    }
    store.put("b", "2").await?;
    let entries = store.scan("").await?;
    ensure_eq!(entries.len(), 3, "entries");
    for entry in entries {
        ensure_eq!(store.get(&entry.key).await?.as_ref(), Some(&entry), "{} scanned and read alone", entry.key);
    }
    Ok(())
}

pub(super) async fn txn_matches_get(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    store.put("b", "0").await?;
    let txn = Txn::new().put(to_key("a")?, "1").delete(to_key("b")?).put(to_key("c")?, "1");
    let committed = store.committed(txn).await?;
    let read = [store.get("a").await?, store.get("b").await?, store.get("c").await?];
    let read = read.map(|entry| entry.map(|entry| entry.version));
    ensure_eq!(committed.versions, read, "a version for each operation, none for a delete");
    ensure_eq!(read.map(|version| version.is_some()), [true, false, true], "which keys are present");
    Ok(())
}

pub(super) async fn stable_without_writes(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    let version = one.put("a", "1").await?;
    // Reads, writes of other keys and refused writes of this key are no writes of this key.
    one.put("b", "1").await?;
    other.put("a/b", "1").await?;
    other.delete("b").await?;
    let refused = other.put_expecting("a", Expected::Absent, "2").await?;
    ensure!(!refused.is_committed(), "a put of a present key that has to be absent");
    one.committed(Txn::new().guard(to_key("a")?, Expected::Exists)).await?;
    for handle in [&one, &other] {
        ensure_eq!(handle.present("a").await?.version, version, "the version of a key that nobody wrote");
    }
    Ok(())
}

/// Where revisions are declared they rise; where they are not, there are none.
pub(super) async fn revisions_rise(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    let mut last = None;
    for round in 0..6 {
        let store = if round % 2 == 0 { &one } else { &other };
        let txn = match round {
            5 => Txn::new().delete(to_key("a")?),
            _ => Txn::new().put(to_key("a")?, "same").put(to_key(format!("b{round}"))?, "1"),
        };
        let committed = store.committed(txn).await?;
        let page = store.page(b"", None, 1).await?;
        if !store.capabilities().revisions {
            ensure_eq!((committed.revision, page.revision), (None, None), "revisions of a store that declares none");
            continue;
        }
        ensure!(committed.revision.is_some(), "a commit without a revision");
        ensure!(committed.revision > last, "the revision {:?} does not rise over {last:?}", committed.revision);
        // Others may write to shared servers at the same time.
        ensure!(page.revision >= committed.revision, "a page at {:?} after {:?}", page.revision, committed.revision);
        last = page.revision;
    }
    Ok(())
}
