//! `snet storage config`

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Subcommand;
use serde::Serialize;
use storage_replica::config::{Config, LoadError, NodeSettings, Settings, exposed};

use super::place::print;
use crate::{
    exit::{Failure, Outcome},
    output::Output,
    table::Table,
};

/// Look at configuration files.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Check(Check),
}

/// Tell every mistake in a configuration file, with its line, and what each replica does.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage config check cluster.toml
  SNET_STORAGE_ENGINE=etcd snet storage config check cluster.toml

A file with mistakes ends the command with code 2; warnings do not.")]
pub(crate) struct Check {
    /// The file, TOML or JSON: a table of all replicas, or a configuration of the original daemon.
    file: PathBuf,
    /// The replica of this machine: that its certificates cannot be used here is then a mistake, and else a warning.
    #[arg(long, value_name = "ID")]
    replica: Option<u64>,
    /// How the answer is printed; mistakes and warnings are lines on standard error.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(Command::Check(Check { file, replica, output }): &Command) -> Outcome {
    let config = load(file)?;
    match replica {
        Some(_) => try_files(&settings(file, *replica)?).map_err(|wrong| Failure::Usage(anyhow!(wrong.join("\n"))))?,
        None => {
            let ids: Vec<_> = match config.replicas() {
                [] => vec![None],
                rows => rows.iter().map(|row| Some(row.id)).collect(),
            };
            for id in ids {
                let settings = config.settings(id).map_err(|reason| Failure::Usage(anyhow!(reason)))?;
                let replica = id.map_or_else(String::new, |id| format!("replica {id}: "));
                for wrong in try_files(&settings).err().unwrap_or_default() {
                    eprintln!("warning: {}: {replica}{wrong}, on this machine", file.display());
                }
                let node = settings.node.as_ref();
                for exposed in node.map_or_else(Vec::new, |node| exposed(&node.client_url, &node.peer_url)) {
                    eprintln!("warning: {}: {replica}{exposed}", file.display());
                }
            }
        }
    }
    let node = |node: &NodeSettings| Node {
        name: node.name.clone(),
        client_url: node.client_url.to_string(),
        peer_url: node.peer_url.to_string(),
    };
    let mut answer = Answer { replicas: Vec::new() };
    match config.replicas() {
        [] => {
            let settings = config.settings(None).map_err(|reason| Failure::Usage(anyhow!(reason)))?;
            answer.replicas.push(Replica { id: None, node: settings.node.as_ref().map(node) });
        }
        rows => {
            for row in rows {
                let settings = config.settings(Some(row.id)).map_err(|reason| Failure::Usage(anyhow!(reason)))?;
                answer.replicas.push(Replica { id: Some(row.id), node: settings.node.as_ref().map(node) });
            }
        }
    }
    print(*output, &answer, table)
}

/// What each replica does.
#[derive(Serialize)]
struct Answer {
    replicas: Vec<Replica>,
}

#[derive(Serialize)]
struct Replica {
    /// That of the original daemon has none.
    id: Option<u64>,
    node: Option<Node>,
}

#[derive(Serialize)]
struct Node {
    name: String,
    client_url: String,
    peer_url: String,
}

fn table(answer: &Answer) -> String {
    let mut table = Table::default();
    for Replica { id, node } in &answer.replicas {
        let who = id.map_or_else(|| "one replica, as the original daemon's:".to_owned(), |id| format!("replica {id} "));
        let what = match node {
            Some(Node { name, client_url, peer_url }) => {
                format!("node {name}, clients {client_url}, other nodes {peer_url}")
            }
            None => "no node".to_owned(),
        };
        table.row([format!("{who} {what}")]);
    }
    table.to_string()
}

/// Reads the certificates of a replica's node.
fn try_files(settings: &Settings) -> Result<(), Vec<String>> {
    settings.node.as_ref().map_or(Ok(()), |node| node.tls.try_files(&node.client_url, &node.peer_url))
}

/// What a file says of one replica.
pub(super) fn settings(file: &Path, replica: Option<u64>) -> Result<Settings, Failure> {
    let settings = load(file)?.settings(replica);
    settings.map_err(|reason| Failure::Usage(anyhow!("{}: {reason} (--replica ID)", file.display())))
}

/// Reads a file, and tells on standard error what looks doubtful in it.
pub(super) fn load(file: &Path) -> Result<Config, Failure> {
    match Config::load(file) {
        Ok((config, warnings)) => {
            for warning in warnings {
                eprintln!("warning: {}: {warning}", file.display());
            }
            Ok(config)
        }
        Err(error @ LoadError::Wrong { .. }) => Err(Failure::Usage(error.into())),
        Err(error) => Err(Failure::Missing(error.into())),
    }
}
