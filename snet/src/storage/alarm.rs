//! `snet storage alarm`: why a cluster refuses what grows, and that it may grow again.

use clap::Subcommand;
use serde::Serialize;

use super::flags::ClusterFlags;
use crate::{exit::Outcome, table::Table};

/// Look at the alarms of a cluster, and take them back.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(List),
    Disarm(Disarm),
}

/// List the alarms that stand: while there are any, whatever grows is refused.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage alarm list --endpoints http://10.0.1.1:2379")]
pub(crate) struct List {
    #[command(flatten)]
    nodes: ClusterFlags,
}

/// Take back all alarms, after there is space again: without it they come back. Prints those that were taken back.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage alarm disarm --endpoints http://10.0.1.1:2379")]
pub(crate) struct Disarm {
    #[command(flatten)]
    nodes: ClusterFlags,
}

#[derive(Serialize)]
struct Alarm {
    member: String,
    alarm: &'static str,
}

#[derive(Serialize)]
struct Alarms {
    alarms: Vec<Alarm>,
}

pub(super) async fn run(command: &Command) -> Outcome {
    let (Command::List(List { nodes }) | Command::Disarm(Disarm { nodes })) = command;
    let admin = nodes.admin()?;
    let stand = admin.alarms().await?;
    if let Command::Disarm(_) = command {
        for alarm in &stand {
            admin.disarm(alarm).await?;
        }
    }
    let alarms = stand.iter().map(|alarm| Alarm { member: format!("{:x}", alarm.member), alarm: alarm.kind });
    nodes.output.print(&Alarms { alarms: alarms.collect() }, |Alarms { alarms }| {
        let mut table = Table::default();
        table.row(["member", "alarm"].map(str::to_owned));
        for Alarm { member, alarm } in alarms {
            table.row([member.clone(), (*alarm).to_owned()]);
        }
        table.to_string()
    })
}
