//! Prepaid usage and free calls.

use std::sync::Arc;

use futures::future::join_all;
use payment_channels::{
    Error, FreeCalls, Operation, PrepaidUsage, RecentOperations, Usage, UsageChange, UsageRefusal, free_calls_key,
    usage_key,
};
use storage_core::{
    FaultInjecting, OperationId, Store, StoreExt,
    channel::{Address, Amount},
};

use crate::{bed::Bed, counting::Counted, support::*};

fn plan(amount: u64) -> UsageChange {
    UsageChange::Plan(Amount::from(amount))
}

fn uses(amount: u64) -> UsageChange {
    UsageChange::Use(Amount::from(amount))
}

fn refund(amount: u64) -> UsageChange {
    UsageChange::Refund(Amount::from(amount))
}

async fn change(usage: &PrepaidUsage<Arc<dyn Store>>, change: UsageChange) -> Result<Usage, Error> {
    usage.change(channel(), &mut Operation::random(), change).await
}

pub(crate) async fn no_more_is_used_than_was_planned_and_refunded(bed: Bed) {
    let usage = PrepaidUsage::new(bed.store());
    let refused = |result: Result<Usage, Error>| match result {
        Err(Error::UsageRefused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    let [zero, ten, twenty, thirty] = [0, 10, 20, 30].map(Amount::from);
    let exhausted = |left, wanted| UsageRefusal::Exhausted { left, wanted };
    assert_eq!(refused(change(&usage, uses(10)).await), exhausted(zero, ten));
    change(&usage, plan(30)).await.unwrap();
    change(&usage, uses(20)).await.unwrap();
    assert_eq!(refused(change(&usage, uses(20)).await), exhausted(ten, twenty));
    let none = UsageRefusal::NothingToRefund { left: twenty, wanted: thirty };
    assert_eq!(refused(change(&usage, refund(30)).await), none);
    change(&usage, refund(20)).await.unwrap();
    change(&usage, uses(30)).await.unwrap();
    let after = usage.get(channel()).await.unwrap();
    assert_eq!((after.planned, after.used, after.refunded), (thirty, Amount::from(50), twenty));
    assert_eq!(refused(change(&usage, uses(1)).await), exhausted(zero, Amount::from(1)));
    assert_eq!(refused(change(&usage, UsageChange::Plan(Amount::MAX)).await), UsageRefusal::Overflow);
    assert_eq!(refused(change(&usage, UsageChange::Use(Amount::MAX)).await), UsageRefusal::Overflow);
    assert_eq!(usage.get(channel()).await.unwrap(), after, "nothing is written for a refusal");
}

pub(crate) async fn an_operation_counts_once_however_often_it_is_sent(bed: Bed) {
    let store = FaultInjecting::new(bed.store());
    let usage = PrepaidUsage::new(store.clone());
    let free = FreeCalls::new(store.clone());
    for lost in 0..3 {
        let (mut planned, mut called) = (Operation::random(), Operation::random());
        store.lose_replies(lost);
        usage.change(channel(), &mut planned, plan(10)).await.unwrap();
        store.lose_replies(lost);
        free.count(address_of("user"), &mut called, 100).await.unwrap();
        // And once more, as a caller does that has crashed in between.
        usage.change(channel(), &mut Operation::new(planned.id), plan(10)).await.unwrap();
        free.count(address_of("user"), &mut Operation::new(called.id), 100).await.unwrap();
    }
    assert_eq!(usage.get(channel()).await.unwrap().planned, Amount::from(30));
    assert_eq!(free.get(address_of("user")).await.unwrap().used(), 3);
}

pub(crate) async fn a_retry_that_comes_too_late_is_not_counted_again(bed: Bed) {
    let usage = PrepaidUsage::new(bed.store());
    let mut early = Operation::random();
    usage.change(channel(), &mut early, plan(1)).await.unwrap();
    for _ in 1..RecentOperations::MAX {
        change(&usage, plan(1)).await.unwrap();
    }
    usage.change(channel(), &mut early, plan(1)).await.unwrap();
    change(&usage, plan(1)).await.unwrap();
    let late = usage.change(channel(), &mut early, plan(1)).await;
    assert!(matches!(late, Err(Error::Unsettled)), "{late:?}");
    let all = Amount::from(RecentOperations::MAX as u64 + 1);
    assert_eq!(usage.get(channel()).await.unwrap().planned, all);
}

pub(crate) async fn free_calls_end_at_the_limit_and_each_user_has_their_own(bed: Bed) {
    let free = FreeCalls::new(bed.store());
    let [one, other] = ["one", "other"].map(address_of);
    for used in 1..=3 {
        assert_eq!(free.count(one, &mut Operation::random(), 3).await.unwrap().used(), used);
    }
    let refused = free.count(one, &mut Operation::random(), 3).await;
    assert!(matches!(refused, Err(Error::FreeCallsExhausted { limit: 3 })), "{refused:?}");
    assert_eq!(free.get(one).await.unwrap().used(), 3);
    assert_eq!(free.count(other, &mut Operation::random(), 3).await.unwrap().used(), 1);
}

#[test]
fn an_address_has_one_counter_however_it_is_written() {
    let lower = "0x5e592f9b1d303183d963635f895f0f0c48284f4e";
    let written = [lower.to_owned(), format!("0x{}", lower[2..].to_uppercase())];
    let keys = written.map(|text| free_calls_key(text.parse::<Address>().unwrap()));
    assert_eq!(keys[0], keys[1]);
}

pub(crate) async fn a_change_is_a_read_and_a_commit(bed: Bed) {
    let store = Counted::new(bed.store());
    PrepaidUsage::new(store.handle()).change(channel(), &mut Operation::random(), plan(1)).await.unwrap();
    assert_eq!(store.taken(), (1, 1));
    FreeCalls::new(store.handle()).count(address_of("user"), &mut Operation::random(), 1).await.unwrap();
    assert_eq!(store.taken(), (1, 1));
}

pub(crate) async fn many_replicas_lose_no_update(bed: Bed) {
    let counting = (0..16).map(|_| {
        let free = FreeCalls::new(bed.store());
        tokio::spawn(async move {
            let mut counted = 0;
            for _ in 0..10 {
                counted += u64::from(free.count(address_of("user"), &mut Operation::random(), 100).await.is_ok());
            }
            counted
        })
    });
    let counted: u64 = join_all(counting).await.into_iter().map(Result::unwrap).sum();
    assert_eq!(counted, 100, "of 160 calls those that are free");
    assert_eq!(FreeCalls::new(bed.store()).get(address_of("user")).await.unwrap().used(), 100);
}

pub(crate) async fn counters_that_cannot_be_read_are_named_and_left_alone(bed: Bed) {
    let store = bed.store();
    for (key, value, newer) in [
        (usage_key(channel()), b"USGE\x00\x02".as_slice(), true),
        (usage_key(channel()), b"17", false),
        (free_calls_key(address_of("user")), b"FREE\x00\x02", true),
        (free_calls_key(address_of("user")), b"", false),
    ] {
        store.put(&key, value).await.unwrap();
        let operation = &mut Operation::new(OperationId(1));
        let result = if key == usage_key(channel()) {
            PrepaidUsage::new(bed.store()).change(channel(), operation, plan(1)).await.map(|_| ())
        } else {
            FreeCalls::new(bed.store()).count(address_of("user"), operation, 1).await.map(|_| ())
        };
        match result.unwrap_err() {
            Error::NewerRecord { key: found, .. } => assert!(newer && found == key),
            Error::CorruptRecord { key: found, .. } => assert!(!newer && found == key),
            error => panic!("{error:?}"),
        }
        assert_eq!(store.get(&key, Default::default()).await.unwrap().unwrap().value, value);
    }
}

rules! {
    no_more_is_used_than_was_planned_and_refunded,
    an_operation_counts_once_however_often_it_is_sent,
    a_retry_that_comes_too_late_is_not_counted_again,
    free_calls_end_at_the_limit_and_each_user_has_their_own,
    a_change_is_a_read_and_a_commit,
    many_replicas_lose_no_update,
    counters_that_cannot_be_read_are_named_and_left_alone,
}
