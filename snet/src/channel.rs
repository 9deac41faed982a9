//! `snet channel ...`: the channels of a service as an operator sees them, and a simulation of the service.

mod claims;
mod list;
mod show;
mod simulate;
mod unlock;

use std::{io::Write as _, sync::Arc};

use ::storage::{Store, channel::ChannelId};
use anyhow::anyhow;
use clap::Subcommand;
use payment_channels::Operator;
use serde::Serialize;

use crate::{
    exit::{Failure, Outcome},
    output::Output,
};

/// Look at channels, free one whose holder hangs, and simulate a service.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(list::List),
    Show(show::Show),
    Unlock(unlock::Unlock),
    Claims(claims::Claims),
    Simulate(simulate::Simulate),
}

pub(crate) fn run(command: Command) -> Outcome {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| Failure::Missing(error.into()))?;
    runtime.block_on(async {
        match command {
            Command::List(arguments) => list::run(&arguments).await,
            Command::Show(arguments) => show::run(&arguments).await,
            Command::Unlock(arguments) => unlock::run(&arguments).await,
            Command::Claims(arguments) => claims::run(&arguments).await,
            Command::Simulate(arguments) => simulate::run(&arguments).await,
        }
    })
}

/// Where the channels are, and how they are printed.
#[derive(Debug, clap::Args)]
struct Place {
    /// The store of the service, as `storage::open` takes it.
    url: String,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Place {
    async fn open(&self) -> Result<Arc<dyn Store>, Failure> {
        Ok(::storage::open(&self.url).await?)
    }
}

/// Asks an operator of the store one thing, and closes it.
async fn ask<T>(
    place: &Place,
    question: impl AsyncFnOnce(Operator<'_, dyn Store>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let store = place.open().await?;
    let answer = question(Operator::new(&*store)).await;
    let _ = store.close().await;
    answer
}

/// Prints what a program or a person can read.
fn print<R: Serialize>(output: Output, answer: &R, table: impl FnOnce(&R) -> String) -> Outcome {
    Ok(std::io::stdout().lock().write_all(output.render(answer, table)?.as_bytes())?)
}

fn channel_id(text: &str) -> Result<ChannelId, String> {
    text.parse().map_err(|error: ::storage::Error| error.to_string())
}

/// There is no such channel, in the words of one who knows where to look.
fn no_channel(id: ChannelId, url: &str) -> Failure {
    Failure::Missing(anyhow!(
        "nobody has paid from channel {id} in this store; `snet channel list {}` has those that there are",
        shown(url)
    ))
}

/// A URL without its password.
fn shown(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            let (start, end) = (url.get(..scheme + 3).unwrap_or_default(), url.get(at + 1..).unwrap_or_default());
            format!("{start}...@{end}")
        }
        _ => url.to_owned(),
    }
}

/// What an operator has to do next, by what went wrong.
impl From<payment_channels::Error> for Failure {
    fn from(error: payment_channels::Error) -> Self {
        use payment_channels::Error;
        let advice = match &error {
            Error::Store(_) => None,
            Error::NewerRecord { .. } => Some("update this program to the version of the replicas"),
            Error::CorruptRecord { .. } | Error::MisplacedRecord { .. } => {
                Some("a record is not what was written; it was left as it is: look at it and restore it from a backup")
            }
            Error::Unsettled => Some("run the command again to see how it is now"),
            _ => None,
        };
        match (error, advice) {
            (Error::Store(error), _) => error.into(),
            (error, Some(advice)) => Self::Wrong(anyhow::Error::new(error).context(advice)),
            (error, None) => Self::Missing(error.into()),
        }
    }
}
