//! `snet storage ping`

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use ::storage::{ReadOptions, Store as _};

use crate::{
    exit::Outcome,
    table::{Table, millis},
};

/// Make a linearizable round trip, which shows whether the store works at all.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage ping embedded:/var/lib/channels
  snet storage ping etcd://127.0.0.1:2379")]
pub(crate) struct Ping {
    /// The store, as `storage::open` takes it.
    url: String,
    /// How long to wait for the answer, in seconds.
    #[arg(long, default_value_t = 5, value_name = "NUMBER")]
    seconds: u64,
}

pub(super) async fn run(arguments: &Ping) -> Outcome {
    let store = ::storage::open(&arguments.url).await?;
    let before = Instant::now();
    let answer = store.ping(ReadOptions::default().timeout(Duration::from_secs(arguments.seconds))).await;
    let elapsed = before.elapsed();
    let backend = store.capabilities().backend;
    let _ = store.close().await;
    answer?;
    let mut table = Table::default();
    table.row([backend.to_owned(), millis(elapsed.as_secs_f64() * 1e6)]);
    Ok(write!(std::io::stdout().lock(), "{table}")?)
}
