//! `snet channel list`

use ::storage::channel::{ChannelState, ChannelStatus};
use payment_channels::Ledger;
use serde::Serialize;

use super::{StoreFlags, described, listing::Listing, of_daemon};
use crate::{exit::Outcome, table::Table};

/// List the channels of a store, by their ids.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet channel list etcd://127.0.0.1:2379
  snet channel list 'embedded:/var/lib/channels' --output json

An embedded node is read as it stands on its disk, and nothing in it is changed: stop the replica first, or use a copy of its directory.
A record that cannot be read is named, the others are listed, and the code is 6.
Amounts are in the token's smallest unit; in JSON they are strings, since they may have 256 bits.")]
pub(crate) struct List {
    #[command(flatten)]
    flags: StoreFlags,
}

/// A channel, without its signature: whoever has that can claim.
#[derive(Serialize)]
pub(super) struct Channel {
    /// `None`: the record names no contract.
    chain_id: Option<u64>,
    contract: Option<String>,
    id: String,
    nonce: String,
    status: &'static str,
    authorized_amount: String,
    full_amount: String,
    expiration_block: String,
    sender: String,
    signer: String,
    recipient: String,
    group_id: String,
    signed: bool,
}

#[derive(Serialize)]
struct Channels {
    channels: Vec<Channel>,
    /// What is in the store instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

pub(super) async fn run(List { flags }: &List) -> Outcome {
    let (listing, daemon) = flags
        .ask(async |found| Ok((Listing::of(found, |operator| operator.channels()).await?, found.daemon.clone())))
        .await?;
    let channels = listing.items.iter().map(|(ledger, channel)| Channel::of(*ledger, &channel.state)).collect();
    let note = (!daemon.is_empty()).then(|| of_daemon(&daemon));
    flags.output.print(&Channels { channels, note }, |channels| {
        let ledgers = listing.items.iter().map(|(ledger, _)| *ledger);
        table(channels, ledgers)
    })?;
    listing.tell_unreadable()
}

/// A table for each ledger, where there are several with its name before it.
fn table(Channels { channels, note }: &Channels, ledgers: impl Iterator<Item = Option<Ledger>>) -> String {
    if channels.is_empty() {
        let nothing = || "no channels: nobody has paid yet".to_owned();
        return note.clone().unwrap_or_else(nothing) + "\n";
    }
    let (mut text, mut of, mut table) = (String::new(), None, Table::default());
    for (channel, ledger) in channels.iter().zip(ledgers) {
        if of != Some(ledger) {
            text += &table.to_string();
            text += &format!("{}\n", described(ledger));
            (of, table) = (Some(ledger), Table::default());
            head(&mut table);
        }
        let Channel { id, nonce, status, authorized_amount, full_amount, expiration_block, sender, .. } = channel;
        table.row([id, nonce, *status, authorized_amount, full_amount, expiration_block, sender] as [&str; 7]);
    }
    text + &table.to_string()
}

fn head(table: &mut Table) {
    table.row(["channel", "nonce", "status", "authorized", "of", "expires at block", "sender"]);
}

impl Channel {
    pub(super) fn of(ledger: Option<Ledger>, state: &ChannelState) -> Self {
        Self {
            chain_id: ledger.map(|ledger| ledger.chain_id),
            contract: ledger.map(|ledger| ledger.contract.to_string()),
            id: state.channel_id.to_string(),
            nonce: state.nonce.to_string(),
            status: match state.status {
                ChannelStatus::Open => "open",
                ChannelStatus::Closed => "closed",
            },
            authorized_amount: state.authorized_amount.to_string(),
            full_amount: state.full_amount.to_string(),
            expiration_block: state.expiration.to_string(),
            sender: state.sender.to_string(),
            signer: state.signer.to_string(),
            recipient: state.recipient.to_string(),
            group_id: state.group_id.to_string(),
            signed: state.signature.is_some(),
        }
    }

    /// The channel, a line for each of its fields.
    pub(super) fn describe(&self, table: &mut Table) {
        table.row(["channel", self.id.as_str()]);
        if let (Some(chain_id), Some(contract)) = (self.chain_id, &self.contract) {
            table.row(["contract", &format!("{contract} on chain {chain_id}")]);
        }
        table.row(["status", self.status]);
        table.row(["nonce", &self.nonce]);
        let signed = if self.signed { "signed" } else { "no signature" };
        table.row(["authorized", &format!("{} of {} ({signed})", self.authorized_amount, self.full_amount)]);
        table.row(["expires at block", &self.expiration_block]);
        table.row(["sender", &self.sender]);
        table.row(["signer", &self.signer]);
        table.row(["recipient", &self.recipient]);
        table.row(["group", &self.group_id]);
    }
}
