//! A real EVM of one's own, with the real contracts on it: anvil, and the bytecode that SingularityNET published.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use alloy_primitives::keccak256;
use anyhow::{Context, Result, bail, ensure};
use payment_channels::{HttpNode, JsonRpc, Signer};
use serde_json::{Value, json};
use storage::channel::{Address, BlockNumber, GroupId};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

/// For one request, and for a transaction to be mined.
const SOON: Duration = Duration::from_secs(30);

/// More than any transaction here takes.
const GAS: &str = "0x1000000";

/// Ends with this handle.
#[derive(Debug)]
pub(crate) struct Evm {
    _process: Child,
    node: HttpNode,
    url: String,
    modules: PathBuf,
}

/// Whom the demonstration has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accounts {
    /// Deposits, and has its channels' payments signed by others.
    pub(crate) sender: Address,
    /// Is paid.
    pub(crate) recipient: Address,
}

impl Evm {
    /// The number of anvil's chain.
    pub(crate) const CHAIN_ID: u64 = 31_337;

    /// Starts one of the packages in `modules`, a folder of npm.
    pub(crate) async fn start(modules: &Path) -> Result<Self> {
        let program = modules.join("@foundry-rs/anvil-linux-amd64/bin/anvil");
        let port = free_port()?;
        let process = Command::new(&program)
            .args(["--port", &port.to_string(), "--silent"])
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let url = format!("http://127.0.0.1:{port}");
        let node = HttpNode::new(&url).context("a port makes an address")?;
        let evm = Self { _process: process, node, url, modules: modules.to_owned() };
        let began = Instant::now();
        while let Err(error) = evm.call("eth_chainId", json!([])).await {
            if began.elapsed() > SOON {
                return Err(error.context("anvil does not answer"));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(evm)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn node(&self) -> &HttpNode {
        &self.node
    }

    pub(crate) async fn accounts(&self) -> Result<Accounts> {
        let accounts: Vec<String> = serde_json::from_value(self.call("eth_accounts", json!([])).await?)?;
        let [sender, recipient, ..] = &accounts[..] else { bail!("anvil has no accounts") };
        Ok(Accounts { sender: sender.parse()?, recipient: recipient.parse()? })
    }

    pub(crate) async fn block(&self) -> Result<BlockNumber> {
        let block = self.call("eth_blockNumber", json!([])).await?;
        Ok(block.as_str().context("a block has a number")?.parse()?)
    }

    /// Puts the token and the escrow on the chain, and lets the sender deposit: the escrow, with so much for each channel and nothing else of the
    /// sender's in it.
    pub(crate) async fn escrow(
        &self,
        accounts: Accounts,
        group: GroupId,
        deposit: u64,
        signers: &[Signer],
    ) -> Result<Address> {
        let text = |text: &str| [number(text.len() as u64), format!("{:0<64}", hexadecimal(text.as_bytes()))].concat();
        let named = [number(64), number(128), text("token"), text("TKN")].concat();
        let token = "singularitynet-token-contracts/bytecode/SingularityNetToken.json";
        let token = self.deploy(accounts.sender, token, &named).await?;
        let escrow = "singularitynet-platform-contracts/bytecode/MultiPartyEscrow.json";
        let escrow = self.deploy(accounts.sender, escrow, &address(token)).await?;
        let all = deposit * signers.len() as u64;
        self.send(accounts.sender, Some(token), "mint(address,uint256)", &[address(accounts.sender), number(all)])
            .await?;
        self.send(accounts.sender, Some(token), "approve(address,uint256)", &[address(escrow), number(all)]).await?;
        let open = "depositAndOpenChannel(address,address,bytes32,uint256,uint256)";
        let group = hexadecimal(group.as_bytes());
        for signer in signers {
            let recipient = address(accounts.recipient);
            let words = [address(signer.address()), recipient, group.clone(), number(deposit), number(1_000_000)];
            self.send(accounts.sender, Some(escrow), open, &words).await?;
        }
        Ok(escrow)
    }

    /// Lets an account send this to a contract, and waits until it is mined.
    pub(crate) async fn send_data(&self, from: Address, to: Option<Address>, data: String) -> Result<Value> {
        let to = to.map(|to| to.to_string());
        let transaction = json!({"from": from.to_string(), "to": to, "data": data, "gas": GAS});
        let hash = self.call("eth_sendTransaction", json!([transaction])).await?;
        let began = Instant::now();
        loop {
            let receipt = self.call("eth_getTransactionReceipt", json!([hash])).await?;
            if receipt.get("status").is_some_and(|status| status == "0x1") {
                return Ok(receipt);
            }
            ensure!(receipt.is_null() && began.elapsed() < SOON, "a transaction was not carried out: {receipt}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the escrow owes to somebody: his deposits outside of channels, and what he was paid.
    pub(crate) async fn balance(&self, escrow: Address, owner: Address) -> Result<u64> {
        let call =
            json!([{"to": escrow.to_string(), "data": calldata("balances(address)", &[address(owner)])}, "latest"]);
        let balance = self.call("eth_call", call).await?;
        let balance = balance.as_str().context("a balance is a number")?;
        Ok(u64::from_str_radix(balance.trim_start_matches("0x"), 16)?)
    }

    async fn send(&self, from: Address, to: Option<Address>, function: &str, words: &[String]) -> Result<Value> {
        self.send_data(from, to, calldata(function, words)).await.with_context(|| function.to_owned())
    }

    async fn deploy(&self, from: Address, bytecode: &str, arguments: &str) -> Result<Address> {
        let file = self.modules.join(bytecode);
        let text = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let code: String = serde_json::from_slice(&text)?;
        let receipt = self.send_data(from, None, code + arguments).await?;
        let address = receipt.get("contractAddress").and_then(Value::as_str);
        Ok(address.context("a contract has an address")?.parse()?)
    }

    async fn call(&self, method: &str, parameters: Value) -> Result<Value> {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters});
        let answer = self.node.post(request.to_string(), SOON).await.map_err(|error| anyhow::anyhow!(error))?;
        let mut answer: Value = serde_json::from_str(&answer)?;
        let result = answer.get_mut("result").map(Value::take);
        result.with_context(|| format!("{method}: {answer}"))
    }
}

/// A port of this machine that nobody has now. Somebody may take it before it is used, which then fails with words.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A call of a contract, as a wallet sends it.
fn calldata(function: &str, words: &[String]) -> String {
    let selector = keccak256(function);
    let selector: Vec<u8> = selector.iter().take(4).copied().collect();
    format!("0x{}{}", hexadecimal(&selector), words.concat())
}

fn number(number: u64) -> String {
    format!("{number:064x}")
}

fn address(address: Address) -> String {
    format!("{:0>64}", hexadecimal(address.as_bytes()))
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
