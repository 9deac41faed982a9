//! Whether a payment pays for a call, and what every write of a channel has to keep to.
//!
//! Pure. Invariants: what is authorized at a nonce only grows, stays within the deposit, and has a signature. The rules
//! are checked when a channel is reserved, and those of the record again when it is charged.

use storage_core::channel::{Address, Amount, BlockNumber, ChannelId, ChannelState, ChannelStatus, GroupId, Nonce};

use crate::{Payment, Price};

/// What a service asks of the channels that pay it. All its replicas have the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// The MultiPartyEscrow contract that holds the deposits.
    pub contract: Address,
    /// Who claims: a channel to anybody else pays somebody else.
    pub recipient: Address,
    /// The group of replicas that is paid.
    pub group_id: GroupId,
    /// How many blocks have to be left before a channel expires, so that there is time to claim.
    pub expiration_threshold: u64,
}

/// Why a payment does not pay for a call. Nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Neither the blockchain nor, at an equal or higher nonce, the store knows the channel.
    #[error("there is no channel {channel_id}")]
    UnknownChannel {
        /// The channel that the payment names.
        channel_id: ChannelId,
    },
    /// The payment is for a contract that holds none of our deposits.
    #[error("the payment is for the contract {actual}, not {expected}")]
    WrongContract {
        /// The contract of the service.
        expected: Address,
        /// The contract of the payment.
        actual: Address,
    },
    /// The channel pays another recipient or another group.
    #[error("the channel pays {recipient} in the group {group_id}, not this service")]
    ForeignChannel {
        /// Whom it pays.
        recipient: Address,
        /// In which group.
        group_id: GroupId,
    },
    /// The channel was closed by a claim.
    #[error("the channel is closed")]
    Closed,
    /// The payment was signed for another nonce, earlier or later.
    #[error("the nonce of the channel is {expected}, not {actual}")]
    IncorrectNonce {
        /// The nonce of the channel.
        expected: Nonce,
        /// The nonce of the payment.
        actual: Nonce,
    },
    /// Neither the signer nor the sender of the channel signed this payment.
    #[error("the payment was signed neither by the signer nor by the sender of the channel")]
    Unauthenticated,
    /// The channel expires before it could be claimed for certain.
    #[error("the channel expires at block {expiration}, which is within {threshold} blocks of block {current}")]
    ExpiresSoon {
        /// When it expires.
        expiration: BlockNumber,
        /// The current block.
        current: BlockNumber,
        /// How many blocks have to be left.
        threshold: u64,
    },
    /// There is less in the channel than the payment authorizes.
    #[error("the payment authorizes {amount}, but the channel has {full_amount}")]
    NotEnoughFunds {
        /// What is in the channel.
        full_amount: Amount,
        /// What the payment authorizes.
        amount: Amount,
    },
    /// The payment authorizes no more than what is authorized already, or not enough more for the price.
    #[error("the payment authorizes {amount}, {authorized} are authorized already and the price is {price}")]
    StaleAmount {
        /// What is authorized already.
        authorized: Amount,
        /// What the call costs.
        price: Amount,
        /// What the payment authorizes.
        amount: Amount,
    },
    /// The payment authorizes more, or less, than what is authorized and the price, which has to be met exactly.
    #[error("the payment authorizes {amount}, {authorized} are authorized already and the price is exactly {price}")]
    OtherPrice {
        /// What is authorized already.
        authorized: Amount,
        /// What the call costs.
        price: Amount,
        /// What the payment authorizes.
        amount: Amount,
    },
}

/// Whether `payment` pays for a call of this price, with the channel as `state` says.
///
/// The signature is looked at after what is cheaper to refuse.
///
/// # Errors
/// The first [`Refusal`] that applies.
pub fn validate(
    payment: &Payment,
    state: &ChannelState,
    terms: &Terms,
    block: BlockNumber,
    price: impl Into<Price>,
) -> Result<(), Refusal> {
    validate_signed(payment, || payment.signer(), state, terms, block, price.into())
}

/// [`validate`] for one who may know the signer already: to find out is by far the most expensive part.
pub(crate) fn validate_signed(
    payment: &Payment,
    signer: impl FnOnce() -> Option<Address>,
    state: &ChannelState,
    terms: &Terms,
    block: BlockNumber,
    price: Price,
) -> Result<(), Refusal> {
    let contract = payment.authorization().contract;
    if contract != terms.contract {
        return Err(Refusal::WrongContract { expected: terms.contract, actual: contract });
    }
    let (recipient, group_id) = (state.recipient, state.group_id);
    if (recipient, group_id) != (terms.recipient, terms.group_id) {
        return Err(Refusal::ForeignChannel { recipient, group_id });
    }
    // Errors come in the order of the checks: what a client mends first stands first.
    accepts(state, payment)?;
    let signer = signer().ok_or(Refusal::Unauthenticated)?;
    if signer != state.signer && signer != state.sender {
        return Err(Refusal::Unauthenticated);
    }
    let (expiration, threshold) = (state.expiration, terms.expiration_threshold);
    // A threshold beyond the range of blocks refuses everything, which is on the safe side.
    if block.checked_add(threshold).is_none_or(|limit| expiration <= limit) {
        return Err(Refusal::ExpiresSoon { expiration, current: block, threshold });
    }
    affords(state, payment)?;
    exceeds(state, payment, price)
}

