//! Payments that do not pay, each with its own refusal, and merging with the blockchain.

use payment_channels::{Authorization, ChainChannel, Error, Payment, Price, Refusal, authorize, merge, validate};
use storage_core::{
    Store, StoreExt,
    channel::{Address, Amount, BlockNumber, ChannelId, ChannelState, ChannelStatus, GroupId, Nonce},
};

use crate::{bed::Bed, support::*};

/// The channel at nonce 3 with 580 of 1000 authorized.
fn state() -> ChannelState {
    let fresh = merge(None, &chain_channel(1000));
    let payment = pay(3, 580);
    ChannelState {
        nonce: Nonce::from(3),
        authorized_amount: payment.amount(),
        signature: Some(payment.signature()),
        ..fresh
    }
}

fn check(payment: &Payment, state: &ChannelState, price: u64) -> Result<(), Refusal> {
    validate(payment, state, &terms(), BlockNumber::from(BLOCK), Amount::from(price))
}

fn stale(amount: u64, price: u64) -> Refusal {
    Refusal::StaleAmount { authorized: Amount::from(580), price: Amount::from(price), amount: Amount::from(amount) }
}

#[test]
fn a_payment_of_the_signer_or_the_sender_pays() {
    for words in ["signer", "sender"] {
        assert_eq!(check(&sign(words, authorization(3, 600)), &state(), 20), Ok(()), "{words}");
    }
}

#[test]
fn each_payment_that_does_not_pay_has_its_own_refusal() {
    let good = authorization(3, 600);
    let nonce = |actual: u64| Refusal::IncorrectNonce { expected: Nonce::from(3), actual: Nonce::from(actual) };
    let stranger = Address::new([9; 20]);
    let cases = [
        ("a nonce from the past", pay(2, 600), nonce(2)),
        ("a nonce from the future", pay(4, 600), nonce(4)),
        ("a stranger", sign("stranger", good), Refusal::Unauthenticated),
        (
            "another contract",
            sign("signer", Authorization { contract: stranger, ..good }),
            Refusal::WrongContract { expected: CONTRACT, actual: stranger },
        ),
        (
            "another channel",
            sign("signer", Authorization { channel_id: ChannelId::from(8), ..good }),
            Refusal::UnknownChannel { channel_id: ChannelId::from(8) },
        ),
        (
            "more than there is",
            pay(3, 1001),
            Refusal::NotEnoughFunds { full_amount: Amount::from(1000), amount: Amount::from(1001) },
        ),
        (
            "the largest amount",
            sign("signer", Authorization { amount: Amount::MAX, ..good }),
            Refusal::NotEnoughFunds { full_amount: Amount::from(1000), amount: Amount::MAX },
        ),
        ("less than the price more", pay(3, 599), stale(599, 20)),
        ("what is authorized already", pay(3, 580), stale(580, 20)),
        ("less than what is authorized", pay(3, 10), stale(10, 20)),
        ("nothing", pay(3, 0), stale(0, 20)),
    ];
    for (name, payment, refusal) in cases {
        assert_eq!(check(&payment, &state(), 20), Err(refusal), "{name}");
    }
}

#[test]
fn a_free_call_needs_a_payment_of_its_own() {
    assert_eq!(check(&pay(3, 580), &state(), 0), Err(stale(580, 0)), "the same payment twice");
    assert_eq!(check(&pay(3, 579), &state(), 0), Err(stale(579, 0)));
    assert_eq!(check(&pay(3, 581), &state(), 0), Ok(()));
}

/// As the daemon's check of the income has it.
#[test]
fn an_exact_price_is_met_exactly() {
    let exactly = |payment: &Payment, price: u64| {
        validate(payment, &state(), &terms(), BlockNumber::from(BLOCK), Price::Exactly(Amount::from(price)))
    };
    assert_eq!(exactly(&pay(3, 600), 20), Ok(()));
    let other = |amount: u64, price: u64| {
        let [authorized, price, amount] = [580, price, amount].map(Amount::from);
        Err(Refusal::OtherPrice { authorized, price, amount })
    };
    for amount in [599, 601, 1000] {
        assert_eq!(exactly(&pay(3, amount), 20), other(amount, 20));
    }
    assert_eq!(exactly(&pay(3, 581), 0), other(581, 0));
    assert_eq!(exactly(&pay(3, 580), 20), Err(stale(580, 20)), "the same payment twice");
    assert_eq!(exactly(&pay(3, 580), 0), Ok(()), "what costs nothing takes nothing");
}

