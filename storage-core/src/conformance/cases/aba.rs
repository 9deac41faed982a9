//! Cases of the ABA problem: what was changed and restored is not what it was, and no version ever returns.

use std::collections::HashSet;

use crate::{
    Expected, Txn,
    conformance::{
        context::{Context, to_key},
        stop::{Checked, ensure, ensure_eq},
    },
};

pub(super) async fn old_version_fails_after_recreate(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    let old = one.put("a", "same").await?;
    other.delete("a").await?;
    let new = other.put("a", "same").await?;
    ensure!(old != new, "the key was deleted and created anew and has the version {old} again");
    let swapped = one.put_expecting("a", Expected::Version(old), "stolen").await?;
    ensure!(!swapped.is_committed(), "a version from before the key was deleted still holds");
    let deleted = one.delete_expecting("a", Expected::Version(old)).await?;
    ensure!(!deleted.is_committed(), "a version from before the key was deleted allows a delete");
    let entry = other.present("a").await?;
    ensure_eq!((entry.value, entry.version), ("same".into(), new), "the entry after refused swaps");
    Ok(())
}

pub(super) async fn put_delete_loop_gives_unique_versions(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    let mut seen = HashSet::new();
    for round in 0..12 {
        let store = if round % 2 == 0 { &one } else { &other };
        for value in ["same", "same"] {
            let version = store.put("a", value).await?;
            ensure!(seen.insert(version), "round {round}: the version {version} came back");
        }
        // Deleted alone, guarded and beside another write: a backend may go different ways for each.
        match round % 3 {
            0 => drop(store.delete("a").await?),
            1 => drop(store.committed(Txn::new().delete(to_key("a")?).put(to_key("b")?, "1")).await?),
            _ => {
                let deleted = store.delete_expecting("a", Expected::Exists).await?;
                ensure!(deleted.is_committed(), "a delete of a present key: {deleted:?}");
            }
        }
    }
    Ok(())
}

pub(super) async fn restoring_the_same_value_fails(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    let old = one.put("a", "first").await?;
    other.put("a", "second").await?;
    other.put("a", "first").await?;
    let swapped = one.put_expecting("a", Expected::Version(old), "stolen").await?;
    ensure!(!swapped.is_committed(), "the value was changed and restored, and the old version holds");
    let outcome = one.commit(Txn::new().guard(to_key("a")?, Expected::Version(old)).put(to_key("b")?, "1")).await?;
    ensure!(!outcome.is_committed(), "the old version holds as a guard of another key's write");
    ensure_eq!(other.present("a").await?.value, "first", "the restored value");
    Ok(())
}

/// Two replicas that make the same swap: a store whose version stays when the value does lets both win.
pub(super) async fn two_identical_swaps_do_not_both_succeed(context: &Context<'_>) -> Checked {
    let (one, other) = context.open_two().await?;
    let version = one.put("a", "taken").await?;
    let first = one.put_expecting("a", Expected::Version(version), "taken").await?;
    ensure!(first.is_committed(), "the first swap: {first:?}");
    let second = other.put_expecting("a", Expected::Version(version), "taken").await?;
    ensure!(!second.is_committed(), "both of two identical swaps were committed");
    Ok(())
}
