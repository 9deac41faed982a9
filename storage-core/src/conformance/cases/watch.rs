//! Cases of watches: the last state is seen by every store, each change in order where that is declared.
//!
//! A store is held to what it declares. No case waits to see that nothing comes: it writes something after and waits
//! for that.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    Error, Expected, Key, Revision, Txn, Version, WatchEvent, WatchOptions, WatchSupport,
    conformance::{
        context::{Context, Handle, to_key, to_keys},
        stop::{Checked, Stop, ensure, ensure_eq, ensure_error},
    },
};

/// What every store promises: the last state of each key that changed is seen in the end.
pub(super) async fn last_state_is_seen(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    store.put("w/gone", "1").await?;
    store.put("w/back", "1").await?;
    let mut watch = store.watch("w/").await?;
    for value in ["1", "2", "3"] {
        store.put("w/a", value).await?;
    }
    store.put("w/b", "").await?;
    store.delete("w/gone").await?;
    store.delete("w/back").await?;
    store.put("w/back", "2").await?;
    let expected = [("w/a", Some("3")), ("w/b", Some("")), ("w/back", Some("2")), ("w/gone", None)];
    let expected: BTreeMap<_, _> =
        expected.map(|(key, value)| (key.as_bytes().to_vec(), value.map(Bytes::from))).into();
    let mut seen = BTreeMap::new();
    while seen != expected {
        let event = watch.event().await?;
        seen.insert(event.key().as_bytes().to_vec(), value_of(&event));
        if let WatchEvent::Put { entry, .. } = event
            && Some(&Some(entry.value.clone())) == expected.get(entry.key.as_bytes())
            && entry.key.as_bytes() != b"w/back"
        {
            ensure_eq!(store.get(&entry.key).await?.as_ref(), Some(&entry), "the entry in the event and read");
        }
    }
    Ok(())
}

/// Every change of every key once, in order, with its revision.
pub(super) async fn put_and_delete_in_order(context: &Context<'_>) -> Checked {
    let store = ordered(context).await?;
    let mut watch = store.watch("w/").await?;
    let mut expected = Vec::new();
    for (key, value) in [
        ("w/a", Some("1")),
        ("w/b", Some("1")),
        ("w/a", Some("1")),
        ("w/a", Some("2")),
        ("w/b", None),
        ("w/a", None),
        ("w/a", Some("3")),
    ] {
        let committed = match value {
            Some(value) => store.committed(Txn::new().put(to_key(key)?, value)).await?,
            None => store.delete(key).await?,
        };
        expected.push((to_key(key)?, value.map(Bytes::from), committed.version(), committed.revision));
    }
    // The delete of an absent key changes nothing.
    store.delete("w/absent").await?;
    store.put("w/end", "").await?;
    let seen: Vec<_> = watch.until("w/end").await?.iter().map(described).collect();
    ensure_eq!(seen, expected, "the events: key, value, version and revision");
    Ok(())
}

pub(super) async fn other_handles_are_seen(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    let mut watches = [one.watch("w/").await?, one.watch("w/").await?, other.watch("w/").await?];
    for round in 0..3 {
        let value = Bytes::from(round.to_string());
        let writer = if round % 2 == 0 { &other } else { &one };
        writer.put("w/a", value.clone()).await?;
        for watch in &mut watches {
            while value_of(&watch.event().await?).as_ref() != Some(&value) {}
        }
    }
    Ok(())
}

pub(super) async fn prefix_only(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let mut watch = store.watch("w/1").await?;
    let mut all = store.watch("").await?;
    for key in ["w", "w/", "w/0", "w/10", "w/1/a", "w/2", "w0", "v", "x", "w/1"] {
        store.put(key, "").await?;
    }
    store.delete("w/2").await?;
    store.put("w/1end", "").await?;
    let mut missing: Vec<&[u8]> = vec![b"w/10", b"w/1/a", b"w/1", b"w/1end"];
    while !missing.is_empty() {
        let event = watch.event().await?;
        ensure!(event.key().starts_with(b"w/1"), "a watch of \"w/1\" saw {}", event.key());
        missing.retain(|key| *key != event.key().as_bytes());
    }
    let mut missing: Vec<&[u8]> = vec![b"w", b"v", b"x", b"w/1"];
    if store.capabilities().watch == WatchSupport::Ordered {
        // Where only the latest state is told, a key that came and went may leave no trace.
        missing.push(b"w/2");
    }
    while !missing.is_empty() {
        let event = all.event().await?;
        missing.retain(|key| *key != event.key().as_bytes());
    }
    Ok(())
}

