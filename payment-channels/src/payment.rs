//! Payments: what a client signs, the one form of its signature, and who has signed it.
//!
//! Invariant: one payment has one form. A second signature that anybody can make of the first is refused, or a payment
//! could be shown twice.

use alloy_primitives::{B256, U256, eip191_hash_message, keccak256, uint};
use storage_core::channel::{Address, Amount, ChannelId, Nonce, Signature};

/// What a client signs: that the service may take, in total, so much from the channel at this nonce.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Authorization {
    /// The MultiPartyEscrow contract that holds the deposit.
    pub contract: Address,
    /// The channel.
    pub channel_id: ChannelId,
    /// The nonce of the channel.
    pub nonce: Nonce,
    /// How much, all earlier authorizations at this nonce included.
    pub amount: Amount,
}

/// A signed authorization. Its signature has a form that the contract accepts; whose it is tells [`Payment::signer`].
///
/// One payment has one form: the recovery id is 27 or 28, and s is in the lower half of its range
/// (<https://eips.ethereum.org/EIPS/eip-2>), or anybody could make a second signature of a first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Payment {
    authorization: Authorization,
    signature: Signature,
}

/// Why bytes are no signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// It has another length than 65.
    #[error("a signature has 65 bytes, not {actual}")]
    Length {
        /// How many bytes there are.
        actual: usize,
    },
    /// Its last byte is none of 0, 1, 27 and 28.
    #[error("the recovery id of a signature is 0, 1, 27 or 28, not {found}")]
    RecoveryId {
        /// What is there.
        found: u8,
    },
    /// r or s is 0 or not below the order of the group.
    #[error("r or s of the signature is out of range")]
    OutOfRange,
    /// s is in the upper half of its range.
    #[error("s of the signature is in the upper half of its range")]
    HighS,
}

/// What a signed message begins with, as the contract has it.
const PREFIX: &[u8] = b"__MPE_claim_message";

/// The order of the group of secp256k1 (SEC 2, section 2.4.1), and half of it.
const ORDER: U256 = uint!(0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141_U256);
const HALF_ORDER: U256 = uint!(0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0_U256);

impl Authorization {
    /// The message: the prefix, the contract, and the numbers as words of 32 bytes, big-endian.
    pub fn message(&self) -> Vec<u8> {
        let numbers = [self.channel_id.to_be_bytes(), self.nonce.to_be_bytes(), self.amount.to_be_bytes()];
        [PREFIX, self.contract.as_bytes(), numbers.as_flattened()].concat()
    }

    /// What is signed in the end: the hash of the message, as an Ethereum signed message of 32 bytes
    /// (<https://eips.ethereum.org/EIPS/eip-191>, version 0x45).
    pub fn digest(&self) -> [u8; 32] {
        eip191_hash_message(keccak256(self.message())).0
    }
}

impl Payment {
    /// An authorization with its signature as a client sends it: r, s, and a recovery id of 0 or 27, or 1 or 28.
    ///
    /// # Errors
    /// [`SignatureError`] says what is wrong with the signature.
    pub fn new(authorization: Authorization, signature: &[u8]) -> Result<Self, SignatureError> {
        Ok(Self { authorization, signature: canonical(signature)? })
    }

    /// Who signed this authorization; `None`: nobody can have made this signature.
    pub fn signer(&self) -> Option<Address> {
        recover(&self.authorization.digest(), &self.signature)
    }

    /// What was signed.
    pub fn authorization(&self) -> &Authorization {
        &self.authorization
    }

    /// The signature, with a recovery id of 27 or 28.
    pub fn signature(&self) -> Signature {
        self.signature
    }

    /// The channel.
    pub fn channel_id(&self) -> ChannelId {
        self.authorization.channel_id
    }

    /// The nonce of the channel.
    pub fn nonce(&self) -> Nonce {
        self.authorization.nonce
    }

    /// How much is authorized in total.
    pub fn amount(&self) -> Amount {
        self.authorization.amount
    }
}

/// A signature in its one form.
///
/// # Errors
/// [`SignatureError`] says what is wrong with the bytes.
pub(crate) fn canonical(signature: &[u8]) -> Result<Signature, SignatureError> {
    let mut signature: [u8; Signature::BYTES] =
        signature.try_into().map_err(|_| SignatureError::Length { actual: signature.len() })?;
    let [.., recovery_id] = &mut signature;
    *recovery_id = match *recovery_id {
        0 | 27 => 27,
        1 | 28 => 28,
        found => return Err(SignatureError::RecoveryId { found }),
    };
    let signature = Signature::new(signature);
    let (r, s, _) = scalars(&signature);
    if [r, s].iter().any(|scalar| scalar.is_zero() || *scalar >= ORDER) {
        return Err(SignatureError::OutOfRange);
    }
    // Of (r, s) anybody can make (r, order - s), which the same key has signed: a second form of the same.
    if s > HALF_ORDER { Err(SignatureError::HighS) } else { Ok(signature) }
}

/// Who signed what has this hash; `None`: nobody can have made this signature.
pub(crate) fn recover(digest: &[u8; 32], signature: &Signature) -> Option<Address> {
    let (r, s, odd) = scalars(signature);
    let signature = alloy_primitives::Signature::new(r, s, odd);
    let address = signature.recover_address_from_prehash(&B256::from(*digest)).ok()?;
    Some(Address::new(address.into_array()))
}

/// r, s, and whether y is odd.
fn scalars(signature: &Signature) -> (U256, U256, bool) {
    let [rs @ .., recovery_id] = signature.as_bytes();
    let (r, s) = rs.split_at(32);
    (U256::from_be_slice(r), U256::from_be_slice(s), *recovery_id == 28)
}
