//! One test for each defect that payment code of this kind has had: none can come back unseen. docs/payments.md has the list.

use std::time::Duration;

use futures::{TryStreamExt, future::join_all};
use payment_channels::{AfterClaim, Error, FreeCalls, Operation, Options, PrepaidUsage, Refusal, UsageChange};
use storage_core::{
    Expected, FaultInjecting, Observed, Op, ReadOptions, Store, StoreExt, Txn, WriteOptions,
    channel::{Amount, Nonce},
};
use tokio::time::Instant;

use crate::{bed::Bed, claims::paid, noting::Noting, support::*};

/// StartClaim as two separate writes: a crash in between lost the payment, or claimed it twice.
pub(crate) async fn a_claim_is_started_in_one_transaction(bed: Bed) {
    let (store, chain) = (Noting::new(bed.store()), chain(1000));
    let one = replica(store.clone(), &chain, "one");
    paid(&one, 0, 580).await;
    store.taken();
    one.start_claim(channel(), AfterClaim::Continue).await.unwrap();
    let transactions = store.taken();
    assert_eq!(transactions.len(), 1);
    let written: Vec<_> = transactions[0].ops.iter().map(|op| op.key().clone()).collect();
    assert_eq!(written, [key_of(channel()), claim_key(channel(), Nonce::ZERO)]);
}

/// A lock without lease or owner stayed after a crash, and its unlock freed anyone's.
pub(crate) async fn a_dead_replica_does_not_lock_a_channel_for_ever_and_frees_nobody_elses(bed: Bed) {
    let (chain, lease) = (chain(1000), bed.lease());
    let options = |name| Options::new(name).lease(lease);
    let [dead, next, third] = ["dead", "next", "third"].map(|name| replica_with(bed.store(), &chain, options(name)));
    let left_behind = dead.reserve(&pay(0, 10), Amount::ZERO).await.unwrap();
    let hold = next.operator().report(channel()).await.unwrap().reservation.hold().cloned().unwrap();
    assert_eq!((hold.owner.as_str(), hold.lease), ("dead", lease), "the record says whose and how long");
    // From when another one looks, it blocks for its lease and no longer.
    assert!(matches!(next.reserve(&pay(0, 10), Amount::ZERO).await, Err(Error::Busy { .. })));
    bed.pass(lease).await;
    let held = next.reserve(&pay(0, 10), Amount::ZERO).await.unwrap();
    assert!(matches!(dead.release(&left_behind).await, Err(Error::LeaseLost)));
    let busy = third.reserve(&pay(0, 20), Amount::ZERO).await;
    assert!(matches!(busy, Err(Error::Busy { owner, .. }) if owner == "next"), "the release freed nothing");
    next.commit(&held).await.unwrap();
}

/// A commit as an unconditional put overwrote what others had written since.
pub(crate) async fn a_commit_overwrites_nothing_that_was_written_since(bed: Bed) {
    let (store, chain) = (Noting::new(bed.store()), chain(1000));
    let [one, other] = ["one", "other"].map(|name| replica(store.clone(), &chain, name));
    let late = one.reserve(&pay(0, 10), Amount::ZERO).await.unwrap();
    other.operator().force_unlock(channel()).await.unwrap();
    paid(&other, 0, 20).await;
    assert!(matches!(one.commit(&late).await, Err(Error::LeaseLost)));
    let state = one.operator().report(channel()).await.unwrap().channel.unwrap();
    assert_eq!((state.authorized_amount, state.signature), (Amount::from(20), Some(pay(0, 20).signature())));
    for txn in store.taken() {
        for key in txn.ops.iter().map(Op::key) {
            let guard = txn.guards.iter().find(|guard| guard.key == *key);
            let expected = guard.map(|guard| &guard.expected);
            assert!(matches!(expected, Some(Expected::Version(_) | Expected::Absent)), "{key} in {txn:?}");
        }
    }
}

