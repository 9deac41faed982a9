//! Cases of reads and plain writes: what was put is what is read, and namespaces do not see each other.
//!
//! These prove nothing about replicas; they are what every other case stands on.

use crate::{
    Expected, ReadOptions, Txn,
    conformance::{
        context::{Context, PATIENCE, to_key},
        stop::{Checked, ensure, ensure_eq},
    },
};

pub(super) async fn get_absent(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    ensure_eq!(store.get("absent").await?, None, "a key that was never written");
    Ok(())
}

pub(super) async fn put_get(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    store.put("a", "1").await?;
    store.put("b", "2").await?;
    let entry = store.present("a").await?;
    ensure_eq!(entry.key, to_key("a")?, "the key of the entry");
    ensure_eq!(entry.value, "1", "the value that was put");
    ensure_eq!(store.present("b").await?.value, "2", "the other key");
    Ok(())
}

pub(super) async fn overwrite(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    for value in ["first and longer", "second", "", "fourth"] {
        store.put("a", value).await?;
        ensure_eq!(store.present("a").await?.value, value, "the value put last");
    }
    Ok(())
}

pub(super) async fn put_returns_version(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let created = store.put("a", "1").await?;
    ensure_eq!(store.present("a").await?.version, created, "the version that creating gave");
    let changed = store.put("a", "2").await?;
    ensure_eq!(store.present("a").await?.version, changed, "the version that changing gave");
    Ok(())
}

pub(super) async fn get_many_keeps_order(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    for name in ["a", "b", "c"] {
        store.put(name, name).await?;
    }
    let keys = [to_key("c")?, to_key("absent")?, to_key("a")?, to_key("b")?];
    let entries = store.get_many(&keys).await?;
    ensure_eq!(entries.len(), keys.len(), "one answer for each key");
    for (key, entry) in keys.iter().zip(&entries) {
        let expected = (key.as_bytes() != b"absent").then_some(key);
        ensure_eq!(entry.as_ref().map(|entry| &entry.key), expected, "the answer at the place of {key}");
        ensure!(entry.as_ref().is_none_or(|entry| entry.value == key.as_bytes()), "{key} has the value of another key");
    }
    Ok(())
}

pub(super) async fn get_many_with_duplicates(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    store.put("a", "1").await?;
    let keys = [to_key("a")?, to_key("b")?, to_key("a")?, to_key("b")?, to_key("a")?];
    let entries = store.get_many(&keys).await?;
    let present: Vec<_> = entries.iter().map(Option::is_some).collect();
    ensure_eq!(present, [true, false, true, false, true], "which answers are entries");
    Ok(())
}

pub(super) async fn get_many_of_nothing(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    store.put("a", "1").await?;
    ensure_eq!(store.get_many(&[]).await?, [], "the answer for no keys");
    Ok(())
}

pub(super) async fn empty_value_is_present(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let version = store.put("a", "").await?;
    let entry = store.present("a").await?;
    ensure_eq!((entry.value.len(), entry.version), (0, version), "the empty value");
    ensure_eq!(store.scan("").await?.len(), 1, "entries in a scan");
    let many = store.get_many(&[to_key("a")?, to_key("b")?]).await?;
    let present: Vec<_> = many.iter().map(Option::is_some).collect();
    ensure_eq!(present, [true, false], "present with an empty value, and absent");
    Ok(())
}

pub(super) async fn fresh_namespaces_are_isolated(context: &Context<'_>) -> Checked {
    let (here, there) = (context.open().await?, context.open_elsewhere().await?);
    ensure_eq!(here.scan("").await?, [], "a fresh namespace");
    here.put("a", "here").await?;
    ensure_eq!(there.get("a").await?, None, "a key of another namespace");
    ensure_eq!(there.scan("").await?, [], "a scan of another namespace");
    there.put("a", "there").await?;
    there.put("b", "there").await?;
    there.delete("b").await?;
    ensure_eq!(here.present("a").await?.value, "here", "after writes in another namespace");
    ensure_eq!(here.scan("").await?.len(), 1, "entries after writes in another namespace");
    Ok(())
}

pub(super) async fn handles_share_the_data(context: &Context<'_>) -> Checked {
    let handles = context.open_many(3).await?;
    for (place, handle) in handles.iter().enumerate() {
        let version = handle.put("a", place.to_string()).await?;
        for other in &handles {
            let entry = other.present("a").await?;
            ensure_eq!((entry.value, entry.version), (place.to_string().into(), version), "what another handle wrote");
        }
    }
    Ok(())
}

pub(super) async fn reopen_persists(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let txn = Txn::new().put(to_key("a")?, "1").put(to_key("b")?, vec![7; 100_000]).put(to_key("c")?, "");
    store.committed(txn).await?;
    store.put("d", "1").await?;
    store.delete("d").await?;
    let before = store.scan("").await?;
    ensure_eq!(before.len(), 3, "entries before everything was closed");
    let store = context.reopen().await?;
    ensure_eq!(store.scan("").await?, before, "entries after everything was closed and opened");
    let entry = store.present("a").await?;
    let swapped = store.put_expecting("a", Expected::Version(entry.version), "2").await?;
    ensure!(swapped.is_committed(), "a version from before the end has to hold: {swapped:?}");
    Ok(())
}

pub(super) async fn ping_answers(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    store.store().ping(ReadOptions::default().timeout(PATIENCE)).await?;
    ensure_eq!(store.scan("").await?, [], "what a ping leaves behind");
    Ok(())
}
