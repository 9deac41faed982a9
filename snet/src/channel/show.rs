//! `snet channel show`

use ::storage::channel::ChannelId;
use payment_channels::ReservationRecord;
use serde::Serialize;

use super::{StoreFlags, channel_id, claims::ListedClaim, list::Channel, no_channel, owner_of};
use crate::{exit::Outcome, table::Table};

/// Show all that a store has of one channel: its state, who holds it, its claims and its prepaid usage.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet channel show etcd://127.0.0.1:2379 7
  snet channel show consul://127.0.0.1:8500 0x7 --output json")]
pub(crate) struct Show {
    #[command(flatten)]
    flags: StoreFlags,
    /// The channel: a decimal number, or 0x and hexadecimal digits.
    #[arg(value_parser = channel_id)]
    channel: ChannelId,
}

#[derive(Serialize)]
struct ChannelOverview {
    /// `None`: a payment is in flight, and none was stored yet.
    channel: Option<Channel>,
    #[serde(rename = "turn")]
    hold: HoldStatus,
    claims: Vec<ListedClaim>,
    prepaid: Prepaid,
}

/// Who holds a channel, if anybody does.
#[derive(Clone, Serialize)]
pub(super) struct HoldStatus {
    token: u64,
    held_by: Option<Hold>,
}

#[derive(Clone, Serialize)]
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

pub(super) async fn run(Show { flags, channel: id }: &Show) -> Outcome {
    let report = flags.ask(async |found| {
        let operator = owner_of(&found.operators, *id).await?;
        let operator = operator.ok_or_else(|| no_channel(*id, &flags.url, &found.daemon))?;
        let found = operator.report(*id).await?;
        let usage = operator.usage(*id).await?;
        Ok(ChannelOverview {
            channel: found.channel.as_ref().map(|state| Channel::of(operator.ledger(), state)),
            hold: HoldStatus::from(&found.reservation),
            claims: operator
                .claims_of(*id)
                .await?
                .iter()
                .map(|claim| ListedClaim::of(operator.ledger(), claim))
                .collect(),
            prepaid: Prepaid {
                planned: usage.planned.to_string(),
                used: usage.used.to_string(),
                refunded: usage.refunded.to_string(),
            },
        })
    });
    flags.output.print(&report.await?, |report| table(*id, report))
}

fn table(id: ChannelId, ChannelOverview { channel, hold, claims, prepaid }: &ChannelOverview) -> String {
    let mut table = Table::default();
    match channel {
        Some(channel) => channel.describe(&mut table),
        None => table.row([format!("channel {id}"), "no payment was stored yet".to_owned()]),
    }
    table.row(["held by".to_owned(), hold.describe()]);
    for claim in claims {
        table.row(["claim".to_owned(), claim.describe()]);
    }
    let Prepaid { planned, used, refunded } = prepaid;
    table.row(["prepaid".to_owned(), format!("{planned} planned, {used} used, {refunded} refunded")]);
    table.to_string()
}

impl From<&ReservationRecord> for HoldStatus {
    fn from(record: &ReservationRecord) -> Self {
        let held_by = record.hold().map(|hold| Hold {
            owner: hold.owner.clone(),
            lease_seconds: hold.lease.as_secs_f64(),
            nonce: hold.nonce.to_string(),
            amount: hold.amount.to_string(),
            reservation: hold.id.to_string(),
        });
        Self { token: record.token().0, held_by }
    }
}

impl HoldStatus {
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