pub(crate) async fn a_call_for_exactly_nothing_writes_nothing_to_the_channel(bed: Bed) {
    let chain = chain(1000);
    let one = replica(bed.store(), &chain, "one");
    for _ in 0..2 {
        let reservation = one.reserve(&pay(0, 0), Price::Exactly(Amount::ZERO)).await.unwrap();
        one.commit(&reservation).await.unwrap();
    }
    let report = one.operator().report(channel()).await.unwrap();
    assert_eq!((report.channel, report.reservation.token().0), (None, 2));
}

#[test]
fn amounts_at_the_end_of_their_range_do_not_wrap() {
    let rich = ChannelState { full_amount: Amount::MAX, authorized_amount: Amount::MAX, ..state() };
    let payment = sign("signer", Authorization { amount: Amount::MAX, ..authorization(3, 0) });
    for price in [Amount::ZERO, Amount::from(1), Amount::MAX] {
        let refusal = Refusal::StaleAmount { authorized: Amount::MAX, price, amount: Amount::MAX };
        let result = validate(&payment, &rich, &terms(), BlockNumber::from(BLOCK), price);
        assert_eq!(result, Err(refusal), "price {price}");
    }
    let almost = Amount::MAX.checked_sub(Amount::from(1)).unwrap();
    let rich = ChannelState { authorized_amount: almost, ..rich };
    let check = |price| validate(&payment, &rich, &terms(), BlockNumber::from(BLOCK), price);
    assert_eq!(check(Amount::from(1)), Ok(()));
    assert!(matches!(check(Amount::from(2)), Err(Refusal::StaleAmount { .. })), "authorized + price is no number");
}

#[test]
fn a_channel_that_expires_within_the_threshold_is_refused() {
    let payment = pay(3, 600);
    let at = |expiration: BlockNumber, block: BlockNumber| {
        let state = ChannelState { expiration, ..state() };
        validate(&payment, &state, &terms(), block, Amount::from(20))
    };
    let (block, limit) = (BlockNumber::from(BLOCK), BlockNumber::from(BLOCK + THRESHOLD));
    let soon = |expiration, current| Err(Refusal::ExpiresSoon { expiration, current, threshold: THRESHOLD });
    assert_eq!(at(limit.checked_add(1).unwrap(), block), Ok(()));
    for expiration in [limit, block, BlockNumber::ZERO] {
        assert_eq!(at(expiration, block), soon(expiration, block));
    }
    assert_eq!(at(BlockNumber::MAX, BlockNumber::MAX), soon(BlockNumber::MAX, BlockNumber::MAX), "no block is later");
}

#[test]
fn a_channel_that_pays_somebody_else_is_refused() {
    let (recipient, group_id) = (Address::new([1; 20]), GroupId::new([1; 32]));
    for state in [ChannelState { recipient, ..state() }, ChannelState { group_id, ..state() }] {
        let refusal = Refusal::ForeignChannel { recipient: state.recipient, group_id: state.group_id };
        assert_eq!(check(&pay(3, 600), &state, 20), Err(refusal));
    }
}

#[test]
fn a_closed_channel_is_refused() {
    let closed = ChannelState { status: ChannelStatus::Closed, ..state() };
    assert_eq!(check(&pay(3, 600), &closed, 20), Err(Refusal::Closed));
    assert_eq!(authorize(&closed, &pay(3, 600)), Err(Refusal::Closed));
}

#[test]
fn what_is_written_is_checked_once_more() {
    let (signature, authorized_amount) = (Some(pay(3, 600).signature()), Amount::from(600));
    assert_eq!(authorize(&state(), &pay(3, 600)), Ok(ChannelState { authorized_amount, signature, ..state() }));
    for payment in [pay(2, 600), pay(4, 600), pay(3, 580), pay(3, 579), pay(3, 1001)] {
        assert!(authorize(&state(), &payment).is_err(), "{payment:?}");
    }
}

