//! The real contract on a real EVM: what three replicas were paid, the chain pays, and not a token more.
//!
//! `npm pack @foundry-rs/anvil-linux-amd64 singularitynet-platform-contracts singularitynet-token-contracts`, unpacked; then
//! `ANVIL_BIN=.../bin/anvil ESCROW_BYTECODE=.../MultiPartyEscrow.json TOKEN_BYTECODE=.../SingularityNetToken.json cargo test -p payment-channels
//! --features json-rpc --test anvil -- --ignored`.
#![cfg(feature = "json-rpc")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{
    env, fs,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use alloy_primitives::keccak256;
use futures::TryStreamExt;
use payment_channels::{
    AfterClaim, Authorization, ChannelSource, Claim, Error, EscrowOptions, EscrowSource, HttpNode, JsonRpc, Ledger,
    Options, Payment, Payments, Terms,
};
use serde_json::{Value, json};
use storage_core::{
    MemoryStore,
    channel::{Address, Amount, ChannelId, Nonce},
};
use support::*;

const SOON: Duration = Duration::from_secs(30);
const PRICE: u64 = 10;
const CALLS: u64 = 1_000;
const KILLS: u64 = 3;
const DOUBLE_SPENDS: u64 = 50;
const DEPOSIT: u64 = 1_000_000;
const LEASE: Duration = Duration::from_millis(100);

