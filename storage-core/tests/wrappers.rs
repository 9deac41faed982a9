//! The wrappers, alone and stacked. Time is paused: what waits for a deadline takes none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, StreamExt, TryStreamExt};
use storage_core::*;
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

fn key(text: &str) -> Key {
    Key::try_from(text).unwrap()
}

fn prefixed(store: &MemoryStore, prefix: &str) -> Prefixed<MemoryStore> {
    Prefixed::new(store.handle(), key(prefix))
}

async fn value(store: &impl Store, name: &str) -> Option<String> {
    let entry = store.get(&key(name), ReadOptions::default()).await.unwrap()?;
    Some(String::from_utf8(entry.value.to_vec()).unwrap())
}

// Prefixed

#[tokio::test]
async fn namespaces_do_not_see_each_other() {
    let store = MemoryStore::new();
    let (a, b) = (prefixed(&store, "a/"), prefixed(&store, "b/"));
    a.put(&key("k"), "of a").await.unwrap();
    b.put(&key("k"), "of b").await.unwrap();
    assert_eq!(value(&a, "k").await.unwrap(), "of a");
    assert_eq!(value(&store, "a/k").await.unwrap(), "of a");
    let keys: Vec<_> = b.scan_all(b"").map_ok(|entry| entry.key).try_collect().await.unwrap();
    assert_eq!(keys, [key("k")]);
    let read = a.get_many(&[key("absent"), key("k")], ReadOptions::default()).await.unwrap();
    assert_eq!(
        read.iter().map(|entry| entry.as_ref().map(|e| e.key.clone())).collect::<Vec<_>>(),
        [None, Some(key("k"))]
    );
}

#[tokio::test]
async fn every_answer_has_the_outer_key() {
    let store = MemoryStore::new();
    let inside = prefixed(&store, "a/");
    let mut events = inside.watch(b"k", WatchOptions::default()).await.unwrap();
    inside.put(&key("k1"), "1").await.unwrap();
    inside.put(&key("k2"), "1").await.unwrap();
    inside.put(&key("other"), "1").await.unwrap();
    inside.delete(&key("k1")).await.unwrap();
    let mut seen = Vec::new();
    while let Some(Some(event)) = events.next().now_or_never() {
        seen.push(event.unwrap().key().clone());
    }
    assert_eq!(seen, [key("k1"), key("k2"), key("k1")]);
    let conflict = inside.put_if_absent(&key("k2"), "2").await.unwrap().unwrap_err();
    assert!(matches!(conflict.current, Observed::Present(entry) if entry.key == key("k2")));
    inside.put(&key("k3"), "1").await.unwrap();
    let page = inside.scan(b"k", ScanOptions::default().limit(1)).await.unwrap();
    assert_eq!(page.next, Some(key("k2")));
    let rest = inside.scan(b"k", ScanOptions::default().after(key("k2"))).await.unwrap();
    assert_eq!(rest.entries.iter().map(|e| e.key.clone()).collect::<Vec<_>>(), [key("k3")]);
}

#[tokio::test]
async fn the_key_that_is_the_prefix_alone_has_no_name_inside() {
    let store = MemoryStore::new();
    let inside = prefixed(&store, "a/");
    let mut events = inside.watch(b"", WatchOptions::default()).await.unwrap();
    store.put(&key("a/"), "").await.unwrap();
    store.put(&key("a/k"), "").await.unwrap();
    let page = inside.scan(b"", ScanOptions::default().limit(1)).await.unwrap();
    assert_eq!((page.entries[0].key.clone(), page.next), (key("k"), None));
    assert_eq!(events.next().now_or_never().unwrap().unwrap().unwrap().key(), &key("k"));
}

#[tokio::test]
async fn the_prefix_counts_towards_the_length_of_a_key() {
    let inside = prefixed(&MemoryStore::new(), "a/");
    let fits = Key::new(vec![b'k'; Key::MAX_BYTES - 2]).unwrap();
    let over = Key::new(vec![b'k'; Key::MAX_BYTES - 1]).unwrap();
    inside.put(&fits, "").await.unwrap();
    assert!(matches!(inside.put(&over, "").await, Err(Error::TooLarge { .. })));
    assert!(matches!(inside.get(&over, ReadOptions::default()).await, Err(Error::TooLarge { .. })));
}

