//! One node of an embedded cluster as a process of its own, driven by commands on standard input: for crash tests, which
//! kill it, and for scripts. A service embeds the library instead.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use storage_core::{Error, Expected, Key, Observed, Outcome, ReadOptions, Store, Txn, WriteOptions};
use storage_embedded::{Member, Node, NodeConfig};
use tokio::io::{AsyncBufReadExt, BufReader};

const HELP: &str = "\
One node of an embedded storage cluster, driven by commands on standard input.

Usage: storage-embedded-node --id N --data-dir DIR --listen HOST:PORT [--member N=HOST:PORT]... [options]

  --id N                this node's id, from 1
  --data-dir DIR        where the log and the snapshots are kept
  --listen HOST:PORT    where the node listens for the others
  --member N=HOST:PORT  a founding member, this one included; the same list for every one
  --cluster HEX         the id of the cluster (default: 1)
  --fast                heartbeats every 50 ms instead of 100, for tests
  --snapshot-every N    entries between two snapshots (default: 500000)

Each line is a number of the caller's choice, a command and its arguments; the answer begins with the same number.
Several commands may be under way. Keys and values are words without blanks.

  7 put KEY VALUE          -> 7 ok VERSION
  8 cas KEY VERSION VALUE  -> 8 ok VERSION | 8 conflict VERSION VALUE | 8 conflict
                              (a VERSION of - means: the key is absent)
  9 get KEY                -> 9 ok VERSION VALUE | 9 absent
  10 status                -> 10 ok ROLE LEADER TERM APPLIED SNAPSHOT
  any                      -> N error KIND TEXT    (unknown_outcome: the write may have been applied)

The node ends in good order when standard input ends, and with exit code 1 when it cannot go on.
";

/// How long a command may take.
const TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let result = parse().and_then(|config| match config {
        Some(config) => run(config),
        None => {
            print!("{HELP}");
            Ok(())
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storage-embedded-node: {error}");
            ExitCode::FAILURE
        }
    }
}

type AnyError = Box<dyn std::error::Error>;

fn parse() -> Result<Option<NodeConfig>, AnyError> {
    use lexopt::prelude::*;
    let (mut id, mut data_dir, mut listen, mut cluster, mut fast) = (None, None, None, 1, false);
    let (mut founders, mut snapshot_every) = (BTreeMap::new(), None);
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("id") => id = Some(arguments.value()?.parse()?),
            Long("data-dir") => data_dir = Some(PathBuf::from(arguments.value()?)),
            Long("listen") => listen = Some(arguments.value()?.string()?),
            Long("cluster") => cluster = u128::from_str_radix(&arguments.value()?.string()?, 16)?,
            Long("fast") => fast = true,
            Long("snapshot-every") => snapshot_every = Some(arguments.value()?.parse()?),
            Long("member") => {
                let text = arguments.value()?.string()?;
                let (id, address) = text.split_once('=').ok_or("--member is N=HOST:PORT")?;
                let member =
                    Member { name: format!("n{id}"), peer_address: address.to_owned(), client_url: String::new() };
                founders.insert(id.parse()?, member);
            }
            Long("help") | Short('h') => return Ok(None),
            other => return Err(other.unexpected().into()),
        }
    }
    let needed = "--id, --data-dir and --listen are needed; --help tells more";
    let (id, data_dir, listen) = (id.ok_or(needed)?, data_dir.ok_or(needed)?, listen.ok_or(needed)?);
    let mut config = NodeConfig::new(id, cluster, data_dir, listen);
    config.founders = founders;
    config.snapshot_every = snapshot_every.unwrap_or(config.snapshot_every);
    Ok(Some(if fast { config.fast() } else { config }))
}

#[tokio::main(flavor = "current_thread")]
async fn run(config: NodeConfig) -> Result<(), AnyError> {
    let node = Node::start(config).await?;
    println!("0 ready {}", node.address());
    let store = Arc::new(node.store());
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            stopped = node.stopped() => return Ok(stopped?),
            line = lines.next_line() => match line? {
                None => break,
                Some(line) => {
                    let (store, node) = (store.clone(), node.clone());
                    tokio::spawn(async move {
                        let (number, command) = line.split_once(' ').unwrap_or((&line, ""));
                        let answer = match answer(&*store, &node, command).await {
                            Ok(answer) => answer,
                            Err(error) => format!("error {} {error}", error.kind()),
                        };
                        // One write for the whole line, so that answers do not mix.
                        let _ = io::stdout().lock().write_all(format!("{number} {answer}\n").as_bytes());
                    });
                }
            },
        }
    }
    node.stop().await;
    Ok(())
}

async fn answer(store: &dyn Store, node: &Node, command: &str) -> storage_core::Result<String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words.as_slice() {
        ["get", key] => {
            let entry = store.get(&Key::try_from(*key)?, ReadOptions::default().timeout(TIMEOUT)).await?;
            Ok(entry
                .map_or("absent".to_owned(), |entry| format!("ok {} {}", entry.version, entry.value.escape_ascii())))
        }
        ["put", key, value] => write(store, Txn::new().put(Key::try_from(*key)?, (*value).to_owned())).await,
        ["cas", key, version, value] => {
            let expected = if *version == "-" { Expected::Absent } else { Expected::Version(version.parse()?) };
            let key = Key::try_from(*key)?;
            write(store, Txn::new().guard(key.clone(), expected).put(key, (*value).to_owned())).await
        }
        ["status"] => {
            let status = node.status();
            let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
            Ok(format!(
                "ok {:?} {} {} {} {}",
                status.role,
                number(status.leader),
                status.term,
                number(status.last_applied),
                number(status.snapshot)
            ))
        }
        _ => Err(Error::invalid_argument("unknown command; --help lists them")),
    }
}

async fn write(store: &dyn Store, txn: Txn) -> storage_core::Result<String> {
    Ok(match store.commit(txn, WriteOptions::default().timeout(TIMEOUT)).await? {
        Outcome::Committed(committed) => committed.version().map_or("ok".to_owned(), |version| format!("ok {version}")),
        Outcome::Conflict(conflict) => match conflict.current {
            Observed::Present(entry) => format!("conflict {} {}", entry.version, entry.value.escape_ascii()),
            Observed::Absent | Observed::Unknown => "conflict".to_owned(),
        },
    })
}
