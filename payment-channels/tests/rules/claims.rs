//! Claims: the channel moves and the claim is recorded together, or neither.

use std::{sync::Arc, time::Duration};

use futures::TryStreamExt;
use payment_channels::{
    AfterClaim, ChannelAnswer, Claim, ClaimRefusal, ClientMessage, Error, MemoryChain, MessageRefusal, Options,
    Payments, Refusal, Rejection, SignedAmount,
};
use storage_core::{
    FaultInjecting, Store, StoreExt,
    channel::{Amount, BlockNumber, ChannelId, ChannelState, ChannelStatus, Nonce},
};

use crate::{bed::Bed, support::*};

pub(crate) async fn paid<S: Store>(payments: &Payments<S, Arc<MemoryChain>>, nonce: u64, amount: u64) {
    let reservation = payments.reserve(&pay(nonce, amount), Amount::ZERO).await.unwrap();
    payments.commit(&reservation).await.unwrap();
}

pub(crate) async fn claims<S: Store>(payments: &Payments<S, Arc<MemoryChain>>) -> Vec<Claim> {
    payments.claims().try_collect().await.unwrap()
}

async fn state<S: Store>(payments: &Payments<S, Arc<MemoryChain>>) -> ChannelState {
    payments.operator().report(channel()).await.unwrap().channel.unwrap()
}

pub(crate) async fn a_claim_moves_the_channel_to_the_next_nonce_and_can_be_paid_and_finished(bed: Bed) {
    let chain = chain(1000);
    let one = replica(bed.store(), &chain, "one");
    paid(&one, 0, 580).await;
    let before = state(&one).await;
    let claim = one.start_claim(channel(), AfterClaim::Continue).await.unwrap();
    assert_eq!(claim.payment, pay(0, 580));
    let full_amount = Amount::from(420);
    let moved =
        ChannelState { nonce: Nonce::from(1), full_amount, authorized_amount: Amount::ZERO, signature: None, ..before };
    assert_eq!(state(&one).await, moved);
    assert_eq!(claims(&one).await, [claim]);
    // The blockchain is behind, and the store's view counts.
    paid(&one, 1, 20).await;
    chain.pay_claim(&claim).unwrap();
    assert_eq!(chain.pay_claim(&claim), Err(Rejection::IncorrectNonce), "once");
    one.finish_claim(channel(), Nonce::ZERO).await.unwrap();
    one.finish_claim(channel(), Nonce::ZERO).await.unwrap();
    assert_eq!(claims(&one).await, []);
    let second = one.start_claim(channel(), AfterClaim::Continue).await.unwrap();
    chain.pay_claim(&second).unwrap();
    assert_eq!((second.payment.nonce(), second.payment.amount()), (Nonce::from(1), Amount::from(20)));
}

pub(crate) async fn a_claim_that_closes_leaves_nothing_until_there_are_new_funds(bed: Bed) {
    let chain = chain(1000);
    let one = replica(bed.store(), &chain, "one");
    paid(&one, 0, 580).await;
    let claim = one.start_claim(channel(), AfterClaim::Close).await.unwrap();
    let closed = state(&one).await;
    assert_eq!(
        (closed.status, closed.full_amount, closed.nonce),
        (ChannelStatus::Closed, Amount::ZERO, Nonce::from(1))
    );
    let refused = one.reserve(&pay(1, 10), Amount::ZERO).await.unwrap_err();
    assert!(matches!(refused, Error::Refused(Refusal::Closed)), "{refused:?}");
    chain.pay_claim(&claim).unwrap();
    chain.extend_and_add_funds(channel(), BlockNumber::from(2 * BLOCK), Amount::from(50)).unwrap();
    paid(&one, 1, 10).await;
    assert_eq!(state(&one).await.status, ChannelStatus::Open);
}