/// An EVM of its own, which ends with the test.
struct Anvil {
    process: Child,
    node: HttpNode,
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn needed(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: this file says what it is"))
}

impl Anvil {
    async fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new(needed("ANVIL_BIN"))
            .args(["--port", &port.to_string(), "--silent"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let anvil = Self { process, node: HttpNode::new(&format!("http://127.0.0.1:{port}")).unwrap() };
        let began = std::time::Instant::now();
        while anvil.node.post(json!([]).to_string(), SOON).await.is_err() {
            assert!(began.elapsed() < SOON, "anvil does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anvil
    }

    async fn call(&self, method: &str, params: Value) -> Value {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let answer: Value = serde_json::from_str(&self.node.post(request.to_string(), SOON).await.unwrap()).unwrap();
        answer.get("result").unwrap_or_else(|| panic!("{method}: {answer}")).clone()
    }

    /// Sends a transaction, and gives its receipt once it is mined.
    async fn send(&self, from: Address, to: Option<Address>, data: String) -> Value {
        let mut transaction = json!({"from": from.to_string(), "data": data, "gas": "0x1000000"});
        if let Some(to) = to {
            transaction["to"] = json!(to.to_string());
        }
        let hash = self.call("eth_sendTransaction", json!([transaction])).await;
        let began = std::time::Instant::now();
        let receipt = loop {
            match self.call("eth_getTransactionReceipt", json!([hash])).await {
                Value::Null => assert!(began.elapsed() < SOON, "a transaction is not mined"),
                receipt => break receipt,
            }
        };
        assert_eq!(receipt["status"], "0x1", "{receipt}");
        receipt
    }

    async fn deploy(&self, from: Address, bytecode: &str, arguments: &str) -> Address {
        let code: String = serde_json::from_str::<Value>(&fs::read_to_string(needed(bytecode)).unwrap())
            .map(|code| code.as_str().unwrap().to_owned())
            .unwrap();
        let receipt = self.send(from, None, code + arguments).await;
        receipt["contractAddress"].as_str().unwrap().parse().unwrap()
    }

    /// What the contract has paid to somebody.
    async fn balance(&self, escrow: Address, owner: Address) -> u64 {
        let call = json!([{"to": escrow.to_string(), "data": call("balances(address)", &[word_of(owner)])}, "latest"]);
        u64::from_str_radix(self.call("eth_call", call).await.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    }
}

fn word(number: u64) -> String {
    format!("{number:064x}")
}

fn word_of(address: Address) -> String {
    format!("{:0>64}", &address.to_string()[2..])
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn call(function: &str, words: &[String]) -> String {
    hexadecimal(&keccak256(function)[..4]) + &words.concat()
}

type Replica = Payments<MemoryStore, EscrowSource<HttpNode>>;

async fn replica(store: &MemoryStore, anvil: &Anvil, terms: Terms, name: &str) -> Replica {
    let options = EscrowOptions { block_age: Duration::ZERO, ..EscrowOptions::default() };
    let ledger = Ledger { chain_id: 31_337, contract: terms.contract };
    let source = EscrowSource::connect(anvil.node.clone(), ledger, options).await.unwrap();
    Payments::new(store.handle(), source, terms, Options::new(name).lease(LEASE).wait(10 * LEASE)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs anvil and the contracts"]
async fn the_chain_pays_what_was_authorized_and_not_a_token_more() {
    let anvil = Anvil::start().await;
    let accounts = anvil.call("eth_accounts", json!([])).await;
    let [owner, recipient] = [0, 1].map(|place: usize| accounts[place].as_str().unwrap().parse().unwrap());
    let text = |text: &str| word(text.len() as u64) + &format!("{:0<64}", &hexadecimal(text.as_bytes())[2..]);
    let arguments = [word(64), word(128), text("token"), text("TKN")].concat();
    let token = anvil.deploy(owner, "TOKEN_BYTECODE", &arguments).await;
    let escrow = anvil.deploy(owner, "ESCROW_BYTECODE", &word_of(token)).await;
    let minted = call("mint(address,uint256)", &[word_of(owner), word(DEPOSIT)]);
    anvil.send(owner, Some(token), minted).await;
    anvil.send(owner, Some(token), call("approve(address,uint256)", &[word_of(escrow), word(2 * DEPOSIT)])).await;
    for _ in 0..2 {
        let group: String = hexadecimal(GROUP.as_bytes())[2..].to_owned();
        let open = [word_of(address_of("signer")), word_of(recipient), group, word(DEPOSIT / 2), word(1_000_000)];
        anvil
            .send(owner, Some(escrow), call("depositAndOpenChannel(address,address,bytes32,uint256,uint256)", &open))
            .await;
    }

    let terms = Terms { contract: escrow, recipient, group_id: GROUP, expiration_threshold: 100 };
    let store = MemoryStore::new();
    let mut replicas = Vec::new();
    for name in ["one", "two", "three"] {
        replicas.push(Arc::new(replica(&store, &anvil, terms, name).await));
    }
    let payment = |id: u64, nonce: u64, amount: u64| -> Payment {
        let (channel_id, nonce, amount) = (ChannelId::from(id), Nonce::from(nonce), Amount::from(amount));
        sign("signer", Authorization { contract: escrow, channel_id, nonce, amount })
    };
    let mut refused = 0;
    for number in 1..=CALLS {
        let payment = payment(0, 0, number * PRICE);
        let one = &replicas[(number % 3) as usize];
        if number % (CALLS / KILLS) == 0 {
            // It dies with the payment in flight, and another takes over after its lease.
            drop(one.reserve(&payment, Amount::from(PRICE)).await.unwrap());
            let fresh = Arc::new(replica(&store, &anvil, terms, "again").await);
            replicas[(number % 3) as usize] = fresh;
        }
        let one = &replicas[((number + 1) % 3) as usize];
        one.reserve_guarded(&payment, Amount::from(PRICE)).await.unwrap().commit().await.unwrap();
        if number % (CALLS / DOUBLE_SPENDS) == 0 {
            for replica in &replicas {
                let again = replica.reserve(&payment, Amount::from(PRICE)).await.map(drop);
                assert!(matches!(again, Err(Error::Refused(_))), "{again:?}");
            }
            refused += 1;
        }
    }
    assert_eq!(refused, DOUBLE_SPENDS);

    let one = &replicas[0];
    let claim = one.start_claim(ChannelId::from(0), AfterClaim::Continue).await.unwrap();
    assert_eq!(claim.payment.amount(), Amount::from(CALLS * PRICE));
    assert_eq!(one.settle_claims().await.unwrap().open_amount(), Some(Amount::from(CALLS * PRICE)), "not paid yet");
    anvil.send(recipient, Some(escrow), hexadecimal(&claim.calldata())).await;
    assert_eq!(anvil.balance(escrow, recipient).await, CALLS * PRICE);
    let report = replicas[1].settle_claims().await.unwrap();
    assert_eq!(report.finished_amount(), Some(Amount::from(CALLS * PRICE)));

    // Both channels in one transaction, of which one closes.
    for (id, nonce, after) in [(0, 1, AfterClaim::Continue), (1, 0, AfterClaim::Close)] {
        let reservation = one.reserve(&payment(id, nonce, 70), Amount::from(70)).await.unwrap();
        one.commit(&reservation).await.unwrap();
        one.start_claim(ChannelId::from(id), after).await.unwrap();
    }
    let claims: Vec<Claim> = one.claims().try_collect().await.unwrap();
    assert_eq!(claims.len(), 2);
    anvil.send(recipient, Some(escrow), hexadecimal(&Claim::calldata_of_many(&claims))).await;
    assert_eq!(one.settle_claims().await.unwrap().finished_amount(), Some(Amount::from(140)));
    assert_eq!(one.claims().try_collect::<Vec<_>>().await.unwrap(), []);

    let paid = anvil.balance(escrow, recipient).await;
    let returned = anvil.balance(escrow, owner).await;
    let left = one.chain().channel(ChannelId::from(0)).await.unwrap().unwrap().full_amount.to_u64().unwrap();
    println!("deposited {DEPOSIT}: paid {paid}, returned {returned}, left {left}");
    assert_eq!(paid, CALLS * PRICE + 140);
    assert_eq!(paid + returned + left, DEPOSIT);
}
