//! All with paused time: a wait of seconds takes none, and time moves only when every task waits.

use std::sync::Arc;

use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::{FaultInjecting, MemoryStore, StoreExt};

type Shared = Arc<FaultInjecting<MemoryStore>>;

const TTL: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_millis(1);

fn name() -> Key {
    Key::try_from("lock/7").unwrap()
}

fn options(owner: &str) -> LockOptions {
    LockOptions::new(owner).ttl(TTL).wait(Duration::ZERO)
}

/// Two handles on the same data, each with faults of its own.
fn replicas() -> (Shared, Shared) {
    let store = MemoryStore::new();
    (Arc::new(FaultInjecting::new(store.handle())), Arc::new(FaultInjecting::new(store)))
}

async fn locked(store: &Shared, options: LockOptions) -> Lock<Shared> {
    Lock::acquire(Arc::clone(store), name(), options).await.unwrap()
}

async fn refused(store: &Shared, options: LockOptions) -> Error {
    Lock::acquire(Arc::clone(store), name(), options).await.unwrap_err()
}

async fn write_under<S>(store: &Shared, lock: &Lock<S>) -> bool {
    let txn = Txn::new().put(Key::try_from("data").unwrap(), "1").fenced(lock);
    store.commit(txn, WriteOptions::default()).await.unwrap().is_committed()
}