pub(super) async fn nothing_for_a_conflict(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let stale = store.put("w/a", "1").await?;
    store.put("w/a", "2").await?;
    let mut watch = store.watch("w/").await?;
    for expected in [Expected::Absent, Expected::Version(stale)] {
        let refused = store.put_expecting("w/a", expected.clone(), "refused").await?;
        ensure!(!refused.is_committed(), "a put expecting {expected:?} was committed");
        let refused = Txn::new().guard(to_key("w/a")?, expected).put(to_key("w/b")?, "refused");
        store.conflict(refused).await?;
    }
    store.put("w/end", "").await?;
    for event in watch.until("w/end").await? {
        ensure!(value_of(&event).is_none_or(|value| value != "refused"), "a write that was refused is seen: {event:?}");
        ensure!(event.key().as_bytes() != b"w/b", "a key that was never written changed: {event:?}");
    }
    Ok(())
}

pub(super) async fn transaction_shares_a_revision(context: &Context<'_>) -> Checked {
    let store = ordered(context).await?;
    store.put("w/b", "0").await?;
    let mut watch = store.watch("w/").await?;
    let txn =
        Txn::new().put(to_key("w/c")?, "1").delete(to_key("w/b")?).put(to_key("w/a")?, "1").put(to_key("v")?, "1");
    let committed = store.committed(txn).await?;
    store.put("w/end", "").await?;
    let mut events = watch.until("w/end").await?;
    events.sort_by(|one, other| one.key().cmp(other.key()));
    let expected = to_keys(["w/a", "w/b", "w/c"])?.into_iter().map(|key| (key, committed.revision));
    ensure_eq!(changes(&events), expected.collect::<Vec<_>>(), "the events of one transaction, sorted by key");
    Ok(())
}

/// A scan and then a watch after its revision see everything, once.
pub(super) async fn continues_a_page(context: &Context<'_>) -> Checked {
    let (store, other) = (ordered(context).await?, context.open().await?);
    store.put("w/before", "1").await?;
    let page = store.page(b"w/", None, 10).await?;
    ensure_eq!(page.entries.len(), 1, "entries before the watch");
    other.put("w/after", "1").await?;
    let mut watch = store.watch_from("w/", WatchOptions::default().after(revision(page.revision)?)).await?;
    other.put("w/later", "1").await?;
    other.put("w/end", "").await?;
    let events = watch.until("w/end").await?;
    let keys: Vec<_> = events.iter().map(|event| event.key().clone()).collect();
    ensure_eq!(keys, to_keys(["w/after", "w/later"])?, "the changes after the page");
    Ok(())
}

/// A watch that ended is resumed after any revision, and no change is missing or repeated. A store that cannot resume says so.
pub(super) async fn resume_without_gap(context: &Context<'_>) -> Checked {
    let (store, other) = context.open_two().await?;
    if store.capabilities().watch != WatchSupport::Ordered {
        let resumed = store.watch_from("w/", WatchOptions::default().after(Revision(1))).await.map(|_| ());
        ensure_error!(resumed, Error::Unsupported { .. }, "resuming, which the store does not declare");
        return Ok(());
    }
    let mut watch = store.watch("w/").await?;
    let mut expected = Vec::new();
    for round in 0..12 {
        let key = to_key(format!("w/{}", round % 3))?;
        let txn = if round % 4 == 3 { Txn::new().delete(key.clone()) } else { Txn::new().put(key.clone(), "same") };
        let committed = store.committed(txn).await?;
        if round == 5 {
            other.put("elsewhere", "1").await?;
        }
        expected.push((key, committed.revision));
    }
    store.put("w/end", "").await?;
    let seen = watch.until("w/end").await?;
    ensure_eq!(changes(&seen), expected, "what the first watch saw");
    drop(watch);
    for place in [0, 4, 5, 10, 11] {
        let after = expected.get(place).and_then(|(_, revision)| *revision);
        let options = WatchOptions::default().after(revision(after)?);
        for store in [&store, &other] {
            let seen = store.watch_from("w/", options).await?.until("w/end").await?;
            let rest = expected.get(place + 1..).unwrap_or_default();
            ensure_eq!(changes(&seen), rest, "what a watch resumed after change {place} saw");
        }
    }
    Ok(())
}

