//! What the handles of every backend on real servers have to survive: servers that are killed, that hang, that are away for long,
//! and links that lose replies. [`outage_tests!`](crate::outage_tests) makes a test of each.
//!
//! No acknowledged write is lost, each write that may have been applied is told as unknown, and every handle works again
//! within [`RECOVERS_WITHIN`] after its servers do.

#![expect(clippy::panic, reason = "these are assertions of tests")]

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use storage_core::{Entry, Error, Key, ReadOptions, Result, Store, StoreExt, Txn, WatchOptions, WriteOptions};
use tokio::time::Instant;

use crate::history::Outcome;
use crate::proxy::{LinkFault, Proxy};
use crate::suite::{self, Backend, follower};
use crate::workload::{Faults, Open, Register, Run, RunReport, Settings};

/// From when the servers are back until every handle works again.
pub const RECOVERS_WITHIN: Duration = Duration::from_secs(10);

/// How long [`recovers`] waits for one answer: a call that went to a server which does not answer must leave time for another.
const ONE_TRY: Duration = Duration::from_secs(2);

/// Clients that have not got on for so long will not: the slowest election that was seen took half of it.
const STANDS_STILL: Duration = Duration::from_secs(60);

/// The handles of a test. Each begins at a server of its own choice, so some of them at the one that is struck.
const HANDLES: usize = 6;

/// One test for each of the [outages](crate::outages), in a module of this name, on servers of this [`Backend`].
#[macro_export]
macro_rules! outage_tests {
    ($backend:ty) => {
        $crate::outage_tests! { $backend:
            servers_that_are_killed_under_load_lose_nothing
            one_server_that_is_killed_under_load_loses_nothing
            a_handle_works_again_after_a_long_outage_and_nothing_was_queued
            a_dead_follower_fails_no_call_but_the_one_that_it_had
            a_hung_follower_is_left_for_another_server
            deadlines_are_kept_whatever_the_servers_do
            a_write_whose_reply_is_lost_is_unknown_and_applied
        }
    };
    ($backend:ty: $($name:ident)*) => {
        mod outages {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    $crate::outages::$name::<$backend>().await;
                }
            )*
        }
    };
}

/// Each of three servers is killed and started again while clients work, the leader twice; in the end all at once.
pub async fn servers_that_are_killed_under_load_lose_nothing<B: Backend>() {
    let servers = B::start(3).await;
    let run = start(&servers, HANDLES, Duration::from_secs(2)).await;
    for victim in [None, Some(0), Some(1), Some(2), None] {
        get_on(&run).await;
        let victim = match victim {
            Some(place) => place,
            None => servers.leader().await,
        };
        kill(&*servers, victim).await;
        // The others elect a leader, if that was theirs, and go on.
        get_on(&run).await;
        restart(&*servers).await;
        all_recover(&run).await;
    }
    servers.restart_all().await;
    all_recover(&run).await;
    get_on(&run).await;
    let report = finish(run).await;
    assert!(report.unknown > 0, "no fault struck a write: {report}");
}

/// The only server is killed and started again.
pub async fn one_server_that_is_killed_under_load_loses_nothing<B: Backend>() {
    let servers = B::start(1).await;
    let run = start(&servers, 8, Duration::from_millis(300)).await;
    for _ in 0..3 {
        get_on(&run).await;
        kill(&*servers, 0).await;
        run.each_is_refused(STANDS_STILL).await.unwrap_or_else(|error| panic!("{error}"));
        restart(&*servers).await;
        all_recover(&run).await;
    }
    get_on(&run).await;
    let report = finish(run).await;
    assert!(report.unknown > 0 && report.failed > 0, "no fault struck: {report}");
}

/// The only server is away for longer than any session lives, while calls go on with deadlines that end before that does.
pub async fn a_handle_works_again_after_a_long_outage_and_nothing_was_queued<B: Backend>() {
    const OUTAGE: Duration = Duration::from_secs(12);
    const CLIENTS: usize = 4;
    let servers = B::start(1).await;
    let store = open(&*servers).await;
    put_known(&store, "a").await;
    let run = start(&servers, CLIENTS, Duration::from_millis(200)).await;
    get_on(&run).await;
    let (unknown_before, failed_before) = unanswered(&run);
    kill(&*servers, 0).await;
    run.each_is_refused(STANDS_STILL).await.unwrap_or_else(|error| panic!("{error}"));
    let (answered, began) = (run.answered(), Instant::now());
    while began.elapsed() < OUTAGE {
        let read = store.get(&key("a"), ReadOptions::default().timeout(Duration::from_millis(200))).await;
        assert!(matches!(read, Err(Error::Unavailable { .. })), "{read:?}");
    }
    assert_eq!(run.answered(), answered, "answered by nobody");
    // Before it is back: a server that starts takes connections for a while, and answers too late or not at all.
    let (unknown, failed) = unanswered(&run);
    let (unknown, failed) = (unknown - unknown_before, failed - failed_before);
    // Those that met the end of their connections.
    assert!(unknown <= 2 * CLIENTS, "without a connection a write is not applied: {unknown} unknown, {failed} failed");
    assert!(failed > 50, "{failed} calls failed in {OUTAGE:?}");
    restart(&*servers).await;
    all_recover(&run).await;
    recovers(&store, RECOVERS_WITHIN).await;
    // What was refused and done later all the same would stand in the way of an order of the history.
    finish(run).await;
}

