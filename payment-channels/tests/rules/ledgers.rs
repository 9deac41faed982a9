//! Two contracts, or two chains, share a store and never meet; records that name neither are refused until they are moved.

use std::sync::Arc;

use futures::TryStreamExt;
use payment_channels::{
    AfterClaim, Authorization, Error, Ledger, MemoryChain, Operation, Operator, Options, Payment, Payments,
    PrepaidUsage, Signer, Terms, UsageChange, move_unnamed,
};
use storage_core::{
    FaultInjecting, ReadOptions, Store, StoreExt,
    channel::{Address, Amount, BlockNumber, ChannelState, Nonce},
};

use crate::{bed::Bed, support::*};

const OTHER_CONTRACT: Address = Address::new([0xb; 20]);

type Service = Payments<Arc<dyn Store>, Arc<MemoryChain>>;

/// A service of this ledger, whose channel 7 is at this nonce.
fn service(store: Arc<dyn Store>, ledger: Ledger, nonce: u64) -> Service {
    let chain = MemoryChain::with_id(ledger.chain_id);
    chain.set_block(BlockNumber::from(BLOCK));
    chain.open(payment_channels::ChainChannel { nonce: Nonce::from(nonce), ..chain_channel(1000) });
    let terms = Terms { contract: ledger.contract, ..terms() };
    Payments::new(store, Arc::new(chain), terms, Options::new("one")).unwrap()
}

fn payment(ledger: Ledger, nonce: u64, amount: u64) -> Payment {
    sign("signer", Authorization { contract: ledger.contract, ..authorization(nonce, amount) })
}

async fn paid(service: &Service, nonce: u64, amount: u64) {
    let reservation = service.reserve(&payment(service.ledger(), nonce, amount), Amount::ZERO).await.unwrap();
    service.commit(&reservation).await.unwrap();
}

pub(crate) async fn contracts_and_chains_on_one_store_never_meet(bed: Bed) {
    let ledgers =
        [LEDGER, Ledger { contract: OTHER_CONTRACT, ..LEDGER }, Ledger { chain_id: LEDGER.chain_id + 1, ..LEDGER }];
    // The second is further, so that its nonce is the higher one; the third is where the first is.
    let services: Vec<_> = ledgers
        .into_iter()
        .zip([0, 3, 0])
        .map(|(ledger, nonce)| (service(bed.store(), ledger, nonce), nonce))
        .collect();
    for (amount, (service, nonce)) in (1..).map(|place| 100 * place).zip(&services) {
        paid(service, *nonce, amount).await;
        let usage = PrepaidUsage::new(bed.store(), service.ledger());
        usage.change(channel(), &mut Operation::random(), UsageChange::Plan(Amount::from(amount))).await.unwrap();
    }
    let operators = bed.store();
    let operators = Operator::of_all(&*operators).await.unwrap();
    let mut expected = ledgers.map(Some);
    expected.sort();
    assert_eq!(operators.iter().map(Operator::ledger).collect::<Vec<_>>(), expected);
    for (amount, (service, nonce)) in (1..).map(|place| 100 * place).zip(&services) {
        let usage = PrepaidUsage::new(bed.store(), service.ledger()).get(channel()).await.unwrap();
        assert_eq!(usage.planned, Amount::from(amount));
        let claim = service.start_claim(channel(), AfterClaim::Continue).await.unwrap();
        assert_eq!((claim.payment.nonce(), claim.payment.amount()), (Nonce::from(*nonce), Amount::from(amount)));
        service.chain().pay_claim(&claim).expect("the contract pays what was signed for it");
    }
}

pub(crate) async fn a_record_of_another_ledger_is_refused_where_it_does_not_belong(bed: Bed) {
    let other = Ledger { contract: OTHER_CONTRACT, ..LEDGER };
    paid(&service(bed.store(), other, 0), 0, 500).await;
    let (store, key) = (bed.store(), key_of(channel()));
    let entry = store.get(&other.channel_key(channel()), ReadOptions::default()).await.unwrap().unwrap();
    store.put(&key, entry.value).await.unwrap();
    let refused = service(bed.store(), LEDGER, 0).start_claim(channel(), AfterClaim::Continue).await;
    assert!(matches!(&refused, Err(Error::MisplacedRecord { key: found }) if *found == key), "{refused:?}");
}