#[tokio::test]
async fn a_transaction_of_the_size_it_declares_fits() {
    let inside = prefixed(&MemoryStore::new(), &"p".repeat(300));
    let Capabilities { max_txn_ops, max_txn_bytes, .. } = *inside.capabilities();
    let keys = |count| (0..count).map(|n| key(&format!("{n:03}")));
    let each = max_txn_bytes / max_txn_ops - 3;
    let txn = keys(max_txn_ops).fold(Txn::new(), |txn, key| txn.put(key, vec![0; each]));
    assert!(inside.commit(txn, WriteOptions::default()).await.unwrap().is_committed());
    let over = keys(max_txn_ops).fold(Txn::new(), |txn, key| txn.put(key, vec![0; each + 1]));
    assert!(matches!(inside.commit(over, WriteOptions::default()).await, Err(Error::TooLarge { .. })));
}

// FaultInjecting

#[tokio::test(start_paused = true)]
async fn a_lost_reply_was_applied_and_a_failed_send_was_not() {
    let store = FaultInjecting::new(MemoryStore::new());
    store.lose_replies(1);
    assert!(matches!(store.put(&key("k"), "1").await, Err(Error::UnknownOutcome { .. })));
    assert_eq!(value(&store, "k").await.unwrap(), "1");
    store.fail_before_send(2);
    assert!(matches!(store.put(&key("k"), "2").await, Err(Error::Unavailable { .. })));
    assert!(matches!(store.ping(ReadOptions::default()).await, Err(Error::Unavailable { .. })));
    assert_eq!(value(&store, "k").await.unwrap(), "1");
    let losing = store.losing_replies();
    for text in ["2", "3"] {
        assert!(matches!(store.put(&key("k"), text).await, Err(Error::UnknownOutcome { .. })));
        assert_eq!(value(&store, "k").await.unwrap(), text);
    }
    drop(losing);
    store.put(&key("k"), "4").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn in_a_partition_calls_hang_to_their_deadline() {
    let store = FaultInjecting::new(MemoryStore::new());
    let cut = store.partition();
    let begin = Instant::now();
    let write = store.commit(Txn::new().put(key("k"), "1"), WriteOptions::default().timeout(SECOND)).await;
    assert!(matches!(write, Err(Error::UnknownOutcome { .. })), "a client cannot know that it was not applied");
    assert_eq!(begin.elapsed().as_secs(), 1);
    let read = store.get(&key("k"), ReadOptions::default().timeout(SECOND)).await;
    assert!(matches!(read, Err(Error::Unavailable { .. })));
    drop(cut);
    assert_eq!(value(&store, "k").await, None);
}

#[tokio::test(start_paused = true)]
async fn what_hangs_when_a_partition_heals_goes_on() {
    let store = Arc::new(FaultInjecting::new(MemoryStore::new()));
    let mut events = store.watch(b"", WatchOptions::default()).await.unwrap();
    let (cut, other_cut) = (store.partition(), store.partition());
    let hanging = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.put(&key("k"), "1").await }
    });
    sleep(SECOND).await;
    drop(cut);
    sleep(SECOND).await;
    assert!(!hanging.is_finished(), "both have to heal");
    drop(other_cut);
    hanging.await.unwrap().unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().key(), &key("k"));
}

#[tokio::test(start_paused = true)]
async fn a_watch_stands_still_in_a_partition() {
    let memory = MemoryStore::new();
    let store = FaultInjecting::new(memory.handle());
    let mut events = store.watch(b"", WatchOptions::default()).await.unwrap();
    let cut = store.partition();
    memory.put(&key("k"), "1").await.unwrap();
    assert!(timeout(SECOND, events.next()).await.is_err());
    drop(cut);
    assert_eq!(events.next().await.unwrap().unwrap().key(), &key("k"), "and loses nothing");
}

