//! One node of the embedded engine as a process: `soak node --id ...`.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use futures::FutureExt;
use lexopt::prelude::*;
use storage::{
    Error, ReadOptions, Result, Store,
    embedded::{Member, Node, NodeConfig, Role},
};
use storage_testkit::remote::{Ask, serve};
use tokio::net::TcpListener;

/// A change of members takes at most so long.
const CHANGES_WITHIN: Duration = Duration::from_secs(5);

/// All clusters of soaks have this id: they never meet.
const CLUSTER: u128 = 0x50a4;

/// A snapshot is written after so many entries: some in each round.
const SNAPSHOT_EVERY: u64 = 5000;

/// Runs a node with these arguments until it stops by itself, which is always a failure, or is killed.
///
/// # Errors
/// What is wrong with the arguments, or why the node cannot start or go on.
pub async fn node(arguments: &mut lexopt::Parser) -> Result<(), Box<dyn std::error::Error>> {
    let (mut id, mut data_dir, mut listen, mut serves) = (None, None, None, None);
    let mut founders = BTreeMap::new();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("id") => id = Some(arguments.value()?.parse()?),
            Long("data-dir") => data_dir = Some(PathBuf::from(arguments.value()?)),
            Long("listen") => listen = Some(arguments.value()?.string()?),
            Long("serve") => serves = Some(arguments.value()?.string()?),
            Long("member") => {
                let text = arguments.value()?.string()?;
                let (id, address) = text.split_once('=').ok_or("--member is N=HOST:PORT")?;
                founders.insert(id.parse()?, member(id, address));
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let needed = "--id, --data-dir, --listen and --serve are needed";
    let config = NodeConfig::new(id.ok_or(needed)?, CLUSTER, data_dir.ok_or(needed)?, listen.ok_or(needed)?);
    let mut config = config.fast();
    config.founders = founders;
    config.snapshot_every = SNAPSHOT_EVERY;
    let listener = TcpListener::bind(serves.ok_or(needed)?).await?;
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

fn member(id: &str, address: &str) -> Member {
    Member { name: format!("n{id}"), peer_address: address.to_owned(), client_url: String::new() }
}

/// Answers a word: `leads`, `voters`, `add ID ADDRESS`, `promote ID`, `remove ID`.
async fn answer(node: &Node, word: &str) -> Result<String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| Error::invalid_argument(format!("{text} is no node id")));
    let words: Vec<&str> = word.split_whitespace().collect();
    match words.as_slice() {
        ["leads"] => Ok(if node.status().role == Role::Leader { "yes" } else { "no" }.to_owned()),
        ["voters"] => {
            // As of now, not as of when this node last heard.
            node.store().ping(ReadOptions::default().timeout(CHANGES_WITHIN)).await?;
            let voters: Vec<_> = node.status().voters.iter().map(ToString::to_string).collect();
            Ok(format!("ok {}", voters.join(" ")))
        }
        ["add", id, address] => {
            let added = node.add_learner(number(id)?, member(id, address), CHANGES_WITHIN).await;
            // Of an attempt before.
            let is_there = node.status().members.contains_key(&number(id)?);
            added.or_else(|error| if is_there { Ok(()) } else { Err(error) }).map(|()| "ok".to_owned())
        }
        ["promote", id] => node.promote_in_sync(number(id)?, CHANGES_WITHIN).await.map(|()| "ok".to_owned()),
        ["remove", id] => node.remove([number(id)?], CHANGES_WITHIN).await.map(|()| "ok".to_owned()),
        _ => Err(Error::invalid_argument("an unknown word")),
    }
}
