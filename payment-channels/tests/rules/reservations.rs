//! Reserve, commit and release: what each costs, who may have the channel when, and what a lost reply comes to.

use std::{sync::Arc, time::Duration};

use payment_channels::{
    Authorization, Error, MemoryChain, Options, Payment, Payments, Refusal, Reservation, ReservationStatus, Settlement,
};
use storage_core::{
    FaultInjecting, Store,
    channel::{Amount, ChannelId},
};
use tokio::time::Instant;

use crate::{bed::Bed, counting::Counted, noting::Noting, support::*};

const PRICE: Amount = Amount::ZERO;

async fn authorized<S: Store>(payments: &Payments<S, Arc<MemoryChain>>) -> Amount {
    payments.operator().report(channel()).await.unwrap().channel.map_or(Amount::ZERO, |state| state.authorized_amount)
}

fn options(bed: &Bed, name: &str) -> Options {
    Options::new(name).lease(bed.lease())
}

/// Two replicas on one key space.
fn two(bed: &Bed) -> [Payments<Arc<dyn Store>, Arc<MemoryChain>>; 2] {
    let chain = chain(1000);
    ["one", "other"].map(|name| replica_with(bed.store(), &chain, options(bed, name)))
}

async fn busy<S: Store>(payments: &Payments<S, Arc<MemoryChain>>, amount: u64) -> bool {
    match payments.reserve(&pay(0, amount), PRICE).await {
        Err(Error::Busy { owner, .. }) => owner == "one",
        _ => false,
    }
}

pub(crate) async fn a_committed_payment_is_authorized_and_a_released_one_is_not(bed: Bed) {
    let [one, other] = two(&bed);
    let reservation = one.reserve(&pay(0, 10), Amount::from(10)).await.unwrap();
    assert!(busy(&other, 20).await);
    one.commit(&reservation).await.unwrap();
    assert_eq!(authorized(&other).await, Amount::from(10));
    let reservation = other.reserve(&pay(0, 20), Amount::from(10)).await.unwrap();
    other.release(&reservation).await.unwrap();
    assert_eq!(authorized(&one).await, Amount::from(10));
    let again = one.reserve(&pay(0, 20), Amount::from(10)).await.unwrap();
    assert_eq!(again.token().0, 3, "the token counts reservations");
    one.commit(&again).await.unwrap();
    let report = other.operator().report(channel()).await.unwrap();
    assert_eq!(report.channel.unwrap().signature, Some(pay(0, 20).signature()));
    assert_eq!(report.reservation.hold(), None);
}

pub(crate) async fn a_warm_reservation_is_one_round_trip_and_a_cold_one_two(bed: Bed) {
    let (store, chain) = (Counted::new(bed.store()), chain(1000));
    let one = replica(store.handle(), &chain, "one");
    let first = one.reserve(&pay(0, 10), PRICE).await.unwrap();
    assert_eq!(store.taken(), (1, 1), "reads and commits of a reservation by a replica that has not seen the channel");
    one.commit(&first).await.unwrap();
    assert_eq!(store.taken(), (0, 1), "of a commit");
    let second = one.reserve(&pay(0, 20), PRICE).await.unwrap();
    assert_eq!(store.taken(), (0, 1), "of a reservation by the replica that committed last");
    one.release(&second).await.unwrap();
    assert_eq!(store.taken(), (0, 1), "of a release");
    let other = replica(store.handle(), &chain, "other");
    let third = other.reserve(&pay(0, 20), PRICE).await.unwrap();
    other.commit(&third).await.unwrap();
    store.taken();
    let mut fourth = one.reserve(&pay(0, 30), PRICE).await.unwrap();
    assert_eq!(store.taken(), (1, 2), "of a reservation after another replica had the channel: one conflict");
    one.renew(&mut fourth).await.unwrap();
    assert_eq!(store.taken(), (0, 1), "of a renewal");
    one.commit(&fourth).await.unwrap();
    assert_eq!(store.taken(), (0, 1), "of a commit after a renewal");
    one.start_claim(channel(), payment_channels::AfterClaim::Continue).await.unwrap();
    assert_eq!(store.taken(), (1, 1), "of a claim");
    one.finish_claim(channel(), storage_core::channel::Nonce::ZERO).await.unwrap();
    assert_eq!(store.taken(), (0, 1), "of the end of a claim");
}

