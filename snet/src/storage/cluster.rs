//! `snet storage cluster`: who votes in a cluster that grows by itself, leaving it, and the last resort.

mod recover;

use std::{path::PathBuf, time::Duration};

use anyhow::anyhow;
use clap::Subcommand;
use storage_membership::Overview;
use storage_replica::{
    config::{Bootstrap, Growing},
    growing,
};

use super::config;
use crate::{
    exit::{Failure, Outcome},
    output::Output,
    table::Table,
};

/// Look at and steer a cluster that grows by itself (`serve --incremental`).
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Show(Show),
    Leave(Leave),
    Recover(recover::Recover),
}

/// Tell who takes part, who votes, who is dead, and what the leader does next and why not yet.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage cluster show --config cluster.toml
  snet storage cluster show --config cluster.toml --output json

It asks all replicas in the file for the cluster, and needs a majority of its voters to be there.")]
pub(crate) struct Show {
    #[command(flatten)]
    which: Which,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Ask a replica to leave for good: it hands over, another votes in its place if there is one, and its node is removed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage cluster leave 3 --config cluster.toml
      before the machine of replica 3 is taken away, or after it has died and will not come back
  snet storage cluster leave 3 --undo --config cluster.toml
      it may have a node again

`cluster show` tells when it has left: stop its process then. Replicas that are only stopped for a while need not leave.")]
pub(crate) struct Leave {
    /// The id of the replica.
    replica: u64,
    /// It stays after all, or may come back.
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The file that lists all replicas.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The id of the replica whose certificates are shown [default: the first that may have a node].
    #[arg(long = "as-replica", value_name = "ID")]
    as_replica: Option<u64>,
    /// How long to wait for an answer, in seconds.
    #[arg(long, default_value_t = 5, value_name = "NUMBER")]
    seconds: u64,
}

impl Which {
    fn growing(&self) -> Result<Growing, Failure> {
        let config = config::load(&self.config)?;
        let first = config.replicas().iter().find(|row| row.node.is_some()).map(|row| row.id);
        let id = self.as_replica.or(first).unwrap_or_default();
        config.growing(id, Bootstrap::Join).map_err(|reason| Failure::Usage(anyhow!(reason)))
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

pub(super) async fn run(command: &Command) -> Outcome {
    match command {
        Command::Show(Show { which, output }) => {
            let overview = growing::overview(&which.growing()?, which.timeout()).await?;
            output.print(&overview, table)
        }
        Command::Recover(arguments) => recover::run(arguments).await,
        Command::Leave(Leave { replica, undo, which }) => {
            let cluster = which.growing()?;
            if cluster.membership.replicas.iter().all(|known| known.id != *replica) {
                return Err(Failure::Usage(anyhow!("there is no replica {replica} with a node in the file")));
            }
            let table = growing::open_table(&cluster, which.timeout()).await?;
            Ok(table.leave(*replica, !undo).await?)
        }
    }
}

fn table(overview: &Overview) -> String {
    let mut table = Table::default();
    table.row(["replica", "name", "role", "node", "state", "clients", "other nodes"].map(str::to_owned));
    for replica in &overview.replicas {
        let state = match (replica.silent_seconds, replica.is_leaving && replica.role != "left") {
            (_, true) => "leaving".to_owned(),
            (Some(seconds), _) => format!("{} for {seconds} s", replica.state),
            (None, _) => replica.state.clone(),
        };
        let node = replica.node.clone().unwrap_or_else(|| "-".to_owned());
        let is_leader = replica.node.is_some() && replica.node == overview.leader;
        let role = if is_leader { "leader" } else { replica.role };
        table.row([
            replica.id.to_string(),
            replica.name.clone(),
            role.to_owned(),
            node,
            state,
            replica.client_url.clone(),
            replica.peer_url.clone(),
        ]);
    }
    let mut lines = vec![format!("cluster {}", overview.cluster), table.to_string()];
    if !overview.lost_voters.is_empty() {
        lines.push(format!("voters that no replica claims: {}", overview.lost_voters.join(", ")));
    }
    if !overview.unproved_rows.is_empty() {
        lines.push(format!(
            "rows that are not proved by the token, and not looked at: {}",
            overview.unproved_rows.join(", ")
        ));
    }
    lines.extend(
        overview.last_change.as_ref().map(|change| format!("last change, number {}: {}", change.number, change.what)),
    );
    lines.push(format!("next: {}", overview.intends.as_deref().unwrap_or("no leader has told yet")));
    lines.join("\n") + "\n"
}