/// Validation did not compare with what is authorized: one payment bought any number of calls.
pub(crate) async fn a_payment_that_was_accepted_is_not_accepted_again_by_any_replica(bed: Bed) {
    let chain = chain(1000);
    let replicas = ["one", "two", "three"].map(|name| replica(bed.store(), &chain, name));
    paid(&replicas[0], 0, 10).await;
    for price in [0, 1, 10] {
        for replica in &replicas {
            let again = replica.reserve(&pay(0, 10), Amount::from(price)).await.unwrap_err();
            assert!(matches!(again, Error::Refused(Refusal::StaleAmount { .. })), "{again:?}");
        }
    }
}

/// Free-call counters were read before the lock: of calls at the same time only one was counted.
pub(crate) async fn a_counter_that_moved_after_it_was_read_is_read_again(bed: Bed) {
    let store = Noting::new(bed.store());
    let free = FreeCalls::new(store.clone(), LEDGER);
    let user = address_of("user");
    free.count(user, &mut Operation::random(), 3).await.unwrap();
    // Exactly between the read and the write of the next call, another replica counts two.
    let elsewhere = FreeCalls::new(bed.fresh().store(), LEDGER);
    let mut moved = Vec::new();
    for _ in 0..3 {
        moved.push(elsewhere.count(user, &mut Operation::random(), 3).await.unwrap());
    }
    let key = free_calls_key(user);
    store.come_before_next_commit(Txn::new().put(key, LEDGER.enclose(&moved[2].encode())));
    let refused = free.count(user, &mut Operation::random(), 3).await;
    assert!(matches!(refused, Err(Error::FreeCallsExhausted { limit: 3 })), "{refused:?}");
    assert_eq!(free.get(user).await.unwrap().used(), 3);
}

/// A loop without bound or backoff spun as long as others were faster.
pub(crate) async fn retries_are_bounded_and_wait_in_between(bed: Bed) {
    let (store, chain) = (Noting::new(bed.store()), chain(1000));
    let one = replica(store.clone(), &chain, "one");
    let held = one.reserve(&pay(0, 10), Amount::ZERO).await.unwrap();
    store.refuse_all_commits();
    store.taken();
    let began = Instant::now();
    let operation = &mut Operation::random();
    let usage = PrepaidUsage::new(store.clone(), LEDGER);
    let results = [
        one.commit(&held).await,
        usage.change(channel(), operation, UsageChange::Plan(Amount::from(1))).await.map(|_| ()),
    ];
    for result in results {
        assert!(matches!(&result, Err(Error::Store(storage_core::Error::Unavailable { .. }))), "{result:?}");
    }
    let attempts = store.taken().len();
    assert!((20..=130).contains(&attempts), "{attempts} attempts");
    assert!(began.elapsed() > Duration::from_secs(2), "{attempts} attempts in {:?}", began.elapsed());
}

/// A delete was not possible inside a transaction, so what had to vanish together with a write stayed.
pub(crate) async fn a_delete_is_part_of_a_transaction(bed: Bed) {
    let (store, chain) = (Noting::new(bed.store()), chain(1000));
    let one = replica(store.clone(), &chain, "one");
    paid(&one, 0, 10).await;
    let claim = one.start_claim(channel(), AfterClaim::Continue).await.unwrap();
    let (key, record) = (claim_key(channel(), claim.payment.nonce()), reservation_key(channel()));
    let put_and_delete =
        |expected| Txn::new().guard(key.clone(), expected).put(record.clone(), "x").delete(key.clone());
    let refused = store.commit(put_and_delete(Expected::Absent), WriteOptions::default()).await.unwrap();
    assert!(!refused.is_committed());
    assert!(store.get(&key, ReadOptions::default()).await.unwrap().is_some());
    let applied = store.commit(put_and_delete(Expected::Exists), WriteOptions::default()).await.unwrap();
    assert!(applied.is_committed());
    assert_eq!(store.get(&key, ReadOptions::default()).await.unwrap(), None);
    assert_eq!(store.get(&record, ReadOptions::default()).await.unwrap().unwrap().value, "x");
}