pub(crate) async fn what_a_replica_remembers_never_refuses_a_payment(bed: Bed) {
    let [one, other] = two(&bed);
    let first = one.reserve(&pay(0, 10), PRICE).await.unwrap();
    one.commit(&first).await.unwrap();
    // Behind the back of `one` the channel moves to nonce 1.
    other.start_claim(channel(), payment_channels::AfterClaim::Continue).await.unwrap();
    let second = one.reserve(&pay(1, 10), PRICE).await.unwrap();
    one.commit(&second).await.unwrap();
    let refused = other.reserve(&pay(0, 20), PRICE).await.unwrap_err();
    assert!(matches!(refused, Error::Refused(Refusal::IncorrectNonce { .. })), "{refused:?}");
}

/// A claim of a free channel does not touch the record, so the channel itself has to be guarded.
pub(crate) async fn what_a_replica_remembers_never_accepts_a_payment(bed: Bed) {
    let [one, other] = two(&bed);
    let first = one.reserve(&pay(0, 10), PRICE).await.unwrap();
    one.commit(&first).await.unwrap();
    other.start_claim(channel(), payment_channels::AfterClaim::Continue).await.unwrap();
    let refused = one.reserve(&pay(0, 20), PRICE).await.unwrap_err();
    assert!(matches!(refused, Error::Refused(Refusal::IncorrectNonce { .. })), "{refused:?}");
    assert_eq!(one.operator().report(channel()).await.unwrap().reservation.hold(), None);
}

pub(crate) async fn a_dead_holder_blocks_for_its_lease_from_when_another_looks(bed: Bed) {
    let [one, other] = two(&bed);
    let dead = one.reserve(&pay(0, 10), PRICE).await.unwrap();
    bed.pass(2 * bed.lease()).await;
    let looked = Instant::now();
    assert!(busy(&other, 20).await, "nobody compares clocks: the waiter has to watch for a lease itself");
    bed.pass(bed.lease() - bed.slack()).await;
    let next = match other.reserve(&pay(0, 20), PRICE).await {
        Err(Error::Busy { .. }) => {
            bed.pass(bed.slack()).await;
            other.reserve(&pay(0, 20), PRICE).await.unwrap()
        }
        // The machine stood still for so long that the lease has ended.
        taken => {
            assert!(looked.elapsed() >= bed.lease(), "taken {:?} after it was seen", looked.elapsed());
            taken.unwrap()
        }
    };
    assert!(next.token() > dead.token());
    assert!(matches!(one.commit(&dead).await, Err(Error::LeaseLost)), "before the next has committed");
    other.commit(&next).await.unwrap();
    assert!(matches!(one.commit(&dead).await, Err(Error::LeaseLost)), "and after it");
    assert!(matches!(one.release(&dead).await, Err(Error::LeaseLost)));
    assert_eq!(authorized(&one).await, Amount::from(20));
}

pub(crate) async fn a_wait_outlasts_a_dead_holder(bed: Bed) {
    let [one, _] = two(&bed);
    let dead = one.reserve(&pay(0, 10), PRICE).await.unwrap();
    let patient = replica_with(bed.store(), one.chain(), options(&bed, "patient").wait(2 * bed.lease()));
    let began = Instant::now();
    let next = patient.reserve(&pay(0, 10), PRICE).await.unwrap();
    assert!(began.elapsed() >= bed.lease(), "{:?}", began.elapsed());
    // How much later a busy machine gets there is not ours.
    assert!(!bed.is_memory() || began.elapsed() < bed.lease() + Duration::from_secs(1), "{:?}", began.elapsed());
    patient.commit(&next).await.unwrap();
    assert!(matches!(one.commit(&dead).await, Err(Error::LeaseLost)));
}

pub(crate) async fn a_holder_that_renews_keeps_the_channel(bed: Bed) {
    let [one, other] = two(&bed);
    let mut long = one.reserve(&pay(0, 10), PRICE).await.unwrap();
    for _ in 0..3 {
        assert!(busy(&other, 20).await);
        bed.pass(bed.lease() - bed.slack()).await;
        one.renew(&mut long).await.unwrap();
    }
    one.commit(&long).await.unwrap();
    assert!(matches!(one.renew(&mut long).await, Err(Error::Committed)));
    assert_eq!(authorized(&other).await, Amount::from(10));
}

pub(crate) async fn a_late_commit_that_nobody_was_ahead_of_is_taken(bed: Bed) {
    let [one, other] = two(&bed);
    let slow = one.reserve(&pay(0, 10), PRICE).await.unwrap();
    bed.pass(2 * bed.lease()).await;
    one.commit(&slow).await.unwrap();
    assert_eq!(authorized(&other).await, Amount::from(10));
}