/// The channel with this payment as its last authorization.
///
/// This is what a commit writes, so it checks once more all that the record itself has to keep to: the nonce, the deposit,
/// and that what is authorized only grows.
///
/// # Errors
/// The [`Refusal`] of a payment that cannot be written.
pub fn authorize(state: &ChannelState, payment: &Payment) -> Result<ChannelState, Refusal> {
    accepts(state, payment)?;
    affords(state, payment)?;
    exceeds(state, payment, Price::AtLeast(Amount::ZERO))?;
    let (authorized_amount, signature) = (payment.amount(), Some(payment.signature()));
    Ok(ChannelState { authorized_amount, signature, ..state.clone() })
}

/// What every write of a channel keeps to, whatever has decided on it: a payment that was taken is never lost or worth less.
///
/// # Panics
/// If this one does not.
pub(crate) fn assert_follows(before: Option<&ChannelState>, after: &ChannelState) {
    assert!(after.authorized_amount <= after.full_amount, "more is authorized than there is in the channel");
    let has_authorization = !after.authorized_amount.is_zero();
    assert_eq!(
        has_authorization,
        after.signature.is_some(),
        "what is authorized has a signature, and nothing has none"
    );
    let Some(before) = before else { return };
    assert_eq!(after.channel_id, before.channel_id, "a channel is written over another one");
    assert!(after.nonce >= before.nonce, "the nonce of a channel falls");
    let is_claimed = after.nonce > before.nonce;
    assert!(is_claimed || after.authorized_amount > before.authorized_amount, "what is authorized at a nonce falls");
}

fn accepts(state: &ChannelState, payment: &Payment) -> Result<(), Refusal> {
    if state.channel_id != payment.channel_id() {
        return Err(Refusal::UnknownChannel { channel_id: payment.channel_id() });
    }
    let (expected, actual) = (state.nonce, payment.nonce());
    if expected != actual {
        return Err(Refusal::IncorrectNonce { expected, actual });
    }
    if state.status == ChannelStatus::Closed { Err(Refusal::Closed) } else { Ok(()) }
}

fn affords(state: &ChannelState, payment: &Payment) -> Result<(), Refusal> {
    let (full_amount, amount) = (state.full_amount, payment.amount());
    if amount > full_amount { Err(Refusal::NotEnoughFunds { full_amount, amount }) } else { Ok(()) }
}

fn exceeds(state: &ChannelState, payment: &Payment, price: Price) -> Result<(), Refusal> {
    let (authorized, amount) = (state.authorized_amount, payment.amount());
    let due = authorized.checked_add(price.amount());
    match price {
        // More than what is authorized, also for price 0: or a payment could be shown twice.
        Price::AtLeast(price) => {
            let pays = due.is_some_and(|due| amount >= due) && amount > authorized;
            if pays { Ok(()) } else { Err(Refusal::StaleAmount { authorized, price, amount }) }
        }
        // A payment that was taken is due no more, unless the call costs nothing: then showing it again takes nothing from anybody.
        Price::Exactly(price) if due == Some(amount) || amount > authorized => {
            if due == Some(amount) {
                Ok(())
            } else {
                Err(Refusal::OtherPrice { authorized, price, amount })
            }
        }
        Price::Exactly(price) => Err(Refusal::StaleAmount { authorized, price, amount }),
    }
}

#[cfg(test)]
mod tests {
    use storage_core::channel::Signature;

    use super::*;

    fn channel(nonce: u64, authorized: u64) -> ChannelState {
        ChannelState {
            channel_id: ChannelId::from(7),
            nonce: Nonce::from(nonce),
            status: ChannelStatus::Open,
            sender: Address::new([1; 20]),
            recipient: Address::new([2; 20]),
            group_id: GroupId::new([3; 32]),
            full_amount: Amount::from(100),
            expiration: BlockNumber::from(9),
            signer: Address::new([4; 20]),
            authorized_amount: Amount::from(authorized),
            signature: (authorized > 0).then(|| Signature::new([5; 65])),
        }
    }

    #[test]
    fn a_payment_and_a_claim_follow() {
        assert_follows(None, &channel(0, 10));
        assert_follows(Some(&channel(0, 10)), &channel(0, 100));
        assert_follows(Some(&channel(0, 100)), &channel(1, 0));
    }

    #[test]
    #[should_panic(expected = "what is authorized at a nonce falls")]
    fn what_is_authorized_never_falls() {
        assert_follows(Some(&channel(1, 20)), &channel(1, 19));
    }

    #[test]
    #[should_panic(expected = "the nonce of a channel falls")]
    fn a_nonce_never_falls() {
        assert_follows(Some(&channel(2, 10)), &channel(1, 20));
    }

    #[test]
    #[should_panic(expected = "more is authorized than there is in the channel")]
    fn no_more_is_authorized_than_there_is() {
        assert_follows(None, &channel(1, 101));
    }

    #[test]
    #[should_panic(expected = "what is authorized has a signature, and nothing has none")]
    fn what_is_authorized_can_be_claimed() {
        assert_follows(None, &ChannelState { signature: None, ..channel(1, 10) });
    }

    #[test]
    #[should_panic(expected = "a channel is written over another one")]
    fn a_channel_keeps_its_id() {
        assert_follows(Some(&ChannelState { channel_id: ChannelId::from(8), ..channel(1, 10) }), &channel(1, 20));
    }
}