#[tokio::test(start_paused = true)]
async fn delays_add_up_and_count_towards_the_deadline() {
    let store = FaultInjecting::new(MemoryStore::new());
    let one = store.delay(SECOND);
    let two = store.delay(SECOND * 2);
    let begin = Instant::now();
    store.put(&key("k"), "1").await.unwrap();
    assert_eq!(begin.elapsed().as_secs(), 3);
    let late = store.commit(Txn::new().put(key("k"), "2"), WriteOptions::default().timeout(SECOND)).await;
    assert!(matches!(late, Err(Error::UnknownOutcome { .. })));
    drop((one, two));
    let begin = Instant::now();
    assert_eq!(value(&store, "k").await.unwrap(), "1");
    assert!(begin.elapsed().is_zero());
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_is_late_was_applied_in_time() {
    let store = Arc::new(FaultInjecting::new(MemoryStore::new()));
    let late = store.delay_replies(SECOND);
    let put = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.put(&key("k"), "1").await }
    });
    sleep(SECOND / 2).await;
    assert_eq!(value(&store, "k").await.unwrap(), "1");
    assert!(!put.is_finished());
    put.await.unwrap().unwrap();
    let options = WriteOptions::default().timeout(SECOND / 2);
    let end = store.commit(Txn::new().put(key("k"), "2"), options).await;
    assert!(matches!(end, Err(Error::UnknownOutcome { .. })));
    assert_eq!(value(&store, "k").await.unwrap(), "2");
    drop(late);
}

// Metered

#[tokio::test(start_paused = true)]
async fn each_way_to_end_is_counted() {
    let registry = Arc::new(Registry::new());
    let faulty = Arc::new(FaultInjecting::new(MemoryStore::new()));
    let store = Metered::new(Arc::clone(&faulty), Arc::clone(&registry) as Arc<dyn Metrics>);
    store.put(&key("k"), "1").await.unwrap();
    store.put_if_absent(&key("k"), "2").await.unwrap().unwrap_err();
    faulty.lose_replies(1);
    store.put(&key("k"), "3").await.unwrap_err();
    faulty.fail_before_send(2);
    store.put(&key("k"), "4").await.unwrap_err();
    store.get(&key("k"), ReadOptions::default()).await.unwrap_err();
    value(&store, "k").await.unwrap();
    let cut = faulty.partition();
    assert!(timeout(SECOND, store.put(&key("k"), "5")).await.is_err(), "given up by the caller");
    drop(cut);
    use RequestOutcome::*;
    let commits = [Applied, Conflict, NotApplied, Unknown].map(|outcome| registry.count(Operation::Commit, outcome));
    assert_eq!(commits, [1, 1, 1, 2]);
    let gets = [Ok, Failed].map(|outcome| registry.count(Operation::Get, outcome));
    assert_eq!(gets, [1, 1]);
    assert!(registry.render().contains("storage_request_duration_seconds_bucket{operation=\"commit\",le=\"0.5\"} 4\n"));
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        std::result::Result::Ok(())
    }
}

#[tokio::test]
async fn a_call_is_one_span_without_its_key_or_value() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let store = Metered::new(MemoryStore::new(), Arc::new(Registry::new()));
    {
        let _subscribed = tracing::subscriber::set_default(subscriber);
        store.put(&key("secret"), "secret").await.unwrap();
        store.close().await.unwrap();
        store.put(&key("secret"), "secret").await.unwrap_err();
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(log.lines().count(), 2, "{log}");
    assert!(log.contains("storage{backend=\"memory\" operation=\"commit\" outcome=\"applied\"}"), "{log}");
    assert!(log.contains("error=\"closed\" outcome=\"not_applied\"}"), "{log}");
    assert!(!log.contains("secret"), "{log}");
}

// Stacked

#[tokio::test(start_paused = true)]
async fn they_stack_in_any_order() {
    type Layer = fn(Arc<dyn Store>) -> Arc<dyn Store>;
    let layers: [Layer; 3] = [
        |store| Arc::new(Prefixed::new(store, key("p/"))),
        |store| Arc::new(Metered::new(store, Arc::new(Registry::new()))),
        |store| Arc::new(FaultInjecting::new(store)),
    ];
    for order in 0..6 {
        let mut left = layers.to_vec();
        let mut choice = order;
        let mut store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        while !left.is_empty() {
            store = left.remove(choice % left.len())(store);
            choice /= left.len() + 1;
        }
        let mut events = store.watch(b"k", WatchOptions::default()).await.unwrap();
        let version = store.put(&key("k"), "1").await.unwrap();
        store.compare_and_swap(&key("k"), version, "2").await.unwrap().unwrap();
        store.compare_and_swap(&key("k"), version, "3").await.unwrap().unwrap_err();
        assert_eq!(value(&store, "k").await.unwrap(), "2", "order {order}");
        assert_eq!(events.next().await.unwrap().unwrap().key(), &key("k"));
        store.close().await.unwrap();
        assert!(matches!(store.ping(ReadOptions::default()).await, Err(Error::Closed)), "order {order}");
    }
}
