//! Messages besides payments that clients sign, byte for byte as snet-daemon and its SDKs have them, and tokens of free
//! calls.
//!
//! Pure: a message tells its signer and its age. Who may do what is decided by the caller. Not a byte may change, or
//! signatures of existing clients fail.

use alloy_primitives::{Address as EthereumAddress, eip191_hash_message, keccak256};
use storage_core::channel::{Address, BlockNumber, ChannelId, Nonce, Signature};

use crate::{
    FreeCallUser, SignatureError,
    payment::{canonical, recover},
};

/// What clients and operators sign for a service besides payments, word for word as snet-daemon reads it. Numbers are words of 32 bytes, big-endian, and
/// what is signed is the hash of the message as an Ethereum signed message.
///
/// A signature tells who sent a message, and when: whoever asks compares the signer with those who may, and the block with
/// [`ClientMessage::is_recent`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ClientMessage {
    /// The state of a channel, asked by its signer, sender or recipient: `__get_channel_state`.
    ChannelState {
        /// The channel.
        channel_id: ChannelId,
        /// The block at which it was signed.
        block: BlockNumber,
    },
    /// What can be claimed, asked by the recipient: `__list_unclaimed`.
    ListUnclaimed {
        /// The block at which it was signed.
        block: BlockNumber,
    },
    /// The claims that were started, asked by the recipient: `__list_in_progress`.
    ListInProgress {
        /// The block at which it was signed.
        block: BlockNumber,
    },
    /// A claim of one channel, by the recipient: `__start_claim`. The nonce keeps it from being sent again.
    StartClaim {
        /// The channel.
        channel_id: ChannelId,
        /// Its nonce.
        nonce: Nonce,
    },
    /// Claims of several channels, by the recipient: `__StartClaimForMultipleChannels_`. The message has them in ascending order, however they are given.
    StartClaims {
        /// The channels.
        channel_ids: Vec<ChannelId>,
        /// The block at which it was signed.
        block: BlockNumber,
    },
    /// A token for prepaid calls: a payment's signature, and the block.
    PrepaidToken {
        /// The signature of the payment.
        payment: Signature,
        /// The block at which it was signed.
        block: BlockNumber,
    },
    /// A free call, by its user: `__prefix_free_trial`.
    FreeCall {
        /// Whose call it is.
        user: FreeCallUser,
        /// The block at which it was signed.
        block: BlockNumber,
        /// The [token](FreeCallToken) that the service gave to the user, as it stands in the request.
        token: Vec<u8>,
    },
}

impl ClientMessage {
    /// How many blocks may lie between the one that was signed and the current one, as in the daemon.
    pub const MAX_BLOCKS: u64 = 5;

    /// The message that is signed for a service of this contract.
    pub fn bytes(&self, contract: Address) -> Vec<u8> {
        let contract = contract.as_bytes();
        match self {
            Self::ChannelState { channel_id, block } => {
                [b"__get_channel_state", &contract[..], &channel_id.to_be_bytes(), &block.to_be_bytes()].concat()
            }
            Self::ListUnclaimed { block } => [b"__list_unclaimed", &contract[..], &block.to_be_bytes()].concat(),
            Self::ListInProgress { block } => [b"__list_in_progress", &contract[..], &block.to_be_bytes()].concat(),
            Self::StartClaim { channel_id, nonce } => {
                [b"__start_claim", &contract[..], &channel_id.to_be_bytes(), &nonce.to_be_bytes()].concat()
            }
            Self::StartClaims { channel_ids, block } => {
                let mut ids = channel_ids.clone();
                ids.sort();
                let ids: Vec<u8> = ids.into_iter().flat_map(ChannelId::to_be_bytes).collect();
                [b"__StartClaimForMultipleChannels_", &contract[..], &ids, &block.to_be_bytes()].concat()
            }
            Self::PrepaidToken { payment, block } => [&payment.as_bytes()[..], &block.to_be_bytes()].concat(),
            Self::FreeCall { user, block, token } => {
                let FreeCallUser { address, user_id, organization, service, group_id } = user;
                // As text, with the letters' case as checksum (EIP-55).
                let address = EthereumAddress::new(*address.as_bytes()).to_checksum(None);
                let texts = ["__prefix_free_trial", &address, user_id, organization, service, group_id].concat();
                [texts.as_bytes(), &block.to_be_bytes(), token].concat()
            }
        }
    }

    /// The hash that is signed.
    pub fn digest(&self, contract: Address) -> [u8; 32] {
        digest_of(&self.bytes(contract))
    }

    /// Who signed this message; `None`: nobody can have made this signature.
    ///
    /// # Errors
    /// [`SignatureError`] for bytes that are no signature.
    pub fn signer(&self, contract: Address, signature: &[u8]) -> Result<Option<Address>, SignatureError> {
        signer_of(&self.bytes(contract), signature)
    }

    /// Whether a message of this block is one of now: of at most [`ClientMessage::MAX_BLOCKS`] blocks before or after. One without a block is.
    pub fn is_recent(&self, current: BlockNumber) -> bool {
        let signed = match self {
            Self::StartClaim { .. } => return true,
            Self::ChannelState { block, .. }
            | Self::ListUnclaimed { block }
            | Self::ListInProgress { block }
            | Self::StartClaims { block, .. }
            | Self::PrepaidToken { block, .. }
            | Self::FreeCall { block, .. } => *block,
        };
        let (earlier, later) = if signed < current { (signed, current) } else { (current, signed) };
        earlier.checked_add(Self::MAX_BLOCKS).is_none_or(|limit| later <= limit)
    }
}

/// What a service gives to a user of free calls: its own signature, and until when it holds. In a request it is the 65 bytes of the signature, `_`, and
/// the block in decimal digits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FreeCallToken {
    /// The signature of the service.
    pub signature: Signature,
    /// The last block at which it holds.
    pub expiration: BlockNumber,
}

impl FreeCallToken {
    /// What the service signs: the organization, the name of its group, the user's address and id, and the block.
    pub fn message(user: &FreeCallUser, group_name: &str, expiration: BlockNumber) -> Vec<u8> {
        let texts = [user.organization.as_str(), group_name].concat();
        [texts.as_bytes(), user.address.as_bytes(), user.user_id.as_bytes(), &expiration.to_be_bytes()].concat()
    }

    /// The token in a request; `None`: it is none.
    pub fn parse(token: &[u8]) -> Option<Self> {
        let (signature, rest) = token.split_first_chunk::<{ Signature::BYTES }>()?;
        let digits = std::str::from_utf8(rest.strip_prefix(b"_")?).ok()?;
        let is_decimal = digits.bytes().all(|digit| digit.is_ascii_digit());
        Some(Self { signature: Signature::new(*signature), expiration: digits.parse().ok().filter(|_| is_decimal)? })
    }

    /// The token as a request has it.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.signature.as_bytes()[..], format!("_{}", self.expiration).as_bytes()].concat()
    }

    /// Who gave it to this user; `None`: nobody can have made this signature.
    ///
    /// # Errors
    /// [`SignatureError`] for a signature that is none.
    pub fn signer(&self, user: &FreeCallUser, group_name: &str) -> Result<Option<Address>, SignatureError> {
        signer_of(&Self::message(user, group_name, self.expiration), self.signature.as_bytes())
    }
}

/// Who signed a message.
fn signer_of(message: &[u8], signature: &[u8]) -> Result<Option<Address>, SignatureError> {
    Ok(recover(&digest_of(message), &canonical(signature)?))
}

fn digest_of(message: &[u8]) -> [u8; 32] {
    eip191_hash_message(keccak256(message)).0
}
