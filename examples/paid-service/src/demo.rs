//! Three replicas as processes, an EVM with the real contract, clients that pay, kills, claims, and the balance sheet.

use std::{
    env, fmt,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use payment_channels::{ChannelSource, EscrowOptions, EscrowSource, Ledger, Signer};
use storage::channel::{Address, ChannelId, GroupId};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};
use tonic::transport::Endpoint;

use crate::{
    client::{Client, Counts},
    evm::{Accounts, Evm, free_port, hexadecimal},
    proto::example::{ClaimRequest, SettleRequest, treasury_client::TreasuryClient},
};

const REPLICAS: usize = 3;
const GROUP: GroupId = GroupId::new([0x96; 32]);
const PRICE: u64 = 10;

/// A replica starts, founds its cluster and serves within this, on a machine that does other things too.
const SERVES_WITHIN: Duration = Duration::from_secs(120);

const PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Demo {
    /// How many calls are paid for.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    calls: u64,
    /// How many clients pay, each from a channel of its own.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=100))]
    clients: u64,
    /// How many times a replica is killed meanwhile.
    #[arg(long, default_value_t = 1)]
    kills: u64,
    /// How many payments are sent once more, to every replica.
    #[arg(long, default_value_t = 10)]
    double_spends: u64,
    /// A folder of npm with what contracts/package.json lists.
    #[arg(long, env = "ANVIL_NODE_MODULES")]
    modules: PathBuf,
}

impl Demo {
    pub(crate) async fn run(self) -> Result<()> {
        let evm = Arc::new(Evm::start(&self.modules).await?);
        let accounts = evm.accounts().await?;
        // Where each call costs twice the price the deposit suffices still.
        let deposit = 2 * PRICE * (self.calls + self.clients);
        let signers = (1..=self.clients).map(|number| Ok(Signer::new(&secret(number))?)).collect::<Result<Vec<_>>>()?;
        let escrow = evm.escrow(accounts, GROUP, deposit, &signers).await?;
        println!("the escrow {escrow} has {} channels of {deposit} each", self.clients);

        let data = tempfile::tempdir()?;
        let mut service = Service::start(data.path(), &evm, escrow, accounts.recipient).await?;
        println!("{REPLICAS} replicas serve");
        let clients = signers.into_iter().zip(0..);
        let clients = clients
            .map(|(signer, channel)| Client::new(Arc::clone(&evm), &service.listen, (escrow, channel), PRICE, signer));
        let mut clients = clients.collect::<Result<Vec<_>>>()?;

        let mut claimed = self.pay(&mut clients, &mut service).await?;
        let all: Vec<u64> = (0..self.clients).collect();
        service.claim(&evm, accounts, &all, false).await?;
        // The channels go on at their next nonce, and are closed.
        for client in &mut clients {
            client.ask_state().await?;
            client.pay().await?;
            claimed += client.authorized();
        }
        service.claim(&evm, accounts, &all, true).await?;

        let counts = clients.iter().map(|client| client.counts).fold(Counts::default(), Counts::and);
        let sheet = Sheet {
            counts,
            kills: self.kills,
            deposited: deposit * self.clients,
            authorized: claimed,
            paid: evm.balance(escrow, accounts.recipient).await?,
            returned: evm.balance(escrow, accounts.sender).await?,
            left: left(&evm, escrow, self.clients).await?,
        };
        println!("{sheet}");
        sheet.check()
    }

