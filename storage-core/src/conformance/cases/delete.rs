//! Cases of deletes: alone, guarded, of absent keys, and of one key among others with like names.

use crate::{
    Expected, Txn,
    conformance::{
        context::{Context, to_key},
        stop::{Checked, ensure, ensure_eq},
    },
};

pub(super) async fn absent_is_ok(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let deleted = store.delete("absent").await?;
    ensure_eq!(deleted.versions, [None], "the versions of a delete");
    ensure_eq!(store.get("absent").await?, None, "after the delete");
    // In a transaction it must not keep the rest from being applied.
    store.committed(Txn::new().delete(to_key("absent")?).put(to_key("a")?, "1")).await?;
    ensure_eq!(store.present("a").await?.value, "1", "what was put beside the delete");
    Ok(())
}

pub(super) async fn unconditional(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    one.put("a", "1").await?;
    let deleted = one.delete("a").await?;
    ensure_eq!(deleted.versions, [None], "the versions of a delete");
    for store in [&one, &other] {
        ensure_eq!(store.get("a").await?, None, "get of a deleted key");
        ensure_eq!(store.get_many(&[to_key("a")?]).await?, [None], "get_many of a deleted key");
        ensure_eq!(store.scan("").await?, [], "a scan after the only key was deleted");
        let guarded = store.commit(Txn::new().guard(to_key("a")?, Expected::Absent)).await?;
        ensure!(guarded.is_committed(), "a deleted key is absent: {guarded:?}");
    }
    Ok(())
}

pub(super) async fn guarded(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let version = store.put("a", "1").await?;
    for expected in [Expected::Version(version), Expected::Exists, Expected::Value("1".into())] {
        let deleted = store.delete_expecting("a", expected.clone()).await?;
        ensure!(deleted.is_committed(), "a delete expecting {expected:?}, which is so: {deleted:?}");
        ensure_eq!(store.get("a").await?, None, "after the delete");
        store.put("a", "1").await?;
    }
    Ok(())
}

pub(super) async fn stale_guard_conflicts(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let stale = store.put("a", "1").await?;
    let current = store.put("a", "2").await?;
    let deleted = store.delete_expecting("a", Expected::Version(stale)).await?;
    ensure!(!deleted.is_committed(), "a delete with a stale version was committed");
    let entry = store.present("a").await?;
    ensure_eq!((entry.value, entry.version), ("2".into(), current), "what the refused delete left");
    Ok(())
}

pub(super) async fn absent_guard(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let nothing = store.delete_expecting("a", Expected::Absent).await?;
    ensure!(nothing.is_committed(), "a delete of an absent key that has to be absent: {nothing:?}");
    store.put("a", "1").await?;
    let deleted = store.delete_expecting("a", Expected::Absent).await?;
    ensure!(!deleted.is_committed(), "a delete of a present key that has to be absent was committed");
    ensure_eq!(store.present("a").await?.value, "1", "what the refused delete left");
    Ok(())
}

pub(super) async fn twice(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let version = store.put("a", "1").await?;
    store.delete("a").await?;
    store.delete("a").await?;
    for expected in [Expected::Version(version), Expected::Exists] {
        let again = store.delete_expecting("a", expected.clone()).await?;
        ensure!(!again.is_committed(), "a second delete expecting {expected:?} was committed");
    }
    ensure_eq!(store.get("a").await?, None, "after all");
    Ok(())
}

pub(super) async fn one_of_many(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    for name in ["a", "a/", "a/b", "a/b/c", "ab", "b"] {
        store.put(name, name).await?;
    }
    for (name, left) in [("a/b", 5), ("a", 4), ("b", 3)] {
        store.delete(name).await?;
        ensure_eq!(store.get(name).await?, None, "the deleted key {name:?}");
        ensure_eq!(store.scan("").await?.len(), left, "entries left after deleting {name:?}");
    }
    for name in ["a/", "a/b/c", "ab"] {
        ensure_eq!(store.present(name).await?.value, name, "the value of a key that was not deleted");
    }
    Ok(())
}