pub(super) async fn compacted_is_reported(context: &Context<'_>) -> Checked {
    let store = ordered(context).await?;
    let faults = context.faults()?;
    let first = store.committed(Txn::new().put(to_key("w/a")?, "1")).await?.revision;
    for round in 0..5 {
        store.put("w/a", round.to_string()).await?;
    }
    let last = store.committed(Txn::new().put(to_key("w/a")?, "last")).await?.revision;
    faults.forget_history().await?;
    let refused = match store.watch_from("w/", WatchOptions::default().after(revision(first)?)).await {
        Ok(mut watch) => watch.item().await?,
        Err(error) => Some(Err(error)),
    };
    let Some(refused) = refused else { return Err(Stop::failed("a watch of lost history ended without a word")) };
    ensure_error!(refused, Error::Compacted { .. }, "a watch that resumes where the history is gone");
    let mut watch = store.watch_from("w/", WatchOptions::default().after(revision(last)?)).await?;
    store.put("w/end", "").await?;
    ensure_eq!(watch.until("w/end").await?, [], "what a watch after the last commit missed");
    Ok(())
}

/// Dropped watches cost nothing: far more than a store could keep open can come and go.
pub(super) async fn drop_stops(context: &Context<'_>) -> Checked {
    const WATCHES: usize = 200;
    let store = context.open().await?;
    for round in 0..WATCHES {
        let mut watch = store.watch("w/").await?;
        // Some are dropped before they saw anything, some while events wait, some after they were read.
        if round % 10 == 0 {
            store.put("w/a", round.to_string()).await?;
        }
        if round % 20 == 0 {
            watch.event().await?;
        }
    }
    let mut last = store.watch("w/").await?;
    store.put("w/end", "").await?;
    last.until("w/end").await?;
    Ok(())
}

pub(super) async fn close_ends_it(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    let (mut ends, mut stays) = (one.watch("w/").await?, other.watch("w/").await?);
    one.close().await?;
    loop {
        match ends.item().await? {
            None | Some(Err(Error::Closed)) => break,
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.into()),
        }
    }
    other.put("w/a", "1").await?;
    ensure_eq!(stays.event().await?.key().as_bytes(), b"w/a", "the key that a watch of another handle sees");
    Ok(())
}

/// A handle on a store whose watch is ordered; skips the case otherwise.
async fn ordered(context: &Context<'_>) -> Checked<Handle> {
    let store = context.open().await?;
    match store.capabilities().watch {
        WatchSupport::Ordered => Ok(store),
        WatchSupport::Latest => Err(Stop::skipped("the watch is not declared to be ordered")),
    }
}

fn revision(revision: Option<Revision>) -> Checked<Revision> {
    revision.ok_or_else(|| Stop::failed("a store with an ordered watch gave no revision"))
}

fn value_of(event: &WatchEvent) -> Option<Bytes> {
    match event {
        WatchEvent::Put { entry, .. } => Some(entry.value.clone()),
        WatchEvent::Delete { .. } => None,
    }
}

fn described(event: &WatchEvent) -> (Key, Option<Bytes>, Option<Version>, Option<Revision>) {
    let version = match event {
        WatchEvent::Put { entry, .. } => Some(entry.version),
        WatchEvent::Delete { .. } => None,
    };
    (event.key().clone(), value_of(event), version, event.revision())
}

fn changes(events: &[WatchEvent]) -> Vec<(Key, Option<Revision>)> {
    events.iter().map(|event| (event.key().clone(), event.revision())).collect()
}
