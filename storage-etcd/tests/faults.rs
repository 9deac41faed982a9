//! Servers that die, hang and vanish under a handle of etcd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use futures::StreamExt;
use storage_core::{Key, ReadOptions, Store, StoreExt, Txn, WatchEvent, WatchOptions, WriteOptions};
use storage_etcd::{EtcdConfig, EtcdStore};
use storage_testkit::proxy::Proxy;
use storage_testkit::sockets::connections_to;
use storage_testkit::suite;

use common::{Backend, Etcd};

storage_testkit::outage_tests!(Etcd);

fn key(text: impl Into<String>) -> Key {
    Key::new(text.into()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_without_a_gap_when_its_connections_break() {
    const WRITES: usize = 400;
    let etcd = Etcd::start(3).await;
    let mut links = Vec::new();
    for node in etcd.cluster().lock().await.nodes() {
        links.push(Proxy::start(node.port("client").unwrap()).await.unwrap());
    }
    let endpoints = links.iter().map(|link| format!("127.0.0.1:{}", link.port()));
    let watching = EtcdStore::new(EtcdConfig::new(endpoints).unwrap()).await.unwrap();
    let mut events = watching.watch(b"w/", WatchOptions::default()).await.unwrap();

    let writing = etcd.open().await;
    let writes = tokio::spawn(async move {
        for number in 0..WRITES {
            // Several keys in a commit: they come together, or not yet.
            let txn = (0..5).fold(Txn::new(), |txn, part| txn.put(key(format!("w/{part}")), number.to_string()));
            assert!(writing.commit(txn, WriteOptions::default()).await.unwrap().is_committed());
        }
    });
    let mut revisions = Vec::new();
    for number in 0..WRITES {
        if number % 50 == 25 {
            for link in &links {
                link.cut().await;
            }
        }
        for part in 0..5 {
            let event = tokio::time::timeout(suite::RECOVERY, events.next()).await.expect("an event").unwrap().unwrap();
            let WatchEvent::Put { entry, revision } = event else { panic!("{event:?}") };
            assert_eq!((entry.key, entry.value), (key(format!("w/{part}")), number.to_string().into()));
            revisions.push(revision.unwrap());
        }
    }
    assert!(revisions.is_sorted());
    writes.await.unwrap();

    // A server that is cut off from its peers ends its watches, so if this was on it, it is on another now.
    etcd.isolate_follower().await;
    etcd.open().await.put(&key("w/last"), "1").await.unwrap();
    let event = tokio::time::timeout(suite::RECOVERY, events.next()).await.expect("an event").unwrap().unwrap();
    assert_eq!(event.key(), &key("w/last"));
    watching.close().await.unwrap();
    assert!(events.next().await.is_none(), "closing the handle ends its watches");
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_a_handle_ends_its_connection_although_a_watch_is_not_read() {
    let etcd = Etcd::start(1).await;
    let port = etcd.cluster().lock().await.node(0).unwrap().port("client").unwrap();
    assert_eq!(connections_to(port).unwrap(), 0, "of the probes");
    let store = etcd.open().await;
    store.put(&key("a"), "1").await.unwrap();
    let _unread = store.watch(b"", WatchOptions::default()).await.unwrap();
    assert_eq!(connections_to(port).unwrap(), 1, "one connection for everything");
    store.close().await.unwrap();
    assert_eq!(connections_to(port).unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_nobody_reads_hold_up_no_other_call() {
    const WATCHES: usize = 24;
    const WRITES: usize = 6;
    let etcd = Etcd::start(1).await;
    let store = etcd.open().await;
    let mut unread = Vec::new();
    for _ in 0..WATCHES {
        unread.push(store.watch(b"w", WatchOptions::default()).await.unwrap());
    }
    // Far more than each of them takes without being read.
    for number in 0..WRITES {
        store.put(&key(format!("w{number}")), vec![7; EtcdStore::MAX_VALUE_BYTES]).await.unwrap();
    }
    for number in 0..WRITES {
        let entry = store.get(&key(format!("w{number}")), ReadOptions::default()).await.unwrap().unwrap();
        assert_eq!(entry.value.len(), EtcdStore::MAX_VALUE_BYTES);
    }
    for mut events in unread {
        for number in 0..WRITES {
            let event = tokio::time::timeout(suite::RECOVERY, events.next()).await.expect("an event").unwrap().unwrap();
            assert_eq!(event.key(), &key(format!("w{number}")));
        }
    }
}
