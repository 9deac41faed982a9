//! The encoding of channels, against examples that are kept for ever and against chance, and the typed view.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{array, collections::BTreeSet, fs, path::Path, sync::Arc};

use futures::{FutureExt, StreamExt, TryStreamExt};
use proptest::prelude::*;
use storage_core::{
    Error, Expected, Key, MemoryStore, Prefixed, ReadOptions, Revision, ScanOptions, Store, StoreExt, Txn,
    WatchOptions, WriteOptions,
    channel::{
        Address, Amount, BlockNumber, ChannelEvent, ChannelId, ChannelState, ChannelStatus, ChannelStore, GroupId,
        Nonce, Signature, VersionedChannel, id_of, key_of,
    },
    record::DecodeError,
};

/// Bytes that count up from `first`.
fn counting<const N: usize>(first: u8) -> [u8; N] {
    let mut bytes = first..;
    array::from_fn(|_| bytes.next().unwrap())
}

fn address(first: u8) -> Address {
    Address::new(counting(first))
}

fn open() -> ChannelState {
    ChannelState {
        channel_id: ChannelId::from(7),
        nonce: Nonce::from(3),
        status: ChannelStatus::Open,
        sender: address(1),
        recipient: address(32),
        group_id: GroupId::new(counting(64)),
        full_amount: Amount::from(1_000_000_000_000_000_000),
        expiration: BlockNumber::from(0x1234567),
        signer: address(100),
        authorized_amount: Amount::from(580_000_000_000_000_000),
        signature: Some(Signature::new(counting(128))),
    }
}

fn new() -> ChannelState {
    ChannelState {
        channel_id: ChannelId::ZERO,
        nonce: Nonce::ZERO,
        full_amount: Amount::from(100),
        expiration: BlockNumber::from(200),
        signer: address(1),
        authorized_amount: Amount::ZERO,
        signature: None,
        ..open()
    }
}

fn closed_largest() -> ChannelState {
    ChannelState {
        channel_id: ChannelId::MAX,
        nonce: Nonce::MAX,
        status: ChannelStatus::Closed,
        sender: Address::new([255; 20]),
        recipient: Address::new([255; 20]),
        group_id: GroupId::new([255; 32]),
        full_amount: Amount::MAX,
        expiration: BlockNumber::MAX,
        signer: Address::new([255; 20]),
        authorized_amount: Amount::MAX,
        signature: Some(Signature::new([255; 65])),
    }
}

// The encoding

/// The bytes in a golden file.
fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let fields = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split("--").next().unwrap());
    let digits: Vec<_> = fields.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

#[test]
fn golden_files_are_read_and_written_for_ever() {
    let expected = [
        ("channel_v1_open.hex", open()),
        ("channel_v1_new.hex", new()),
        ("channel_v1_closed_largest.hex", closed_largest()),
    ];
    for (name, state) in &expected {
        let bytes = golden(name);
        assert_eq!(ChannelState::decode(&bytes).as_ref(), Ok(state), "{name}");
        assert_eq!(state.encode(), bytes, "{name}");
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<_> = files.filter(|name| name.starts_with("channel_")).collect();
    assert_eq!(files, expected.iter().map(|(name, _)| (*name).to_owned()).collect(), "every file is tested");
}

#[test]
fn each_defect_of_a_record_has_its_own_error() {
    let good = open().encode().to_vec();
    let with = |place: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[place] = byte;
        ChannelState::decode(&bytes).unwrap_err()
    };
    assert_eq!(with(0, b'X'), DecodeError::WrongSchema { found: *b"XHAN", expected: *b"CHAN" });
    assert_eq!(with(5, 2), DecodeError::NewerVersion { found: 2, supported: 1 });
    assert_eq!(with(5, 0), DecodeError::NonCanonical { field: "version" });
    let status = 6 + 32 + 32;
    assert_eq!(with(status, 2), DecodeError::NonCanonical { field: "status" });
    let signature = good.len() - 65 - 1;
    assert_eq!(with(signature, 2), DecodeError::NonCanonical { field: "signature" });
    assert_eq!(with(signature, 0), DecodeError::TrailingBytes { bytes: 65 });
    for length in 0..good.len() {
        assert_eq!(ChannelState::decode(&good[..length]), Err(DecodeError::Truncated), "{length} bytes");
    }
    assert_eq!(ChannelState::decode(&[&good[..], &[0]].concat()), Err(DecodeError::TrailingBytes { bytes: 1 }));
}