    /// All calls, shared among the clients, and the kills between them; what was authorized in the end.
    async fn pay(&self, clients: &mut Vec<Client>, service: &mut Service<'_>) -> Result<u64> {
        let bar = ProgressBar::new(self.calls).with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} calls")?);
        let again = self.calls.checked_div(self.double_spends).unwrap_or(u64::MAX).max(1);
        let share = self.clients;
        let calls = self.calls;
        let tasks = clients.drain(..).zip(0..).map(|(mut client, number)| {
            let bar = bar.clone();
            tokio::spawn(async move {
                for call in (number..calls).step_by(usize::try_from(share)?) {
                    client.pay().await?;
                    if call % again == 0 {
                        client.pay_again().await;
                    }
                    bar.inc(1);
                }
                Ok::<_, anyhow::Error>(client)
            })
        });
        let tasks: Vec<_> = tasks.collect();
        for kill in 0..self.kills {
            let due = self.calls * (kill + 1) / (self.kills + 1);
            while bar.position() < due && !tasks.iter().all(|task| task.is_finished()) {
                sleep(Duration::from_millis(1)).await;
            }
            service.kill_and_restart(usize::try_from(kill)? % REPLICAS).await?;
        }
        for task in tasks {
            clients.push(task.await??);
        }
        bar.finish_and_clear();
        Ok(clients.iter().map(Client::authorized).sum())
    }
}

/// The replicas, which end with this handle.
struct Service<'a> {
    evm: &'a Evm,
    escrow: Address,
    recipient: Address,
    data: &'a Path,
    replicas: Vec<Child>,
    listen: Vec<SocketAddr>,
    treasuries: Vec<SocketAddr>,
    /// Where the nodes of the store call each other.
    nodes: Vec<SocketAddr>,
}

impl<'a> Service<'a> {
    async fn start(data: &'a Path, evm: &'a Evm, escrow: Address, recipient: Address) -> Result<Self> {
        let [listen, treasuries, nodes] = [addresses()?, addresses()?, addresses()?];
        let mut service = Self { evm, escrow, recipient, data, replicas: Vec::new(), listen, treasuries, nodes };
        for place in 0..REPLICAS {
            let replica = service.spawn(place)?;
            service.replicas.push(replica);
        }
        for place in 0..REPLICAS {
            service.serves(place).await?;
        }
        Ok(service)
    }

    fn spawn(&self, place: usize) -> Result<Child> {
        let at = |addresses: &[SocketAddr]| addresses.get(place).copied().context("there is such a replica");
        let id = place + 1;
        let members: Vec<_> = self.nodes.iter().zip(1..).map(|(node, id)| format!("{id}={node}")).collect();
        let directory = self.data.join(id.to_string());
        let store = format!(
            "embedded:{}?id={id}&listen={}&members={}&cluster=1",
            directory.display(),
            at(&self.nodes)?,
            members.join(",")
        );
        Command::new(env::current_exe()?)
            .arg("replica")
            .args(["--name", &format!("replica {id}"), "--store", &store, "--node", self.evm.url()])
            .args(["--listen", &at(&self.listen)?.to_string(), "--treasury", &at(&self.treasuries)?.to_string()])
            .args(["--chain-id", &Evm::CHAIN_ID.to_string(), "--contract", &self.escrow.to_string()])
            .args(["--recipient", &self.recipient.to_string(), "--group", &GROUP.to_string()])
            .args(["--price", &PRICE.to_string()])
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a replica")
    }

    async fn kill_and_restart(&mut self, place: usize) -> Result<()> {
        // As a process that is killed, and not as one that ends.
        self.replicas.get_mut(place).context("there is such a replica")?.kill().await?;
        let replica = self.spawn(place)?;
        *self.replicas.get_mut(place).context("there is such a replica")? = replica;
        self.serves(place).await
    }

