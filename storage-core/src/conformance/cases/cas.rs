//! Cases of compare-and-swap by versions and by values: a stale expectation never writes, and leaves what is there.
//!
//! A conflict is an answer here and never an error.

use bytes::Bytes;

use crate::{
    Conflict, Expected, Observed, Version,
    conformance::{
        context::{Context, Handle},
        stop::{Checked, Stop, ensure, ensure_eq},
    },
};

pub(super) async fn succeeds(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let mut version = store.put("a", "0").await?;
    for round in 1..5 {
        let outcome = store.put_expecting("a", Expected::Version(version), round.to_string()).await?;
        let committed = outcome.committed().ok_or_else(|| Stop::failed("a conflict on the current version"))?;
        let entry = store.present("a").await?;
        ensure_eq!(entry.value, round.to_string(), "the swapped value");
        ensure_eq!(committed.version(), Some(entry.version), "the version that the swap gave");
        ensure!(entry.version != version, "a swap kept the version");
        version = entry.version;
    }
    Ok(())
}

pub(super) async fn stale_conflicts(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    let stale = one.put("a", "1").await?;
    other.put("a", "2").await?;
    refused(&one, "a", Expected::Version(stale)).await?;
    ensure_eq!(other.present("a").await?.value, "2", "after a swap with a stale version");
    Ok(())
}

pub(super) async fn absent_key_conflicts(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let version = store.put("a", "1").await?;
    refused(&store, "absent", Expected::Version(version)).await?;
    store.delete("a").await?;
    refused(&store, "a", Expected::Version(version)).await?;
    for key in ["absent", "a"] {
        ensure_eq!(store.get(key).await?, None, "a swap of an absent key creates nothing");
    }
    Ok(())
}

pub(super) async fn foreign_version_conflicts(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let own = store.put("a", "1").await?;
    let foreign = store.put("b", "1").await?;
    let patterns = [[0x00; Version::BYTES], [0x7f; Version::BYTES], [0xff; Version::BYTES], *b"0123456789abcdef"];
    let made_up = [Version::from_u64(0), Version::from_u64(u64::MAX)].into_iter();
    let made_up = made_up.chain(patterns.into_iter().map(Version::from_bytes));
    // A version means something for its own key only, and two keys may happen to have the same.
    for version in made_up.chain([foreign]).filter(|version| *version != own) {
        refused(&store, "a", Expected::Version(version)).await?;
        refused(&store, "absent", Expected::Version(version)).await?;
    }
    ensure_eq!(store.present("a").await?.version, own, "after swaps with versions from elsewhere");
    Ok(())
}

pub(super) async fn conflict_leaves_the_value(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let stale = store.put("a", "1").await?;
    store.put("a", "2").await?;
    let before = store.get("a").await?;
    for expected in [Expected::Version(stale), Expected::Absent, Expected::Value("1".into())] {
        refused(&store, "a", expected.clone()).await?;
        ensure_eq!(store.get("a").await?, before, "the entry after a conflict on {expected:?}");
        let outcome = store.delete_expecting("a", expected.clone()).await?;
        ensure!(!outcome.is_committed(), "a delete expecting {expected:?} was committed");
        ensure_eq!(store.get("a").await?, before, "the entry after a refused delete expecting {expected:?}");
    }
    Ok(())
}

/// A conflict names the guard, and what it reports as current is current. Where reporting is declared, it does report.
pub(super) async fn conflict_reports_current(context: &Context<'_>) -> Checked {
    let (store, other) = context.open_two().await?;
    let stale = store.put("a", "1").await?;
    other.put("a", "2").await?;
    let current = Observed::from(store.get("a").await?);
    for (key, expected, current) in [
        ("a", Expected::Version(stale), &current),
        ("a", Expected::Absent, &current),
        ("a", Expected::Value("1".into()), &current),
        ("b", Expected::Exists, &Observed::Absent),
        ("b", Expected::Version(stale), &Observed::Absent),
    ] {
        let conflict = refused(&store, key, expected.clone()).await?;
        ensure_eq!(conflict.guard, 0, "the guard that is named");
        if conflict.current != Observed::Unknown || store.capabilities().conflict_reports_current {
            ensure_eq!(conflict.current, *current, "what a conflict of {expected:?} reports of {key}");
        }
    }
    Ok(())
}

