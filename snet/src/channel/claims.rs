//! `snet channel claims`, and how a claim is printed.

use payment_channels::{AfterClaim, Ledger};
use serde::Serialize;

use super::{StoreFlags, listing::Listing, of_daemon};
use crate::{exit::Outcome, table::Table};

/// List the claims that were started and that nobody has finished.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet channel claims etcd://127.0.0.1:2379
  snet channel claims zk://127.0.0.1:2181 --output json

A claim stays here until the contract has paid it and somebody has finished it: `snet channel claim list --output json` has what
a wallet sends to the contract. One that stays for long was started by a replica that died since: anybody can carry it out.
A record that cannot be read is named, the others are listed, and the code is 6.")]
pub(crate) struct Claims {
    #[command(flatten)]
    flags: StoreFlags,
}

#[derive(Serialize)]
pub(super) struct ListedClaim {
    /// `None`: the record names no chain, only the contract.
    chain_id: Option<u64>,
    contract: String,
    channel: String,
    nonce: String,
    amount: String,
    after: &'static str,
}

#[derive(Serialize)]
struct List {
    claims: Vec<ListedClaim>,
    /// What is in the store instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

pub(super) async fn run(Claims { flags }: &Claims) -> Outcome {
    let (listing, daemon) = flags
        .ask(async |found| Ok((Listing::of(found, |operator| operator.claims()).await?, found.daemon.clone())))
        .await?;
    let claims = listing.items.iter().map(|(ledger, claim)| ListedClaim::of(*ledger, claim)).collect();
    let note = (!daemon.is_empty()).then(|| of_daemon(&daemon));
    flags.output.print(&List { claims, note }, |list| match &list.note {
        Some(note) => format!("{note}\n"),
        None => table(&list.claims),
    })?;
    listing.tell_unreadable()
}

pub(super) fn table(claims: &[ListedClaim]) -> String {
    if claims.is_empty() {
        return "no claims: all that were started are finished\n".to_owned();
    }
    let mut table = Table::default();
    table.row(["channel", "nonce", "amount", "the channel then", "chain", "contract"]);
    for ListedClaim { chain_id, contract, channel, nonce, amount, after } in claims {
        let chain = chain_id.map_or_else(|| "?".to_owned(), |chain| chain.to_string());
        table.row([channel, nonce, amount, *after, &chain, contract] as [&str; 6]);
    }
    table.to_string()
}

impl ListedClaim {
    pub(super) fn of(ledger: Option<Ledger>, claim: &payment_channels::Claim) -> Self {
        Self {
            chain_id: ledger.map(|ledger| ledger.chain_id),
            contract: claim.payment.authorization().contract.to_string(),
            channel: claim.payment.channel_id().to_string(),
            nonce: claim.payment.nonce().to_string(),
            amount: claim.payment.amount().to_string(),
            after: match claim.after {
                AfterClaim::Continue => "goes on",
                AfterClaim::Close => "closes",
            },
        }
    }

    /// The claim in a line.
    pub(super) fn describe(&self) -> String {
        format!("{} at nonce {}, then the channel {}", self.amount, self.nonce, self.after)
    }
}