#[tokio::test(start_paused = true)]
async fn one_holds_it_however_long_and_the_next_gets_a_larger_token() {
    let (a, b) = replicas();
    let first = locked(&a, options("a")).await;
    sleep(TTL * 10).await;
    assert!(matches!(refused(&b, options("b").wait(TTL * 5)).await, Error::LockHeld { owner } if owner == "a"));
    assert!(first.is_held());
    let token = first.token();
    first.release().await.unwrap();
    let second = locked(&b, options("b")).await;
    assert!(second.token() > token);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_gets_it_soon_after_the_release() {
    let (a, b) = replicas();
    let first = locked(&a, options("a")).await;
    let waiter = tokio::spawn(async move { locked(&b, options("b").wait(TTL * 9)).await });
    sleep(TTL).await;
    first.release().await.unwrap();
    let released = Instant::now();
    waiter.await.unwrap();
    assert!(released.elapsed() <= Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_lock_is_taken_over_after_its_ttl_and_not_before() {
    let (a, b) = replicas();
    drop(locked(&a, options("a")).await);
    let begin = Instant::now();
    assert!(matches!(refused(&b, options("b").wait(TTL - TICK)).await, Error::LockHeld { .. }));
    let begin_again = Instant::now();
    let second = locked(&b, options("b").wait(TTL * 2)).await;
    assert!(begin.elapsed() >= TTL);
    assert!((TTL..TTL + Duration::from_millis(500)).contains(&begin_again.elapsed()), "{:?}", begin_again.elapsed());
    assert_eq!(second.token(), FencingToken(2));
}

#[tokio::test(start_paused = true)]
async fn a_stale_holder_cannot_commit_nor_release() {
    let (a, b) = replicas();
    let first = locked(&a, options("a")).await;
    assert!(write_under(&a, &first).await);
    let cut = a.partition();
    let second = locked(&b, options("b").wait(TTL * 2)).await;
    drop(cut);
    assert!(!write_under(&a, &first).await, "fenced");
    assert!(write_under(&b, &second).await);
    assert!(matches!(first.release().await, Err(Error::LeaseLost)));
    assert!(write_under(&b, &second).await, "the foreign release changed nothing");
}

#[tokio::test(start_paused = true)]
async fn loss_is_signalled_before_anyone_can_take_it_over() {
    let (a, b) = replicas();
    let first = locked(&a, options("a")).await;
    sleep(TTL).await;
    assert!(first.is_held());
    let cut = a.partition();
    let waiter = tokio::spawn(async move {
        let lock = locked(&b, options("b").wait(TTL * 2)).await;
        (lock, Instant::now())
    });
    timeout(TTL + TICK, first.lost()).await.unwrap();
    let lost = Instant::now();
    assert!(!first.is_held());
    let (_second, taken) = waiter.await.unwrap();
    assert!(lost <= taken, "lost {:?} after it was taken", lost - taken);
    drop(cut);
}

#[tokio::test(start_paused = true)]
async fn the_lease_counts_from_the_start_of_a_renewal_not_from_its_reply() {
    let (a, b) = replicas();
    let first = locked(&a, options("a")).await;
    let late = a.delay_replies(TTL / 3 - TICK);
    // Into the time when a renewal was applied and its reply is under way.
    sleep(TTL / 3 + TICK * 50).await;
    let cut = a.partition();
    let waiter = tokio::spawn(async move { (locked(&b, options("b").wait(TTL * 2)).await, Instant::now()) });
    timeout(TTL * 2, first.lost()).await.unwrap();
    let lost = Instant::now();
    let (_second, taken) = waiter.await.unwrap();
    assert!(lost <= taken, "lost {:?} after it was taken", lost - taken);
    drop((cut, late));
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_comes_between_the_last_look_and_the_takeover_saves_the_lease() {
    // The moments at which a waiter looks are random, so this takes several waiters.
    for _ in 0..50 {
        let (a, b) = replicas();
        drop(locked(&a, options("a")).await);
        let slow = b.delay(TTL / 6);
        let begin = Instant::now();
        let waiter = tokio::spawn(async move { refused(&b, options("b").wait(TTL + TTL / 2)).await });
        // The first look ends at 1/6 of the TTL, so the deciding one ends after 7/6, at 8/6 the latest, and the
        // takeover arrives 1/6 after that.
        tokio::time::sleep_until(begin + TTL * 8 / 6 - TICK).await;
        a.put(&lease_key(&name()).unwrap(), "late").await.unwrap();
        assert!(matches!(waiter.await.unwrap(), Error::LockHeld { owner } if owner == "a"));
        drop(slow);
    }
}

#[tokio::test(start_paused = true)]
async fn an_acquisition_that_is_not_resolved_in_time_is_unknown() {
    let (a, _b) = replicas();
    let attempt = tokio::spawn({
        let a = Arc::clone(&a);
        async move { refused(&a, options("a")).await }
    });
    let slow = a.delay(TTL / 2);
    // The look has passed and the transaction is on its way when the network fails for good.
    sleep(TTL / 2 + TICK).await;
    let cut = a.partition();
    assert!(matches!(attempt.await.unwrap(), Error::UnknownOutcome { .. }));
    drop((slow, cut));
}

#[tokio::test(start_paused = true)]
async fn a_partition_shorter_than_the_ttl_is_survived() {
    let (a, b) = replicas();
    let first = locked(&a, options("a")).await;
    let cut = a.partition();
    assert!(timeout(TTL * 2 / 3 - TICK, first.lost()).await.is_err());
    drop(cut);
    assert!(timeout(TTL * 3, first.lost()).await.is_err());
    assert!(matches!(refused(&b, options("b")).await, Error::LockHeld { .. }));
    assert!(write_under(&a, &first).await);
}

#[tokio::test(start_paused = true)]
async fn renewals_whose_reply_is_lost_are_repeated() {
    let (a, _b) = replicas();
    let first = locked(&a, options("a")).await;
    a.lose_replies(2);
    assert!(timeout(TTL * 2, first.lost()).await.is_err());
    a.fail_before_send(2);
    assert!(timeout(TTL * 2, first.lost()).await.is_err());
    assert!(write_under(&a, &first).await);
}

#[tokio::test(start_paused = true)]
async fn an_acquisition_whose_reply_is_lost_is_recognized() {
    let (a, b) = replicas();
    a.lose_replies(1);
    let first = locked(&a, options("a")).await;
    assert_eq!(first.token(), FencingToken(1), "acquired once");
    assert!(write_under(&a, &first).await);
    assert!(matches!(refused(&b, options("b")).await, Error::LockHeld { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_release_whose_reply_is_lost_is_recognized() {
    let (a, b) = replicas();
    let first = locked(&a, options("a")).await;
    a.lose_replies(1);
    first.release().await.unwrap();
    locked(&b, options("b")).await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_can_free_it_and_the_holder_is_fenced() {
    let (a, b) = replicas();
    assert_eq!(Lock::force_release(&b, &name()).await.unwrap(), None);
    let first = locked(&a, options("a")).await;
    let freed = Lock::force_release(&b, &name()).await.unwrap().unwrap();
    assert!(!freed.held && freed.token > first.token() && freed.owner == "a");
    assert_eq!(Lock::status(&a, &name()).await.unwrap(), Some(freed.clone()));
    assert!(!write_under(&a, &first).await);
    timeout(TTL, first.lost()).await.unwrap();
    let second = locked(&b, options("b")).await;
    assert!(second.token() > freed.token);
    assert!(matches!(first.release().await, Err(Error::LeaseLost)));
}

#[tokio::test(start_paused = true)]
async fn an_acquisition_under_way_is_overtaken_by_force() {
    let (a, b) = replicas();
    locked(&a, options("a")).await.release().await.unwrap();
    let slow = b.delay(TTL / 3);
    let acquisition = tokio::spawn(async move { locked(&b, options("b").wait(TTL)).await });
    // It has looked, and its transaction is on its way.
    sleep(TTL / 2).await;
    let freed = Lock::force_release(&a, &name()).await.unwrap().unwrap();
    let lock = acquisition.await.unwrap();
    assert!(lock.token() > freed.token, "{} was given out before", freed.token);
    drop(slow);
}

#[tokio::test(start_paused = true)]
async fn of_many_that_wait_one_holds_it_at_a_time() {
    let (a, b) = replicas();
    let inside = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let tasks = (0..16).map(|n| {
        let (store, inside) = (Arc::clone(if n % 2 == 0 { &a } else { &b }), Arc::clone(&inside));
        tokio::spawn(async move {
            let lock = locked(&store, options("many").wait(TTL * 100)).await;
            assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
            sleep(TTL).await;
            inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            let token = lock.token();
            // Half of them crash.
            if n % 4 < 2 {
                drop(lock)
            } else {
                lock.release().await.unwrap()
            }
            token
        })
    });
    let mut tokens: Vec<_> = futures::future::join_all(tasks.collect::<Vec<_>>()).await.into_iter().flatten().collect();
    tokens.sort();
    assert_eq!(tokens, (1..=16).map(FencingToken).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn options_and_names_out_of_range_are_refused() {
    let (a, _b) = replicas();
    assert!(matches!(refused(&a, options("a").ttl(LockOptions::MIN_TTL - TICK)).await, Error::InvalidArgument { .. }));
    assert!(matches!(refused(&a, options("a").ttl(LockOptions::MAX_TTL + TICK)).await, Error::InvalidArgument { .. }));
    assert!(matches!(refused(&a, options(&"a".repeat(513))).await, Error::TooLarge { .. }));
    for (length, fits) in [(LockOptions::MAX_NAME_BYTES, true), (LockOptions::MAX_NAME_BYTES + 1, false)] {
        let name = Key::new(vec![b'n'; length]).unwrap();
        assert_eq!(Lock::acquire(Arc::clone(&a), name, options("a")).await.is_ok(), fits);
    }
    let patient = Lock::acquire(Arc::clone(&a), name(), options("a").wait(Duration::MAX)).await.unwrap();
    patient.release().await.unwrap();
    a.put(&name(), "something else").await.unwrap();
    assert!(matches!(refused(&a, options("a")).await, Error::Corrupt { .. }));
}
