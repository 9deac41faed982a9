//! `snet channel claim`: from what a client has signed to what the contract has paid.

use ::storage::{
    Store,
    channel::{Amount, BlockNumber, ChannelId, GroupId, Nonce},
};
use anyhow::anyhow;
use clap::Subcommand;
use payment_channels::{
    AfterClaim, ChainChannel, ChainError, ChannelSource, ClaimsReport, EscrowOptions, EscrowSource, HttpNode, Ledger,
    Operator, Options, Payments, Terms,
};
use serde::Serialize;

use super::{
    StoreFlags, channel_id, claims,
    listing::{Listing, tell_unreadable},
    of_daemon, owner_of,
};
use crate::{
    exit::{Failure, Outcome},
    table::Table,
};

/// Start claims, hand them to a wallet, and finish them once the contract has paid.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  snet channel claim start etcd://127.0.0.1:2379 7
      the channel goes on at the next nonce, and the claim is there until it is finished
  snet channel claim list etcd://127.0.0.1:2379 --output json
      every claim with its signature and calldata; the recipient's wallet sends the calldata to the contract
  snet channel claim finish etcd://127.0.0.1:2379 7 0 --yes
      once the transaction is final
  snet channel claim settle etcd://127.0.0.1:2379 --node http://127.0.0.1:8545
      finishes every claim whose nonce the chain has passed, and tells what is open still

A claim is moved out of the channel and recorded in one transaction. So it survives crashes, and stays until it is finished.")]
pub(crate) enum Command {
    Start(Start),
    List(List),
    Show(Show),
    Finish(Finish),
    Settle(Settle),
}

/// Start a claim of all that is authorized at a channel's nonce.
#[derive(Debug, clap::Args)]
pub(crate) struct Start {
    #[command(flatten)]
    flags: StoreFlags,
    /// The channel: a decimal number, or 0x and hexadecimal digits.
    #[arg(value_parser = channel_id)]
    channel: ChannelId,
    /// Close the channel: the contract gives what is left back to the sender.
    #[arg(long)]
    close: bool,
}

/// List the claims, with what a wallet sends to the contract; in JSON with all of them in one call.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    flags: StoreFlags,
}

/// Show one claim, with what a wallet sends to the contract.
#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    #[command(flatten)]
    flags: StoreFlags,
    #[command(flatten)]
    which: Which,
}

/// Remove a claim that the contract has paid, or never will.
#[derive(Debug, clap::Args)]
pub(crate) struct Finish {
    #[command(flatten)]
    flags: StoreFlags,
    #[command(flatten)]
    which: Which,
    /// The contract has paid it, or the nonce of the channel has passed: whoever removes a claim that is to be paid still gives the money away.
    #[arg(long)]
    yes: bool,
}

/// Finish every claim whose nonce the chain has passed, and tell which are open still.
#[derive(Debug, clap::Args)]
pub(crate) struct Settle {
    #[command(flatten)]
    flags: StoreFlags,
    /// A node of the chain that speaks JSON-RPC: http://HOST:PORT.
    #[arg(long, value_name = "URL", value_parser = node)]
    node: HttpNode,
    /// How many blocks behind the last one the contract is read, so that what is read is not taken back.
    #[arg(long, default_value_t = 12, value_name = "NUMBER")]
    confirmations: u64,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The channel: a decimal number, or 0x and hexadecimal digits.
    #[arg(value_parser = channel_id)]
    channel: ChannelId,
    /// The nonce that is claimed.
    #[arg(value_parser = nonce)]
    nonce: Nonce,
}

pub(super) async fn run(command: Command) -> Outcome {
    match command {
        Command::Start(arguments) => start(&arguments).await,
        Command::List(arguments) => list(&arguments).await,
        Command::Show(arguments) => show(&arguments).await,
        Command::Finish(arguments) => finish(&arguments).await,
        Command::Settle(arguments) => settle(&arguments).await,
    }
}

/// A claim with what the contract is sent. Whoever has that can only have the recipient paid: the contract takes it from nobody else.
#[derive(Serialize)]
struct SignedClaim {
    #[serde(flatten)]
    claim: claims::ListedClaim,
    signature: String,
    /// The call of `channelClaim`.
    calldata: String,
}

impl SignedClaim {
    fn of(ledger: Option<Ledger>, claim: &payment_channels::Claim) -> Self {
        Self {
            claim: claims::ListedClaim::of(ledger, claim),
            signature: hexadecimal(claim.payment.signature().as_bytes()),
            calldata: hexadecimal(&claim.calldata()),
        }
    }

    fn table(&self) -> String {
        let mut table = Table::default();
        table.row(["claim", &self.claim.describe()]);
        table.row(["signature", &self.signature]);
        table.row(["calldata", &self.calldata]);
        table.to_string()
    }
}

/// Several claims of one contract in one call.
#[derive(Serialize)]
struct Together {
    chain_id: Option<u64>,
    contract: String,
    claims: usize,
    /// The call of `multiChannelClaim`, with the first claim of each channel: a second can be paid after the first.
    calldata: String,
}