/// How many calls have ended so far with an unknown outcome, and how many that are certainly not done.
fn unanswered(run: &Run) -> (usize, usize) {
    let history = run.history();
    let ended = || history.operations().iter().filter(|operation| operation.end.is_some());
    let count = |outcome| ended().filter(|operation| operation.outcome == outcome).count();
    (count(Outcome::Unknown), count(Outcome::Failed))
}

/// A handle loses at most the call that meets the end of its connection.
pub async fn a_dead_follower_fails_no_call_but_the_one_that_it_had<B: Backend>() {
    let servers = B::start(3).await;
    let handles = open_many(&*servers).await;
    for (number, store) in handles.iter().enumerate() {
        put_known(store, &format!("before/{number}")).await;
    }
    kill(&*servers, follower(&*servers).await).await;
    let mut unknown = 0;
    for (number, store) in handles.iter().enumerate() {
        for round in 0..20 {
            match store.put(&key(&format!("after/{number}/{round}")), "1").await {
                Ok(_) => {}
                Err(Error::UnknownOutcome { .. }) if round == 0 => unknown += 1,
                Err(error) => panic!("handle {number}, round {round}: {error}"),
            }
            let read = store.get(&key("before/0"), ReadOptions::default()).await;
            assert!(matches!(read, Ok(Some(_))), "handle {number}, round {round}: {read:?}");
        }
    }
    assert!(unknown < handles.len(), "every handle lost a call");
}

/// A server that hangs is left by the call that notices it, and the next one goes elsewhere.
pub async fn a_hung_follower_is_left_for_another_server<B: Backend>() {
    let servers = B::start(3).await;
    let handles = open_many(&*servers).await;
    for store in &handles {
        put_known(store, "a").await;
    }
    let follower = follower(&*servers).await;
    servers.cluster().lock().await.pause(follower).unwrap_or_else(|error| panic!("{error}"));
    for store in &handles {
        let entry = read_patiently(store, "a").await;
        assert!(entry.is_some());
        // A write that is sent to the hung server ends as unknown, so this one is not.
        put_known(store, "a").await;
    }
    servers.cluster().lock().await.resume(follower).unwrap_or_else(|error| panic!("{error}"));
}

