//! Cases of scans: bytewise order, prefixes that know no separators, and pages that give each key once.
//!
//! A page may be shorter than its limit: cases follow `next` and never count on full pages.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::{
    Capabilities, Entry, Error, Key, ReadOptions, ScanOptions, Txn,
    conformance::{
        context::{Context, Handle, PATIENCE, parallel, to_key, to_keys},
        stop::{Checked, ensure, ensure_eq, ensure_error},
    },
};

pub(super) async fn nothing(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    for (prefix, when) in [("", "an empty namespace"), ("a", "an empty namespace")] {
        let page = store.page(prefix.as_bytes(), None, 10).await?;
        ensure_eq!((page.entries, page.next), (vec![], None), "the prefix {prefix:?} in {when}");
    }
    write(&store, ["a", "b/c", "d"]).await?;
    for prefix in ["c", "aa", "b/c/", "b/d", "e", "b//"] {
        let page = store.page(prefix.as_bytes(), None, 10).await?;
        ensure_eq!((page.entries, page.next), (vec![], None), "the prefix {prefix:?} that no key has");
    }
    Ok(())
}

pub(super) async fn lexicographic(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    // Bytewise: neither by number, nor by letter case, nor with separators first, nor by length.
    let sorted: [&[u8]; 15] =
        [b"\0", b" ", b"-", b"/", b"10", b"2", b"A", b"B", b"a", b"a\0", b"a/b", b"a0", b"b", b"\x7f", b"\xc3\xa9"];
    let shuffled = [7, 3, 14, 0, 9, 1, 12, 5, 10, 2, 13, 8, 4, 11, 6].map(|place| sorted.get(place).copied());
    write(&store, shuffled.into_iter().flatten()).await?;
    ensure_eq!(names(&store.scan("").await?), to_keys(sorted)?, "the order of a scan");
    ensure_eq!(names(&store.pages(b"", 2).await?), to_keys(sorted)?, "the order over pages");
    Ok(())
}

pub(super) async fn prefix_1_is_not_10(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    write(&store, ["ch/1", "ch/1/a", "ch/1/b", "ch/10", "ch/10/a", "ch/11", "ch/2", "ch", "ci"]).await?;
    for (prefix, expected) in [
        ("ch/1/", vec!["ch/1/a", "ch/1/b"]),
        // A prefix is one of bytes: it knows nothing of separators.
        ("ch/1", vec!["ch/1", "ch/1/a", "ch/1/b", "ch/10", "ch/10/a", "ch/11"]),
        ("ch/10", vec!["ch/10", "ch/10/a"]),
        ("ch/", vec!["ch/1", "ch/1/a", "ch/1/b", "ch/10", "ch/10/a", "ch/11", "ch/2"]),
        ("c", vec!["ch", "ch/1", "ch/1/a", "ch/1/b", "ch/10", "ch/10/a", "ch/11", "ch/2", "ci"]),
        ("ch/1/a", vec!["ch/1/a"]),
        ("ch/1/a/", vec![]),
    ] {
        for limit in [1, 2, ScanOptions::MAX_LIMIT] {
            let found = store.pages(prefix.as_bytes(), limit).await?;
            ensure_eq!(names(&found), to_keys(&expected)?, "the prefix {prefix:?} in pages of {limit}");
        }
    }
    Ok(())
}

pub(super) async fn prefix_0xff(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let keys: [&[u8]; 8] =
        [b"a", b"a\xfe", b"a\xff", b"a\xff\x01", b"a\xff\xff\xff", b"b", b"\xff", b"\xff\xff\xff\x01"];
    write(&store, keys).await?;
    for prefix in [&b"\xff"[..], b"\xff\xff", b"\xff\xff\xff", b"a\xff", b"a\xff\xff", b"a", b"\xff\xff\xff\xff"] {
        let expected: Vec<_> = keys.into_iter().filter(|key| key.starts_with(prefix)).collect();
        for limit in [1, ScanOptions::MAX_LIMIT] {
            let found = store.pages(prefix, limit).await?;
            ensure_eq!(names(&found), to_keys(&expected)?, "the prefix {} in pages of {limit}", prefix.escape_ascii());
        }
    }
    Ok(())
}

