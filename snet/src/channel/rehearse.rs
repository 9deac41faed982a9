//! `snet channel rehearse`: a whole service and its clients on a store, and an audit of what became of the money.

mod stores;

use std::{sync::Arc, time::Duration};

use ::bench::{Amount, Percentiles};
use ::soak::{Rehearsal, RehearsalReport, Traffic};
use anyhow::anyhow;

use self::stores::Stores;
use crate::{
    bench::seconds,
    exit::{Failure, Outcome},
    output::Output,
    progress::Progress,
    store_url::store_url,
    table::{Table, millis, thousands},
};

/// So often the bar moves in a second.
const TICKS: usize = 2;

/// A rehearsal that is shorter has no bar.
const SHORT: Duration = Duration::from_secs(2);

/// So much evidence is shown to people; JSON has all of it.
const SHOWN: usize = 10;

/// Let replicas of a service serve clients that pay, and audit what became of the money.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet channel rehearse
      3 replicas and 16 clients for 10 s, on an embedded cluster of 3 nodes in this process
  snet channel rehearse --replicas 5 --clients 64 --kill-replicas --seconds 60
      replicas are killed in the middle of payments, and started again
  snet channel rehearse --store etcd://127.0.0.1:2379,127.0.0.1:2381 --kill-replicas
      the same on a store of yours, below a prefix of its own that is removed again
  snet channel rehearse --hot-share 1
      all clients fight for one channel

Each client signs payments and waits for its calls. Now and then it sends one payment to two replicas at once, or once more after it
was served; it uses what it has prepaid; and a treasurer claims. In the end everything authorized is claimed, and the audit
holds the store and the blockchain (which is simulated) against what was signed and answered: every acknowledged payment is
there exactly once, nobody was charged for what they did not sign or what was refused, no payment was served twice, and the
sums of claims and prepaid usage are right. If anything is not, the command ends with code 1, and the records stay in the store.
Ctrl-C ends the rehearsal early; the audit is made all the same.")]
pub(crate) struct Rehearse {
    /// Replicas of the service, each a task with a handle of its own on the store.
    #[arg(long, default_value_t = 3, value_name = "NUMBER")]
    replicas: usize,
    /// Clients, each in a closed loop.
    #[arg(long, default_value_t = 16, value_name = "NUMBER")]
    clients: usize,
    /// For how long.
    #[arg(long, default_value = "10", value_name = "SECONDS", value_parser = seconds)]
    seconds: Duration,
    /// What share of the clients pays from one hot channel, 0 to 1; the others have a channel each.
    #[arg(long, default_value_t = 0.25, value_name = "SHARE")]
    hot_share: f64,
    /// Kill replicas at random, in the middle of payments and without any clean-up, and start them again.
    #[arg(long)]
    kill_replicas: bool,
    /// Nothing but payments: no double spends, prepaid usage or claims.
    #[arg(long)]
    payments_only: bool,
    /// For how long a dead replica may block a channel, in milliseconds.
    #[arg(long, default_value_t = 500, value_name = "NUMBER")]
    lease_ms: u64,
    /// The store, as `storage::open` takes it, or `@FILE` or `env:NAME`; default: an embedded cluster in this process, in a temporary directory.
    #[arg(long, value_name = "URL", value_parser = store_url)]
    store: Option<String>,
    /// Nodes of that embedded cluster.
    #[arg(long, default_value_t = 3, value_name = "NUMBER", conflicts_with = "store")]
    nodes: usize,
    /// What the choices come from; default: other ones each time. Timing is not repeated.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// How the report is printed.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) async fn run(arguments: &Rehearse) -> Outcome {
    let rehearsal = Rehearsal {
        replicas: arguments.replicas,
        clients: arguments.clients,
        hot_share: arguments.hot_share,
        amount: Amount::Time(arguments.seconds),
        traffic: if arguments.payments_only { Traffic::Payments } else { Traffic::Everything },
        kill_replicas: arguments.kill_replicas,
        lease: Duration::from_millis(arguments.lease_ms),
        seed: arguments.seed.unwrap_or_else(|| fastrand::u64(..)),
    };
    rehearsal.validate()?;
    let stores = match &arguments.store {
        Some(url) => Stores::at(url).await?,
        None => Stores::cluster(arguments.nodes).await?,
    };
    let mut progress = (arguments.seconds > SHORT).then(|| {
        let seconds = usize::try_from(arguments.seconds.as_secs()).unwrap_or(usize::MAX / TICKS);
        Progress::new(seconds.saturating_mul(TICKS))
    });
    let tick = |payments: u64| {
        if let Some(progress) = &mut progress {
            progress.step(&format!("{} payments", thousands(payments as f64)));
        }
    };
    // A system without signals has nobody to interrupt.
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    };
    let report = ::soak::rehearse(&rehearsal, Arc::clone(&stores.open), interrupt, tick).await;
    drop(progress);
    stores.stop().await;
    let report = report?;
    arguments.output.print(&report, table)?;
    match report.audit.violations.len() {
        0 => Ok(()),
        count => Err(Failure::Wrong(anyhow!("the audit found {count} violations"))),
    }
}

fn table(report: &RehearsalReport) -> String {
    let number = |count: u64| thousands(count as f64);
    let RehearsalReport { replicas, own_clients, hot_clients, .. } = report;
    let mut text = format!(
        "{} replicas on {}, {own_clients} clients with a channel each, {hot_clients} on one hot channel; {:.1} s; seed {}\n\n",
        replicas, report.backend, report.seconds, report.seed
    );
    let mut table = Table::default();
    table.row(["payments".to_owned(), number(report.payments)]);
    table.row(["payments/s".to_owned(), thousands(report.payments_per_second)]);
    let latency = |of: &Percentiles| format!("{} / {}", millis(of.p50_us), millis(of.p99_us));
    for (what, clients, percentiles) in
        [("own channels, p50 / p99", *own_clients, &report.own), ("hot channel, p50 / p99", *hot_clients, &report.hot)]
    {
        if clients > 0 {
            table.row([what.to_owned(), latency(percentiles)]);
        }
    }
    for (what, count) in [
        ("answers: busy", report.busy),
        ("answers: spent or claimed already", report.stale),
        ("answers: lease lost", report.lost_leases),
        ("answers: the store failed", report.failed),
        ("no answer, outcome unknown", report.unknown),
        ("conflicts in the store", report.conflicts),
        ("kills", report.kills),
        ("attempts to spend twice", report.double_spends),
        ("changes of prepaid usage", report.prepaid),
    ] {
        table.row([what.to_owned(), number(count)]);
    }
    text += &format!("{table}\n{}", audit(report));
    text
}

fn audit(report: &RehearsalReport) -> String {
    let audit = &report.audit;
    let number = |count: u64| thousands(count as f64);
    let mut text = format!(
        "AUDIT of {} channels: {} payments acknowledged, {} in doubt of which {} were charged, {} claimed\n",
        audit.channels,
        number(audit.acknowledged),
        number(audit.in_doubt),
        number(audit.charged_in_doubt),
        number(audit.claimed),
    );
    if audit.violations.is_empty() {
        return text
            + "PASSED: each is there exactly once, nobody paid for what they did not get, and all sums are right\n";
    }
    for violation in audit.violations.iter().take(SHOWN) {
        text += &format!("  {violation}\n");
    }
    if let Some(more) = audit.violations.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        text += &format!("  and {more} more (`--output json` has all)\n");
    }
    if let Some(prefix) = &audit.evidence {
        text += &format!("the records are left in the store, below {prefix}\n");
    }
    text + "FAILED\n"
}
