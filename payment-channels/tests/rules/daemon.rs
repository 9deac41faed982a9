//! Records of snet-daemon, written by Go's own encoder (`tests/vectors/daemon.go`), brought into ours.

use std::sync::LazyLock;

use futures::TryStreamExt;
use payment_channels::{
    AfterClaim, DaemonImport, DaemonStore, FreeCallUser, FreeCalls, GobError, Ledger, Operator, chain_id_of,
    decode_daemon_channel, decode_daemon_claim, decode_daemon_free_calls, decode_daemon_prepaid,
};
use serde::Deserialize;
use storage_core::{
    FaultInjecting, Key, Store, StoreExt,
    channel::{Address, Amount, BlockNumber, ChannelId, ChannelState, ChannelStatus, GroupId, Nonce},
};

use crate::bed::Bed;

#[derive(Deserialize)]
struct Record {
    key: String,
    value: String,
}

static RECORDS: LazyLock<Vec<(Key, Vec<u8>)>> = LazyLock::new(|| {
    let records: Vec<Record> = serde_json::from_str(include_str!("../vectors/daemon.json")).unwrap();
    let bytes =
        |hex: &str| (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    records.into_iter().map(|record| (Key::new(record.key).unwrap(), bytes(&record.value))).collect()
});

const CONTRACT: &str = "0xf25186b5081ff5ce73482ad761db0eb0d25abfbf";
const SIGNER: &str = "0x101a018fe784bf01d538b5d4dfa311d047dba491";

fn ledger() -> Ledger {
    Ledger { chain_id: chain_id_of("sepolia").unwrap(), contract: CONTRACT.parse().unwrap() }
}

fn import(is_dry_run: bool) -> DaemonImport {
    DaemonImport { network: "sepolia".to_owned(), ledger: ledger(), is_dry_run }
}

fn record(ending: &str) -> &'static [u8] {
    let record = RECORDS.iter().find(|(key, _)| key.as_bytes().ends_with(ending.as_bytes()));
    &record.unwrap_or_else(|| panic!("no {ending}")).1
}

async fn put_all(store: &dyn Store) {
    for (key, value) in RECORDS.iter() {
        store.put(key, value.clone()).await.unwrap();
    }
}

#[test]
fn what_gos_encoder_writes_is_read() {
    let signer: Address = SIGNER.parse().unwrap();
    let mut recipient = [0; 20];
    recipient[..2].copy_from_slice(&[0x4e, 0xff]);
    let mut group = [0; 32];
    group[0] = 0x7b;
    let channel = decode_daemon_channel(record("{ID: 42}")).unwrap();
    let expected = ChannelState {
        channel_id: ChannelId::from(42),
        nonce: Nonce::from(3),
        status: ChannelStatus::Open,
        sender: signer,
        recipient: Address::new(recipient),
        group_id: GroupId::new(group),
        full_amount: Amount::from(20_000),
        expiration: BlockNumber::from(100),
        signer,
        authorized_amount: Amount::from(12_345),
        signature: channel.signature,
    };
    assert!(channel == expected && channel.signature.is_some(), "{channel:?}");
    let new = decode_daemon_channel(record("{ID: 7}")).unwrap();
    assert_eq!((new.authorized_amount, new.signature), (Amount::ZERO, None));
    let closed = decode_daemon_channel(record("{ID: 8}")).unwrap();
    assert_eq!((closed.status, closed.authorized_amount), (ChannelStatus::Closed, Amount::from(8_192)));
    let nil = decode_daemon_channel(record("{ID: 9}")).unwrap();
    assert_eq!(
        (nil.channel_id, nil.full_amount, nil.sender),
        (ChannelId::from(9), Amount::ZERO, Address::new([0; 20]))
    );
    let claim = decode_daemon_claim(record("/42/2")).unwrap();
    assert_eq!(
        (claim.channel_id, claim.nonce, claim.amount),
        (ChannelId::from(42), Nonce::from(2), Amount::from(12_345))
    );
    assert_eq!(decode_daemon_prepaid(record("/P}")), Ok(Amount::from(100)));
    assert_eq!(decode_daemon_free_calls(record("bhj+U=}")), Ok(3));
    let wrong = decode_daemon_claim(record("{ID: 42}"));
    assert_eq!(wrong, Err(GobError::Field { field: "Payment" }), "a channel is no claim");
}

/// Whatever is cut or flipped, it is refused or read; and never a panic, or memory that the stream asks for.
#[test]
fn damaged_records_are_refused() {
    for (key, value) in RECORDS.iter() {
        for length in 0..value.len() {
            let cut = &value[..length];
            let results = [decode_daemon_channel(cut).map(drop), decode_daemon_claim(cut).map(drop)];
            assert!(results.iter().all(Result::is_err), "{key}: {length} bytes");
        }
        for place in 0..value.len() {
            for flip in [1, 0x7f, 0x80, 0xff] {
                let mut bytes = value.clone();
                bytes[place] ^= flip;
                drop((decode_daemon_channel(&bytes), decode_daemon_claim(&bytes)));
                drop((decode_daemon_prepaid(&bytes), decode_daemon_free_calls(&bytes)));
            }
        }
        let longer = [&value[..], &[0]].concat();
        assert!(decode_daemon_channel(&longer).is_err() && decode_daemon_claim(&longer).is_err(), "{key}");
    }
}

