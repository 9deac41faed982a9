//! Claims: what is authorized at a channel, moved out of it so that the contract can be asked to pay it.
//!
//! Pure. Invariant: what is authorized at one nonce is claimed once, because a claim raises the nonce as the contract
//! will. The encoding must stay readable: claims are money that is not paid yet.

use bytes::Bytes;
use storage_core::{
    channel::{Address, Amount, ChannelId, ChannelState, ChannelStatus, Nonce},
    record::{DecodeError, Schema},
};

use crate::{Authorization, Payment};

/// A payment to be claimed on the blockchain: what [`Payments::start_claim`](crate::Payments::start_claim) leaves behind until the claim is finished.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Made for one start of a claim, so that one whose reply was lost knows its own.
    pub id: u128,
    /// The last payment of the channel at its nonce, with the signature that the contract asks for.
    pub payment: Payment,
    /// What becomes of the channel.
    pub after: AfterClaim,
}

/// What becomes of a channel when it is claimed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AfterClaim {
    /// It goes on at the next nonce with what is left in it.
    Continue,
    /// It is closed, and what is left goes back to the sender.
    Close,
}

/// Why a claim was not started. Nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimRefusal {
    /// There is no such channel in the store.
    #[error("there is no channel {channel_id}")]
    UnknownChannel {
        /// The channel.
        channel_id: ChannelId,
    },
    /// Nothing is authorized at the channel's nonce: it was claimed already, or nobody has paid.
    #[error("nothing is authorized at nonce {nonce}")]
    NothingToClaim {
        /// The nonce.
        nonce: Nonce,
    },
    /// More is authorized than there is in the channel: the contract would not pay.
    #[error("{authorized} are authorized, but the channel has {full_amount}")]
    NotEnoughFunds {
        /// What is in the channel.
        full_amount: Amount,
        /// What is authorized.
        authorized: Amount,
    },
    /// There is a claim at this nonce already, and yet the channel is there still: somebody else wrote to the store.
    #[error("there is a claim at nonce {nonce} already")]
    AlreadyClaimed {
        /// The nonce.
        nonce: Nonce,
    },
    /// The stored authorization is none that the contract would accept.
    #[error("the stored signature is malformed, or the nonce is the last there is")]
    Unclaimable,
}

/// The channel after a claim, and the claim. The contract raises the nonce whether the channel goes on or not, so both do here:
/// what is authorized at one nonce can be claimed once.
///
/// # Errors
/// A [`ClaimRefusal`].
pub fn begin_claim(
    state: &ChannelState,
    contract: Address,
    after: AfterClaim,
    id: u128,
) -> Result<(ChannelState, Claim), ClaimRefusal> {
    let (nonce, full_amount, authorized) = (state.nonce, state.full_amount, state.authorized_amount);
    let signature = state.signature.filter(|_| !authorized.is_zero());
    let signature = signature.ok_or(ClaimRefusal::NothingToClaim { nonce })?;
    let left = full_amount.checked_sub(authorized);
    let left = left.ok_or(ClaimRefusal::NotEnoughFunds { full_amount, authorized })?;
    let authorization = Authorization { contract, channel_id: state.channel_id, nonce, amount: authorized };
    let payment = Payment::new(authorization, signature.as_bytes()).map_err(|_| ClaimRefusal::Unclaimable)?;
    let (status, full_amount) = match after {
        AfterClaim::Continue => (state.status, left),
        AfterClaim::Close => (ChannelStatus::Closed, Amount::ZERO),
    };
    let claimed = ChannelState {
        // The contract raises the nonce when it pays. Raised here at once, every authorization for the old nonce is void from now on, on all
        // replicas.
        nonce: nonce.checked_next().ok_or(ClaimRefusal::Unclaimable)?,
        status,
        full_amount,
        authorized_amount: Amount::ZERO,
        signature: None,
        ..state.clone()
    };
    Ok((claimed, Claim { id, payment, after }))
}

impl Claim {
    /// The tag and the version of the encoding.
    ///
    /// Version 1, after the six bytes of every [record](storage_core::record): id 16, contract 20, channel id 32, nonce 32,
    /// amount 32, signature 65, and 1 for whether the channel is closed. Numbers are big-endian.
    pub const SCHEMA: Schema = Schema { tag: *b"CLAM", version: 1 };

    /// The claim in bytes: one claim has one encoding.
    pub fn encode(&self) -> Bytes {
        let Authorization { contract, channel_id, nonce, amount } = self.payment.authorization();
        let record = Self::SCHEMA.writer().bytes(&self.id.to_be_bytes()).bytes(contract.as_bytes());
        let record = record.bytes(&channel_id.to_be_bytes()).bytes(&nonce.to_be_bytes()).bytes(&amount.to_be_bytes());
        record.bytes(self.payment.signature().as_bytes()).bool(self.after == AfterClaim::Close).finish()
    }

    /// The claim that these bytes are.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong with them.
    pub fn decode(record: &[u8]) -> Result<Self, DecodeError> {
        let mut record = Self::SCHEMA.reader(record)?;
        let id = u128::from_be_bytes(record.array()?);
        let authorization = Authorization {
            contract: Address::new(record.array()?),
            channel_id: ChannelId::from_be_bytes(record.array()?),
            nonce: Nonce::from_be_bytes(record.array()?),
            amount: Amount::from_be_bytes(record.array()?),
        };
        let signature: [u8; 65] = record.array()?;
        let after = if record.bool("close")? { AfterClaim::Close } else { AfterClaim::Continue };
        record.finish()?;
        let payment = Payment::new(authorization, &signature).ok();
        // The recovery id has one form only, so what was read is what would be written.
        let payment = payment.filter(|payment| payment.signature().as_bytes() == &signature);
        Ok(Self { id, payment: payment.ok_or(DecodeError::NonCanonical { field: "signature" })?, after })
    }
}
