//! `snet storage ping`: whether a store answers, and how fast.

use std::time::{Duration, Instant};

use ::storage::{ReadOptions, Store as _};
use serde::Serialize;

use super::flags::StoreUrlFlags;
use crate::{
    exit::Outcome,
    table::{Table, millis},
};

/// Make a linearizable round trip, which shows whether the store works at all.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage ping embedded:/var/lib/channels
  snet storage ping etcd://127.0.0.1:2379
  snet storage ping --endpoints http://10.0.1.1:2379,http://10.0.1.2:2379 --output json")]
pub(crate) struct Ping {
    #[command(flatten)]
    store: StoreUrlFlags,
    /// How long to wait for the answer, in seconds.
    #[arg(long, default_value_t = 5, value_name = "NUMBER")]
    seconds: u64,
}

#[derive(Serialize)]
struct PingAnswer {
    backend: &'static str,
    millis: f64,
}

pub(super) async fn run(arguments: &Ping) -> Outcome {
    let store = ::storage::open(&arguments.store.url()?).await?;
    let before = Instant::now();
    let answer = store.ping(ReadOptions::default().timeout(Duration::from_secs(arguments.seconds))).await;
    let elapsed = before.elapsed();
    let backend = store.capabilities().backend;
    let _ = store.close().await;
    answer?;
    let answer = PingAnswer { backend, millis: elapsed.as_secs_f64() * 1e3 };
    arguments.store.output.print(&answer, |answer| {
        let mut table = Table::default();
        table.row([answer.backend.to_owned(), millis(answer.millis * 1e3)]);
        table.to_string()
    })
}