prop_compose! {
    fn any_state()(
        words in any::<[[u8; 32]; 6]>(),
        addresses in any::<[[u8; 20]; 3]>(),
        closed in any::<bool>(),
        signature in proptest::option::of(proptest::collection::vec(any::<u8>(), 65)),
    ) -> ChannelState {
        let [channel_id, nonce, group_id, full_amount, expiration, authorized_amount] = words;
        let [sender, recipient, signer] = addresses.map(Address::new);
        ChannelState {
            channel_id: ChannelId::from_be_bytes(channel_id),
            nonce: Nonce::from_be_bytes(nonce),
            status: if closed { ChannelStatus::Closed } else { ChannelStatus::Open },
            sender,
            recipient,
            group_id: GroupId::new(group_id),
            full_amount: Amount::from_be_bytes(full_amount),
            expiration: BlockNumber::from_be_bytes(expiration),
            signer,
            authorized_amount: Amount::from_be_bytes(authorized_amount),
            signature: signature.map(|bytes| Signature::new(bytes.try_into().unwrap())),
        }
    }
}

proptest! {
    #[test]
    fn a_state_survives_encoding(state in any_state()) {
        prop_assert_eq!(ChannelState::decode(&state.encode()), Ok(state));
    }

    #[test]
    fn what_can_be_read_is_written_the_same(state in any_state(), place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = state.encode().to_vec();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        if let Ok(read) = ChannelState::decode(&bytes) {
            prop_assert_eq!(read.encode(), bytes);
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(ChannelState::decode(&bytes).is_err(), "four bytes of tag do not come by chance");
        prop_assert!(ChannelState::decode(&[b"CHAN\0\x01", &bytes[..]].concat()).map_or(true, |state| state.encode().ends_with(&bytes)));
    }

    #[test]
    fn keys_have_the_order_of_their_ids(a in any::<[u8; 32]>(), b in any::<[u8; 32]>()) {
        let (a, b) = (ChannelId::from_be_bytes(a), ChannelId::from_be_bytes(b));
        prop_assert_eq!(key_of(a).cmp(&key_of(b)), a.cmp(&b));
        prop_assert_eq!(id_of(&key_of(a)).unwrap(), a);
    }

    #[test]
    fn numbers_survive_text_of_both_kinds(bytes in any::<[u8; 32]>()) {
        let amount = Amount::from_be_bytes(bytes);
        prop_assert_eq!(amount.to_be_bytes(), bytes);
        prop_assert_eq!(amount.to_string().parse::<Amount>().unwrap(), amount);
        prop_assert_eq!(format!("{amount:#x}").parse::<Amount>().unwrap(), amount);
    }
}

// The typed view

fn channel(id: u64) -> ChannelState {
    ChannelState { channel_id: ChannelId::from(id), ..new() }
}

fn channels() -> (Arc<MemoryStore>, ChannelStore<Arc<MemoryStore>>) {
    let store = Arc::new(MemoryStore::new());
    (Arc::clone(&store), ChannelStore::new(store))
}

#[tokio::test]
async fn a_channel_moves_by_compare_and_swap() {
    let (_, channels) = channels();
    let write = WriteOptions::default();
    let id = ChannelId::from(7);
    assert_eq!(channels.get(id, ReadOptions::default()).await.unwrap(), None);
    let first = channels.put_if_absent(&channel(7), write).await.unwrap().unwrap();
    let there = VersionedChannel { state: channel(7), version: first };
    let conflict = channels.put_if_absent(&open(), write).await.unwrap().unwrap_err();
    assert_eq!(conflict.current.as_ref(), Some(&there));
    assert_eq!(channels.get(id, ReadOptions::default()).await.unwrap().as_ref(), Some(&there));
    let second = channels.compare_and_swap(first, &open(), write).await.unwrap().unwrap();
    let now = VersionedChannel { state: open(), version: second };
    let conflict = channels.compare_and_swap(first, &channel(7), write).await.unwrap().unwrap_err();
    assert_eq!(conflict.current.as_ref(), Some(&now));
    assert_eq!(channels.delete(id, first, write).await.unwrap().unwrap_err().current, Some(now));
    channels.delete(id, second, write).await.unwrap().unwrap();
    assert_eq!(channels.delete(id, second, write).await.unwrap().unwrap_err().current, None);
}

#[tokio::test]
async fn channels_are_listed_in_the_order_of_their_ids() {
    let (store, channels) = channels();
    let ids = [256, 2, 10, 1, u64::MAX, 0];
    for id in ids {
        channels.put_if_absent(&channel(id), WriteOptions::default()).await.unwrap().unwrap();
    }
    channels.put_if_absent(&closed_largest(), WriteOptions::default()).await.unwrap().unwrap();
    store.put(&Key::new("channel").unwrap(), "outside").await.unwrap();
    store.put(&Key::new("channel0").unwrap(), "outside").await.unwrap();
    let listed: Vec<_> = channels.list().map_ok(|channel| channel.state.channel_id).try_collect().await.unwrap();
    let mut sorted = ids.map(ChannelId::from).to_vec();
    sorted.sort();
    sorted.push(ChannelId::MAX);
    assert_eq!(listed, sorted);
    let page = channels.page(Some(ChannelId::from(2)), 2, ReadOptions::default()).await.unwrap();
    let ids: Vec<_> = page.channels.iter().map(|channel| channel.state.channel_id.to_u64().unwrap()).collect();
    assert_eq!((ids, page.next), (vec![10, 256], Some(ChannelId::from(256))));
    assert!(channels.page(None, ScanOptions::MAX_LIMIT + 1, ReadOptions::default()).await.is_err());
}

#[tokio::test]
async fn changes_of_channels_are_seen_in_order() {
    let (_, channels) = channels();
    let mut events = channels.watch(WatchOptions::default()).await.unwrap();
    let version = channels.put_if_absent(&channel(7), WriteOptions::default()).await.unwrap().unwrap();
    channels.delete(ChannelId::from(7), version, WriteOptions::default()).await.unwrap().unwrap();
    let mut next = || events.next().now_or_never().unwrap().unwrap().unwrap();
    let channel_id = ChannelId::from(7);
    let current = Some(VersionedChannel { state: channel(7), version });
    assert_eq!(next(), ChannelEvent { channel_id, current, revision: Some(Revision(1)) });
    assert_eq!(next(), ChannelEvent { channel_id, current: None, revision: Some(Revision(2)) });
}

#[tokio::test]
async fn an_entry_that_is_no_channel_is_corrupt_and_not_overlooked() {
    let (store, channels) = channels();
    let id = ChannelId::from(8);
    for value in [channel(7).encode(), channel(8).encode().slice(1..)] {
        store.put(&key_of(id), value).await.unwrap();
        assert!(matches!(channels.get(id, ReadOptions::default()).await, Err(Error::Corrupt { .. })));
        assert!(matches!(channels.list().next().await, Some(Err(Error::Corrupt { .. }))));
        let conflict = channels.put_if_absent(&channel(8), WriteOptions::default()).await;
        assert!(matches!(conflict, Err(Error::Corrupt { .. })));
    }
    for text in ["channel/7", "channel/", "other", &format!("channel/{}", "F".repeat(64))] {
        assert!(matches!(id_of(&Key::new(text.to_owned()).unwrap()), Err(Error::Corrupt { .. })), "{text}");
    }
}

#[tokio::test]
async fn a_transaction_can_move_a_channel_with_other_records() {
    let store = Arc::new(Prefixed::new(MemoryStore::new(), Key::new("mainnet/").unwrap()));
    let channels = ChannelStore::new(Arc::clone(&store));
    let version = channels.put_if_absent(&channel(7), WriteOptions::default()).await.unwrap().unwrap();
    let claim = Key::new("claim/7").unwrap();
    let txn = Txn::new()
        .guard(key_of(ChannelId::from(7)), Expected::Version(version))
        .guard(claim.clone(), Expected::Absent)
        .put(key_of(ChannelId::from(7)), open().encode())
        .put(claim, "claimed");
    assert!(store.commit(txn.clone(), WriteOptions::default()).await.unwrap().is_committed());
    assert!(!store.commit(txn, WriteOptions::default()).await.unwrap().is_committed());
    let now = channels.get(ChannelId::from(7), ReadOptions::default()).await.unwrap().unwrap();
    assert_eq!(now.state, open());
}
