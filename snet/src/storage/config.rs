//! `snet storage config`: every mistake in a file at once, before a replica is started with it.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Subcommand;
use serde::Serialize;
use storage_replica::config::{Config, LoadError, NodeSettings, Settings, check_token, exposed};

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
    check_tokens(&config, *replica)?;
    let node = |node: &NodeSettings| Node {
        name: node.name.clone(),
        client_url: node.client_url.to_string(),
        peer_url: node.peer_url.to_string(),
    };
    let mut answer = ConfigReport { replicas: Vec::new() };
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
    output.print(&answer, table)
}

/// What each replica does.
#[derive(Serialize)]
struct ConfigReport {
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

fn table(answer: &ConfigReport) -> String {
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

/// Reads the token and the certificates of a replica's node.
fn try_files(settings: &Settings) -> Result<(), Vec<String>> {
    let Some(node) = &settings.node else { return Ok(()) };
    let token = node.token.check().err();
    let files = node.tls.try_files(&node.client_url, &node.peer_url).err().unwrap_or_default();
    let wrong: Vec<_> = token.into_iter().chain(files).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// Refuses a token that would be refused at the start, wherever that is.
fn check_tokens(config: &Config, replica: Option<u64>) -> Result<(), Failure> {
    let ids = config.replicas().iter().map(|row| Some(row.id));
    let ids: Vec<_> = if replica.is_some() || config.replicas().is_empty() { vec![replica] } else { ids.collect() };
    for id in ids {
        let settings = config.settings(id).map_err(|reason| Failure::Usage(anyhow!(reason)))?;
        let Some(node) = settings.node else { continue };
        // One that cannot be read here was told of.
        if node.token.check().is_ok() {
            let peer_urls = node.cluster.members().iter().map(|member| &member.peer_url);
            check_token(&node.token, peer_urls).map_err(|reason| Failure::Usage(anyhow!("token: {reason}")))?;
        }
    }
    Ok(())
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
