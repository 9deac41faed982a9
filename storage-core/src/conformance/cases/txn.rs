//! Cases of transactions: all or nothing, guards checked in order, and the first that fails is named.
//!
//! What a refused transaction left is looked at through another handle.

use crate::{
    Error, Expected, Observed, Txn, WriteOptions,
    conformance::{
        context::{Context, Handle, PATIENCE, parallel, to_key},
        stop::{Checked, Stop, ensure, ensure_eq, ensure_error},
    },
};

pub(super) async fn all_or_nothing(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    one.put("b", "old").await?;
    let before = other.scan("").await?;
    let writes = |txn: Txn| -> crate::Result<Txn> {
        Ok(txn.put(to_key("a")?, "new").put(to_key("b")?, "new").put(to_key("c")?, "new").delete(to_key("d")?))
    };
    one.conflict(writes(Txn::new().guard(to_key("d")?, Expected::Exists))?).await?;
    ensure_eq!(other.scan("").await?, before, "what a refused transaction left");
    // The guard that fails stands last, and on a key that is written too.
    let guards = Txn::new().guard(to_key("a")?, Expected::Absent).guard(to_key("b")?, Expected::Absent);
    one.conflict(writes(guards)?).await?;
    ensure_eq!(other.scan("").await?, before, "what a transaction with a failing last guard left");
    one.committed(writes(Txn::new().guard(to_key("b")?, Expected::Exists))?).await?;
    let values: Vec<_> = other.scan("").await?.into_iter().map(|entry| entry.value).collect();
    ensure_eq!(values, ["new"; 3], "the values after the transaction");
    Ok(())
}

pub(super) async fn every_guard_is_checked(context: &Context<'_>) -> Checked {
    const GUARDS: usize = 5;
    let store = context.open().await?;
    for failing in 0..GUARDS {
        let mut txn = Txn::new().put(to_key("written")?, "1");
        for place in 0..GUARDS {
            let expected = if place == failing { Expected::Exists } else { Expected::Absent };
            txn = txn.guard(to_key(format!("absent{place}"))?, expected);
        }
        let conflict = store.conflict(txn).await?;
        ensure_eq!(conflict.guard, failing, "the guard that does not hold");
        ensure_eq!(store.get("written").await?, None, "after guard {failing} did not hold");
    }
    Ok(())
}

pub(super) async fn first_failing_guard_is_named(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let stale = store.put("a", "1").await?;
    store.put("a", "2").await?;
    let txn = Txn::new()
        .guard(to_key("b")?, Expected::Absent)
        .guard(to_key("c")?, Expected::Exists)
        .guard(to_key("a")?, Expected::Version(stale))
        .put(to_key("d")?, "1");
    let conflict = store.conflict(txn).await?;
    ensure_eq!(conflict.guard, 1, "the first guard that does not hold");
    let absent = conflict.current == Observed::Absent || conflict.current == Observed::Unknown;
    ensure!(absent, "the key of that guard is absent, and {:?} is reported", conflict.current);
    Ok(())
}

pub(super) async fn guard_without_write(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let version = store.put("a", "1").await?;
    let holds = Txn::new().guard(to_key("a")?, Expected::Version(version)).guard(to_key("b")?, Expected::Absent);
    let committed = store.committed(holds).await?;
    ensure_eq!(committed.versions, [], "versions of a transaction without operations");
    ensure_eq!(store.present("a").await?.version, version, "the version of a key that was only looked at");
    ensure_eq!(store.get("b").await?, None, "a key that was only looked at");
    for (key, expected) in [("a", Expected::Absent), ("b", Expected::Exists), ("b", Expected::Version(version))] {
        let guard = Txn::new().guard(to_key("c")?, Expected::Absent).guard(to_key(key)?, expected);
        ensure_eq!(store.conflict(guard).await?.guard, 1, "the guard that does not hold");
    }
    Ok(())
}

pub(super) async fn guard_on_another_key(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    let lock = one.put("lock", "held by one").await?;
    let write = |value: &'static str| -> crate::Result<Txn> {
        Ok(Txn::new().guard(to_key("lock")?, Expected::Version(lock)).put(to_key("data")?, value))
    };
    one.committed(write("1")?).await?;
    one.committed(write("2")?).await?;
    other.put("lock", "held by other").await?;
    one.conflict(write("3")?).await?;
    ensure_eq!(other.present("data").await?.value, "2", "the write after the guard's key was changed");
    Ok(())
}

pub(super) async fn put_and_delete(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let version = store.put("from", "moved").await?;
    let rename = Txn::new()
        .guard(to_key("from")?, Expected::Version(version))
        .guard(to_key("to")?, Expected::Absent)
        .delete(to_key("from")?)
        .put(to_key("to")?, "moved");
    store.committed(rename.clone()).await?;
    let entries: Vec<_> = store.scan("").await?.into_iter().map(|entry| (entry.key, entry.value)).collect();
    ensure_eq!(entries, [(to_key("to")?, "moved".into())], "after a key was moved");
    store.conflict(rename).await?;
    ensure_eq!(store.scan("").await?.len(), 1, "entries after the same move was refused");
    Ok(())
}

