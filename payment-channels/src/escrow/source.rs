//! Channels of the MultiPartyEscrow contract, read from a node by JSON-RPC.
//!
//! Invariants: blocks never go back, so that a nonce that has passed never returns. The node's chain is asked with
//! every look at the last block. What a node answers is bounded before it is shown, as a node may answer anything.

use std::{collections::HashMap, fmt, time::Duration};

use alloy_primitives::keccak256;
use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use storage_core::{
    Cause,
    channel::{Address, Amount, BlockNumber, ChannelId, GroupId, Nonce},
};
use tokio::time::Instant;

use crate::{ChainChannel, ChainError, ChannelSource, Ledger};

/// Sends a request of JSON-RPC to a node.
#[async_trait]
pub trait JsonRpc: Send + Sync + fmt::Debug + 'static {
    /// Posts a body, and gives that of the answer, within so much time.
    async fn post(&self, body: String, timeout: Duration) -> Result<String, Cause>;
}

/// How a source asks its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EscrowOptions {
    /// How many blocks behind the last one channels are read, so that what is read is not taken back. 0: the last one, as snet-daemon does.
    pub confirmations: u64,
    /// For how long the number of the last block is believed: so late may a deposit be seen.
    pub block_age: Duration,
    /// For one request.
    pub timeout: Duration,
}

impl Default for EscrowOptions {
    /// The last block, for two seconds, and five seconds for a request.
    fn default() -> Self {
        let (block_age, timeout) = (Duration::from_secs(2), Duration::from_secs(5));
        Self { confirmations: 0, block_age, timeout }
    }
}

/// The channels of a contract as a node tells of them, each asked for once a block.
///
/// Every look at the last block asks for the chain as well: a node that was moved to another chain is found out. A block before one that was seen is not
/// believed, so that a nonce that has passed comes never back.
#[derive(Debug)]
pub struct EscrowSource<T> {
    node: T,
    ledger: Ledger,
    options: EscrowOptions,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The last block, and when it was asked for.
    last: Option<(u64, Instant)>,
    /// The block of `channels`.
    block: u64,
    channels: HashMap<ChannelId, Option<ChainChannel>>,
}

/// What is wrong with a node, or its answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// It cannot be reached, or does not answer in time.
    #[error("the node cannot be asked: {0}")]
    Unreachable(#[source] Cause),
    /// It is on another chain.
    #[error("the node is on chain {found}, not {expected}")]
    OtherChain {
        /// The chain of the ledger.
        expected: u64,
        /// That of the node.
        found: u64,
    },
    /// It is behind what it, or one before it, has told.
    #[error("the node is behind: it has block {found}, and block {seen} was seen already")]
    Behind {
        /// The last block that was seen.
        seen: u64,
        /// The last block of the node.
        found: u64,
    },
    /// It answers with an error of its own, or in another form than is expected.
    #[error("the node does not answer what was asked: {0}")]
    Answer(String),
    /// There is no contract at the address.
    #[error("there is no contract at {0}")]
    NoContract(Address),
}

/// So many channels are remembered for a block; where there are more, all are forgotten and asked for anew.
const MAX_CHANNELS: usize = 65_536;

/// What `channels(uint256)` answers: nonce, sender, signer, recipient, group, value and expiration.
const WORDS: usize = 7;

impl<T: JsonRpc> EscrowSource<T> {
    /// The contract of `ledger` as `node` tells of it.
    ///
    /// # Errors
    /// A [`NodeError`] as cause: the node is down, on another chain, or knows no contract there.
    pub async fn connect(node: T, ledger: Ledger, options: EscrowOptions) -> Result<Self, ChainError> {
        let source = Self { node, ledger, options, seen: Mutex::default() };
        source.last_block().await?;
        let code = source.ask(&[("eth_getCode", json!([ledger.contract.to_string(), "latest"]))]).await?;
        match code.first().and_then(Value::as_str) {
            Some(code) if code.len() > 2 => Ok(source),
            _ => Err(failed(NodeError::NoContract(ledger.contract))),
        }
    }

    /// The node underneath.
    pub fn node(&self) -> &T {
        &self.node
    }

    /// The last block, asked for if what is known is too old.
    async fn last_block(&self) -> Result<u64, ChainError> {
        if let Some((block, at)) = self.seen.lock().last
            && at.elapsed() < self.options.block_age
        {
            return Ok(block);
        }
        // The clock is read before the node is asked, so that what it says is never taken for newer than it is.
        let at = Instant::now();
        let answers = self.ask(&[("eth_chainId", json!([])), ("eth_blockNumber", json!([]))]).await?;
        let [chain, block] = answers.as_slice() else { return Err(wrong("two answers were expected")) };
        let (found, block) = (quantity(chain)?, quantity(block)?);
        let expected = self.ledger.chain_id;
        if found != expected {
            return Err(failed(NodeError::OtherChain { expected, found }));
        }
        let mut seen = self.seen.lock();
        match seen.last {
            // Somebody else asked later, and was answered before.
            Some((last, since)) if block < last && at < since => Ok(last),
            Some((last, _)) if block < last => Err(failed(NodeError::Behind { seen: last, found: block })),
            _ => {
                seen.last = Some((block, at));
                Ok(block)
            }
        }
    }