pub(crate) async fn a_claim_of_nothing_is_refused(bed: Bed) {
    let chain = chain(1000);
    let one = replica(bed.store(), &chain, "one");
    let refusal = |result: Result<Claim, Error>| match result {
        Err(Error::ClaimRefused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    let start = async |id| refusal(one.start_claim(id, AfterClaim::Continue).await);
    assert_eq!(start(channel()).await, ClaimRefusal::UnknownChannel { channel_id: channel() }, "nobody has paid");
    let unknown = ChannelId::from(8);
    assert_eq!(start(unknown).await, ClaimRefusal::UnknownChannel { channel_id: unknown });
    paid(&one, 0, 580).await;
    one.start_claim(channel(), AfterClaim::Continue).await.unwrap();
    assert_eq!(start(channel()).await, ClaimRefusal::NothingToClaim { nonce: Nonce::from(1) });
    assert_eq!(claims(&one).await.len(), 1);
}

#[test]
fn what_the_contract_would_not_pay_is_not_claimed() {
    let authorized = ChannelState {
        authorized_amount: Amount::from(1001),
        signature: Some(pay(0, 1001).signature()),
        ..payment_channels::merge(None, &chain_channel(1000))
    };
    let begin = |state: &ChannelState| payment_channels::begin_claim(state, CONTRACT, AfterClaim::Continue, 1);
    let (full_amount, authorized_amount) = (Amount::from(1000), Amount::from(1001));
    assert_eq!(begin(&authorized), Err(ClaimRefusal::NotEnoughFunds { full_amount, authorized: authorized_amount }));
    let last = ChannelState { nonce: Nonce::MAX, full_amount: Amount::MAX, ..authorized.clone() };
    assert_eq!(begin(&last), Err(ClaimRefusal::Unclaimable));
    let signature = Some(storage_core::channel::Signature::new([255; 65]));
    let malformed = ChannelState { signature, full_amount: Amount::MAX, ..authorized };
    assert_eq!(begin(&malformed), Err(ClaimRefusal::Unclaimable));
}

pub(crate) async fn two_racing_claims_give_one(bed: Bed) {
    for _ in 0..20 {
        let chain = chain(1000);
        let bed = bed.fresh();
        let [one, other] = ["one", "other"].map(|name| replica(bed.store(), &chain, name));
        paid(&one, 0, 580).await;
        let start = |replica: Payments<Arc<dyn Store>, Arc<MemoryChain>>| {
            tokio::spawn(async move { replica.start_claim(channel(), AfterClaim::Continue).await })
        };
        let (first, second) = futures::join!(start(one), start(other));
        let results = [first.unwrap(), second.unwrap()];
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        let reader = replica(bed.store(), &chain, "reader");
        assert_eq!(claims(&reader).await.len(), 1);
    }
}

pub(crate) async fn a_claim_waits_for_a_payment_in_flight_and_takes_over_from_a_dead_one(bed: Bed) {
    let chain = chain(1000);
    let options = |name| Options::new(name).lease(bed.lease());
    let [one, other] = ["one", "other"].map(|name| replica_with(bed.store(), &chain, options(name)));
    paid(&one, 0, 10).await;
    let held = one.reserve(&pay(0, 20), Amount::ZERO).await.unwrap();
    let refused = other.start_claim(channel(), AfterClaim::Continue).await;
    assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
    one.commit(&held).await.unwrap();
    let dead = one.reserve(&pay(0, 30), Amount::ZERO).await.unwrap();
    let patient = replica_with(bed.store(), &chain, options("patient").wait(Duration::from_secs(60)));
    let claim = patient.start_claim(channel(), AfterClaim::Continue).await.unwrap();
    assert_eq!(claim.payment.amount(), Amount::from(20));
    assert!(matches!(one.commit(&dead).await, Err(Error::LeaseLost)), "its nonce is past");
    paid(&patient, 1, 10).await;
}

pub(crate) async fn a_claim_whose_reply_was_lost_knows_its_own(bed: Bed) {
    let chain = chain(1000);
    let faulty = FaultInjecting::new(bed.store());
    let one = replica(faulty.clone(), &chain, "one");
    paid(&one, 0, 580).await;
    faulty.lose_replies(1);
    let claim = one.start_claim(channel(), AfterClaim::Continue).await.unwrap();
    faulty.lose_replies(1);
    assert_eq!(claims(&one).await, [claim]);
    one.finish_claim(channel(), Nonce::ZERO).await.unwrap();
    assert_eq!(claims(&one).await, []);
}

pub(crate) async fn claims_are_listed_by_channel_and_nonce_and_bad_records_are_named(bed: Bed) {
    let chain = chain(1000);
    let one = replica(bed.store(), &chain, "one");
    for nonce in 0..12 {
        paid(&one, nonce, 10).await;
        one.start_claim(channel(), AfterClaim::Continue).await.unwrap();
    }
    let nonces: Vec<_> = claims(&one).await.iter().map(|claim| claim.payment.nonce()).collect();
    assert_eq!(nonces, (0..12).map(Nonce::from).collect::<Vec<_>>());
    let key = claim_key(channel(), Nonce::from(12));
    bed.store().put(&key, LEDGER.enclose(&claims(&one).await[0].encode())).await.unwrap();
    let error = one.claims().try_collect::<Vec<_>>().await.unwrap_err();
    assert!(matches!(error, Error::MisplacedRecord { key: found } if found == key));
}

pub(crate) async fn claims_that_cannot_be_read_are_named_and_never_overwritten(bed: Bed) {
    let chain = chain(1000);
    let one = replica(bed.store(), &chain, "one");
    paid(&one, 0, 10).await;
    let before = state(&one).await;
    let key = claim_key(channel(), Nonce::ZERO);
    for (value, newer) in [(&b"CLAM\x00\x02"[..], true), (b"CLAM\x00\x01", false), (b"", false)] {
        let value = LEDGER.enclose(value);
        bed.store().put(&key, value.clone()).await.unwrap();
        match one.claims().try_collect::<Vec<_>>().await.unwrap_err() {
            Error::NewerRecord { key: found, found: 2, supported: 1 } => assert!(newer && found == key),
            Error::CorruptRecord { key: found, .. } => assert!(!newer && found == key),
            error => panic!("{error:?}"),
        }
        let refused = one.start_claim(channel(), AfterClaim::Continue).await;
        let expected = ClaimRefusal::AlreadyClaimed { nonce: Nonce::ZERO };
        assert!(matches!(refused, Err(Error::ClaimRefused(refusal)) if refusal == expected), "{refused:?}");
        let entry = bed.store().get(&key, Default::default()).await.unwrap().unwrap();
        assert_eq!((entry.value, state(&one).await), (value, before.clone()), "both are as they were");
    }
}

pub(crate) async fn what_the_chain_has_passed_is_finished_and_no_longer_offered(bed: Bed) {
    let chain = chain(1000);
    let one = replica(bed.store(), &chain, "one");
    paid(&one, 0, 100).await;
    let first = one.start_claim(channel(), AfterClaim::Continue).await.unwrap();
    paid(&one, 1, 50).await;
    let second = one.start_claim(channel(), AfterClaim::Continue).await.unwrap();
    let report = one.settle_claims().await.unwrap();
    assert_eq!((report.open_amount(), report.finished_amount()), (Some(Amount::from(150)), Some(Amount::ZERO)));
    assert_eq!(claims(&one).await, [first, second], "nothing is finished before it is paid");
    // It is paid, and whoever should have finished it has died.
    chain.pay_claim(&first).unwrap();
    assert_eq!(claims(&one).await, [second], "what is paid is not offered");
    let faulty = FaultInjecting::new(bed.store());
    faulty.lose_replies(1);
    let report = replica(faulty, &chain, "other").settle_claims().await.unwrap();
    assert_eq!((report.open_amount(), report.finished_amount()), (Some(Amount::from(50)), Some(Amount::from(100))));
    let stored: Vec<_> = one.operator().claims().try_collect().await.unwrap();
    assert_eq!(stored, [second]);
    chain.pay_claim(&second).unwrap();
    assert_eq!(one.settle_claims().await.unwrap().finished_amount(), Some(Amount::from(50)));
    assert_eq!(one.settle_claims().await.unwrap().claims, []);
}

pub(crate) async fn settling_goes_on_behind_a_record_that_cannot_be_read(bed: Bed) {
    let chain = chain(1000);
    let one = replica(bed.store(), &chain, "one");
    paid(&one, 0, 100).await;
    let claim = one.start_claim(channel(), AfterClaim::Continue).await.unwrap();
    chain.pay_claim(&claim).unwrap();
    let garbage = claim_key(ChannelId::from(6), Nonce::ZERO);
    bed.store().put(&garbage, "x").await.unwrap();
    let report = one.settle_claims().await.unwrap();
    assert_eq!(report.finished_amount(), Some(Amount::from(100)));
    assert!(matches!(&report.unreadable[..], [Error::CorruptRecord { key, .. }] if *key == garbage), "{report:?}");
}

pub(crate) async fn a_client_is_told_what_is_authorized_and_what_is_claimed(bed: Bed) {
    let chain = chain(1000);
    let one = replica(bed.store(), &chain, "one");
    let block = BlockNumber::from(BLOCK + 3);
    let ask = async |words: &str, block| {
        let message = ClientMessage::ChannelState { channel_id: channel(), block }.bytes(CONTRACT);
        one.channel_answer(channel(), block, &sign_message(words, &message)).await
    };
    let signed =
        |nonce, amount| SignedAmount { amount: Amount::from(amount), signature: pay(nonce, amount).signature() };
    let nothing = ChannelAnswer { nonce: Nonce::ZERO, signed: None, old: None };
    assert_eq!(ask("signer", block).await.unwrap(), nothing);
    paid(&one, 0, 580).await;
    assert_eq!(ask("sender", block).await.unwrap(), ChannelAnswer { signed: Some(signed(0, 580)), ..nothing.clone() });
    let claim = one.start_claim(channel(), AfterClaim::Continue).await.unwrap();
    paid(&one, 1, 20).await;
    let pending = ChannelAnswer { nonce: Nonce::from(1), signed: Some(signed(1, 20)), old: Some(signed(0, 580)) };
    assert_eq!(ask("signer", block).await.unwrap(), pending);
    chain.pay_claim(&claim).unwrap();
    assert_eq!(ask("signer", block).await.unwrap(), ChannelAnswer { old: None, ..pending });
    let refusal = |answer: Result<ChannelAnswer, Error>| match answer {
        Err(Error::MessageRefused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal(ask("stranger", block).await), MessageRefusal::Unauthenticated);
    let late = BlockNumber::from(BLOCK + 6);
    let current = BlockNumber::from(BLOCK);
    assert_eq!(refusal(ask("signer", late).await), MessageRefusal::NotRecent { block: late, current });
    let short = refusal(one.channel_answer(channel(), block, &[1; 64]).await);
    assert!(matches!(short, MessageRefusal::Signature(_)), "{short:?}");
}

/// Calldata as the ABI's own encoder makes it (eth-abi).
#[test]
fn a_wallet_is_given_what_the_contract_takes() {
    let claim = Claim { id: 1, payment: pay(0, 580), after: AfterClaim::Close };
    let word = |number: u64| format!("{number:064x}");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let signature = hex(claim.payment.signature().as_bytes());
    let (r, s, v) = (&signature[..64], &signature[64..128], u64::from_str_radix(&signature[128..], 16).unwrap());
    let expected = ["2ed0bb4f".to_owned(), word(7), word(580), word(580), word(v), r.to_owned(), s.to_owned(), word(1)];
    assert_eq!(hex(&claim.calldata())[8..], expected.concat()[8..]);
    let arrays: String = [word(7), word(580), word(580), word(1), word(v), r.to_owned(), s.to_owned()]
        .map(|word| format!("{:064x}{word}{word}", 2))
        .concat();
    let offsets: String = (0..7).map(|place| word(32 * (7 + 3 * place))).collect();
    assert_eq!(hex(&Claim::calldata_of_many(&[claim, claim])), format!("aa5f510a{offsets}{arrays}"));
}

pub(crate) async fn channels_are_listed_with_their_states(bed: Bed) {
    let chain = chain(1000);
    let one = replica(bed.store(), &chain, "one");
    paid(&one, 0, 10).await;
    let listed: Vec<_> = one.operator().channels().try_collect().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].state, state(&one).await);
}

rules! {
    a_claim_moves_the_channel_to_the_next_nonce_and_can_be_paid_and_finished,
    a_claim_that_closes_leaves_nothing_until_there_are_new_funds,
    a_claim_of_nothing_is_refused,
    two_racing_claims_give_one,
    a_claim_waits_for_a_payment_in_flight_and_takes_over_from_a_dead_one,
    a_claim_whose_reply_was_lost_knows_its_own,
    claims_are_listed_by_channel_and_nonce_and_bad_records_are_named,
    claims_that_cannot_be_read_are_named_and_never_overwritten,
    what_the_chain_has_passed_is_finished_and_no_longer_offered,
    settling_goes_on_behind_a_record_that_cannot_be_read,
    a_client_is_told_what_is_authorized_and_what_is_claimed,
    channels_are_listed_with_their_states,
}
