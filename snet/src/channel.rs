//! `snet channel ...`: the channels of a service as an operator sees them, and a rehearsal of the service with its clients.

mod claim;
mod claims;
mod import;
mod list;
mod listing;
mod move_records;
mod read_store;
mod rehearse;
mod show;
mod unlock;

use ::storage::channel::{Address, ChannelId};
use anyhow::anyhow;
use clap::Subcommand;
use payment_channels::{DaemonStore, Ledger, Operator, ReservationRecord};

use self::read_store::ReadStore;
use crate::{
    exit::{Failure, Outcome},
    output::Output,
    store_url::store_url,
};

/// Look at channels and claim them, free one whose holder hangs, bring records of earlier programs here, and rehearse a service with its clients.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(list::List),
    Show(show::Show),
    Unlock(unlock::Unlock),
    Claims(claims::Claims),
    #[command(subcommand)]
    Claim(claim::Command),
    Import(import::Import),
    Move(move_records::Move),
    // It was called `simulate`. Scripts outside of this workspace still call it so.
    #[command(alias = "simulate")]
    Rehearse(rehearse::Rehearse),
}

pub(crate) fn run(command: Command) -> Outcome {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| Failure::Missing(error.into()))?;
    runtime.block_on(async {
        match command {
            Command::List(arguments) => list::run(&arguments).await,
            Command::Show(arguments) => show::run(&arguments).await,
            Command::Unlock(arguments) => unlock::run(&arguments).await,
            Command::Claims(arguments) => claims::run(&arguments).await,
            Command::Claim(command) => claim::run(command).await,
            Command::Import(arguments) => import::run(&arguments).await,
            Command::Move(arguments) => move_records::run(&arguments).await,
            Command::Rehearse(arguments) => rehearse::run(&arguments).await,
        }
    })
}

/// Where the channels are, whose, and how they are printed.
#[derive(Debug, clap::Args)]
struct StoreFlags {
    /// The store of the service, as `storage::open` takes it: a URL, or `@FILE` or `env:NAME` for one that nobody else shall read.
    #[arg(value_parser = store_url)]
    url: String,
    #[command(flatten)]
    ledger: LedgerFlags,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Whose channels are meant.
#[derive(Debug, clap::Args)]
struct LedgerFlags {
    /// Those of this contract alone.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    contract: Option<Address>,
    /// Those on this chain alone: 1 is the Ethereum mainnet, 11155111 Sepolia.
    #[arg(long, value_name = "NUMBER")]
    chain_id: Option<u64>,
}

impl LedgerFlags {
    /// Whether those of this ledger are meant; those that name none are meant unless another was asked for.
    fn means(&self, ledger: Option<Ledger>) -> bool {
        let contract = self.contract.is_none_or(|contract| ledger.is_some_and(|ledger| ledger.contract == contract));
        contract && self.chain_id.is_none_or(|chain_id| ledger.is_some_and(|ledger| ledger.chain_id == chain_id))
    }
}

impl StoreFlags {
    /// Asks the operators of those that are meant one thing, and changes nothing.
    async fn ask<T>(&self, question: impl AsyncFnOnce(&Found<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
        let read = ReadStore::open(&self.url).await?;
        let answer = async {
            let mut operators = Operator::of_all(read.store()).await?;
            operators.retain(|operator| self.ledger.means(operator.ledger()));
            let daemon = match operators.is_empty() {
                true => DaemonStore::look(read.store()).await?,
                false => DaemonStore::default(),
            };
            question(&Found { operators, daemon }).await
        };
        let answer = answer.await;
        read.close().await;
        answer
    }
}

/// Whose records a store has.
struct Found<'a> {
    operators: Vec<Operator<'a, dyn ::storage::Store>>,
    /// Looked for where there are none of ours.
    daemon: DaemonStore,
}

/// The operator of the one ledger in which a channel is.
async fn owner_of<'a, 'b>(
    found: &'b [Operator<'a, dyn ::storage::Store>],
    id: ChannelId,
) -> Result<Option<&'b Operator<'a, dyn ::storage::Store>>, Failure> {
    let mut owner: Option<&Operator<'_, _>> = None;
    for operator in found {
        let report = operator.report(id).await?;
        if report.channel.is_none() && report.reservation == ReservationRecord::default() {
            continue;
        }
        if owner.replace(operator).is_some() {
            return Err(Failure::Usage(anyhow!(
                "several contracts have a channel {id} here: say which with `--contract` and `--chain-id`"
            )));
        }
    }
    Ok(owner)
}

fn channel_id(text: &str) -> Result<ChannelId, String> {
    text.parse().map_err(|error: ::storage::Error| error.to_string())
}

fn address(text: &str) -> Result<Address, String> {
    text.parse().map_err(|error: ::storage::Error| error.to_string())
}

/// Whose records they are, in a line.
fn described(ledger: Option<Ledger>) -> String {
    ledger.map_or_else(
        || "records that name no contract: move them with `snet channel move`".to_owned(),
        |ledger| ledger.to_string(),
    )
}

/// There is no such channel, in the words of one who knows where to look.
fn no_channel(id: ChannelId, url: &str, daemon: &DaemonStore) -> Failure {
    if !daemon.is_empty() {
        return Failure::Missing(anyhow!("{}", of_daemon(daemon)));
    }
    Failure::Missing(anyhow!(
        "nobody has paid from channel {id} in this store; `snet channel list {}` has those that there are",
        without_password(url)
    ))
}

/// What a store of snet-daemon has, and how it is read.
fn of_daemon(daemon: &DaemonStore) -> String {
    let services: Vec<String> =
        daemon.services.iter().map(|(network, contract)| format!("contract {contract} on {network}")).collect();
    let services = if services.is_empty() { "no contract".to_owned() } else { services.join(", ") };
    format!(
        "this is a store of snet-daemon, with records of another form: {} channels, {} claims and {} others, of {services}. \
         `snet channel import` reads them",
        daemon.channels, daemon.claims, daemon.others
    )
}

/// A URL without its password.
fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            let (start, end) = (url.get(..scheme + 3).unwrap_or_default(), url.get(at + 1..).unwrap_or_default());
            format!("{start}...@{end}")
        }
        _ => url.to_owned(),
    }
}

/// What an operator has to do next, by what went wrong.
fn advice(error: &payment_channels::Error) -> Option<&'static str> {
    use payment_channels::Error;
    match error {
        Error::NewerRecord { .. } => Some("update this program to the version of the replicas"),
        Error::CorruptRecord { .. } | Error::MisplacedRecord { .. } | Error::Occupied { .. } => {
            Some("a record is not what was written; it was left as it is: look at it and restore it from a backup")
        }
        Error::Unsettled => Some("run the command again to see how it is now"),
        _ => None,
    }
}

impl From<payment_channels::Error> for Failure {
    fn from(error: payment_channels::Error) -> Self {
        use payment_channels::Error;
        let error = match error {
            Error::Store(error) => return error.into(),
            error => error,
        };
        match advice(&error) {
            Some(advice) => Self::Wrong(anyhow::Error::new(error).context(advice)),
            None => Self::Missing(error.into()),
        }
    }
}