pub(super) async fn versions_in_order_of_operations(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    store.put("b", "0").await?;
    let names = ["d", "a", "c", "b", "e"];
    let mut txn = Txn::new();
    for name in names {
        txn = if name == "b" { txn.delete(to_key(name)?) } else { txn.put(to_key(name)?, name) };
    }
    let committed = store.committed(txn).await?;
    ensure_eq!(committed.versions.len(), names.len(), "a version for each operation");
    for (name, version) in names.iter().zip(committed.versions) {
        ensure_eq!(store.get(name).await?.map(|entry| entry.version), version, "the version of {name:?}");
        // And each can be swapped on.
        if let Some(version) = version {
            let swapped = store.put_expecting(name, Expected::Version(version), "next").await?;
            ensure!(swapped.is_committed(), "a swap of {name:?} on the version that the transaction gave: {swapped:?}");
        }
    }
    Ok(())
}

pub(super) async fn duplicate_key_rejected(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let (a, b) = (to_key("a")?, to_key("b")?);
    for txn in [
        Txn::new().put(a.clone(), "1").put(b.clone(), "1").put(a.clone(), "2"),
        Txn::new().put(a.clone(), "1").delete(a.clone()),
        Txn::new().guard(a.clone(), Expected::Absent).guard(a.clone(), Expected::Any).put(b.clone(), "1"),
    ] {
        invalid(&store, txn, "a transaction that names a key twice").await?;
        ensure_eq!(store.scan("").await?, [], "what a rejected transaction left");
    }
    let both = store.commit(Txn::new().guard(a.clone(), Expected::Absent).put(a, "1")).await?;
    ensure!(both.is_committed(), "a key may stand among the guards and among the operations: {both:?}");
    Ok(())
}

pub(super) async fn empty(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    invalid(&store, Txn::new(), "a transaction of nothing").await
}

/// Two reads are validated by a transaction that writes nothing.
pub(super) async fn read_only_snapshot(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    let (a, b) = (to_key("a")?, to_key("b")?);
    other.committed(Txn::new().put(a.clone(), "1").put(b.clone(), "1")).await?;
    let snapshot = |versions: (_, _)| {
        Txn::new().guard(a.clone(), Expected::Version(versions.0)).guard(b.clone(), Expected::Version(versions.1))
    };
    let read = async || Checked::Ok((one.present("a").await?.version, one.present("b").await?.version));
    one.committed(snapshot(read().await?)).await?;
    let torn = one.present("a").await?.version;
    other.committed(Txn::new().put(a.clone(), "2").put(b.clone(), "2")).await?;
    one.conflict(snapshot((torn, one.present("b").await?.version))).await?;
    one.committed(snapshot(read().await?)).await?;
    Ok(())
}

pub(super) async fn get_many_is_one_point_in_time(context: &Context<'_>) -> Checked {
    const ROUNDS: usize = 60;
    let (reader, writer) = context.open_two().await?;
    if !reader.capabilities().atomic_get_many {
        return Err(Stop::skipped("get_many is not declared to read at one point in time"));
    }
    let keys = [to_key("a")?, to_key("m")?, to_key("z")?];
    let write = |value: usize| keys.iter().fold(Txn::new(), |txn, key| txn.put(key.clone(), value.to_string()));
    writer.committed(write(0)).await?;
    let writes: Vec<_> = (1..=ROUNDS).map(write).collect();
    let writing = async move {
        for txn in writes {
            writer.committed(txn).await?;
        }
        Ok(())
    };
    let reading = async move {
        loop {
            let entries = reader.get_many(&keys).await?;
            let values: Vec<_> = entries.into_iter().map(|entry| entry.map(|entry| entry.value)).collect();
            let same = values.windows(2).all(|pair| matches!(pair, [one, other] if one == other));
            ensure!(same, "one get_many saw {values:?} of keys that are only written together");
            if values.first() == Some(&Some(ROUNDS.to_string().into())) {
                return Ok(());
            }
        }
    };
    parallel([Box::pin(writing) as futures::future::BoxFuture<'static, Checked>, Box::pin(reading)]).await?;
    Ok(())
}

/// Two doctors are on call; each may leave only if the other stays. Both read, then both write to different keys.
pub(super) async fn write_skew_prevented(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    let (alice, bob) = (to_key("alice")?, to_key("bob")?);
    for round in 0..8 {
        one.committed(Txn::new().put(alice.clone(), "on").put(bob.clone(), "on")).await?;
        let both = Txn::new()
            .guard(alice.clone(), Expected::Version(one.present(&alice).await?.version))
            .guard(bob.clone(), Expected::Version(other.present(&bob).await?.version));
        let leave = [both.clone().put(alice.clone(), "off"), both.put(bob.clone(), "off")];
        let leaving = [one.clone(), other.clone()].into_iter().zip(leave);
        let outcomes =
            parallel(leaving.map(|(store, txn)| async move { Ok(store.commit(txn).await?.is_committed()) })).await?;
        let left = outcomes.iter().filter(|committed| **committed).count();
        ensure_eq!(left, 1, "round {round}: how many of two that exclude each other were committed");
        let on = one.scan("").await?.into_iter().filter(|entry| entry.value == "on").count();
        ensure_eq!(on, 1, "round {round}: how many are still on call");
    }
    Ok(())
}

async fn invalid(store: &Handle, txn: Txn, what: &str) -> Checked {
    let options = WriteOptions::default().timeout(PATIENCE);
    ensure_error!(store.store().commit(txn, options).await, Error::InvalidArgument { .. }, "{what}");
    Ok(())
}
