//! The client's side of a channel, for benches and rehearsals: a key made of a number, and payments signed with it.

use payment_channels::{Authorization, ChainChannel, MemoryChain, Payment, Signer, Terms};
use storage::channel::{Address, Amount, BlockNumber, ChannelId, GroupId, Nonce};

use crate::{Error, Result};

/// What a call costs. All payments are multiples of it, so that what is authorized tells which ones were charged.
pub const PRICE: u64 = 10;

/// So much is in each channel: more than anybody can spend in a day.
pub const DEPOSIT: u64 = 1 << 50;

/// What the service of all wallets asks of channels.
pub fn terms() -> Terms {
    Terms {
        contract: Address::new([1; 20]),
        recipient: Address::new([2; 20]),
        group_id: GroupId::new([3; 32]),
        expiration_threshold: 100,
    }
}

/// A client's side of a channel: who signs its payments.
#[derive(Debug)]
pub struct Wallet {
    /// The channel.
    pub channel: ChannelId,
    signer: Signer,
}

impl Wallet {
    /// The wallet of this number, with a new channel on this blockchain.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is no such key.
    pub fn open(number: u64, channel: ChannelId, chain: &MemoryChain) -> Result<Self> {
        let mut secret = [0x51; 32];
        for (to, from) in secret.iter_mut().zip(number.to_be_bytes()) {
            *to = from;
        }
        let signer = Signer::new(&secret).map_err(|error| Error::Usage(error.to_string()))?;
        chain.open(ChainChannel {
            channel_id: channel,
            nonce: Nonce::ZERO,
            sender: signer.address(),
            signer: signer.address(),
            recipient: terms().recipient,
            group_id: terms().group_id,
            full_amount: Amount::from(DEPOSIT),
            expiration: BlockNumber::MAX,
        });
        Ok(Self { channel, signer })
    }

    /// Who signs.
    pub fn address(&self) -> Address {
        self.signer.address()
    }

    /// What is to be signed.
    pub fn authorization(&self, nonce: Nonce, amount: Amount) -> Authorization {
        Authorization { contract: terms().contract, channel_id: self.channel, nonce, amount }
    }

    /// A signed payment.
    ///
    /// # Errors
    /// [`Error::Usage`] if it cannot be signed.
    pub fn sign(&self, nonce: Nonce, amount: Amount) -> Result<Payment> {
        self.signer.sign(self.authorization(nonce, amount)).map_err(|error| Error::Usage(error.to_string()))
    }
}
