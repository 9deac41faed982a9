//! Servers that die, hang and vanish under a handle of Consul.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use storage_consul::{ConsulConfig, ConsulStore};
use storage_core::{
    Error, Key, ReadOptions, ScanOptions, Store, StoreExt, Txn, WatchEvent, WatchOptions, WriteOptions,
};
use storage_testkit::outages::{RECOVERS_WITHIN, recovers};
use storage_testkit::proxy::Proxy;
use storage_testkit::server::http_send;
use storage_testkit::sockets::connections_to;
use storage_testkit::suite;
use tokio::io::AsyncWriteExt;

use common::{Backend, Consul};

storage_testkit::outage_tests!(Consul);

fn key(text: impl Into<String>) -> Key {
    Key::new(text.into()).unwrap()
}

async fn through(link: &Proxy) -> ConsulStore {
    let config = ConsulConfig::new([format!("127.0.0.1:{}", link.port())]).unwrap();
    ConsulStore::new(config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_read_and_nothing_acknowledged() {
    let consul = Consul::start(3).await;
    let leader = consul.leader().await;
    let store = consul.open_on(leader).await;
    store.put(&key("a"), "1").await.unwrap();
    for other in (0..3).filter(|place| *place != leader) {
        consul.cluster().lock().await.pause(other).unwrap();
    }
    let timeout = Duration::from_secs(2);
    // What the others said before they were stopped may still be on its way to the leader, but not for long.
    let deadline = Instant::now() + RECOVERS_WITHIN;
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
    recovers(&store, RECOVERS_WITHIN).await;
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
    consul.cluster().lock().await.pause(leader).unwrap();
    consul.leader().await;
    // The writes of this handle may have gone to that server too: then one of them is never answered. It is still there, and
    // the others find out only by its silence, so the time in which a server that is back is used again does not hold.
    recovers(&writing, suite::RECOVERY).await;
    writing.put(&key("w/last"), "1").await.unwrap();
    let event = tokio::time::timeout(suite::RECOVERY, events.next()).await.expect("an event").unwrap().unwrap();
    assert_eq!(event.key(), &key("w/last"));
    watching.close().await.unwrap();
    // Closing the handle ends its watches, after what was under way to their reader.
    while let Some(event) = tokio::time::timeout(suite::RECOVERY, events.next()).await.expect("the end of the watch") {
        assert!(matches!(event, Ok(_) | Err(Error::Closed)), "{event:?}");
    }
    consul.cluster().lock().await.resume(leader).unwrap();
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

/// What stands at the end of a connection over a limit: Consul closes it without reading, with or without a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_no_server_has_read_is_not_in_doubt() {
    const TOO_MANY: &str = "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo many";
    for word in ["", TOO_MANY] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = ConsulConfig::new([listener.local_addr().unwrap().to_string()]).unwrap();
        let refusing = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.write_all(word.as_bytes()).await;
            }
        });
        let store = ConsulStore::new(config).await.unwrap();
        let put = Txn::new().put(key("a"), vec![0; 200 * 1024]);
        let refused = store.commit(put, WriteOptions::default().timeout(Duration::from_secs(1))).await;
        assert!(matches!(&refused, Err(Error::Unavailable { .. })), "{word:?}: {refused:?}");
        refusing.abort();
    }
}

/// As an operator does it on Consul's page.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_was_edited_by_hand_is_named_and_hides_no_other() {
    let consul = Consul::start(1).await;
    let store = consul.open().await;
    for name in ["a", "b", "c"] {
        store.put(&key(name), "1").await.unwrap();
    }
    let mut events = store.watch(b"", WatchOptions::default()).await.unwrap();
    for (path, body) in [("storage/62-", "by hand"), ("storage/", "")] {
        let edited = http_send(consul.http_port(0).await, "PUT", &format!("/v1/kv/{path}"), &[], body).await;
        assert_eq!(edited.unwrap().status, 200);
    }
    let read = store.get(&key("b"), ReadOptions::default()).await;
    assert!(matches!(&read, Err(Error::Corrupt { .. })), "{read:?}");
    assert!(read.unwrap_err().to_string().contains("storage/62-"));
    let page = store.scan(b"", ScanOptions::default()).await.unwrap();
    assert_eq!(page.entries.iter().map(|entry| &entry.key).collect::<Vec<_>>(), [&key("a"), &key("c")]);
    // Neither the edit nor a delete is told: the next event is that of the next write.
    store.put(&key("c"), "2").await.unwrap();
    let event = events.next().await.unwrap().unwrap();
    assert!(matches!(&event, WatchEvent::Put { entry, .. } if entry.key == key("c")), "{event:?}");
    store.put(&key("b"), "2").await.unwrap();
    let event = events.next().await.unwrap().unwrap();
    assert!(matches!(&event, WatchEvent::Put { entry, .. } if entry.value == "2"), "{event:?}");
    store.delete(&key("b")).await.unwrap();
    assert_eq!(store.get(&key("b"), ReadOptions::default()).await.unwrap(), None);
}