/// Every step with every reply to it lost.
pub(crate) async fn a_lost_reply_is_resolved_by_reading_the_record(bed: Bed) {
    for lost in 1..4 {
        let chain = chain(1000);
        let faulty = FaultInjecting::new(bed.fresh().store());
        let one = replica(faulty.clone(), &chain, "one");
        faulty.lose_replies(lost);
        let mut reservation = one.reserve(&pay(0, 10), PRICE).await.unwrap();
        assert_eq!(reservation.token().0, 1, "reserved once");
        faulty.lose_replies(lost);
        one.renew(&mut reservation).await.unwrap();
        faulty.lose_replies(lost);
        one.commit(&reservation).await.unwrap();
        one.commit(&reservation).await.unwrap();
        assert_eq!(authorized(&one).await, Amount::from(10));
        let released = one.reserve(&pay(0, 20), PRICE).await.unwrap();
        faulty.lose_replies(lost);
        one.release(&released).await.unwrap();
        one.release(&released).await.unwrap();
        assert!(matches!(one.commit(&released).await, Err(Error::Released)));
        assert!(matches!(one.release(&reservation).await, Err(Error::Committed)));
        assert_eq!(authorized(&one).await, Amount::from(10));
    }
}

/// The replica gives up, and the caller asks again later: the same reservation tells how it ended.
pub(crate) async fn a_commit_that_gave_up_says_that_it_may_be_applied_and_can_be_asked_again(bed: Bed) {
    let (store, chain) = (Noting::new(bed.store()), chain(1000));
    let one = replica(store.clone(), &chain, "one");
    let reservation = one.reserve(&pay(0, 10), PRICE).await.unwrap();
    // The first attempt is applied and its reply lost; then the network is cut.
    store.cut_after_next_commit();
    let error = one.commit(&reservation).await.unwrap_err();
    assert!(error.may_be_applied(), "{error:?}");
    store.mend();
    assert_eq!(
        one.status(channel(), reservation.id()).await.unwrap(),
        ReservationStatus::Settled(Settlement::Committed)
    );
    one.commit(&reservation).await.unwrap();
    assert_eq!(authorized(&one).await, Amount::from(10));
}

pub(crate) async fn attempts_are_bounded_in_number_and_time(bed: Bed) {
    let chain = chain(1000);
    let faulty = FaultInjecting::new(bed.store());
    let one = replica(faulty.clone(), &chain, "one");
    let reservation = one.reserve(&pay(0, 10), PRICE).await.unwrap();
    let began = Instant::now();
    faulty.fail_before_send(usize::MAX);
    let error = one.commit(&reservation).await.unwrap_err();
    assert!(matches!(&error, Error::Store(storage_core::Error::Unavailable { .. })), "{error:?}");
    assert!(!error.may_be_applied());
    assert!((Duration::from_secs(1)..Duration::from_secs(60)).contains(&began.elapsed()), "{:?}", began.elapsed());
}

async fn forced<S: Store>(payments: &Payments<S, Arc<MemoryChain>>, held: &Reservation) {
    let record = payments.operator().force_unlock(channel()).await.unwrap();
    assert!(record.hold().is_none() && record.token() > held.token());
}

pub(crate) async fn an_operators_unlock_fences_the_holder(bed: Bed) {
    let [one, operator] = two(&bed);
    let held = one.reserve(&pay(0, 10), PRICE).await.unwrap();
    forced(&operator, &held).await;
    assert!(matches!(one.commit(&held).await, Err(Error::LeaseLost)));
    let next = operator.reserve(&pay(0, 10), PRICE).await.unwrap();
    assert!(matches!(one.release(&held).await, Err(Error::LeaseLost)), "nobody frees the channel of another");
    operator.commit(&next).await.unwrap();
    let before = operator.operator().report(channel()).await.unwrap().reservation;
    assert_eq!(operator.operator().force_unlock(channel()).await.unwrap(), before, "a free channel stays as it is");
}

pub(crate) async fn a_guard_keeps_the_channel_for_as_long_as_a_call_takes(bed: Bed) {
    let [one, other] = two(&bed);
    let one = Arc::new(one);
    let guard = one.reserve_guarded(&pay(0, 10), PRICE).await.unwrap();
    for _ in 0..10 {
        // Others look all the time, so that a lease without renewals would end.
        assert!(busy(&other, 10).await);
        tokio::time::sleep(bed.lease() / 4).await;
    }
    guard.commit().await.unwrap();
    assert_eq!(authorized(&other).await, Amount::from(10));
}

