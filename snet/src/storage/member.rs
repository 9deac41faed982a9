//! `snet storage member`: the members of a cluster, asked of and changed through its nodes.

use clap::Subcommand;
use serde::Serialize;
use storage_replica::{admin::MemberInfo, config::NodeUrl};

use super::flags::ClusterFlags;
use crate::{exit::Outcome, table::Table};

/// Look at and change the members of a cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(List),
    Add(Add),
    Promote(Promote),
    Remove(Remove),
}

/// List the members of a cluster.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage member list --endpoints http://10.0.1.1:2379")]
pub(crate) struct List {
    #[command(flatten)]
    nodes: ClusterFlags,
}

/// Take in a member that does not vote yet.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage member add --peer-url http://10.0.1.4:2380 --endpoints http://10.0.1.1:2379

It prints the id of the member. Start it then, wait until it has caught up, and promote it.")]
pub(crate) struct Add {
    /// Where the other nodes reach the new one.
    #[arg(long, value_name = "URL")]
    peer_url: NodeUrl,
    #[command(flatten)]
    nodes: ClusterFlags,
}

/// Make a voter of a member that has caught up.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage member promote 8e9e05c52164694d --endpoints http://10.0.1.1:2379")]
pub(crate) struct Promote {
    /// The id of the member, as `member list` has it.
    #[arg(value_parser = member_id)]
    id: u64,
    #[command(flatten)]
    nodes: ClusterFlags,
}

/// Remove a member.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage member remove 8e9e05c52164694d --endpoints http://10.0.1.1:2379

Its id and data directory cannot be used again.")]
pub(crate) struct Remove {
    /// The id of the member, as `member list` has it.
    #[arg(value_parser = member_id)]
    id: u64,
    #[command(flatten)]
    nodes: ClusterFlags,
}

/// A member, as it is printed.
#[derive(Serialize)]
struct Member {
    id: String,
    name: String,
    votes: bool,
    peer_urls: Vec<String>,
    client_urls: Vec<String>,
}

#[derive(Serialize)]
struct Members {
    members: Vec<Member>,
}

pub(super) async fn run(command: &Command) -> Outcome {
    let (Command::List(List { nodes })
    | Command::Add(Add { nodes, .. })
    | Command::Promote(Promote { nodes, .. })
    | Command::Remove(Remove { nodes, .. })) = command;
    let admin = nodes.admin()?;
    let members = match command {
        Command::Add(Add { peer_url, .. }) => vec![admin.add(peer_url).await?],
        Command::List(_) => admin.members().await?,
        Command::Promote(Promote { id, .. }) => {
            admin.promote(*id).await?;
            admin.members().await?
        }
        Command::Remove(Remove { id, .. }) => {
            admin.remove(*id).await?;
            admin.members().await?
        }
    };
    let members = Members { members: members.into_iter().map(Member::from).collect() };
    nodes.output.print(&members, |Members { members }| {
        let mut table = Table::default();
        table.row(["member", "name", "votes", "other nodes", "clients"].map(str::to_owned));
        for Member { id, name, votes, peer_urls, client_urls } in members {
            let votes = if *votes { "yes" } else { "no" };
            table.row([id.clone(), name.clone(), votes.to_owned(), peer_urls.join(","), client_urls.join(",")]);
        }
        table.to_string()
    })
}

impl From<MemberInfo> for Member {
    fn from(member: MemberInfo) -> Self {
        Self {
            id: format!("{:x}", member.id),
            name: member.name,
            votes: !member.is_learner,
            peer_urls: member.peer_urls,
            client_urls: member.client_urls,
        }
    }
}

fn member_id(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16)
        .map_err(|_| "a member's id has hexadecimal digits, as `snet storage member list` shows them".to_owned())
}