    async fn ask(&self, calls: &[(&str, Value)]) -> Result<Vec<Value>, ChainError> {
        let request = |(id, (method, params)): (usize, &(&str, Value))| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let batch: Value = calls.iter().enumerate().map(request).collect();
        let answer = self.node.post(batch.to_string(), self.options.timeout).await;
        let answer = answer.map_err(|cause| failed(NodeError::Unreachable(cause)))?;
        let answers: Value = serde_json::from_str(&answer).map_err(|error| wrong(error.to_string()))?;
        let answers = answers.as_array().ok_or_else(|| wrong(format!("no batch: {}", excerpt(&answers))))?;
        // A batch may be answered in any order.
        let of = |id: usize| {
            let answer =
                answers.iter().find(|answer| answer.get("id").and_then(Value::as_u64) == u64::try_from(id).ok());
            let answer = answer.ok_or_else(|| wrong(format!("no answer to call {id}")))?;
            answer.get("result").cloned().ok_or_else(|| wrong(excerpt(answer)))
        };
        (0..calls.len()).map(of).collect()
    }

    async fn channel_at(&self, id: ChannelId, block: u64) -> Result<Option<ChainChannel>, ChainError> {
        let selector = keccak256("channels(uint256)");
        let data = selector.iter().take(4).copied().chain(id.to_be_bytes());
        let data = data.fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"));
        let call = json!([{"to": self.ledger.contract.to_string(), "data": data}, format!("{block:#x}")]);
        let answers = self.ask(&[("eth_call", call)]).await?;
        let words = answers.first().and_then(Value::as_str).and_then(words);
        let [nonce, sender, signer, recipient, group_id, value, expiration] =
            words.ok_or_else(|| wrong("the contract has another form of channels"))?;
        let sender = address(&sender).ok_or_else(|| wrong("a sender is no address"))?;
        if sender == Address::new([0; 20]) {
            return Ok(None);
        }
        Ok(Some(ChainChannel {
            channel_id: id,
            nonce: Nonce::from_be_bytes(nonce),
            sender,
            signer: address(&signer).ok_or_else(|| wrong("a signer is no address"))?,
            recipient: address(&recipient).ok_or_else(|| wrong("a recipient is no address"))?,
            group_id: GroupId::new(group_id),
            full_amount: Amount::from_be_bytes(value),
            expiration: BlockNumber::from_be_bytes(expiration),
        }))
    }
}

#[async_trait]
impl<T: JsonRpc> ChannelSource for EscrowSource<T> {
    fn chain_id(&self) -> u64 {
        self.ledger.chain_id
    }

    async fn channel(&self, id: ChannelId) -> Result<Option<ChainChannel>, ChainError> {
        let block = self.last_block().await?.saturating_sub(self.options.confirmations);
        {
            let seen = self.seen.lock();
            if seen.block == block
                && let Some(channel) = seen.channels.get(&id)
            {
                return Ok(channel.clone());
            }
        }
        let channel = self.channel_at(id, block).await?;
        let mut seen = self.seen.lock();
        if block > seen.block || seen.channels.len() >= MAX_CHANNELS {
            (seen.block, seen.channels) = (block.max(seen.block), HashMap::new());
        }
        if block == seen.block {
            seen.channels.insert(id, channel.clone());
        }
        Ok(channel)
    }

    async fn current_block(&self) -> Result<BlockNumber, ChainError> {
        Ok(BlockNumber::from(self.last_block().await?))
    }
}

fn failed(error: NodeError) -> ChainError {
    ChainError(error.into())
}

fn wrong(what: impl Into<String>) -> ChainError {
    failed(NodeError::Answer(what.into()))
}

/// The beginning of an answer: a node may put anything there.
fn excerpt(value: &Value) -> String {
    value.to_string().chars().take(200).collect()
}

fn quantity(value: &Value) -> Result<u64, ChainError> {
    let digits = value.as_str().and_then(|text| text.strip_prefix("0x"));
    digits
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| wrong(format!("no number: {}", excerpt(value))))
}

fn words(text: &str) -> Option<[[u8; 32]; WORDS]> {
    let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 64 * WORDS && digits.is_ascii())?;
    let mut words = [[0; 32]; WORDS];
    for (byte, pair) in words.as_flattened_mut().iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(words)
}

/// The last twenty bytes of a word; the others are zero.
fn address(word: &[u8; 32]) -> Option<Address> {
    let (zero, address) = word.split_first_chunk::<12>()?;
    (*zero == [0; 12]).then_some(Address::new(address.try_into().ok()?))
}
