//! `snet channel unlock`

use ::storage::channel::ChannelId;
use anyhow::anyhow;
use payment_channels::Slot;
use serde::Serialize;

use super::{Place, ask, channel_id, no_channel, print, show::Turn};
use crate::exit::{Failure, Outcome};

/// Take a channel from whoever holds it, without waiting for the lease.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet channel unlock etcd://127.0.0.1:2379 7
      says who holds the channel and what would break, and changes nothing
  snet channel unlock etcd://127.0.0.1:2379 7 --yes
      takes it

The unlock is fenced: it raises the token of the channel, so the holder's commit is refused, however late it comes. The
client is not charged for the payment that was in flight. If that call was made already, the service made it for nothing.
There is seldom a need: a holder that has died loses the channel by itself when another replica has waited for its lease.")]
pub(crate) struct Unlock {
    #[command(flatten)]
    place: Place,
    /// The channel: a decimal number, or 0x and hexadecimal digits.
    #[arg(value_parser = channel_id)]
    channel: ChannelId,
    /// Do it.
    #[arg(long)]
    yes: bool,
}

#[derive(Serialize)]
struct Unlocked {
    channel: String,
    before: Turn,
    after: Turn,
}

pub(super) async fn run(Unlock { place, channel: id, yes }: &Unlock) -> Outcome {
    let unlocked = ask(place, async |operator| {
        let found = operator.report(*id).await?;
        if found.channel.is_none() && found.slot == Slot::default() {
            return Err(no_channel(*id, &place.url));
        }
        let before = Turn::from(&found.slot);
        if found.slot.hold().is_some() && !yes {
            return Err(Failure::Usage(anyhow!(
                "channel {id} is held by {}. An unlock breaks that payment: its commit will be refused, and the client is not \
                 charged even if the call is made. If that is what you want, say so with `--yes`",
                before.describe()
            )));
        }
        let after = Turn::from(&operator.force_unlock(*id).await?);
        Ok(Unlocked { channel: id.to_string(), before, after })
    });
    print(place.output, &unlocked.await?, |Unlocked { channel, before, after }| {
        if before.is_free() {
            return format!("channel {channel} was free already: nothing was changed\n");
        }
        format!("channel {channel} was held by {}\nnow it is held by {}\n", before.describe(), after.describe())
    })
}