/// The store in memory told of success although it had met a conflict: tests on it proved nothing.
pub(crate) async fn the_store_in_memory_tells_of_a_conflict(bed: Bed) {
    let store = bed.store();
    let key = key_of(channel());
    store.put(&key, "1").await.unwrap();
    let absent = store.put_if_absent(&key, "2").await.unwrap();
    match absent.unwrap_err().current {
        Observed::Present(entry) => assert_eq!(entry.value, "1"),
        // Some servers do not tell what was in the way.
        current => assert!(current == Observed::Unknown && !bed.is_memory(), "{current:?}"),
    }
    let version = store.put(&key, "3").await.unwrap();
    store.put(&key, "4").await.unwrap();
    assert!(store.compare_and_swap(&key, version, "5").await.unwrap().is_err());
    assert_eq!(store.get(&key, ReadOptions::default()).await.unwrap().unwrap().value, "4");
    // Seen through payments: of twenty replicas that take the same payment at once, one gets it.
    let chain = chain(1000);
    let shared = bed.fresh();
    let taking = (0..20).map(|number| {
        let replica = replica(shared.store(), &chain, &number.to_string());
        tokio::spawn(async move { replica.reserve(&pay(0, 10), Amount::ZERO).await.is_ok() })
    });
    let taken = join_all(taking).await.into_iter().filter(|taken| *taken.as_ref().unwrap()).count();
    assert_eq!(taken, 1);
}

/// Increments without an operation id counted twice when a reply was lost and the call was made again.
pub(crate) async fn an_increment_whose_reply_was_lost_counts_once(bed: Bed) {
    let store = FaultInjecting::new(bed.store());
    let usage = PrepaidUsage::new(store.clone(), LEDGER);
    store.lose_replies(1);
    usage.change(channel(), &mut Operation::random(), UsageChange::Plan(Amount::from(10))).await.unwrap();
    let mut used = Operation::random();
    store.lose_replies(1);
    for _ in 0..3 {
        let after = usage.change(channel(), &mut used, UsageChange::Use(Amount::from(10))).await.unwrap();
        assert_eq!((after.planned, after.used), (Amount::from(10), Amount::from(10)));
    }
}

/// Scans returned values without keys: whose they were had to be guessed.
pub(crate) async fn what_is_listed_tells_its_key(bed: Bed) {
    let (store, chain) = (bed.store(), chain(1000));
    let one = replica(bed.store(), &chain, "one");
    paid(&one, 0, 10).await;
    one.start_claim(channel(), AfterClaim::Continue).await.unwrap();
    let entries: Vec<_> = store.scan_all(b"").try_collect().await.unwrap();
    let keys: Vec<_> = entries.iter().map(|entry| entry.key.clone()).collect();
    assert_eq!(keys, [key_of(channel()), claim_key(channel(), Nonce::ZERO), reservation_key(channel())]);
    let channels: Vec<_> = one.operator().channels().try_collect().await.unwrap();
    assert_eq!(channels[0].state.channel_id, channel());
    let claims: Vec<_> = one.claims().try_collect().await.unwrap();
    assert_eq!((claims[0].payment.channel_id(), claims[0].payment.nonce()), (channel(), Nonce::ZERO));
}

rules! {
    a_claim_is_started_in_one_transaction,
    a_dead_replica_does_not_lock_a_channel_for_ever_and_frees_nobody_elses,
    a_commit_overwrites_nothing_that_was_written_since,
    a_payment_that_was_accepted_is_not_accepted_again_by_any_replica,
    a_counter_that_moved_after_it_was_read_is_read_again,
    a_delete_is_part_of_a_transaction,
    the_store_in_memory_tells_of_a_conflict,
    an_increment_whose_reply_was_lost_counts_once,
    what_is_listed_tells_its_key,
}

// What they are about is the clock: no call of theirs reaches the store.
clock_rules! {
    retries_are_bounded_and_wait_in_between,
}
