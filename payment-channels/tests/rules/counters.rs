//! Prepaid usage and free calls.

use std::sync::Arc;

use futures::future::join_all;
use payment_channels::{
    Error, FreeCallUser, FreeCalls, Operation, PrepaidUsage, RecentOperations, Usage, UsageChange, UsageRefusal,
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
    let usage = PrepaidUsage::new(bed.store(), LEDGER);
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
    let usage = PrepaidUsage::new(store.clone(), LEDGER);
    let free = FreeCalls::new(store.clone(), LEDGER);
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
    let usage = PrepaidUsage::new(bed.store(), LEDGER);
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
    let free = FreeCalls::new(bed.store(), LEDGER);
    let [one, other] = ["one", "other"].map(address_of);
    for used in 1..=3 {
        assert_eq!(free.count(one, &mut Operation::random(), 3).await.unwrap().used(), used);
    }
    let refused = free.count(one, &mut Operation::random(), 3).await;
    assert!(matches!(refused, Err(Error::FreeCallsExhausted { limit: 3 })), "{refused:?}");
    assert_eq!(free.get(one).await.unwrap().used(), 3);
    assert_eq!(free.count(other, &mut Operation::random(), 3).await.unwrap().used(), 1);
}

pub(crate) async fn users_of_one_signer_and_of_other_services_have_counters_of_their_own(bed: Bed) {
    let free = FreeCalls::new(bed.store(), LEDGER);
    let market = FreeCallUser {
        user_id: "ann".to_owned(),
        organization: "org".to_owned(),
        service: "service".to_owned(),
        group_id: "group".to_owned(),
        ..FreeCallUser::from(address_of("market"))
    };
    let others = [
        FreeCallUser { user_id: "bob".to_owned(), ..market.clone() },
        FreeCallUser { organization: "other".to_owned(), ..market.clone() },
        FreeCallUser { service: "other".to_owned(), ..market.clone() },
        FreeCallUser { group_id: "other".to_owned(), ..market.clone() },
        // The same letters, divided otherwise.
        FreeCallUser { user_id: "annorg".to_owned(), organization: String::new(), ..market.clone() },
        FreeCallUser::from(address_of("market")),
    ];
    for user in others.iter().chain([&market]) {
        assert_eq!(free.count(user.clone(), &mut Operation::random(), 1).await.unwrap().used(), 1, "{user:?}");
    }
    let refused = free.count(market, &mut Operation::random(), 1).await;
    assert!(matches!(refused, Err(Error::FreeCallsExhausted { limit: 1 })), "{refused:?}");
}

pub(crate) async fn a_free_call_that_failed_is_given_back_once(bed: Bed) {
    let store = FaultInjecting::new(bed.store());
    let free = FreeCalls::new(store.clone(), LEDGER);
    let user = address_of("user");
    let (mut kept, mut failed) = (Operation::random(), Operation::random());
    free.count(user, &mut kept, 2).await.unwrap();
    free.count(user, &mut failed, 2).await.unwrap();
    for lost in [1, 0] {
        store.lose_replies(lost);
        assert_eq!(free.give_back(user, failed.id).await.unwrap().used(), 1);
    }
    let again = free.count(user, &mut failed, 2).await;
    assert!(matches!(again, Err(Error::Released)), "{again:?}");
    let never = free.give_back(user, OperationId(7)).await;
    assert!(matches!(never, Err(Error::Unsettled)), "{never:?}");
    assert_eq!(free.count(user, &mut Operation::random(), 2).await.unwrap().used(), 2);
    assert!(free.count(user, &mut Operation::random(), 2).await.is_err());
}

/// Whatever is lost on the way, what is charged can be used, and no more.
pub(crate) async fn what_is_paid_in_advance_and_what_can_be_used_change_together(bed: Bed) {
    let store = FaultInjecting::new(bed.store());
    let chain = chain(1000);
    let one = replica(store.clone(), &chain, "one");
    let mut planned = 0;
    for (amount, lost) in [(100, 0), (150, 1), (400, 2)] {
        let reservation = one.reserve(&pay(0, amount), Amount::from(1)).await.unwrap();
        store.lose_replies(lost);
        one.commit_prepaid(&reservation).await.unwrap();
        one.commit_prepaid(&reservation).await.unwrap();
        planned = amount;
        assert_eq!(one.operator().usage(channel()).await.unwrap().planned, Amount::from(planned));
    }
    // A counter that moves between the read and the write is read again.
    let usage = PrepaidUsage::new(bed.store(), LEDGER);
    let reservation = one.reserve(&pay(0, 500), Amount::from(1)).await.unwrap();
    let (committed, used) = futures::join!(one.commit_prepaid(&reservation), change(&usage, uses(400)));
    committed.unwrap();
    used.unwrap();
    let after = usage.get(channel()).await.unwrap();
    assert_eq!((after.planned, after.used, planned), (Amount::from(500), Amount::from(400), 400));
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
    PrepaidUsage::new(store.handle(), LEDGER).change(channel(), &mut Operation::random(), plan(1)).await.unwrap();
    assert_eq!(store.taken(), (1, 1));
    FreeCalls::new(store.handle(), LEDGER).count(address_of("user"), &mut Operation::random(), 1).await.unwrap();
    assert_eq!(store.taken(), (1, 1));
}

pub(crate) async fn many_replicas_lose_no_update(bed: Bed) {
    let counting = (0..16).map(|_| {
        let free = FreeCalls::new(bed.store(), LEDGER);
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
    assert_eq!(FreeCalls::new(bed.store(), LEDGER).get(address_of("user")).await.unwrap().used(), 100);
}

pub(crate) async fn counters_that_cannot_be_read_are_named_and_left_alone(bed: Bed) {
    let store = bed.store();
    for (key, value, newer) in [
        (usage_key(channel()), b"USGE\x00\x02".as_slice(), true),
        (usage_key(channel()), b"17", false),
        (free_calls_key(address_of("user")), b"FREE\x00\x03", true),
        (free_calls_key(address_of("user")), b"", false),
    ] {
        let value = LEDGER.enclose(value);
        store.put(&key, value.clone()).await.unwrap();
        let operation = &mut Operation::new(OperationId(1));
        let result = if key == usage_key(channel()) {
            PrepaidUsage::new(bed.store(), LEDGER).change(channel(), operation, plan(1)).await.map(|_| ())
        } else {
            FreeCalls::new(bed.store(), LEDGER).count(address_of("user"), operation, 1).await.map(|_| ())
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
    users_of_one_signer_and_of_other_services_have_counters_of_their_own,
    a_free_call_that_failed_is_given_back_once,
    what_is_paid_in_advance_and_what_can_be_used_change_together,
    a_change_is_a_read_and_a_commit,
    many_replicas_lose_no_update,
    counters_that_cannot_be_read_are_named_and_left_alone,
}
