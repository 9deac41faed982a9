//! `snet channel list`

use ::storage::channel::{ChannelState, ChannelStatus};
use futures::TryStreamExt as _;
use serde::Serialize;

use super::{Place, ask, print};
use crate::{exit::Outcome, table::Table};

/// List the channels of a store, by their ids.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet channel list etcd://127.0.0.1:2379
  snet channel list 'embedded:/var/lib/channels' --output json

An embedded node can be opened by one process only: stop the replica first, or use a copy of its directory.
Amounts are in the token's smallest unit; in JSON they are strings, since they may have 256 bits.")]
pub(crate) struct List {
    #[command(flatten)]
    place: Place,
}

/// A channel, without its signature: whoever has that can claim.
#[derive(Serialize)]
pub(super) struct Channel {
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
}

pub(super) async fn run(List { place }: &List) -> Outcome {
    let channels = ask(place, async |operator| {
        let channels = operator.channels().map_ok(|channel| Channel::from(&channel.state));
        Ok(channels.try_collect().await?)
    });
    print(place.output, &Channels { channels: channels.await? }, table)
}

fn table(Channels { channels }: &Channels) -> String {
    if channels.is_empty() {
        return "no channels: nobody has paid yet\n".to_owned();
    }
    let mut table = Table::default();
    table.row(["channel", "nonce", "status", "authorized", "of", "expires at block", "sender"]);
    for channel in channels {
        let Channel { id, nonce, status, authorized_amount, full_amount, expiration_block, sender, .. } = channel;
        table.row([id, nonce, *status, authorized_amount, full_amount, expiration_block, sender] as [&str; 7]);
    }
    table.to_string()
}

impl From<&ChannelState> for Channel {
    fn from(state: &ChannelState) -> Self {
        Self {
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
}

impl Channel {
    /// The channel, a line for each of its fields.
    pub(super) fn describe(&self, table: &mut Table) {
        table.row(["channel", self.id.as_str()]);
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
