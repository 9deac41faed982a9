//! `snet channel unlock`

use ::storage::channel::ChannelId;
use anyhow::anyhow;
use payment_channels::{DaemonStore, Operator};
use serde::Serialize;

use super::{StoreFlags, channel_id, no_channel, owner_of, show::HoldStatus};
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
    flags: StoreFlags,
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
    before: HoldStatus,
    after: HoldStatus,
}

pub(super) async fn run(Unlock { flags, channel: id, yes }: &Unlock) -> Outcome {
    if !yes {
        // Who only asks changes nothing, not even by opening the store.
        let hold = flags.ask(async |found| {
            let operator = owner_of(&found.operators, *id).await?;
            let operator = operator.ok_or_else(|| no_channel(*id, &flags.url, &found.daemon))?;
            Ok(HoldStatus::from(&operator.report(*id).await?.reservation))
        });
        let hold = hold.await?;
        if !hold.is_free() {
            return Err(held(*id, &hold));
        }
        return print(flags, &Unlocked { channel: id.to_string(), before: hold.clone(), after: hold });
    }
    // One that is not there is not made.
    flags.ask(async |_| Ok(())).await?;
    let store = ::storage::open(&flags.url).await?;
    let unlocked = async {
        let mut operators = Operator::of_all(&*store).await?;
        operators.retain(|operator| flags.ledger.means(operator.ledger()));
        let operator = owner_of(&operators, *id).await?;
        let operator = operator.ok_or_else(|| no_channel(*id, &flags.url, &DaemonStore::default()))?;
        let found = operator.report(*id).await?;
        let before = HoldStatus::from(&found.reservation);
        let after = HoldStatus::from(&operator.force_unlock(*id).await?);
        Ok::<_, Failure>(Unlocked { channel: id.to_string(), before, after })
    };
    let unlocked = unlocked.await;
    let _ = store.close().await;
    print(flags, &unlocked?)
}

fn held(id: ChannelId, hold: &HoldStatus) -> Failure {
    Failure::Usage(anyhow!(
        "channel {id} is held by {}. An unlock breaks that payment: its commit will be refused, and the client is not \
         charged even if the call is made. If that is what you want, say so with `--yes`",
        hold.describe()
    ))
}

fn print(flags: &StoreFlags, unlocked: &Unlocked) -> Outcome {
    flags.output.print(unlocked, |Unlocked { channel, before, after }| {
        if before.is_free() {
            return format!("channel {channel} was free already: nothing was changed\n");
        }
        format!("channel {channel} was held by {}\nnow it is held by {}\n", before.describe(), after.describe())
    })
}
