//! A channel as store and blockchain see it together. Pure: the rules by which one of two views counts.
//!
//! Invariant: the higher nonce wins, so that an authorization for a nonce that is past is never counted again.

use std::cmp::Ordering;

use storage_core::channel::{Amount, ChannelState, ChannelStatus};

use crate::ChainChannel;

/// The channel as the store (`None`: not yet there) and the blockchain see it together.
///
/// The higher nonce wins. The store's is higher from the start of a claim until the blockchain has carried it out. The
/// blockchain's is higher if somebody claimed without this store; what is authorized here was then for a nonce that is past.
/// With equal nonces the deposit and the expiration come from the blockchain, where the sender may have raised them.
///
/// A channel that a claim has closed is open again when the blockchain has carried that claim out and something was
/// deposited since: its nonce tells that this is new money.
pub fn merge(stored: Option<&ChannelState>, chain: &ChainChannel) -> ChannelState {
    let Some(stored) = stored else { return new(chain) };
    match stored.nonce.cmp(&chain.nonce) {
        Ordering::Greater => stored.clone(),
        Ordering::Less => new(chain),
        Ordering::Equal => {
            // A closing claim that the blockchain has carried out leaves nothing there; whatever is there now was deposited after it.
            let status = if chain.full_amount.is_zero() { stored.status } else { ChannelStatus::Open };
            ChannelState { status, full_amount: chain.full_amount, expiration: chain.expiration, ..stored.clone() }
        }
    }
}

/// A channel of which the store knows nothing, or nothing at this nonce.
fn new(chain: &ChainChannel) -> ChannelState {
    ChannelState {
        channel_id: chain.channel_id,
        nonce: chain.nonce,
        status: ChannelStatus::Open,
        sender: chain.sender,
        recipient: chain.recipient,
        group_id: chain.group_id,
        full_amount: chain.full_amount,
        expiration: chain.expiration,
        signer: chain.signer,
        authorized_amount: Amount::ZERO,
        signature: None,
    }
}
