//! A key that signs payments, for clients in Rust and for tests. The key is never shown.

use std::fmt;

use alloy_primitives::Address as EthereumAddress;
use k256::ecdsa::SigningKey;
use storage_core::channel::{Address, Signature};

use crate::{Authorization, ClientMessage, Error, Payment, Result};

/// A key that signs payments: the client's side, for clients in Rust, simulations and tests.
///
/// Signatures are deterministic (RFC 6979): the same authorization gives the same payment.
#[derive(Clone)]
pub struct Signer {
    key: SigningKey,
    address: Address,
}

/// The key is not shown.
impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Signer {
    /// The signer with this secret.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for 0 and for what is not below the order of the group: no key is that.
    pub fn new(secret: &[u8; 32]) -> Result<Self> {
        let key = SigningKey::from_slice(secret)
            .map_err(|_| Error::InvalidArgument { reason: "the secret is out of range".to_owned() })?;
        let address = Address::new(EthereumAddress::from_private_key(&key).into_array());
        Ok(Self { key, address })
    }

    /// The address that a channel names as its signer or sender.
    pub fn address(&self) -> Address {
        self.address
    }

    /// The payment that authorizes this.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an authorization that this key cannot sign. Nobody has seen one: its hash would have
    /// to lead to an r or s of 0.
    pub fn sign(&self, authorization: Authorization) -> Result<Payment> {
        let signature = self.sign_digest(&authorization.digest())?;
        Payment::new(authorization, signature.as_bytes())
            .map_err(|error| Error::InvalidArgument { reason: error.to_string() })
    }

    /// The signature of a message to a service of this contract.
    ///
    /// # Errors
    /// As [`Signer::sign`].
    pub fn sign_message(&self, message: &ClientMessage, contract: Address) -> Result<Signature> {
        self.sign_digest(&message.digest(contract))
    }

    fn sign_digest(&self, digest: &[u8; 32]) -> Result<Signature> {
        let signed = self.key.sign_prehash_recoverable(digest);
        let (signature, recovery_id) = signed.map_err(|error| Error::InvalidArgument { reason: error.to_string() })?;
        let mut bytes = [0; Signature::BYTES];
        for (to, from) in bytes.iter_mut().zip(signature.to_bytes().into_iter().chain([27 + recovery_id.to_byte()])) {
            *to = from;
        }
        Ok(Signature::new(bytes))
    }
}