pub(crate) async fn an_import_gives_the_same_channels_and_a_second_one_changes_nothing(bed: Bed) {
    let (source, target) = (bed.fresh().store(), FaultInjecting::new(bed.store()));
    put_all(&*source).await;
    let daemon = DaemonStore::look(&*source).await.unwrap();
    let service = ("sepolia".to_owned(), ledger().contract);
    assert_eq!(
        (daemon.channels, daemon.claims, daemon.services.into_iter().collect::<Vec<_>>()),
        (4, 1, vec![service])
    );

    let dry = import(true).run(&*source, Some(&target)).await.unwrap();
    let none = import(true).run(&*source, None::<&dyn Store>).await.unwrap();
    assert_eq!(dry, none, "a target that is not there is empty");
    assert_eq!(target.scan_all(b"").try_collect::<Vec<_>>().await.unwrap(), [], "a dry run writes nothing");
    target.lose_replies(1);
    let found = import(false).run(&*source, Some(&target)).await.unwrap();
    assert_eq!((dry.channels, dry.claims, dry.prepaid, dry.free_callers), (4, 1, 1, 1));
    assert_eq!(dry.authorized, Some(Amount::from(12_345 + 8_192)));
    assert_eq!((dry.claimed, dry.written, dry.skipped.len()), (Some(Amount::from(12_345)), 7, 0));
    assert_eq!(found.written + found.unchanged, 7);
    assert_eq!(found.unclaimable.len(), 1, "65 bytes that nobody signed: {:?}", found.unclaimable);

    let operator = Operator::new(&target, ledger());
    let states: Vec<_> = operator.channels().map_ok(|channel| channel.state).try_collect().await.unwrap();
    let ids: Vec<_> = states.iter().map(|state| state.channel_id).collect();
    assert_eq!(ids, [7, 8, 9, 42].map(ChannelId::from));
    let daemons = decode_daemon_channel(record("{ID: 42}")).unwrap();
    let signature = states[3].signature.unwrap();
    assert_eq!(signature.as_bytes()[64], 27, "in our form");
    assert_eq!(states[3], ChannelState { signature: Some(signature), ..daemons });
    let claims: Vec<_> = operator.claims().try_collect().await.unwrap();
    assert_eq!((claims.len(), claims[0].after), (1, AfterClaim::Continue));
    assert_eq!(claims[0].payment.signer(), Some(SIGNER.parse().unwrap()));
    let usage = operator.usage(ChannelId::from(42)).await.unwrap();
    assert_eq!([usage.planned, usage.used, usage.refunded], [100, 30, 10].map(Amount::from));
    let user = FreeCallUser {
        address: SIGNER.parse().unwrap(),
        user_id: "ann".to_owned(),
        organization: "org".to_owned(),
        service: "service".to_owned(),
        group_id: "99ybRIg2wAx55mqVsA6sB4S7WxPQHNKqa4BPu/bhj+U=".to_owned(),
    };
    assert_eq!(FreeCalls::new(target.clone(), ledger()).get(user).await.unwrap().used(), 3);

    let before: Vec<_> = target.scan_all(b"").try_collect().await.unwrap();
    let again = import(false).run(&*source, Some(&target)).await.unwrap();
    assert_eq!((again.written, again.unchanged, again.kept.len()), (0, 7, 0));
    assert_eq!(target.scan_all(b"").try_collect::<Vec<_>>().await.unwrap(), before);
}

pub(crate) async fn an_import_keeps_what_has_gone_on_here_and_names_what_it_cannot_read(bed: Bed) {
    let store = bed.store();
    put_all(&*store).await;
    import(false).run(&*store, Some(&*store)).await.unwrap();
    // A service has gone on with one, and one of the daemon's is cut.
    let key = ledger().channel_key(ChannelId::from(7));
    let gone_on = ChannelState { nonce: Nonce::from(1), ..decode_daemon_channel(record("{ID: 7}")).unwrap() };
    store.put(&key, ledger().enclose(&gone_on.encode())).await.unwrap();
    let (cut, value) = &RECORDS[0];
    store.put(cut, value[..value.len() - 1].to_vec()).await.unwrap();
    let found = import(false).run(&*store, Some(&*store)).await.unwrap();
    assert_eq!((found.kept, found.written), (vec![key], 0));
    assert_eq!(found.skipped.iter().map(|skipped| &skipped.key).collect::<Vec<_>>(), [cut]);
    assert_eq!(Operator::new(&*store, ledger()).report(ChannelId::from(7)).await.unwrap().channel, Some(gone_on));
}

rules! {
    an_import_gives_the_same_channels_and_a_second_one_changes_nothing,
    an_import_keeps_what_has_gone_on_here_and_names_what_it_cannot_read,
}
