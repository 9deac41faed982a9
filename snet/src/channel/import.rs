//! `snet channel import`

use ::storage::channel::Address;
use anyhow::anyhow;
use payment_channels::{DaemonImport, DaemonStore, Imported, Ledger, Skipped, chain_id_of};
use serde::Serialize;

use super::{address, read_store::ReadStore};
use crate::{
    exit::{Failure, Outcome},
    output::Output,
    store_url::store_url,
    table::Table,
};

/// Import channels, claims, prepaid usage and free calls from a store of snet-daemon.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet channel import etcd://127.0.0.1:2379 embedded:/var/lib/channels --dry-run
      what would be imported, and the sum of the amounts; nothing is written
  snet channel import etcd://127.0.0.1:2379 etcd://127.0.0.1:2379
      into the same store: the keys of both programs are different

Stop the daemons first. A record is written where none is: an import that was cut off goes on when it is run again, one that is
run twice changes nothing, and what replicas have done here since is kept. Records that cannot be read are named and passed over;
the code is 6 then. docs/payments.md has the cutover of a live service.")]
pub(crate) struct Import {
    /// The store of the daemon, as `storage::open` takes it: a URL, or `@FILE` or `env:NAME` for one that nobody else shall read.
    #[arg(value_parser = store_url)]
    from: String,
    /// The store of the service, likewise.
    #[arg(value_parser = store_url)]
    to: String,
    /// The contract whose channels are imported; needed where the store has several.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    contract: Option<Address>,
    /// The network, as the daemon's keys name it; needed where the store has several.
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// The chain of the network; needed for one that the daemon does not know by name.
    #[arg(long, value_name = "NUMBER")]
    chain_id: Option<u64>,
    /// Write nothing.
    #[arg(long)]
    dry_run: bool,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) async fn run(arguments: &Import) -> Outcome {
    let Import { from, to, dry_run, output, .. } = arguments;
    let source = ReadStore::open(from).await?;
    let imported = async {
        let import = arguments.import(&DaemonStore::look(source.store()).await?)?;
        if *dry_run {
            // One that is not there yet is empty. One that cannot be read is not.
            let target = ReadStore::open_if_there(to).await?;
            let found = import.run(source.store(), target.as_ref().map(ReadStore::store)).await?;
            return Ok::<_, Failure>((import, found));
        }
        let target = ::storage::open(to).await?;
        let found = import.run(source.store(), Some(&*target)).await;
        // What was written is written.
        let _ = target.close().await;
        Ok((import, found?))
    };
    let imported = imported.await;
    source.close().await;
    let (import, found) = imported?;
    output.print(&ImportReport::of(&import, &found), |report| table(report, &found))?;
    for Skipped { key, reason } in &found.unclaimable {
        eprintln!("warning: {key} is imported, but its authorization cannot be claimed: {reason}");
    }
    for Skipped { key, reason } in &found.skipped {
        eprintln!("warning: {key} was passed over: {reason}");
    }
    match found.skipped.len() {
        0 => Ok(()),
        count => Err(Failure::Partial(anyhow!("{count} records of the daemon were passed over"))),
    }
}

impl Import {
    /// What is to be imported, of what there is.
    fn import(&self, daemon: &DaemonStore) -> Result<DaemonImport, Failure> {
        let mut services: Vec<_> = daemon.services.iter().collect();
        services.retain(|(network, contract)| {
            self.network.as_ref().is_none_or(|wanted| wanted == network)
                && self.contract.is_none_or(|wanted| wanted == *contract)
        });
        let (network, contract) = match services[..] {
            [service] => service,
            [] => return Err(Failure::no("there is nothing of snet-daemon in this store that is asked for")),
            _ => {
                let all: Vec<_> =
                    services.iter().map(|(network, contract)| format!("{contract} on {network}")).collect();
                return Err(Failure::Usage(anyhow!(
                    "the store has channels of several contracts: say which with `--contract` and `--network`: {}",
                    all.join(", ")
                )));
            }
        };
        let chain_id = self.chain_id.or_else(|| chain_id_of(network)).ok_or_else(|| {
            Failure::Usage(anyhow!("the daemon has the network `{network}`: say which chain that is with `--chain-id`"))
        })?;
        let ledger = Ledger { chain_id, contract: *contract };
        Ok(DaemonImport { network: network.clone(), ledger, is_dry_run: self.dry_run })
    }
}

#[derive(Serialize)]
struct ImportReport {
    dry_run: bool,
    network: String,
    chain_id: u64,
    contract: String,
    channels: u64,
    authorized_amount: Option<String>,
    claims: u64,
    claimed_amount: Option<String>,
    prepaid: u64,
    free_callers: u64,
    written: u64,
    unchanged: u64,
    kept: Vec<String>,
    skipped: Vec<String>,
    unclaimable: Vec<String>,
}

impl ImportReport {
    fn of(import: &DaemonImport, found: &Imported) -> Self {
        let keys = |skipped: &[Skipped]| skipped.iter().map(|skipped| skipped.key.to_string()).collect();
        Self {
            dry_run: import.is_dry_run,
            network: import.network.clone(),
            chain_id: import.ledger.chain_id,
            contract: import.ledger.contract.to_string(),
            channels: found.channels,
            authorized_amount: found.authorized.map(|amount| amount.to_string()),
            claims: found.claims,
            claimed_amount: found.claimed.map(|amount| amount.to_string()),
            prepaid: found.prepaid,
            free_callers: found.free_callers,
            written: found.written,
            unchanged: found.unchanged,
            kept: found.kept.iter().map(ToString::to_string).collect(),
            skipped: keys(&found.skipped),
            unclaimable: keys(&found.unclaimable),
        }
    }
}

fn table(report: &ImportReport, found: &Imported) -> String {
    let sum = |amount: &Option<String>| amount.clone().unwrap_or_else(|| "more than 2^256 - 1".to_owned());
    let mut table = Table::default();
    table.row(["contract", &format!("{} on chain {} ({})", report.contract, report.chain_id, report.network)]);
    table.row(["channels", &format!("{}, with {} authorized", report.channels, sum(&report.authorized_amount))]);
    table.row(["claims", &format!("{}, of {}", report.claims, sum(&report.claimed_amount))]);
    table.row(["prepaid channels", &report.prepaid.to_string()]);
    table.row(["users with free calls", &report.free_callers.to_string()]);
    let written = if report.dry_run { "would be written" } else { "written" };
    table.row([written, &report.written.to_string()]);
    table.row(["there already", &report.unchanged.to_string()]);
    table.row(["there already, and gone on since", &found.kept.len().to_string()]);
    table.row(["passed over", &found.skipped.len().to_string()]);
    table.to_string()
}