pub(super) async fn put_if_absent_once(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    let first = one.put_expecting("a", Expected::Absent, "one").await?;
    ensure!(first.is_committed(), "an absent key was not put: {first:?}");
    for store in [&one, &other] {
        refused(store, "a", Expected::Absent).await?;
        ensure_eq!(store.present("a").await?.value, "one", "the first value");
    }
    Ok(())
}

pub(super) async fn put_if_absent_after_delete(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    for round in 0..3 {
        let put = store.put_expecting("a", Expected::Absent, round.to_string()).await?;
        ensure!(put.is_committed(), "round {round}: a deleted key counts as present: {put:?}");
        ensure_eq!(store.present("a").await?.value, round.to_string(), "the value");
        store.delete("a").await?;
        ensure_eq!(store.get("a").await?, None, "round {round}, after the delete");
    }
    Ok(())
}

pub(super) async fn exists_guard(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    refused(&store, "a", Expected::Exists).await?;
    ensure_eq!(store.get("a").await?, None, "after a put that needs the key to exist");
    store.put("a", "").await?;
    let put = store.put_expecting("a", Expected::Exists, "2").await?;
    ensure!(put.is_committed(), "an empty value exists too: {put:?}");
    store.delete("a").await?;
    refused(&store, "a", Expected::Exists).await?;
    Ok(())
}

pub(super) async fn any_guard(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    for value in ["1", "2"] {
        let put = store.put_expecting("a", Expected::Any, value).await?;
        ensure!(put.is_committed(), "a guard that allows anything: {put:?}");
        ensure_eq!(store.present("a").await?.value, value, "the value");
    }
    let deleted = store.delete_expecting("a", Expected::Any).await?;
    ensure!(deleted.is_committed(), "a delete that allows anything: {deleted:?}");
    ensure_eq!(store.get("a").await?, None, "after the delete");
    Ok(())
}

pub(super) async fn by_value(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let binary = Bytes::from_static(&[0x00, 0xff, 0x22, 0x5c, 0x0a, 0x00]);
    let mut current = Bytes::from_static(b"1");
    store.put("a", current.clone()).await?;
    for value in [binary, Bytes::new(), Bytes::from(vec![b'x'; 10_000]), Bytes::from_static(b"end")] {
        let outcome = store.put_expecting("a", Expected::Value(current), value.clone()).await?;
        ensure!(outcome.is_committed(), "the expected value is there: {outcome:?}");
        ensure_eq!(store.present("a").await?.value, value, "the swapped value");
        current = value;
    }
    let deleted = store.delete_expecting("a", Expected::Value(current)).await?;
    ensure!(deleted.is_committed(), "the expected value is there: {deleted:?}");
    ensure_eq!(store.get("a").await?, None, "after the delete by value");
    Ok(())
}

pub(super) async fn by_value_conflicts(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    store.put("a", "value").await?;
    let before = store.get("a").await?;
    for other in ["", "valu", "value ", "valuf", "Value", "value\0"] {
        refused(&store, "a", Expected::Value(other.into())).await?;
        ensure_eq!(store.get("a").await?, before, "the entry after a conflict");
    }
    Ok(())
}

pub(super) async fn by_value_absent_is_not_empty(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    refused(&store, "a", Expected::Value(Bytes::new())).await?;
    ensure_eq!(store.get("a").await?, None, "after a swap that expects an empty value");
    store.put("a", "").await?;
    refused(&store, "a", Expected::Absent).await?;
    let swapped = store.put_expecting("a", Expected::Value(Bytes::new()), "1").await?;
    ensure!(swapped.is_committed(), "the empty value is there: {swapped:?}");
    Ok(())
}

/// The conflict of a put that has to be refused.
async fn refused(store: &Handle, key: &str, expected: Expected) -> Checked<Conflict> {
    let outcome = store.put_expecting(key, expected.clone(), "must not be written").await?;
    ensure!(!outcome.is_committed(), "a put of {key:?} expecting {expected:?} was committed");
    outcome.conflict().ok_or_else(|| Stop::failed("neither committed nor a conflict"))
}
