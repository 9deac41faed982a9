//! Servers that die, hang and vanish under a handle of Consul.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use storage_consul::{ConsulConfig, ConsulStore};
use storage_core::{Error, Key, ReadOptions, Store, StoreExt, Txn, WatchEvent, WatchOptions, WriteOptions};
use storage_testkit::load::{Load, lateness, recovers};
use storage_testkit::proxy::{LinkFault, Proxy};
use storage_testkit::sockets::connections_to;
use storage_testkit::suite;

use common::{Backend, Consul};

/// Within so long a handle has to work again once the servers do.
const RECOVERY: Duration = Duration::from_secs(10);

fn key(text: impl Into<String>) -> Key {
    Key::new(text.into()).unwrap()
}

async fn through(link: &Proxy) -> ConsulStore {
    let config = ConsulConfig::new([format!("127.0.0.1:{}", link.port())]).unwrap();
    ConsulStore::new(config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_killed_under_load_lose_nothing() {
    let consul = Consul::start(3).await;
    let store = Arc::new(consul.open().await);
    let load = Load::start(&store, 8, Duration::from_secs(2));
    for round in 0..5 {
        load.progress(100).await;
        // The leader every other time; others too.
        let victim = if round % 2 == 0 { consul.leader().await } else { round % 3 };
        consul.cluster.lock().await.kill(victim).unwrap();
        load.progress(100).await;
        let mut cluster = consul.cluster.lock().await;
        cluster.restart(victim).unwrap();
        cluster.ready(victim).await.unwrap();
    }
    consul.restart_all().await;
    recovers(&store, RECOVERY).await;
    load.progress(100).await;
    let ends = load.end().await;
    ends.check(&store).await;
    assert!(!ends.unknown.is_empty(), "no fault struck a write: {} were acknowledged", ends.acknowledged.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_works_again_after_a_long_outage_and_nothing_was_queued() {
    const OUTAGE: Duration = Duration::from_secs(8);
    let consul = Consul::start(1).await;
    let store = Arc::new(consul.open().await);
    store.put(&key("a"), "1").await.unwrap();
    consul.cluster.lock().await.kill(0).unwrap();
    // Calls go on all the while, with deadlines that end before the outage does.
    let load = Load::start(&store, 4, Duration::from_millis(200));
    let began = Instant::now();
    while began.elapsed() < OUTAGE {
        let read = store.get(&key("a"), ReadOptions::default().timeout(Duration::from_millis(200))).await;
        assert!(matches!(read, Err(Error::Unavailable { .. })), "{read:?}");
    }
    let ends = load.end().await;
    consul.cluster.lock().await.restart_all().await.unwrap();
    recovers(&store, RECOVERY).await;
    ends.check(&store).await;
    assert!(ends.acknowledged.is_empty() && ends.unknown.len() <= 8, "without a connection a write is unapplied");
    assert!(ends.unapplied.len() > 50, "{} calls in {OUTAGE:?}", ends.unapplied.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_follower_fails_no_call() {
    let consul = Consul::start(3).await;
    // Some of the handles are connected to the one that dies.
    let mut stores = Vec::new();
    for number in 0..6 {
        let store = consul.open().await;
        store.put(&key(format!("before/{number}")), "1").await.unwrap();
        stores.push(store);
    }
    let follower = (consul.leader().await + 1) % 3;
    consul.cluster.lock().await.kill(follower).unwrap();
    let mut unknown = 0;
    for (number, store) in stores.iter().enumerate() {
        for round in 0..20 {
            match store.put(&key(format!("after/{number}/{round}")), "1").await {
                Ok(_) => {}
                // The first on a connection whose end has not been noticed.
                Err(Error::UnknownOutcome { .. }) if round == 0 => unknown += 1,
                Err(error) => panic!("{number}, {round}: {error}"),
            }
            store.get(&key("before/0"), ReadOptions::default()).await.unwrap();
        }
    }
    assert!(unknown < stores.len(), "every handle lost a call");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_follower_is_left_for_another_server() {
    let consul = Consul::start(3).await;
    let mut stores = Vec::new();
    for _ in 0..6 {
        let store = consul.open().await;
        store.put(&key("a"), "1").await.unwrap();
        stores.push(store);
    }
    let follower = (consul.leader().await + 1) % 3;
    consul.cluster.lock().await.pause(follower).unwrap();
    for store in &stores {
        store.get(&key("a"), ReadOptions::default()).await.unwrap();
        let began = Instant::now();
        store.put(&key("a"), "2").await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(2), "the second call still waits for the hung server");
    }
    consul.cluster.lock().await.resume(follower).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_are_kept_whatever_the_servers_do() {
    const TIMEOUT: Duration = Duration::from_millis(250);
    /// What the contract allows.
    const LATE: Duration = Duration::from_millis(100);
    let consul = Consul::start(1).await;
    let link = Proxy::start(consul.http_port(0).await).await.unwrap();
    for trouble in ["refused", "cut off", "hung", "dead"] {
        let connected = through(&link).await;
        connected.put(&key("a"), "1").await.unwrap();
        let fresh = through(&link).await;
        match trouble {
            "refused" => link.set(LinkFault::Refuse).await,
            "cut off" => link.set(LinkFault::Blackhole).await,
            "hung" => consul.cluster.lock().await.pause(0).unwrap(),
            _ => consul.cluster.lock().await.kill(0).unwrap(),
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
        consul.heal().await;
        for store in [connected, fresh] {
            recovers(&store, RECOVERY).await;
            store.close().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_no_clock_can_tell_is_no_fault() {
    let consul = Consul::start(1).await;
    let store = consul.open().await;
    let (read, write) = (ReadOptions::default().timeout(Duration::MAX), WriteOptions::default().timeout(Duration::MAX));
    let put = store.commit(Txn::new().put(key("a"), "1"), write).await.unwrap();
    assert!(put.is_committed());
    assert_eq!(store.get(&key("a"), read).await.unwrap().unwrap().value, "1");
    assert_eq!(store.get_many(&[key("a")], read).await.unwrap().len(), 1);
    store.watch(b"", WatchOptions { timeout: Duration::MAX, ..WatchOptions::default() }).await.map(|_| ()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_reply_is_lost_is_unknown_and_applied() {
    let consul = Consul::start(1).await;
    let link = Proxy::start(consul.http_port(0).await).await.unwrap();
    let store = through(&link).await;
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
async fn without_a_majority_nothing_is_read_and_nothing_acknowledged() {
    let consul = Consul::start(3).await;
    let leader = consul.leader().await;
    let store = consul.open_on(leader).await;
    store.put(&key("a"), "1").await.unwrap();
    for other in (0..3).filter(|place| *place != leader) {
        consul.cluster.lock().await.pause(other).unwrap();
    }
    let timeout = Duration::from_secs(2);
    // What the others said before they were stopped may still be on its way to the leader, but not for long.
    let deadline = Instant::now() + RECOVERY;
    while let Ok(entry) = store.get(&key("a"), ReadOptions::default().timeout(timeout)).await {
        assert_eq!(entry.unwrap().value, "1");
        assert!(Instant::now() < deadline, "a minority goes on to serve reads");
    }
    let read = store.get(&key("a"), ReadOptions::default().timeout(timeout)).await;
    assert!(matches!(read, Err(Error::Unavailable { .. })), "{read:?}");
    let read = store.get_many(&[key("a")], ReadOptions::default().timeout(timeout)).await;
    assert!(matches!(read, Err(Error::Unavailable { .. })), "a transaction of reads: {read:?}");
    let written = store.commit(Txn::new().put(key("a"), "2"), WriteOptions::default().timeout(timeout)).await;
    assert!(matches!(written, Err(Error::UnknownOutcome { .. } | Error::Unavailable { .. })), "{written:?}");
    let stale = store.get(&key("a"), ReadOptions::default().timeout(timeout).stale()).await;
    assert_eq!(stale.unwrap().unwrap().value, "1", "a stale read needs no majority");
    consul.heal().await;
    recovers(&store, RECOVERY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_sees_the_last_state_although_its_connections_break() {
    const WRITES: usize = 200;
    let consul = Consul::start(3).await;
    let mut links = Vec::new();
    for node in 0..3 {
        links.push(Proxy::start(consul.http_port(node).await).await.unwrap());
    }
    let endpoints = links.iter().map(|link| format!("127.0.0.1:{}", link.port()));
    let watching = ConsulStore::new(ConsulConfig::new(endpoints).unwrap()).await.unwrap();
    let writing = Arc::new(consul.open().await);
    writing.put(&key("w/gone"), "1").await.unwrap();
    let mut events = watching.watch(b"w/", WatchOptions::default()).await.unwrap();
    let writes = tokio::spawn({
        let writing = Arc::clone(&writing);
        async move {
            for number in 0..WRITES {
                writing.put(&key(format!("w/{}", number % 7)), number.to_string()).await.unwrap();
            }
            writing.delete(&key("w/gone")).await.unwrap();
        }
    });
    let mut seen: BTreeMap<Key, Option<Bytes>> = BTreeMap::new();
    let expected: BTreeMap<_, _> = (0..7)
        .map(|place| {
            (place..WRITES)
                .step_by(7)
                .next_back()
                .map(|last| (key(format!("w/{place}")), Some(last.to_string().into())))
        })
        .chain([Some((key("w/gone"), None))])
        .flatten()
        .collect();
    let mut count = 0;
    while seen != expected {
        if count % 20 == 10 {
            for link in &links {
                link.cut().await;
            }
        }
        count += 1;
        let event = tokio::time::timeout(suite::RECOVERY, events.next()).await.expect("an event").unwrap().unwrap();
        match event {
            WatchEvent::Put { entry, .. } => seen.insert(entry.key, Some(entry.value)),
            event => seen.insert(event.key().clone(), None),
        };
    }
    writes.await.unwrap();

    // The server that is asked hangs, without a word.
    let leader = consul.leader().await;
    consul.cluster.lock().await.pause(leader).unwrap();
    consul.leader().await;
    // The writes of this handle may have gone to that server too: then one of them is never answered. It is still there, and
    // the others find out only by its silence, so the time in which a server that is back is used again does not hold.
    recovers(&writing, suite::RECOVERY).await;
    writing.put(&key("w/last"), "1").await.unwrap();
    let event = tokio::time::timeout(suite::RECOVERY, events.next()).await.expect("an event").unwrap().unwrap();
    assert_eq!(event.key(), &key("w/last"));
    watching.close().await.unwrap();
    assert!(events.next().await.is_none(), "closing the handle ends its watches");
    consul.cluster.lock().await.resume(leader).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_a_handle_ends_its_connections_although_a_watch_is_not_read() {
    let consul = Consul::start(1).await;
    let link = Proxy::start(consul.http_port(0).await).await.unwrap();
    let store = through(&link).await;
    store.put(&key("a"), "1").await.unwrap();
    let unread = store.watch(b"", WatchOptions::default()).await.unwrap();
    assert_eq!(connections_to(link.port()).unwrap(), 1, "one connection for one call at a time");
    store.close().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(2);
    while connections_to(link.port()).unwrap() > 0 {
        assert!(Instant::now() < deadline, "connections are left");
        tokio::task::yield_now().await;
    }
    drop(unread);
}