#[test]
fn the_higher_nonce_wins_and_with_equal_nonces_funds_come_from_the_chain() {
    let mut chain = chain_channel(2000);
    chain.expiration = BlockNumber::MAX;
    for (nonce, expected) in [
        (2, state()),
        (3, ChannelState { full_amount: Amount::from(2000), expiration: BlockNumber::MAX, ..state() }),
        (4, {
            let (nonce, authorized_amount) = (Nonce::from(4), Amount::ZERO);
            let (full_amount, expiration) = (Amount::from(2000), BlockNumber::MAX);
            ChannelState { nonce, authorized_amount, signature: None, full_amount, expiration, ..state() }
        }),
    ] {
        chain.nonce = Nonce::from(nonce);
        assert_eq!(merge(Some(&state()), &chain), expected, "the chain is at nonce {nonce}");
    }
}

#[test]
fn a_closed_channel_opens_again_with_new_funds_at_its_nonce_only() {
    let closed = ChannelState { status: ChannelStatus::Closed, full_amount: Amount::ZERO, ..state() };
    let status = |nonce: u64, funds: u64| {
        let mut chain = chain_channel(funds);
        chain.nonce = Nonce::from(nonce);
        merge(Some(&closed), &chain).status
    };
    assert_eq!(status(2, 1000), ChannelStatus::Closed, "the claim has not arrived: that is the old money");
    assert_eq!(status(3, 0), ChannelStatus::Closed);
    assert_eq!(status(3, 50), ChannelStatus::Open);
}

