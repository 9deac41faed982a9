//! The blockchain as this crate sees it: a trait that answers for channels, and one in memory for tests and examples.
//!
//! The one in memory keeps to the contract's rules, so that whatever it pays the real contract would pay. Nothing here
//! opens a connection.

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use storage_core::{
    Cause,
    channel::{Address, Amount, BlockNumber, ChannelId, GroupId, Nonce},
};

use crate::{AfterClaim, Claim};

/// The blockchain's view of channels. Implementations talk to a node, or to a cache that follows one; nothing in this
/// crate opens a connection.
#[async_trait]
pub trait ChannelSource: Send + Sync + fmt::Debug + 'static {
    /// Which chain it sees, as EIP-155 numbers them: always the same. An implementation that asks a node makes sure that it is that node's.
    fn chain_id(&self) -> u64;

    /// A channel as the contract has it; `None`: there is none of this id.
    async fn channel(&self, id: ChannelId) -> Result<Option<ChainChannel>, ChainError>;

    /// The number of the last block.
    async fn current_block(&self) -> Result<BlockNumber, ChainError>;
}

/// The blockchain could not be asked. Nothing was written.
#[derive(Debug, thiserror::Error)]
#[error("the blockchain could not be asked: {0}")]
pub struct ChainError(#[source] pub Cause);

/// A channel as the contract has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChainChannel {
    /// Which channel.
    pub channel_id: ChannelId,
    /// How often it was claimed.
    pub nonce: Nonce,
    /// Who pays into it.
    pub sender: Address,
    /// Who may sign besides the sender.
    pub signer: Address,
    /// Who claims from it.
    pub recipient: Address,
    /// The group of replicas that it pays.
    pub group_id: GroupId,
    /// What is in it.
    pub full_amount: Amount,
    /// The block from which on the sender may take back what is in it.
    pub expiration: BlockNumber,
}

/// A blockchain in the memory of this process, for tests and examples. It keeps to the contract's rules: a claim is paid
/// only for the channel's nonce, within the deposit, and with a signature of the signer or the sender.
#[derive(Debug)]
pub struct MemoryChain {
    chain_id: u64,
    state: Mutex<ChainState>,
}

#[derive(Debug, Default)]
struct ChainState {
    block: BlockNumber,
    channels: BTreeMap<ChannelId, ChainChannel>,
}

/// Why the contract does not do what was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// There is no such channel.
    #[error("the contract has no such channel")]
    UnknownChannel,
    /// The claim is for another nonce.
    #[error("the contract has another nonce")]
    IncorrectNonce,
    /// There is less in the channel, or a number would leave its range.
    #[error("the contract has not so much in the channel")]
    NotEnoughFunds,
    /// The signature is of nobody who may sign.
    #[error("the contract does not accept the signature")]
    Unauthenticated,
}

impl Default for MemoryChain {
    fn default() -> Self {
        Self::with_id(Self::CHAIN_ID)
    }
}

impl MemoryChain {
    /// What a chain calls itself that belongs to nobody but its developer, as Hardhat and Anvil have it.
    pub const CHAIN_ID: u64 = 31_337;

    /// A blockchain without channels, at block 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// One of this id.
    pub fn with_id(chain_id: u64) -> Self {
        Self { chain_id, state: Mutex::default() }
    }

    /// Adds a channel, or replaces the one of its id.
    pub fn open(&self, channel: ChainChannel) {
        self.state.lock().channels.insert(channel.channel_id, channel);
    }

    /// Goes on to this block.
    pub fn set_block(&self, block: BlockNumber) {
        self.state.lock().block = block;
    }

    /// The sender adds to the deposit and sets the expiration.
    ///
    /// # Errors
    /// [`Rejection::UnknownChannel`], and [`Rejection::NotEnoughFunds`] for a deposit over 2^256 - 1.
    pub fn extend_and_add_funds(
        &self,
        id: ChannelId,
        expiration: BlockNumber,
        amount: Amount,
    ) -> Result<(), Rejection> {
        let mut state = self.state.lock();
        let channel = state.channels.get_mut(&id).ok_or(Rejection::UnknownChannel)?;
        channel.full_amount = channel.full_amount.checked_add(amount).ok_or(Rejection::NotEnoughFunds)?;
        channel.expiration = expiration;
        Ok(())
    }

    /// Pays a claim to the recipient: the nonce goes up by one, and what was claimed, or all if the channel is to be closed,
    /// is no longer in the channel.
    ///
    /// # Errors
    /// A [`Rejection`]; nothing has changed then.
    pub fn pay_claim(&self, claim: &Claim) -> Result<(), Rejection> {
        let payment = &claim.payment;
        let mut state = self.state.lock();
        let channel = state.channels.get_mut(&payment.channel_id()).ok_or(Rejection::UnknownChannel)?;
        if channel.nonce != payment.nonce() {
            return Err(Rejection::IncorrectNonce);
        }
        let left = channel.full_amount.checked_sub(payment.amount()).ok_or(Rejection::NotEnoughFunds)?;
        let next = channel.nonce.checked_next().ok_or(Rejection::IncorrectNonce)?;
        if payment.signer().is_none_or(|signer| signer != channel.signer && signer != channel.sender) {
            return Err(Rejection::Unauthenticated);
        }
        channel.nonce = next;
        (channel.full_amount, channel.expiration) = match claim.after {
            AfterClaim::Continue => (left, channel.expiration),
            AfterClaim::Close => (Amount::ZERO, BlockNumber::ZERO),
        };
        Ok(())
    }
}

#[async_trait]
impl ChannelSource for MemoryChain {
    fn chain_id(&self) -> u64 {
        self.chain_id
    }

    async fn channel(&self, id: ChannelId) -> Result<Option<ChainChannel>, ChainError> {
        Ok(self.state.lock().channels.get(&id).cloned())
    }

    async fn current_block(&self) -> Result<BlockNumber, ChainError> {
        Ok(self.state.lock().block)
    }
}

#[async_trait]
impl<C: ChannelSource + ?Sized> ChannelSource for Arc<C> {
    fn chain_id(&self) -> u64 {
        (**self).chain_id()
    }

    async fn channel(&self, id: ChannelId) -> Result<Option<ChainChannel>, ChainError> {
        (**self).channel(id).await
    }

    async fn current_block(&self) -> Result<BlockNumber, ChainError> {
        (**self).current_block().await
    }
}