    /// Waits until a replica takes calls.
    async fn serves(&mut self, place: usize) -> Result<()> {
        let replica = self.replicas.get_mut(place).context("there is such a replica")?;
        let address = self.treasuries.get(place).context("there is such a replica")?;
        let began = Instant::now();
        while Endpoint::from_shared(format!("http://{address}"))?.connect().await.is_err() {
            let ended = replica.try_wait()?;
            ensure!(ended.is_none(), "replica {} ended with {ended:?}", place + 1);
            ensure!(began.elapsed() < SERVES_WITHIN, "replica {} does not serve", place + 1);
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Starts claims, has the recipient's wallet send them, and waits until the books know that the chain has paid.
    async fn claim(&self, evm: &Evm, accounts: Accounts, channels: &[u64], close: bool) -> Result<()> {
        let treasury = self.treasuries.first().context("there are replicas")?;
        let mut treasury = TreasuryClient::connect(format!("http://{treasury}")).await?;
        let claims = treasury.claim(ClaimRequest { channel_ids: channels.to_vec(), close }).await?.into_inner();
        let calldata = format!("0x{}", hexadecimal(&claims.calldata));
        evm.send_data(accounts.recipient, Some(self.escrow), calldata).await.context("multiChannelClaim")?;
        println!("the contract paid a claim of {}", claims.amount);
        let began = Instant::now();
        // A replica looks at the last block every two seconds.
        while treasury.settle(SettleRequest {}).await?.into_inner().open > 0 {
            ensure!(began.elapsed() < SERVES_WITHIN, "claims that the chain has paid stay open");
            sleep(PAUSE).await;
        }
        Ok(())
    }
}

fn addresses() -> Result<Vec<SocketAddr>> {
    (0..REPLICAS).map(|_| Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)))).collect()
}

/// A key that is worth nothing: everybody can guess it.
fn secret(number: u64) -> [u8; 32] {
    let mut secret = [0; 32];
    let [.., a, b, c, d, e, f, g, h] = &mut secret;
    for (byte, from) in [a, b, c, d, e, f, g, h].into_iter().zip(number.to_be_bytes()) {
        *byte = from;
    }
    secret
}

/// What the channels have left.
async fn left(evm: &Evm, escrow: Address, channels: u64) -> Result<u64> {
    let ledger = Ledger { chain_id: Evm::CHAIN_ID, contract: escrow };
    let source = EscrowSource::connect(evm.node().clone(), ledger, EscrowOptions::default()).await?;
    let mut left = 0;
    for channel in 0..channels {
        let channel = source.channel(ChannelId::from(channel)).await?.context("the channel was opened")?;
        left += channel.full_amount.to_u64().context("nobody deposited so much")?;
    }
    Ok(left)
}

impl Counts {
    fn and(self, other: Self) -> Self {
        Self {
            answered: self.answered + other.answered,
            charged_without_answer: self.charged_without_answer + other.charged_without_answer,
            double_spends: self.double_spends + other.double_spends,
            accepted: self.accepted + other.accepted,
        }
    }
}

/// Where each token is in the end.
#[derive(Debug)]
struct Sheet {
    counts: Counts,
    kills: u64,
    deposited: u64,
    authorized: u64,
    paid: u64,
    returned: u64,
    left: u64,
}

impl Sheet {
    fn check(&self) -> Result<()> {
        let Counts { answered, charged_without_answer, accepted, .. } = self.counts;
        let calls = answered + charged_without_answer;
        ensure!(accepted == 0, "{accepted} payments bought two calls");
        ensure!(self.authorized == calls * PRICE, "{} authorized for {calls} calls of {PRICE}", self.authorized);
        ensure!(self.paid == self.authorized, "{} paid, {} authorized", self.paid, self.authorized);
        let sum = self.paid + self.returned + self.left;
        ensure!(sum == self.deposited, "{} deposited, and {sum} found again", self.deposited);
        Ok(())
    }
}

impl fmt::Display for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { answered, charged_without_answer, double_spends, accepted } = self.counts;
        writeln!(f, "calls answered                      {answered:>10}")?;
        writeln!(
            f,
            "charged without an answer           {charged_without_answer:>10}   ({} replicas killed)",
            self.kills
        )?;
        writeln!(f, "attempts to spend twice             {double_spends:>10}   {accepted} accepted")?;
        writeln!(f, "deposited                           {:>10}", self.deposited)?;
        writeln!(f, "authorized by the clients           {:>10}", self.authorized)?;
        writeln!(f, "paid by the contract                {:>10}", self.paid)?;
        writeln!(f, "returned to the sender              {:>10}", self.returned)?;
        write!(f, "left in the channels                {:>10}", self.left)
    }
}
