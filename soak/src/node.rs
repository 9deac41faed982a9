//! One node of the embedded engine as a process: `soak node --id ...`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use storage::{
    Error, ReadOptions, Result, Store,
    embedded::{ClusterToken, Member, Node, NodeConfig, Role},
};
use storage_testkit::remote::{Ask, serve};
use tokio::net::TcpListener;

/// A change of members takes at most so long.
const CHANGES_WITHIN: Duration = Duration::from_secs(5);

/// All clusters of soaks have this id: they never meet.
const CLUSTER: u128 = 0x50a4;

/// Its nodes may be in networks of their own, where those without a token are refused.
const TOKEN: &str = "the token of a cluster that is struck";

/// Where a node keeps its data, in the folder that it is given for them.
pub(crate) const DIRECTORY: &str = "node";

/// A snapshot is written after so many entries: all the time, so that faults strike while one is written, and while the log is purged.
const SNAPSHOT_EVERY: u64 = 1000;

/// The arguments of a node.
#[derive(Debug, clap::Parser)]
#[command(name = "soak node")]
pub struct NodeArguments {
    /// The node's id, from 1.
    #[arg(long)]
    id: u64,
    /// Where the log and the snapshots are kept.
    #[arg(long)]
    data_dir: PathBuf,
    /// Where the node listens for the others.
    #[arg(long, value_name = "HOST:PORT")]
    listen: String,
    /// Where it serves clients.
    #[arg(long, value_name = "HOST:PORT")]
    serve: String,
    /// A founding member, this one included; the same list for every one.
    #[arg(long, value_name = "N=HOST:PORT", value_parser = founder)]
    member: Vec<(u64, Member)>,
}

fn founder(text: &str) -> std::result::Result<(u64, Member), String> {
    let (id, address) = text.split_once('=').ok_or("a member is N=HOST:PORT")?;
    Ok((id.parse().map_err(|_| format!("{id} is no node id"))?, member(id, address)))
}

/// Runs a node with these arguments until it stops by itself, which is always a failure, or is killed.
///
/// # Errors
/// Why the node cannot start or go on.
pub async fn node(arguments: NodeArguments) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut config = config(arguments.id, arguments.data_dir, arguments.listen);
    config.founders = arguments.member.into_iter().collect();
    let listener = TcpListener::bind(arguments.serve).await?;
    let node = Node::start(config).await?;
    let asked = node.clone();
    let ask: Ask = Arc::new(move |word| {
        let node = asked.clone();
        async move { answer(&node, &word).await.unwrap_or_else(|error| format!("error {} {error}", error.kind())) }
            .boxed()
    });
    tokio::select! {
        () = serve(listener, Arc::new(node.store()), ask) => {}
        stopped = node.stopped() => stopped?,
    }
    Err("the node has stopped".into())
}

fn config(id: u64, data_dir: PathBuf, listen: String) -> NodeConfig {
    let mut config = NodeConfig::new(id, CLUSTER, data_dir, listen).fast();
    config.token = ClusterToken::new(TOKEN);
    config.snapshot_every = SNAPSHOT_EVERY;
    config
}

/// Makes the directory of a node from a snapshot file, as an operator does for the founders of a new cluster: the node is one of these members.
///
/// # Errors
/// Those of [`storage::embedded::restore`].
pub(crate) fn restore(file: &Path, id: u64, data_dir: &Path, members: &[(u64, String)]) -> Result<()> {
    let mut config = config(id, data_dir.join(DIRECTORY), String::new());
    config.founders = members.iter().map(|(id, address)| (*id, member(&id.to_string(), address))).collect();
    storage::embedded::restore(file, &config, 0).map(drop)
}

fn member(id: &str, address: &str) -> Member {
    Member { name: format!("n{id}"), peer_address: address.to_owned(), client_url: String::new() }
}

/// Answers a word: `leads`, `voters`, `members`, `add ID ADDRESS`, `promote ID`, `remove ID ...`, `transfer ID`, `address ID ADDRESS`,
/// `snapshot`, `save FILE`.
async fn answer(node: &Node, word: &str) -> Result<String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| Error::invalid_argument(format!("{text} is no node id")));
    let words: Vec<&str> = word.split_whitespace().collect();
    match words.as_slice() {
        ["leads"] => Ok(if node.status().role == Role::Leader { "yes" } else { "no" }.to_owned()),
        ["voters" | "members"] => {
            // As of now, not as of when this node last heard.
            node.store().ping(ReadOptions::default().timeout(CHANGES_WITHIN)).await?;
            let status = node.status();
            let ids: Vec<_> = match word {
                "voters" => status.voters.iter().map(ToString::to_string).collect(),
                _ => status.members.keys().map(ToString::to_string).collect(),
            };
            Ok(format!("ok {}", ids.join(" ")))
        }
        ["add", id, address] => {
            let added = node.add_learner(number(id)?, member(id, address), CHANGES_WITHIN).await;
            // Of an attempt before.
            let is_there = node.status().members.contains_key(&number(id)?);
            added.or_else(|error| if is_there { Ok(()) } else { Err(error) }).map(|()| "ok".to_owned())
        }
        ["promote", id] => node.promote_in_sync(number(id)?, CHANGES_WITHIN).await.map(|()| "ok".to_owned()),
        ["remove", ids @ ..] => {
            let ids = ids.iter().map(|id| number(id)).collect::<Result<Vec<_>>>()?;
            node.remove(ids, CHANGES_WITHIN).await.map(|()| "ok".to_owned())
        }
        ["transfer", id] => node.transfer_leadership(number(id)?, CHANGES_WITHIN).await.map(|()| "ok".to_owned()),
        ["address", id, address] => {
            node.readdress(number(id)?, (*address).to_owned(), CHANGES_WITHIN).await.map(|()| "ok".to_owned())
        }
        ["snapshot"] => node.snapshot(CHANGES_WITHIN).await.map(|()| "ok".to_owned()),
        ["save", file] => {
            let (pieces, file) = (node.open_snapshot(CHANGES_WITHIN).await?, PathBuf::from(file));
            let saved = tokio::task::spawn_blocking(move || {
                let pieces = pieces.collect::<io::Result<Vec<_>>>()?;
                fs::write(file, pieces.concat())
            });
            saved.await.map_err(Error::unavailable)?.map_err(Error::unavailable).map(|()| "ok".to_owned())
        }
        _ => Err(Error::invalid_argument("an unknown word")),
    }
}