/// Whatever is wrong with the server or the way to it, each call ends when it should.
pub async fn deadlines_are_kept_whatever_the_servers_do<B: Backend>() {
    const TIMEOUT: Duration = Duration::from_millis(250);
    /// What the contract allows.
    const LATE: Duration = Duration::from_millis(100);
    let servers = B::start(1).await;
    let link = link(&*servers).await;
    for trouble in ["refused", "cut off", "hung", "dead"] {
        let used = open_through(&*servers, &link).await;
        put_known(&used, "a").await;
        let unused = open_through(&*servers, &link).await;
        match trouble {
            "refused" => link.set(LinkFault::Refuse).await,
            "cut off" => link.set(LinkFault::Blackhole).await,
            "hung" => servers.pause_all().await,
            _ => kill(&*servers, 0).await,
        }
        for (store, which) in [(&used, "used before"), (&unused, "not used before")] {
            // The best of some: on a busy machine a late wake-up is not ours.
            let mut least = lateness(store, TIMEOUT).await;
            for _ in 0..4 {
                if least > LATE {
                    least = least.min(lateness(store, TIMEOUT).await);
                }
            }
            assert!(least <= LATE, "{trouble}, {which}: {least:?} late");
        }
        link.set(LinkFault::None).await;
        servers.heal().await;
        for store in [used, unused] {
            recovers(&store, RECOVERS_WITHIN).await;
            store.close().await.unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

/// The server does what it is told, and its answer never arrives.
pub async fn a_write_whose_reply_is_lost_is_unknown_and_applied<B: Backend>() {
    let servers = B::start(1).await;
    let link = link(&*servers).await;
    let store = open_through(&*servers, &link).await;
    put_known(&store, "a").await;
    link.set(LinkFault::LoseReplies).await;
    let options = WriteOptions::default().timeout(Duration::from_secs(2));
    let lost = store.commit(Txn::new().put(key("a"), "lost"), options).await;
    assert!(matches!(lost, Err(Error::UnknownOutcome { .. })), "{lost:?}");
    link.set(LinkFault::None).await;
    recovers(&store, RECOVERS_WITHIN).await;
    let entry = read_patiently(&store, "a").await;
    assert_eq!(entry.map(|entry| entry.value), Some("lost".into()));
}

type Handle = Arc<dyn Store>;

/// Clients that read, write and delete the same keys, each on a handle of its own.
async fn start<B: Backend>(servers: &Arc<B>, clients: usize, timeout: Duration) -> Run {
    let servers = Arc::clone(servers);
    let open: Open = Arc::new(move |_| {
        let servers = Arc::clone(&servers);
        async move { servers.open_at(servers.endpoints()).await }.boxed()
    });
    let mut settings = Settings::default().clients(clients).seed(fastrand::u64(..));
    settings.timeout = timeout;
    let run = Run::start(Arc::new(Register::default()), &open, &settings).await;
    run.unwrap_or_else(|error| panic!("clients cannot begin: {error}"))
}

async fn get_on(run: &Run) {
    run.progress(100, STANDS_STILL).await.unwrap_or_else(|error| panic!("{error}"));
}

async fn all_recover(run: &Run) {
    run.each_is_answered(RECOVERS_WITHIN).await.unwrap_or_else(|error| panic!("not back: {error}"));
}

/// Ends the clients; what they were told must be explained by an order.
async fn finish(run: Run) -> RunReport {
    let report = run.finish(Faults::default()).await.unwrap_or_else(|error| panic!("{error}"));
    println!("{report}");
    assert!(!report.is_violated() && report.linearizability.is_linearizable(), "{report}");
    report
}

async fn open(servers: &impl Backend) -> Handle {
    opened(servers.open_at(servers.endpoints()).await)
}

async fn open_many(servers: &impl Backend) -> Vec<Handle> {
    let mut handles = Vec::with_capacity(HANDLES);
    for _ in 0..HANDLES {
        handles.push(open(servers).await);
    }
    handles
}

async fn open_through(servers: &impl Backend, link: &Proxy) -> Handle {
    opened(servers.open_at(&[format!("127.0.0.1:{}", link.port())]).await)
}

fn opened(store: Result<Handle>) -> Handle {
    store.unwrap_or_else(|error| panic!("a handle could not be opened: {error}"))
}

/// A link to the first server.
async fn link(servers: &impl Backend) -> Proxy {
    let port = servers.cluster().lock().await.node(0).and_then(|node| node.port("client"));
    let link = Proxy::start(port.unwrap_or_else(|error| panic!("{error}"))).await;
    link.unwrap_or_else(|error| panic!("{error}"))
}

async fn kill(servers: &impl Backend, place: usize) {
    servers.cluster().lock().await.kill(place).unwrap_or_else(|error| panic!("{error}"));
}

/// Starts those that were killed, and returns when they are ready.
async fn restart(servers: &impl Backend) {
    servers.cluster().lock().await.restart_all().await.unwrap_or_else(|error| panic!("{error}"));
}

async fn put_known(store: &Handle, name: &str) {
    store.put(&key(name), "1").await.unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// Waits until a write and a read of this handle succeed, at the longest so long from now.
pub async fn recovers(store: &impl Store, within: Duration) {
    let (began, key) = (Instant::now(), key("recovered"));
    let (read, write) = (ReadOptions::default().timeout(ONE_TRY), WriteOptions::default().timeout(ONE_TRY));
    let again = |error: Error| match error {
        Error::UnknownOutcome { .. } | Error::Unavailable { .. } | Error::Throttled { .. } => {
            assert!(began.elapsed() < within, "not back {within:?} after the servers are: {error}");
        }
        error => panic!("{error}"),
    };
    while let Err(error) = store.commit(Txn::new().put(key.clone(), "1"), write).await {
        again(error);
    }
    while let Err(error) = store.get(&key, read).await {
        again(error);
    }
    assert!(began.elapsed() < within, "back only after {:?}", began.elapsed());
}

/// Makes every kind of call with this deadline on a store without servers; returns by how much the latest was late.
async fn lateness(store: &impl Store, timeout: Duration) -> Duration {
    let (read, write) = (ReadOptions::default().timeout(timeout), WriteOptions::default().timeout(timeout));
    let (a, b) = (key("a"), key("b"));
    let began = Instant::now();
    let answer = store.get(&a, read).await;
    assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}");
    let first = began.elapsed();
    let began = Instant::now();
    let answer = store.commit(Txn::new().put(b, "1"), write).await;
    assert!(matches!(answer, Err(Error::Unavailable { .. } | Error::UnknownOutcome { .. })), "{answer:?}");
    let second = began.elapsed();
    let began = Instant::now();
    let answer = store.watch(b"", WatchOptions { timeout, ..WatchOptions::default() }).await.map(|_| ());
    assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}");
    first.max(second).max(began.elapsed()).saturating_sub(timeout)
}

/// A read as often as it takes until servers answer.
async fn read_patiently(store: &Handle, name: &str) -> Option<Entry> {
    let deadline = Instant::now() + suite::RECOVERY;
    loop {
        match store.get(&key(name), ReadOptions::default()).await {
            Ok(entry) => return entry,
            Err(error) => assert!(error.is_retryable() && Instant::now() < deadline, "{name}: {error}"),
        }
    }
}

fn key(text: &str) -> Key {
    Key::new(text.to_owned()).unwrap_or_else(|error| panic!("{text}: {error}"))
}
