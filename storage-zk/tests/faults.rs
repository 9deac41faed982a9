//! Servers that are killed, hang and are cut off while handles write: what was acknowledged is kept, what is
//! unknown is said to be, and handles recover by themselves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use storage_core::{Error, Key, ReadOptions, Store, StoreExt, Txn, WatchEvent, WatchOptions, WriteOptions};
use storage_testkit::outages::{RECOVERS_WITHIN, recovers};
use storage_testkit::suite;
use storage_zk::{ZkConfig, ZkStore};
use tokio::time::{Instant, timeout};

use common::{Backend, ZooKeeper};

storage_testkit::outage_tests!(ZooKeeper);

fn key(text: impl Into<String>) -> Key {
    Key::new(text.into()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_recovers_from_an_outage_longer_than_its_session() {
    let servers = ZooKeeper::start(1).await;
    let session = Duration::from_secs(2);
    let store = ZkStore::open(&servers.config().with_session_timeout(session)).await.unwrap();
    let mut watch = store.watch(b"w", WatchOptions::default()).await.unwrap();
    let before = store.put(&key("before"), "1").await.unwrap();
    servers.cluster().lock().await.kill_all();
    let down = Instant::now();
    let (mut unavailable, mut number) = (0, 0);
    while down.elapsed() < 4 * session {
        number += 1;
        let options = WriteOptions::default().timeout(Duration::from_millis(200));
        let written = store.commit(Txn::new().put(key("during"), "1"), options).await;
        match written {
            Err(Error::Unavailable { .. }) => unavailable += 1,
            // The connection broke under this one.
            Err(Error::UnknownOutcome { .. }) if number <= 2 => {}
            other => panic!("a write during the outage answered {other:?}"),
        }
    }
    assert!(unavailable > 5);
    servers.cluster().lock().await.restart_all().await.unwrap();
    recovers(&store, RECOVERS_WITHIN).await;
    let entry = store.get(&key("before"), ReadOptions::default()).await.unwrap().unwrap();
    assert_eq!(entry.version, before);
    // Calls that were refused as unavailable were not queued anywhere.
    assert_eq!(store.get(&key("during"), ReadOptions::default()).await.unwrap(), None);
    store.put(&key("w"), "2").await.unwrap();
    let event = timeout(RECOVERS_WITHIN, futures::StreamExt::next(&mut watch)).await.unwrap().unwrap().unwrap();
    assert!(matches!(event, WatchEvent::Put { entry, .. } if entry.value == "2"), "the watch goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_what_was_deleted_and_written_while_its_server_was_cut_off() {
    let servers = ZooKeeper::start(3).await;
    let lonely = (servers.leader().await + 1) % 3;
    let (watching, other) = (servers.open_on(lonely).await, servers.open_on(servers.leader().await).await);
    other.put(&key("w/kept"), "1").await.unwrap();
    other.put(&key("w/gone"), "1").await.unwrap();
    let mut watch = watching.watch(b"w/", WatchOptions::default()).await.unwrap();
    servers.cut_off(lonely).await;
    other.delete(&key("w/gone")).await.unwrap();
    other.put(&key("w/new"), "1").await.unwrap();
    servers.heal().await;
    let mut missing = vec![("w/gone", false), ("w/new", true)];
    while !missing.is_empty() {
        let event = timeout(suite::RECOVERY, futures::StreamExt::next(&mut watch)).await.unwrap().unwrap().unwrap();
        let seen = (event.key().clone(), matches!(event, WatchEvent::Put { .. }));
        assert_ne!(seen.0, key("w/kept"), "nothing happened to this one");
        missing.retain(|(name, put)| (key(*name), *put) != seen);
    }
}

/// The leader is stopped until the others have another one. What it says when it wakes must not be what was true before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_wakes_up_deposed_does_not_serve_the_past() {
    let servers = ZooKeeper::start(3).await;
    let old = servers.leader().await;
    let asleep = servers.open_on(old).await;
    let awake: Vec<_> = (0..3).filter(|node| *node != old).map(|node| servers.endpoints()[node].clone()).collect();
    let awake = ZkStore::open(&ZkConfig::new(&awake).unwrap()).await.unwrap();
    asleep.put(&key("a"), "old").await.unwrap();
    servers.cluster().lock().await.pause(old).unwrap();
    let deadline = Instant::now() + suite::RECOVERY;
    while let Err(error) = awake.put(&key("a"), "new").await {
        assert!(Instant::now() < deadline, "{error}");
    }
    servers.cluster().lock().await.resume(old).unwrap();
    let deadline = Instant::now() + RECOVERS_WITHIN;
    loop {
        let options = ReadOptions::default().timeout(Duration::from_millis(300));
        match asleep.get(&key("a"), options).await {
            Ok(entry) => {
                assert_eq!(entry.unwrap().value, "new");
                return;
            }
            Err(error) => assert!(error.is_retryable() && Instant::now() < deadline, "{error}"),
        }
    }
}

/// For `syncLimit` ticks after it was cut off it believes to lead, and answers a `sync` by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_cut_off_serves_nothing_while_it_believes_to_lead() {
    let servers = ZooKeeper::start(3).await;
    let leader = servers.leader().await;
    // Two handles: a server answers one session in order, so a read behind one that waits for a majority waits too.
    let (store, other) = (servers.open_on(leader).await, servers.open_on(leader).await);
    store.put(&key("a"), "1").await.unwrap();
    servers.cut_off(leader).await;
    let options = ReadOptions::default().timeout(Duration::from_millis(500));
    for _ in 0..2 {
        let read = store.get(&key("a"), options).await;
        assert!(matches!(read, Err(Error::Unavailable { .. })), "{read:?}");
    }
    let stale = other.get(&key("a"), options.timeout(Duration::from_secs(2)).stale()).await.unwrap();
    assert_eq!(stale.unwrap().value, "1", "it still serves what does not have to be fresh");
    servers.heal().await;
    recovers(&store, RECOVERS_WITHIN).await;
}