/// Through the whole way of a payment, on a channel at nonce 3 with 1000 in it, of which nothing is authorized yet.
pub(crate) async fn each_bad_payment_is_refused_for_its_own_reason_and_nothing_is_written(bed: Bed) {
    let (store, chain) = (bed.store(), chain(1000));
    let on_chain = ChainChannel { nonce: Nonce::from(3), ..chain_channel(1000) };
    chain.open(on_chain.clone());
    let (expiring, foreign) = (ChannelId::from(8), ChannelId::from(9));
    let expiration = BlockNumber::from(BLOCK + THRESHOLD);
    chain.open(ChainChannel { channel_id: expiring, expiration, ..on_chain.clone() });
    chain.open(ChainChannel { channel_id: foreign, group_id: GroupId::new([1; 32]), ..on_chain });
    let payments = replica(bed.store(), &chain, "one");

    let good = authorization(3, 10);
    let signed = |authorization| sign("signer", authorization);
    let moved = Payment::new(authorization(3, 20), signed(good).signature().as_bytes()).unwrap();
    let almost = Amount::MAX.checked_sub(Amount::from(1)).unwrap();
    let nonce = |actual| Refusal::IncorrectNonce { expected: Nonce::from(3), actual };
    let funds = |amount| Refusal::NotEnoughFunds { full_amount: Amount::from(1000), amount };
    let stale = |amount, price| Refusal::StaleAmount { authorized: Amount::ZERO, price, amount };
    let [zero, one, ten, eleven] = [0, 1, 10, 11].map(Amount::from);
    let (group_id, contract) = (GroupId::new([1; 32]), Address::new([9; 20]));
    let unknown = ChannelId::MAX;
    let cases = [
        (
            "an unknown channel",
            signed(Authorization { channel_id: unknown, ..good }),
            ten,
            Refusal::UnknownChannel { channel_id: unknown },
        ),
        (
            "another contract",
            signed(Authorization { contract, ..good }),
            ten,
            Refusal::WrongContract { expected: CONTRACT, actual: contract },
        ),
        (
            "another group",
            signed(Authorization { channel_id: foreign, ..good }),
            ten,
            Refusal::ForeignChannel { recipient: RECIPIENT, group_id },
        ),
        ("a nonce from the past", pay(2, 10), ten, nonce(Nonce::from(2))),
        ("a nonce from the future", pay(4, 10), ten, nonce(Nonce::from(4))),
        ("the last nonce", signed(Authorization { nonce: Nonce::MAX, ..good }), ten, nonce(Nonce::MAX)),
        ("a stranger", sign("stranger", good), ten, Refusal::Unauthenticated),
        ("a signature over another amount", moved, ten, Refusal::Unauthenticated),
        (
            "an expired channel",
            signed(Authorization { channel_id: expiring, ..good }),
            ten,
            Refusal::ExpiresSoon { expiration, current: BlockNumber::from(BLOCK), threshold: THRESHOLD },
        ),
        ("one more than there is", pay(3, 1001), ten, funds(Amount::from(1001))),
        ("all there can be", signed(Authorization { amount: Amount::MAX, ..good }), ten, funds(Amount::MAX)),
        ("one less than that", signed(Authorization { amount: almost, ..good }), Amount::MAX, funds(almost)),
        ("less than the price", pay(3, 10), eleven, stale(ten, eleven)),
        ("a price that nobody can pay", pay(3, 10), Amount::MAX, stale(ten, Amount::MAX)),
        ("nothing for a price", pay(3, 0), one, stale(zero, one)),
        ("nothing for nothing", pay(3, 0), zero, stale(zero, zero)),
    ];
    for (name, payment, price, expected) in cases {
        match payments.reserve(&payment, price).await {
            Err(Error::Refused(refusal)) => assert_eq!(refusal, expected, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    let page = store.scan(b"", storage_core::ScanOptions::default()).await.unwrap();
    assert_eq!(page.entries, []);
    // The last one that is right: what was refused has left nothing behind.
    let reservation = payments.reserve(&pay(3, 1), zero).await.unwrap();
    assert_eq!(reservation.token().0, 1);
    payments.commit(&reservation).await.unwrap();
}

pub(crate) async fn records_that_cannot_be_read_stop_a_payment_and_stay_as_they_are(bed: Bed) {
    let chain = chain(1000);
    let good = merge(None, &chain_channel(1000));
    let newer = [b"CHAN\x00\x02".as_slice(), &good.encode()[6..]].concat();
    let record = reservation_key(channel());
    let elsewhere = ChannelState { channel_id: ChannelId::from(8), ..good.clone() };
    let cases = [
        (key_of(channel()), newer, "newer"),
        (key_of(channel()), b"".to_vec(), "corrupt"),
        (key_of(channel()), b"{\"nonce\":0}".to_vec(), "corrupt"),
        (key_of(channel()), elsewhere.encode().to_vec(), "misplaced"),
        (record.clone(), b"SLOT\x00\x02".to_vec(), "newer"),
        (record.clone(), b"SLOT\x00\x01\x00".to_vec(), "corrupt"),
        (record, good.encode().to_vec(), "corrupt"),
    ];
    for (key, value, kind) in cases {
        let (bed, value) = (bed.fresh(), LEDGER.enclose(&value));
        let store = bed.store();
        store.put(&key, value.clone()).await.unwrap();
        let payments = replica(bed.store(), &chain, "one");
        let named = |error: Error| match error {
            Error::NewerRecord { key: found, found: 2, supported: 1 } if found == key => "newer",
            Error::CorruptRecord { key: found, .. } if found == key => "corrupt",
            Error::MisplacedRecord { key: found } if found == key => "misplaced",
            error => panic!("{error:?}"),
        };
        assert_eq!(named(payments.reserve(&pay(0, 10), Amount::from(10)).await.unwrap_err()), kind);
        assert_eq!(named(payments.operator().force_unlock(channel()).await.unwrap_err()), kind);
        assert_eq!(named(payments.operator().report(channel()).await.unwrap_err()), kind);
        let page = store.scan(b"", storage_core::ScanOptions::default()).await.unwrap();
        assert_eq!(page.entries.len(), 1);
        assert_eq!(page.entries[0].value, value);
    }
}

rules! {
    each_bad_payment_is_refused_for_its_own_reason_and_nothing_is_written,
    records_that_cannot_be_read_stop_a_payment_and_stay_as_they_are,
    a_call_for_exactly_nothing_writes_nothing_to_the_channel,
}
