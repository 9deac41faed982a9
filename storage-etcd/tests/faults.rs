//! Servers that die, hang and vanish under a handle of etcd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use storage_core::{Error, Key, ReadOptions, Store, StoreExt, Txn, WatchEvent, WatchOptions, WriteOptions};
use storage_etcd::{EtcdConfig, EtcdStore};
use storage_testkit::load::{Load, lateness, recovers};
use storage_testkit::proxy::{LinkFault, Proxy};
use storage_testkit::sockets::connections_to;
use storage_testkit::suite;

use common::{Backend, Etcd};

/// Within so long a handle has to work again once the servers do.
const RECOVERY: Duration = Duration::from_secs(10);

fn key(text: impl Into<String>) -> Key {
    Key::new(text.into()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_killed_under_load_lose_nothing() {
    let etcd = Etcd::start(3).await;
    let store = Arc::new(etcd.open().await);
    let load = Load::start(&store, 8, Duration::from_secs(2));
    for round in 0..6 {
        load.progress(100).await;
        // The leader every other time; each of the others too.
        let victim = if round % 2 == 0 { etcd.leader().await } else { round % 3 };
        etcd.cluster.lock().await.kill(victim).unwrap();
        load.progress(100).await;
        let mut cluster = etcd.cluster.lock().await;
        cluster.restart(victim).unwrap();
        cluster.ready(victim).await.unwrap();
    }
    etcd.cluster.lock().await.kill_all();
    etcd.cluster.lock().await.restart_all().await.unwrap();
    recovers(&store, RECOVERY).await;
    load.progress(100).await;
    let ends = load.end().await;
    ends.check(&store).await;
    assert!(!ends.unknown.is_empty(), "no fault struck a write: {} were acknowledged", ends.acknowledged.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_that_is_killed_under_load_loses_nothing() {
    let etcd = Etcd::start(1).await;
    let store = Arc::new(etcd.open().await);
    let load = Load::start(&store, 8, Duration::from_millis(300));
    for _ in 0..3 {
        load.progress(100).await;
        let mut cluster = etcd.cluster.lock().await;
        cluster.kill(0).unwrap();
        load.refusal().await;
        cluster.restart_all().await.unwrap();
        recovers(&store, RECOVERY).await;
    }
    load.progress(100).await;
    let ends = load.end().await;
    ends.check(&store).await;
    assert!(!ends.unknown.is_empty() && !ends.unapplied.is_empty(), "no fault struck");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_works_again_after_a_long_outage_and_nothing_was_queued() {
    const OUTAGE: Duration = Duration::from_secs(12);
    let etcd = Etcd::start(1).await;
    let store = Arc::new(etcd.open().await);
    store.put(&key("a"), "1").await.unwrap();
    etcd.cluster.lock().await.kill(0).unwrap();
    // Calls go on all the while, with deadlines that end before the outage does.
    let load = Load::start(&store, 4, Duration::from_millis(200));
    let began = Instant::now();
    while began.elapsed() < OUTAGE {
        let read = store.get(&key("a"), ReadOptions::default().timeout(Duration::from_millis(200))).await;
        assert!(matches!(read, Err(Error::Unavailable { .. })), "{read:?}");
    }
    let ends = load.end().await;
    etcd.cluster.lock().await.restart_all().await.unwrap();
    recovers(&store, RECOVERY).await;
    ends.check(&store).await;
    assert!(ends.acknowledged.is_empty() && ends.unknown.len() <= 4, "without a connection every write is unapplied");
    assert!(ends.unapplied.len() > 100, "{} calls in {OUTAGE:?}", ends.unapplied.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_follower_fails_no_call() {
    let etcd = Etcd::start(3).await;
    // Some of the handles are connected to the one that dies.
    let mut stores = Vec::new();
    for number in 0..6 {
        let store = etcd.open().await;
        store.put(&key(format!("before/{number}")), "1").await.unwrap();
        stores.push(store);
    }
    let follower = (etcd.leader().await + 1) % 3;
    etcd.cluster.lock().await.kill(follower).unwrap();
    for (number, store) in stores.iter().enumerate() {
        for round in 0..30 {
            store.put(&key(format!("after/{number}/{round}")), "1").await.unwrap();
            store.get(&key("before/0"), ReadOptions::default()).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_follower_is_left_for_another_server() {
    let etcd = Etcd::start(3).await;
    let mut stores = Vec::new();
    for _ in 0..6 {
        let store = etcd.open().await;
        store.put(&key("a"), "1").await.unwrap();
        stores.push(store);
    }
    let follower = (etcd.leader().await + 1) % 3;
    etcd.cluster.lock().await.pause(follower).unwrap();
    for store in &stores {
        store.get(&key("a"), ReadOptions::default()).await.unwrap();
        let began = Instant::now();
        store.put(&key("a"), "2").await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(1), "the second call still waits for the hung server");
    }
    etcd.cluster.lock().await.resume(follower).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_are_kept_whatever_the_servers_do() {
    const TIMEOUT: Duration = Duration::from_millis(250);
    /// What the contract allows.
    const LATE: Duration = Duration::from_millis(100);
    let etcd = Etcd::start(1).await;
    let port = etcd.cluster.lock().await.node(0).unwrap().port("client").unwrap();
    let link = Proxy::start(port).await.unwrap();
    let through = EtcdConfig::new([format!("127.0.0.1:{}", link.port())]).unwrap();
    for trouble in ["refused", "cut off", "hung", "dead"] {
        let connected = EtcdStore::new(through.clone()).await.unwrap();
        connected.put(&key("a"), "1").await.unwrap();
        let fresh = EtcdStore::new(through.clone()).await.unwrap();
        match trouble {
            "refused" => link.set(LinkFault::Refuse).await,
            "cut off" => link.set(LinkFault::Blackhole).await,
            "hung" => etcd.cluster.lock().await.pause(0).unwrap(),
            _ => etcd.cluster.lock().await.kill(0).unwrap(),
        }
        for (store, which) in [(&connected, "connected before"), (&fresh, "never connected")] {
            // The best of three: on a busy machine a late wake-up is not ours.
            let mut least = Duration::MAX;
            for _ in 0..3 {
                least = least.min(lateness(store, TIMEOUT).await);
            }
            assert!(least <= LATE, "{trouble}, {which}: {least:?} late");
        }
        link.set(LinkFault::None).await;
        etcd.heal().await;
        for store in [connected, fresh] {
            recovers(&store, RECOVERY).await;
            store.close().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_reply_is_lost_is_unknown_and_applied() {
    let etcd = Etcd::start(1).await;
    let port = etcd.cluster.lock().await.node(0).unwrap().port("client").unwrap();
    let link = Proxy::start(port).await.unwrap();
    let config = EtcdConfig::new([format!("127.0.0.1:{}", link.port())]).unwrap();
    let store = EtcdStore::new(config).await.unwrap();
    store.put(&key("a"), "1").await.unwrap();
    link.set(LinkFault::LoseReplies).await;
    let options = WriteOptions::default().timeout(Duration::from_millis(500));
    let lost = store.commit(Txn::new().put(key("a"), "2"), options).await;
    assert!(matches!(lost, Err(Error::UnknownOutcome { .. })), "{lost:?}");
    link.set(LinkFault::None).await;
    recovers(&store, RECOVERY).await;
    assert_eq!(store.get(&key("a"), ReadOptions::default()).await.unwrap().unwrap().value, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_without_a_gap_when_its_connections_break() {
    const WRITES: usize = 400;
    let etcd = Etcd::start(3).await;
    let mut links = Vec::new();
    for node in etcd.cluster.lock().await.nodes() {
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
            let event = tokio::time::timeout(RECOVERY, events.next()).await.expect("an event").unwrap().unwrap();
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
    let port = etcd.cluster.lock().await.node(0).unwrap().port("client").unwrap();
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
