//! The contract as a node tells of it: what is asked how often, and what is believed.
#![cfg(feature = "json-rpc")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use payment_channels::{
    ChannelSource, Error, EscrowOptions, EscrowSource, HttpNode, JsonRpc, Ledger, MemoryChain, Options, Payments,
};
use serde_json::{Value, json};
use storage_core::{
    Cause, MemoryStore,
    channel::{Amount, BlockNumber, ChannelId, Nonce},
};
use support::*;

/// Where the chain begins: far from where the channel expires.
const START: u64 = BLOCK - 10;

/// A node that answers from what a test has set.
#[derive(Clone, Debug, Default)]
struct FakeNode {
    state: Arc<Mutex<ChainState>>,
}

#[derive(Debug, Default)]
struct ChainState {
    chain_id: u64,
    block: u64,
    nonce: u64,
    down: bool,
    /// What it answers to a call of the contract instead.
    garbled: Option<Value>,
    /// The methods that were called, with the block where there is one.
    asked: Vec<String>,
}

#[async_trait]
impl JsonRpc for FakeNode {
    async fn post(&self, body: String, _: Duration) -> Result<String, Cause> {
        let mut state = self.state.lock();
        if state.down {
            return Err("injected: nobody is there".into());
        }
        let calls: Vec<Value> = serde_json::from_str(&body).unwrap();
        let mut answers: Vec<Value> = calls.iter().map(|call| state.answer(call)).collect();
        // A batch may be answered in any order.
        answers.reverse();
        Ok(Value::from(answers).to_string())
    }
}

impl ChainState {
    fn answer(&mut self, call: &Value) -> Value {
        let method = call["method"].as_str().unwrap();
        let block = call["params"][1].as_str().unwrap_or_default();
        self.asked.push(format!("{method} {block}").trim().to_owned());
        let result = match method {
            "eth_chainId" => json!(format!("{:#x}", self.chain_id)),
            "eth_blockNumber" => json!(format!("{:#x}", self.block)),
            "eth_getCode" => json!("0x6080"),
            "eth_call" if self.garbled.is_some() => self.garbled.clone().unwrap(),
            "eth_call" => json!(self.channel(call["params"][0]["data"].as_str().unwrap())),
            _ => panic!("{method}"),
        };
        json!({"jsonrpc": "2.0", "id": call["id"], "result": result})
    }

    fn channel(&self, data: &str) -> String {
        let id = u64::from_str_radix(&data[10..], 16).unwrap();
        if id != 7 {
            return format!("0x{}", "0".repeat(7 * 64));
        }
        let open = chain_channel(1000);
        let word =
            |bytes: &[u8]| format!("{:0>64}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        let addresses = [open.sender, open.signer, open.recipient].map(|address| word(address.as_bytes())).concat();
        let (nonce, group) = (format!("{:064x}", self.nonce), word(open.group_id.as_bytes()));
        format!("0x{nonce}{addresses}{group}{:064x}{:064x}", open.full_amount, open.expiration)
    }
}

fn node() -> FakeNode {
    let node = FakeNode::default();
    *node.state.lock() = ChainState { chain_id: MemoryChain::CHAIN_ID, block: START, ..ChainState::default() };
    node
}

async fn source(node: &FakeNode, options: EscrowOptions) -> EscrowSource<FakeNode> {
    let source = EscrowSource::connect(node.clone(), LEDGER, options).await.unwrap();
    node.state.lock().asked.clear();
    source
}

#[tokio::test(start_paused = true)]
async fn a_channel_is_asked_for_once_a_block() {
    let node = node();
    let source = source(&node, EscrowOptions { confirmations: 3, ..EscrowOptions::default() }).await;
    for _ in 0..5 {
        assert_eq!(source.channel(channel()).await.unwrap(), Some(chain_channel(1000)));
        assert_eq!(source.channel(ChannelId::from(8)).await.unwrap(), None, "nobody opened it");
        assert_eq!(source.current_block().await.unwrap(), BlockNumber::from(START));
    }
    let at = format!("eth_call {:#x}", START - 3);
    assert_eq!(node.state.lock().asked, [at.as_str(), &at]);
    {
        let mut state = node.state.lock();
        (state.block, state.nonce) = (START + 1, 1);
        state.asked.clear();
    }
    tokio::time::advance(EscrowOptions::default().block_age).await;
    assert_eq!(source.channel(channel()).await.unwrap().unwrap().nonce, Nonce::from(1));
    let expected = ["eth_chainId", "eth_blockNumber", &format!("eth_call {:#x}", START - 2)];
    assert_eq!(node.state.lock().asked, expected);
}

/// What a node suffers.
type Fault = fn(&mut ChainState);

/// Whatever is wrong with the node, it is named, the client is not charged, and nothing is held.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_down_or_behind_or_elsewhere_is_named_and_nothing_is_held_meanwhile() {
    let node = node();
    let store = MemoryStore::new();
    let source = source(&node, EscrowOptions::default()).await;
    let replica = Payments::new(store.handle(), source, terms(), Options::new("one")).unwrap();
    let healthy = |state: &mut ChainState| {
        let nonce = state.nonce;
        *state = ChainState { chain_id: MemoryChain::CHAIN_ID, block: START + 1, nonce, ..ChainState::default() };
    };
    let faults: [(&str, Fault); 5] = [
        ("cannot be asked", |state| state.down = true),
        ("is on chain 5, not 31337", |state| state.chain_id = 5),
        ("is behind", |state| state.block = 1),
        ("another form", |state| (state.block, state.garbled) = (START + 2, Some(json!("0x")))),
        ("another form", |state| (state.block, state.garbled) = (START + 3, Some(Value::Null))),
    ];
    for (expected, fault) in faults {
        tokio::time::advance(EscrowOptions::default().block_age).await;
        fault(&mut node.state.lock());
        let error = replica.reserve(&pay(0, 10), Amount::from(10)).await.unwrap_err();
        assert!(matches!(error, Error::Chain(_)) && error.to_string().contains(expected), "{expected}: {error}");
        assert_eq!(error.grpc_code().number(), 14);
        let report = replica.operator().report(channel()).await.unwrap();
        assert_eq!((report.channel, report.reservation.hold()), (None, None));
        let block = node.state.lock().block.max(START + 1);
        healthy(&mut node.state.lock());
        node.state.lock().block = block;
        tokio::time::advance(EscrowOptions::default().block_age).await;
    }
    let reservation = replica.reserve(&pay(0, 10), Amount::from(10)).await.unwrap();
    replica.commit(&reservation).await.unwrap();
}

#[tokio::test]
async fn a_node_that_hangs_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let options = EscrowOptions { timeout: Duration::from_millis(50), ..EscrowOptions::default() };
    let ledger = Ledger { chain_id: 1, ..LEDGER };
    let refused = EscrowSource::connect(HttpNode::new(&url).unwrap(), ledger, options).await.unwrap_err();
    assert!(refused.to_string().contains("did not answer in time"), "{refused}");
}
