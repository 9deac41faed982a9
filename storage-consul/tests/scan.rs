//! A page is made of several reads, and still of one point in time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use storage_core::{Key, ReadOptions, ScanOptions, Store, StoreExt, Txn, WriteOptions};

use common::{Backend, Consul};

fn key(text: impl Into<String>) -> Key {
    Key::new(text.into()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_of_one_point_in_time_although_its_keys_change() {
    const PAGES: usize = 60;
    let consul = Consul::start(1).await;
    let store = Arc::new(consul.open().await);
    // More than one read takes between the first key and the last.
    for place in 0..100 {
        store.put(&key(format!("s/m{place:02}")), "").await.unwrap();
    }
    let end = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let (store, end) = (Arc::clone(&store), Arc::clone(&end));
        async move {
            let mut number = 0;
            while !end.load(Ordering::SeqCst) || number == 0 {
                number += 1;
                // The same value at both ends, and one key in the place of another.
                let (here, there) = if number % 2 == 0 { ("s/n0", "s/n1") } else { ("s/n1", "s/n0") };
                let txn = Txn::new().put(key("s/a"), number.to_string()).put(key("s/z"), number.to_string());
                let txn = txn.delete(key(here)).put(key(there), "");
                assert!(store.commit(txn, WriteOptions::default()).await.unwrap().is_committed());
                // Readers find a moment without a change between two bursts.
                if number % 8 == 0 {
                    store.ping(ReadOptions::default()).await.unwrap();
                }
            }
        }
    });
    let reader = consul.open().await;
    let (mut whole, mut moved) = (0, 0);
    for _ in 0..PAGES {
        // Page by page, each with what belongs together if it reaches so far.
        let page = reader.scan(b"s/", ScanOptions::default()).await.unwrap();
        let value =
            |name: &str| page.entries.iter().find(|entry| entry.key == key(name)).map(|entry| entry.value.clone());
        assert!(page.entries.is_sorted_by(|one, other| one.key < other.key));
        if page.next.is_none() && value("s/a").is_some() {
            whole += 1;
            assert_eq!(value("s/a"), value("s/z"), "two keys that are written together");
            assert!(value("s/n0").is_some() != value("s/n1").is_some(), "one of two keys is there at any time");
        }
        let short = reader.scan(b"s/n", ScanOptions::default()).await.unwrap();
        if short.next.is_none() && value("s/a").is_some() {
            moved += 1;
            assert_eq!(short.entries.len(), 1, "one of two keys is there at any time");
        }
    }
    end.store(true, Ordering::SeqCst);
    writing.await.unwrap();
    println!("{whole} whole pages, {moved} of two keys");
    assert!(moved > PAGES / 2, "{moved} pages of the two keys were whole");
}