#[derive(Serialize)]
struct Claims {
    claims: Vec<SignedClaim>,
    together: Vec<Together>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

async fn list(List { flags }: &List) -> Outcome {
    let (listing, daemon) = flags
        .ask(async |found| Ok((Listing::of(found, |operator| operator.claims()).await?, found.daemon.clone())))
        .await?;
    let claims = Claims {
        claims: listing.items.iter().map(|(ledger, claim)| SignedClaim::of(*ledger, claim)).collect(),
        together: together(&listing.items),
        note: (!daemon.is_empty()).then(|| of_daemon(&daemon)),
    };
    flags.output.print(&claims, |claims| match &claims.note {
        Some(note) => format!("{note}\n"),
        None => {
            let all: Vec<_> =
                listing.items.iter().map(|(ledger, claim)| claims::ListedClaim::of(*ledger, claim)).collect();
            claims::table(&all)
        }
    })?;
    listing.tell_unreadable()
}

/// The first claim of each channel, together for each contract: the list is by contract, channel and nonce.
fn together(items: &[(Option<Ledger>, payment_channels::Claim)]) -> Vec<Together> {
    let same_contract = |a: &(Option<Ledger>, payment_channels::Claim),
                         b: &(Option<Ledger>, payment_channels::Claim)| {
        a.0 == b.0 && a.1.payment.authorization().contract == b.1.payment.authorization().contract
    };
    let of_one = items.chunk_by(same_contract).filter_map(|items| {
        let (ledger, first) = items.first()?;
        let mut claims: Vec<_> = items.iter().map(|(_, claim)| *claim).collect();
        claims.dedup_by_key(|claim| claim.payment.channel_id());
        Some(Together {
            chain_id: ledger.map(|ledger| ledger.chain_id),
            contract: first.payment.authorization().contract.to_string(),
            claims: claims.len(),
            calldata: hexadecimal(&payment_channels::Claim::calldata_of_many(&claims)),
        })
    });
    of_one.collect()
}

async fn show(Show { flags, which }: &Show) -> Outcome {
    let claim = flags.ask(async |found| {
        let (ledger, claim) = one(&found.operators, which).await?;
        Ok(SignedClaim::of(ledger, &claim))
    });
    flags.output.print(&claim.await?, SignedClaim::table)
}

/// The one claim that is meant.
async fn one(
    operators: &[Operator<'_, dyn Store>],
    Which { channel, nonce }: &Which,
) -> Result<(Option<Ledger>, payment_channels::Claim), Failure> {
    let mut found = Vec::new();
    for operator in operators {
        let claims = operator.claims_of(*channel).await?;
        found.extend(claims.into_iter().map(|claim| (operator.ledger(), claim)));
    }
    found.retain(|(_, claim)| claim.payment.nonce() == *nonce);
    match found[..] {
        [claim] => Ok(claim),
        [] => Err(Failure::no(format!("there is no claim of channel {channel} at nonce {nonce}"))),
        _ => Err(Failure::Usage(anyhow!(
            "several contracts have a claim of channel {channel} at nonce {nonce}: say which with `--contract` and `--chain-id`"
        ))),
    }
}

async fn start(Start { flags, channel, close }: &Start) -> Outcome {
    let after = if *close { AfterClaim::Close } else { AfterClaim::Continue };
    let claim = write(flags, async |store, operators| {
        let operator = owner_of(&operators, *channel).await?;
        let operator = operator.ok_or_else(|| Failure::no(format!("there is no channel {channel} in this store")))?;
        let ledger = operator.ledger().ok_or_else(|| {
            Failure::Wrong(anyhow!("channel {channel} names no contract: move it first with `snet channel move`"))
        })?;
        let report = operator.report(*channel).await?;
        // No node is asked: whoever starts a claim here may have none, and the contract decides in the end.
        let as_stored = AsStored { ledger, channel: report.channel.as_ref().map(chain_channel) };
        let payments = Payments::new(store, as_stored, any_terms(ledger), Options::new(WHO))?;
        Ok(SignedClaim::of(Some(ledger), &payments.start_claim(*channel, after).await?))
    });
    flags.output.print(&claim.await?, SignedClaim::table)
}

async fn finish(Finish { flags, which, yes }: &Finish) -> Outcome {
    if !yes {
        let claim = flags.ask(async |found| one(&found.operators, which).await).await?.1;
        return Err(Failure::Usage(anyhow!(
            "the claim of {} from channel {} at nonce {} is to be removed. If the contract has paid it, or its nonce has passed, say so \
             with `--yes`; else the money is given away",
            claim.payment.amount(),
            which.channel,
            which.nonce
        )));
    }
    let finished = write(flags, async |_, operators| {
        let (ledger, claim) = one(&operators, which).await?;
        let operator = operators.iter().find(|operator| operator.ledger() == ledger);
        let operator = operator.ok_or_else(|| Failure::no("the claim is gone"))?;
        operator.finish_claim(which.channel, which.nonce).await?;
        Ok(claims::ListedClaim::of(ledger, &claim))
    });
    flags.output.print(&finished.await?, |claim| format!("finished: {}\n", claim.describe()))
}

#[derive(Serialize)]
struct Settled {
    finished: Vec<claims::ListedClaim>,
    finished_amount: Option<String>,
    open: Vec<claims::ListedClaim>,
    open_amount: Option<String>,
}

async fn settle(Settle { flags, node, confirmations }: &Settle) -> Outcome {
    let settled = write(flags, async |store, operators| {
        let mut all = ClaimsReport::default();
        let mut claims = Vec::new();
        for ledger in operators.iter().filter_map(Operator::ledger) {
            let options = EscrowOptions { confirmations: *confirmations, ..EscrowOptions::default() };
            let source = EscrowSource::connect(node.clone(), ledger, options).await;
            let source = source.map_err(payment_channels::Error::from)?;
            let payments = Payments::new(std::sync::Arc::clone(&store), source, any_terms(ledger), Options::new(WHO))?;
            let report = payments.settle_claims().await?;
            claims.extend(report.claims.iter().map(|settled| (ledger, *settled)));
            all.claims.extend(report.claims);
            all.unreadable.extend(report.unreadable);
        }
        Ok((claims, all))
    });
    let (claims, all) = settled.await?;
    let those = |is_finished| {
        let those = claims.iter().filter(|(_, settled)| settled.is_finished == is_finished);
        those.map(|(ledger, settled)| claims::ListedClaim::of(Some(*ledger), &settled.claim)).collect::<Vec<_>>()
    };
    let sum = |amount: Option<Amount>| amount.map(|amount| amount.to_string());
    let answer = Settled {
        finished: those(true),
        finished_amount: sum(all.finished_amount()),
        open: those(false),
        open_amount: sum(all.open_amount()),
    };
    flags.output.print(&answer, |answer| {
        let sum = |amount: &Option<String>| amount.clone().unwrap_or_else(|| "more than 2^256 - 1".to_owned());
        let mut table = Table::default();
        let told = |claims: &[claims::ListedClaim], amount| format!("{} claims, of {}", claims.len(), sum(amount));
        table.row(["finished", &told(&answer.finished, &answer.finished_amount)]);
        table.row(["open still", &told(&answer.open, &answer.open_amount)]);
        table.to_string()
    })?;
    tell_unreadable(&all.unreadable)
}

/// What the command calls itself where a replica would.
const WHO: &str = "snet channel claim";

/// Nothing but the contract is asked of a claim.
fn any_terms(Ledger { contract, .. }: Ledger) -> Terms {
    Terms { contract, recipient: contract, group_id: GroupId::new([0; 32]), expiration_threshold: 0 }
}

fn node(url: &str) -> Result<HttpNode, String> {
    HttpNode::new(url).ok_or_else(|| "a node is written http://HOST:PORT, with a path if it needs one".to_owned())
}

/// Opens a store that is there to change it.
async fn write<T>(
    flags: &StoreFlags,
    change: impl AsyncFnOnce(std::sync::Arc<dyn Store>, Vec<Operator<'_, dyn Store>>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    // One that is not there is not made.
    flags.ask(async |_| Ok(())).await?;
    let store = ::storage::open(&flags.url).await?;
    let changed = async {
        let mut operators = Operator::of_all(&*store).await?;
        operators.retain(|operator| flags.ledger.means(operator.ledger()));
        change(std::sync::Arc::clone(&store), operators).await
    };
    let changed = changed.await;
    // What was written is written.
    let _ = store.close().await;
    changed
}

/// The blockchain as the store has it. To start a claim it suffices: what is authorized was within the deposit when it was stored, and the contract
/// decides in the end.
#[derive(Debug)]
struct AsStored {
    ledger: Ledger,
    channel: Option<ChainChannel>,
}

#[async_trait::async_trait]
impl ChannelSource for AsStored {
    fn chain_id(&self) -> u64 {
        self.ledger.chain_id
    }

    async fn channel(&self, id: ChannelId) -> Result<Option<ChainChannel>, ChainError> {
        Ok(self.channel.clone().filter(|channel| channel.channel_id == id))
    }

    async fn current_block(&self) -> Result<BlockNumber, ChainError> {
        Ok(BlockNumber::ZERO)
    }
}

fn chain_channel(state: &::storage::channel::ChannelState) -> ChainChannel {
    ChainChannel {
        channel_id: state.channel_id,
        nonce: state.nonce,
        sender: state.sender,
        signer: state.signer,
        recipient: state.recipient,
        group_id: state.group_id,
        full_amount: state.full_amount,
        expiration: state.expiration,
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn nonce(text: &str) -> Result<Nonce, String> {
    text.parse().map_err(|error: ::storage::Error| error.to_string())
}