/// What an earlier version wrote: the records without envelope, at keys without prefix.
async fn unnamed(bed: &Bed) -> ChannelState {
    let elsewhere = bed.fresh();
    let one = service(elsewhere.store(), LEDGER, 0);
    paid(&one, 0, 100).await;
    one.start_claim(channel(), AfterClaim::Continue).await.unwrap();
    paid(&one, 1, 30).await;
    let usage = PrepaidUsage::new(elsewhere.store(), LEDGER);
    usage
        .change(channel(), &mut Operation::new(storage_core::OperationId(1)), UsageChange::Plan(Amount::from(7)))
        .await
        .unwrap();
    let (from, to) = (elsewhere.store(), bed.store());
    let entries: Vec<_> = from.scan_all(b"").try_collect().await.unwrap();
    assert_eq!(entries.len(), 4);
    for entry in entries {
        let named = entry.key.as_bytes();
        let place = named.windows(9).position(|window| window == b"/channel/").or_else(|| {
            [&b"/reservation/"[..], b"/claim/", b"/usage/"]
                .into_iter()
                .find_map(|kind| named.windows(kind.len()).position(|window| window == kind))
        });
        let key = storage_core::Key::new(named[place.unwrap() + 1..].to_vec()).unwrap();
        to.put(&key, LEDGER.open(&entry).unwrap().to_vec()).await.unwrap();
    }
    one.operator().report(channel()).await.unwrap().channel.unwrap()
}

pub(crate) async fn records_that_name_no_ledger_are_refused_with_the_words_how_to_move_them(bed: Bed) {
    unnamed(&bed).await;
    let one = service(bed.store(), LEDGER, 0);
    let usage = PrepaidUsage::new(bed.store(), LEDGER);
    let reserved = one.reserve(&payment(LEDGER, 1, 40), Amount::ZERO).await.map(drop);
    let claimed = one.start_claim(channel(), AfterClaim::Continue).await.map(drop);
    let used = usage.change(channel(), &mut Operation::random(), UsageChange::Use(Amount::from(1))).await.map(drop);
    for result in [reserved, claimed, used, one.operator().force_unlock(channel()).await.map(drop)] {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::UnnamedRecord { .. }), "{error:?}");
        assert!(error.to_string().contains("snet channel move"), "{error}");
    }
}

pub(crate) async fn records_that_name_no_ledger_are_moved_once_and_a_move_that_was_cut_off_goes_on(bed: Bed) {
    let state = unnamed(&bed).await;
    let wrong = move_unnamed(&*bed.fresh().store(), LEDGER).await.unwrap();
    assert_eq!((wrong.records, wrong.left.len()), (0, 0), "there is nothing elsewhere");
    let store = FaultInjecting::new(bed.store());
    // The first transaction is applied, and nobody hears of it.
    store.lose_replies(1);
    let moved = move_unnamed(&store, LEDGER).await.unwrap();
    assert!(moved.left.is_empty(), "{moved:?}");
    assert_eq!(move_unnamed(&store, LEDGER).await.unwrap().records, 0, "once");
    let keys: Vec<_> = store.scan_all(b"").map_ok(|entry| entry.key).try_collect().await.unwrap();
    assert!(keys.len() == 4 && keys.iter().all(|key| Ledger::of_key(key) == Some(LEDGER)), "{keys:?}");
    let one = service(bed.store(), LEDGER, 0);
    assert_eq!(one.operator().report(channel()).await.unwrap().channel, Some(state));
    assert_eq!(one.claims().try_collect::<Vec<_>>().await.unwrap()[0].payment.amount(), Amount::from(100));
    assert_eq!(one.operator().usage(channel()).await.unwrap().planned, Amount::from(7));
    paid(&one, 1, 40).await;
}

pub(crate) async fn a_move_leaves_claims_of_another_contract_and_what_cannot_be_read(bed: Bed) {
    unnamed(&bed).await;
    let store = bed.store();
    let other = Ledger { contract: OTHER_CONTRACT, ..LEDGER };
    let moved = move_unnamed(&*store, other).await.unwrap();
    assert!(matches!(&moved.left[..], [Error::MisplacedRecord { .. }]), "{moved:?}");
    let garbage = storage_core::Key::new(format!("channel/{:064x}", 9)).unwrap();
    store.put(&garbage, "x").await.unwrap();
    let moved = move_unnamed(&*store, other).await.unwrap();
    assert_eq!((moved.records, moved.left.len()), (0, 2), "{moved:?}");
    assert!(matches!(&moved.left[1], Error::CorruptRecord { key, .. } if *key == garbage), "{moved:?}");
}

#[test]
fn a_signature_for_one_contract_is_none_for_another() {
    let signer = Signer::new(&[7; 32]).unwrap();
    let signed = signer.sign(authorization(0, 10)).unwrap();
    let other = Authorization { contract: OTHER_CONTRACT, ..*signed.authorization() };
    let moved = Payment::new(other, signed.signature().as_bytes()).unwrap();
    assert_ne!(moved.signer(), Some(signer.address()));
}

rules! {
    contracts_and_chains_on_one_store_never_meet,
    a_record_of_another_ledger_is_refused_where_it_does_not_belong,
    records_that_name_no_ledger_are_refused_with_the_words_how_to_move_them,
    records_that_name_no_ledger_are_moved_once_and_a_move_that_was_cut_off_goes_on,
    a_move_leaves_claims_of_another_contract_and_what_cannot_be_read,
}
