//! `snet channel show`

use ::storage::channel::ChannelId;
use payment_channels::{PrepaidUsage, Slot};
use serde::Serialize;

use super::{Place, channel_id, claims::Claim, list::Channel, no_channel, print};
use crate::{exit::Outcome, table::Table};

/// Show all that a store has of one channel: its state, who holds it, its claims and its prepaid usage.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet channel show etcd://127.0.0.1:2379 7
  snet channel show consul://127.0.0.1:8500 0x7 --output json")]
pub(crate) struct Show {
    #[command(flatten)]
    place: Place,
    /// The channel: a decimal number, or 0x and hexadecimal digits.
    #[arg(value_parser = channel_id)]
    channel: ChannelId,
}

#[derive(Serialize)]
struct Report {
    /// `None`: a payment is in flight, and none was stored yet.
    channel: Option<Channel>,
    turn: Turn,
    claims: Vec<Claim>,
    prepaid: Prepaid,
}

/// Whose turn it is at a channel.
#[derive(Serialize)]
pub(super) struct Turn {
    token: u64,
    held_by: Option<Hold>,
}

#[derive(Serialize)]
struct Hold {
    owner: String,
    lease_seconds: f64,
    nonce: String,
    amount: String,
    reservation: String,
}

#[derive(Serialize)]
struct Prepaid {
    planned: String,
    used: String,
    refunded: String,
}

pub(super) async fn run(Show { place, channel: id }: &Show) -> Outcome {
    let store = place.open().await?;
    let report = async {
        let operator = payment_channels::Operator::new(&*store);
        let found = operator.report(*id).await?;
        if found.channel.is_none() && found.slot == Slot::default() {
            return Err(no_channel(*id, &place.url));
        }
        let usage = PrepaidUsage::new(std::sync::Arc::clone(&store)).get(*id).await?;
        Ok(Report {
            channel: found.channel.as_ref().map(Channel::from),
            turn: Turn::from(&found.slot),
            claims: operator.claims_of(*id).await?.iter().map(Claim::from).collect(),
            prepaid: Prepaid {
                planned: usage.planned.to_string(),
                used: usage.used.to_string(),
                refunded: usage.refunded.to_string(),
            },
        })
    };
    let report = report.await;
    let _ = store.close().await;
    print(place.output, &report?, |report| table(*id, report))
}

fn table(id: ChannelId, Report { channel, turn, claims, prepaid }: &Report) -> String {
    let mut table = Table::default();
    match channel {
        Some(channel) => channel.describe(&mut table),
        None => table.row([format!("channel {id}"), "no payment was stored yet".to_owned()]),
    }
    table.row(["held by".to_owned(), turn.describe()]);
    for claim in claims {
        table.row(["claim".to_owned(), claim.describe()]);
    }
    let Prepaid { planned, used, refunded } = prepaid;
    table.row(["prepaid".to_owned(), format!("{planned} planned, {used} used, {refunded} refunded")]);
    table.to_string()
}

impl From<&Slot> for Turn {
    fn from(slot: &Slot) -> Self {
        let held_by = slot.hold().map(|hold| Hold {
            owner: hold.owner.clone(),
            lease_seconds: hold.lease.as_secs_f64(),
            nonce: hold.nonce.to_string(),
            amount: hold.amount.to_string(),
            reservation: hold.id.to_string(),
        });
        Self { token: slot.token().0, held_by }
    }
}

impl Turn {
    pub(super) fn is_free(&self) -> bool {
        self.held_by.is_none()
    }

    /// Who holds the channel, in a line.
    pub(super) fn describe(&self) -> String {
        match &self.held_by {
            None => format!("nobody (token {})", self.token),
            Some(Hold { owner, lease_seconds, nonce, amount, .. }) => format!(
                "{owner}, for a payment of {amount} at nonce {nonce}, with a lease of {lease_seconds} s (token {})",
                self.token
            ),
        }
    }
}