pub(super) async fn empty_prefix(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let keys: [&[u8]; 5] = [b"\0", b"/", b"a", b"a/b", b"\xff"];
    write(&store, keys).await?;
    ensure_eq!(names(&store.scan("").await?), to_keys(keys)?, "all keys");
    Ok(())
}

pub(super) async fn pages_cover_all(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let keys: Vec<_> = (0..23).map(|number| format!("p/{number:03}")).collect();
    write(&store, &keys).await?;
    write(&store, ["o", "p", "p0", "q"]).await?;
    for limit in [2, 5, 7, 22, 24, ScanOptions::MAX_LIMIT] {
        let entries = store.pages(b"p/", limit).await?;
        ensure_eq!(names(&entries), to_keys(&keys)?, "all pages of {limit}");
        ensure!(entries.iter().all(|entry| entry.value == entry.key.as_bytes()), "a value belongs to another key");
    }
    Ok(())
}

/// As many entries as the limit: they all come, and after them nothing.
pub(super) async fn exact_page(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let keys: Vec<_> = (0..8).map(|number| format!("p/{number}")).collect();
    write(&store, &keys).await?;
    write(&store, ["q"]).await?;
    for limit in [8, 4] {
        ensure_eq!(names(&store.pages(b"p/", limit).await?), to_keys(&keys)?, "pages of {limit}");
    }
    Ok(())
}

pub(super) async fn limit_of_one(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let keys = ["a", "a/", "a/b", "b"];
    write(&store, keys).await?;
    let mut after = None;
    for key in keys {
        let page = store.page(b"", after, 1).await?;
        ensure_eq!(names(&page.entries), [to_key(key)?], "a page of one entry");
        after = Some(to_key(key)?);
        ensure!(page.next.is_none() || page.next == after, "the page of {key:?} goes on after {:?}", page.next);
    }
    let page = store.page(b"", after, 1).await?;
    ensure_eq!((page.entries, page.next), (vec![], None), "after the last key");
    Ok(())
}

pub(super) async fn start_outside_of_the_prefix(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    write(&store, ["a", "p", "p/1", "p/2", "p0", "z"]).await?;
    for (after, expected) in [
        ("a", &["p/1", "p/2"][..]),
        ("p", &["p/1", "p/2"]),
        ("p/", &["p/1", "p/2"]),
        ("p/1", &["p/2"]),
        ("p/1\0", &["p/2"]),
        ("p/2", &[]),
        ("p0", &[]),
        ("zz", &[]),
    ] {
        let page = store.page(b"p/", Some(to_key(after)?), 10).await?;
        ensure_eq!(names(&page.entries), to_keys(expected)?, "the page of the prefix \"p/\" after {after:?}");
    }
    Ok(())
}

