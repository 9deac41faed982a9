//! `snet channel claims`

use futures::TryStreamExt as _;
use payment_channels::AfterClaim;
use serde::Serialize;

use super::{Place, ask, print};
use crate::{exit::Outcome, table::Table};

/// List the claims that were started and that nobody has finished.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet channel claims etcd://127.0.0.1:2379
  snet channel claims zk://127.0.0.1:2181 --output json

A claim stays here until the contract has paid it and a replica has finished it. One that stays for long was started by a
replica that died since: any replica can carry it out.")]
pub(crate) struct Claims {
    #[command(flatten)]
    place: Place,
}

#[derive(Serialize)]
pub(super) struct Claim {
    channel: String,
    nonce: String,
    amount: String,
    after: &'static str,
}

#[derive(Serialize)]
struct List {
    claims: Vec<Claim>,
}

pub(super) async fn run(Claims { place }: &Claims) -> Outcome {
    let claims = ask(place, async |operator| {
        let claims = operator.claims().map_ok(|claim| Claim::from(&claim));
        Ok(claims.try_collect().await?)
    });
    print(place.output, &List { claims: claims.await? }, |list| table(&list.claims))
}

fn table(claims: &[Claim]) -> String {
    if claims.is_empty() {
        return "no claims: all that were started are finished\n".to_owned();
    }
    let mut table = Table::default();
    table.row(["channel", "nonce", "amount", "the channel then"]);
    for Claim { channel, nonce, amount, after } in claims {
        table.row([channel, nonce, amount, *after] as [&str; 4]);
    }
    table.to_string()
}

impl From<&payment_channels::Claim> for Claim {
    fn from(claim: &payment_channels::Claim) -> Self {
        Self {
            channel: claim.payment.channel_id().to_string(),
            nonce: claim.payment.nonce().to_string(),
            amount: claim.payment.amount().to_string(),
            after: match claim.after {
                AfterClaim::Continue => "goes on",
                AfterClaim::Close => "closes",
            },
        }
    }
}

impl Claim {
    /// The claim in a line.
    pub(super) fn describe(&self) -> String {
        format!("{} at nonce {}, then the channel {}", self.amount, self.nonce, self.after)
    }
}