pub(crate) async fn a_guard_that_is_dropped_gives_the_channel_back_at_once(bed: Bed) {
    let [one, other] = two(&bed);
    let one = Arc::new(one);
    drop(one.reserve_guarded(&pay(0, 10), PRICE).await.unwrap());
    let began = Instant::now();
    let patient = other.operator();
    while patient.report(channel()).await.unwrap().reservation.hold().is_some() {
        assert!(began.elapsed() < Duration::from_secs(30), "it is held still");
        bed.pass(Duration::from_millis(10)).await;
    }
    let guard = one.reserve_guarded(&pay(0, 10), PRICE).await.unwrap();
    guard.release().await.unwrap();
    let fenced = one.reserve_guarded(&pay(0, 10), PRICE).await.unwrap();
    other.operator().force_unlock(channel()).await.unwrap();
    let lost = fenced.commit().await;
    assert!(matches!(lost, Err(Error::LeaseLost)), "{lost:?}");
    assert_eq!(authorized(&other).await, Amount::ZERO);
}

/// More channels than a replica remembers, each asked for between two looks at the one that a dead replica holds.
pub(crate) async fn a_dead_replica_blocks_for_a_lease_however_many_other_channels_strangers_ask_for(bed: Bed) {
    const STRANGERS: u64 = 5_000;
    let lease = bed.lease();
    let chain = chain(1000);
    for id in 1000..1000 + STRANGERS {
        let channel_id = ChannelId::from(id);
        chain.open(payment_channels::ChainChannel { channel_id, ..chain_channel(1000) });
    }
    let [dead, live] = ["dead", "live"].map(|name| replica_with(bed.store(), &chain, options(&bed, name)));
    let held = dead.reserve(&pay(0, 10), PRICE).await.unwrap();
    let signature = pay(0, 10).signature();
    let mut waited = Duration::ZERO;
    let next = loop {
        match live.reserve(&pay(0, 20), PRICE).await {
            Ok(next) => break next,
            Err(Error::Busy { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        for id in 1000..1000 + STRANGERS {
            let authorization = Authorization { channel_id: ChannelId::from(id), ..authorization(9, 1) };
            let stranger = Payment::new(authorization, signature.as_bytes()).unwrap();
            let refused = live.reserve(&stranger, PRICE).await.map(drop);
            assert!(matches!(refused, Err(Error::Refused(Refusal::IncorrectNonce { .. }))), "{refused:?}");
        }
        bed.pass(lease / 4).await;
        waited += lease / 4;
        assert!(waited <= lease, "blocked for longer than a lease");
    };
    live.commit(&next).await.unwrap();
    assert!(matches!(dead.commit(&held).await, Err(Error::LeaseLost)));
}

pub(crate) async fn options_out_of_range_are_refused(bed: Bed) {
    let chain = chain(1000);
    let long = "x".repeat(payment_channels::Hold::MAX_OWNER_BYTES + 1);
    let bad = [Options::new("a").lease(Duration::ZERO), Options::new("a").lease(Duration::MAX), Options::new(long)];
    for options in bad {
        let result = Payments::new(bed.store(), Arc::clone(&chain), terms(), options);
        assert!(matches!(result, Err(Error::InvalidArgument { .. })));
    }
}

pub(crate) async fn a_shared_handle_of_any_store_will_do(bed: Bed) {
    let store = bed.store();
    let one = replica(Arc::clone(&store), &chain(1000), "one");
    let reservation = one.reserve(&pay(0, 10), PRICE).await.unwrap();
    one.commit(&reservation).await.unwrap();
    assert_eq!(authorized(&replica(store, one.chain(), "other")).await, Amount::from(10));
}

rules! {
    a_committed_payment_is_authorized_and_a_released_one_is_not,
    a_warm_reservation_is_one_round_trip_and_a_cold_one_two,
    what_a_replica_remembers_never_refuses_a_payment,
    what_a_replica_remembers_never_accepts_a_payment,
    a_dead_holder_blocks_for_its_lease_from_when_another_looks,
    a_wait_outlasts_a_dead_holder,
    a_holder_that_renews_keeps_the_channel,
    a_late_commit_that_nobody_was_ahead_of_is_taken,
    a_lost_reply_is_resolved_by_reading_the_record,
    a_commit_that_gave_up_says_that_it_may_be_applied_and_can_be_asked_again,
    an_operators_unlock_fences_the_holder,
    a_shared_handle_of_any_store_will_do,
    a_guard_keeps_the_channel_for_as_long_as_a_call_takes,
    a_guard_that_is_dropped_gives_the_channel_back_at_once,
}

// What they are about is the clock: no call of theirs reaches the store.
clock_rules! {
    a_dead_replica_blocks_for_a_lease_however_many_other_channels_strangers_ask_for,
    attempts_are_bounded_in_number_and_time,
    options_out_of_range_are_refused,
}
