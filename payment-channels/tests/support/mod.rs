//! One service, one channel, its keys, and signed payments.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{collections::HashMap, sync::Arc};

use alloy_primitives::keccak256;
use parking_lot::Mutex;
use payment_channels::{
    Authorization, ChainChannel, FreeCallUser, Ledger, MemoryChain, Options, Payment, Payments, Signer, Terms,
};
use storage_core::{
    Key, Store,
    channel::{Address, Amount, BlockNumber, ChannelId, GroupId, Nonce},
};

pub(crate) const CONTRACT: Address = Address::new([0x5e; 20]);
pub(crate) const RECIPIENT: Address = Address::new([0x4e; 20]);
pub(crate) const GROUP: GroupId = GroupId::new([0x96; 32]);
pub(crate) const BLOCK: u64 = 1_000_000;
pub(crate) const THRESHOLD: u64 = 100;

pub(crate) fn terms() -> Terms {
    Terms { contract: CONTRACT, recipient: RECIPIENT, group_id: GROUP, expiration_threshold: THRESHOLD }
}

pub(crate) const LEDGER: Ledger = Ledger { chain_id: MemoryChain::CHAIN_ID, contract: CONTRACT };

pub(crate) fn key_of(id: ChannelId) -> Key {
    LEDGER.channel_key(id)
}

pub(crate) fn reservation_key(id: ChannelId) -> Key {
    LEDGER.reservation_key(id)
}

pub(crate) fn claim_key(id: ChannelId, nonce: Nonce) -> Key {
    LEDGER.claim_key(id, nonce)
}

pub(crate) fn usage_key(id: ChannelId) -> Key {
    LEDGER.usage_key(id)
}

pub(crate) fn free_calls_key(user: Address) -> Key {
    LEDGER.free_calls_key(&FreeCallUser::from(user))
}

pub(crate) fn channel() -> ChannelId {
    ChannelId::from(7)
}

/// The key made of a word, as in vectors/make.py.
fn signer(words: &str) -> Signer {
    Signer::new(&keccak256(words)).unwrap()
}

pub(crate) fn address_of(words: &str) -> Address {
    signer(words).address()
}

/// The blockchain with the channel open at nonce 0.
pub(crate) fn chain(full_amount: u64) -> Arc<MemoryChain> {
    let chain = MemoryChain::new();
    chain.set_block(BlockNumber::from(BLOCK));
    chain.open(chain_channel(full_amount));
    Arc::new(chain)
}

pub(crate) fn chain_channel(full_amount: u64) -> ChainChannel {
    ChainChannel {
        channel_id: channel(),
        nonce: Nonce::ZERO,
        sender: address_of("sender"),
        signer: address_of("signer"),
        recipient: RECIPIENT,
        group_id: GROUP,
        full_amount: Amount::from(full_amount),
        expiration: BlockNumber::from(BLOCK + THRESHOLD + 1),
    }
}

pub(crate) fn authorization(nonce: u64, amount: u64) -> Authorization {
    Authorization { contract: CONTRACT, channel_id: channel(), nonce: Nonce::from(nonce), amount: Amount::from(amount) }
}

/// A payment signed by the signer. Signing is slow, so each is made once.
pub(crate) fn pay(nonce: u64, amount: u64) -> Payment {
    static SIGNED: Mutex<Option<HashMap<(u64, u64), Payment>>> = Mutex::new(None);
    let mut signed = SIGNED.lock();
    let signed = signed.get_or_insert_default();
    *signed.entry((nonce, amount)).or_insert_with(|| sign("signer", authorization(nonce, amount)))
}

pub(crate) fn sign(words: &str, authorization: Authorization) -> Payment {
    signer(words).sign(authorization).unwrap()
}

/// Any message, signed as an Ethereum signed message by the key made of a word.
pub(crate) fn sign_message(words: &str, message: &[u8]) -> Vec<u8> {
    let digest = alloy_primitives::eip191_hash_message(keccak256(message));
    let key = k256::ecdsa::SigningKey::from_slice(&keccak256(words)[..]).unwrap();
    let (signature, recovery_id) = key.sign_prehash_recoverable(&digest[..]).unwrap();
    [&signature.to_bytes()[..], &[27 + recovery_id.to_byte()]].concat()
}

pub(crate) fn replica<S: Store>(store: S, chain: &Arc<MemoryChain>, name: &str) -> Payments<S, Arc<MemoryChain>> {
    replica_with(store, chain, Options::new(name))
}

pub(crate) fn replica_with<S: Store>(
    store: S,
    chain: &Arc<MemoryChain>,
    options: Options,
) -> Payments<S, Arc<MemoryChain>> {
    Payments::new(store, Arc::clone(chain), terms(), options).unwrap()
}