pub(super) async fn resume_after_deleted(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let keys: Vec<_> = (0..9).map(|number| format!("p/{number}")).collect();
    write(&store, &keys).await?;
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.page(b"p/", after, 3).await?;
        for entry in page.entries {
            store.delete(&entry.key).await?;
            seen.push(entry);
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    ensure_eq!(names(&seen), to_keys(&keys)?, "all pages, each deleted after it was read");
    ensure_eq!(store.scan("").await?, [], "after all");
    Ok(())
}

/// Every key that is there all the time is seen once; one that is written before the page it belongs to is read is seen.
pub(super) async fn inserts_while_paging(context: &Context<'_>) -> Checked {
    let (reader, writer) = context.open_two().await?;
    let keys: Vec<_> = (10..30).map(|number| format!("p/{number}")).collect();
    write(&writer, &keys).await?;
    let (mut seen, mut ahead) = (Vec::new(), BTreeSet::from_iter(keys));
    let mut after: Option<Key> = None;
    for round in 0.. {
        let page = reader.page(b"p/", after, 4).await?;
        seen.extend(names(&page.entries));
        let Some(next) = page.next else { break };
        if round < 6 {
            write(&writer, [format!("p/0{round}")]).await?;
            let inserted = format!("p/99{round}");
            write(&writer, [&inserted]).await?;
            ahead.insert(inserted);
        }
        after = Some(next);
    }
    ensure_eq!(seen, to_keys(ahead)?, "what was seen while keys were written before and behind the page");
    Ok(())
}

pub(super) async fn bad_limit_rejected(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    write(&store, ["a"]).await?;
    for limit in [0, ScanOptions::MAX_LIMIT + 1] {
        let page = store.page(b"", None, limit).await;
        ensure_error!(page, Error::InvalidArgument { .. }, "a scan with the limit {limit}");
    }
    Ok(())
}

/// More bytes than one answer of the usual protocols may have (gRPC: 4 MiB by default).
pub(super) async fn large_values(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let value = |number: u8| Bytes::from(vec![number; Capabilities::MIN_VALUE_BYTES]);
    for number in 0..24 {
        store.put([b'v', number], value(number)).await?;
    }
    let entries = store.scan("v").await?;
    ensure_eq!(entries.len(), 24, "entries");
    for (number, entry) in (0..).zip(entries) {
        ensure!(entry.key.as_bytes() == [b'v', number] && entry.value == value(number), "entry {number} is another");
    }
    Ok(())
}

pub(super) async fn ten_thousand_keys(context: &Context<'_>) -> Checked {
    /// More are enough to see a backend that lists all keys for each page.
    const KEYS: usize = 10_000;
    let handles = context.open_many(4).await?;
    let keys: Vec<_> = (0..KEYS).map(|number| format!("many/{}/{number:05}", number % 10)).collect();
    let share = KEYS.div_ceil(handles.len());
    parallel(handles.iter().cloned().zip(keys.chunks(share).map(<[String]>::to_vec).collect::<Vec<_>>()).map(
        |(handle, keys)| async move {
            for some in keys.chunks(Capabilities::MIN_TXN_OPS) {
                let mut txn = Txn::new();
                for key in some {
                    txn = txn.put(to_key(key)?, key.clone());
                }
                handle.committed(txn).await?;
            }
            Ok(())
        },
    ))
    .await?;
    let store = context.open().await?;
    let mut sorted = keys;
    sorted.sort();
    let entries = store.scan("many/").await?;
    ensure_eq!(entries.len(), KEYS, "entries");
    for (entry, key) in entries.iter().zip(&sorted) {
        ensure!(
            entry.key.as_bytes() == key.as_bytes() && entry.value == *key,
            "{} stands where {key} belongs",
            entry.key
        );
    }
    let tenth = store.pages(b"many/7/", 300).await?;
    ensure_eq!(tenth.len(), KEYS / 10, "entries of one prefix in pages of 300");
    let page =
        store.store().scan(b"many/9/", ScanOptions { read: reading(), ..ScanOptions::default() }.limit(1)).await?;
    ensure_eq!(names(&page.entries), [to_key("many/9/00009")?], "the first of the last prefix");
    Ok(())
}

fn reading() -> ReadOptions {
    ReadOptions::default().timeout(PATIENCE)
}

async fn write(store: &Handle, keys: impl IntoIterator<Item: AsRef<[u8]>>) -> Checked {
    let mut txn = Txn::new();
    for key in keys {
        txn = txn.put(to_key(&key)?, Bytes::copy_from_slice(key.as_ref()));
    }
    store.committed(txn).await?;
    Ok(())
}

fn names(entries: &[Entry]) -> Vec<Key> {
    entries.iter().map(|entry| entry.key.clone()).collect()
}
