//! The record of a channel and its encoding.
//!
//! One state has one encoding, and what was ever written stays readable: tests/golden has examples.

use bytes::Bytes;

use super::{Address, Amount, BlockNumber, ChannelId, GroupId, Nonce, Signature};
use crate::record::{DecodeError, Schema};

/// Whether a channel takes payments.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ChannelStatus {
    /// It does.
    Open,
    /// It was claimed with all that was left in it, or its sender took it back.
    Closed,
}

/// What the replicas of a service share about one channel.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ChannelState {
    /// Which channel.
    pub channel_id: ChannelId,
    /// How often it was claimed.
    pub nonce: Nonce,
    /// Whether it takes payments.
    pub status: ChannelStatus,
    /// Who pays into it.
    pub sender: Address,
    /// Who claims from it.
    pub recipient: Address,
    /// The group of replicas that it pays.
    pub group_id: GroupId,
    /// What is in it.
    pub full_amount: Amount,
    /// The block from which on the sender may take back what is in it.
    pub expiration: BlockNumber,
    /// Who may sign authorizations besides the sender.
    pub signer: Address,
    /// The largest amount authorized at this nonce.
    pub authorized_amount: Amount,
    /// The signature of that authorization; `None` if there was none at this nonce.
    pub signature: Option<Signature>,
}

impl ChannelState {
    /// The tag and the version of the encoding.
    ///
    /// Version 1, after the six bytes of every [record](crate::record): channel id 32, nonce 32, status 1 (0 open, 1 closed),
    /// sender 20, recipient 20, group id 32, full amount 32, expiration 32, signer 20, authorized amount 32, and 1 for
    /// whether a signature follows, of 65. Numbers are big-endian. tests/golden has examples that stay readable for ever.
    pub const SCHEMA: Schema = Schema { tag: *b"CHAN", version: 1 };

    /// The state in bytes: one state has one encoding.
    pub fn encode(&self) -> Bytes {
        let record = Self::SCHEMA
            .writer()
            .bytes(&self.channel_id.to_be_bytes())
            .bytes(&self.nonce.to_be_bytes())
            .bool(self.status == ChannelStatus::Closed)
            .bytes(self.sender.as_bytes())
            .bytes(self.recipient.as_bytes())
            .bytes(self.group_id.as_bytes())
            .bytes(&self.full_amount.to_be_bytes())
            .bytes(&self.expiration.to_be_bytes())
            .bytes(self.signer.as_bytes())
            .bytes(&self.authorized_amount.to_be_bytes())
            .bool(self.signature.is_some());
        self.signature.iter().fold(record, |record, signature| record.bytes(signature.as_bytes())).finish()
    }

    /// The state that these bytes are.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong with them.
    pub fn decode(record: &[u8]) -> Result<Self, DecodeError> {
        let mut record = Self::SCHEMA.reader(record)?;
        let state = Self {
            channel_id: ChannelId::from_be_bytes(record.array()?),
            nonce: Nonce::from_be_bytes(record.array()?),
            status: if record.bool("status")? { ChannelStatus::Closed } else { ChannelStatus::Open },
            sender: Address::new(record.array()?),
            recipient: Address::new(record.array()?),
            group_id: GroupId::new(record.array()?),
            full_amount: Amount::from_be_bytes(record.array()?),
            expiration: BlockNumber::from_be_bytes(record.array()?),
            signer: Address::new(record.array()?),
            authorized_amount: Amount::from_be_bytes(record.array()?),
            signature: match record.bool("signature")? {
                true => Some(Signature::new(record.array()?)),
                false => None,
            },
        };
        record.finish()?;
        Ok(state)
    }
}
