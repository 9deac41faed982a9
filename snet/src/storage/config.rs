//! `snet storage config`

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::Subcommand;
use storage_replica::config::{Config, LoadError, Settings, exposed};

use crate::{
    exit::{Failure, Outcome},
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
}

pub(super) fn run(Command::Check(Check { file, replica }): &Command) -> Outcome {
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
    let mut table = Table::default();
    for row in config.replicas() {
        let what = match &row.node {
            Some(node) => format!("node {}, clients {}, other nodes {}", node.name, node.client_url, node.peer_url),
            None => "no node".to_owned(),
        };
        table.row([format!("replica {}  {what}", row.id)]);
    }
    if config.replicas().is_empty() {
        let settings = config.settings(None).map_err(|reason| Failure::Usage(anyhow!(reason)))?;
        let what = match &settings.node {
            Some(node) => format!("node {}, clients {}, other nodes {}", node.name, node.client_url, node.peer_url),
            None => "no node".to_owned(),
        };
        table.row([format!("one replica, as the original daemon's: {what}")]);
    }
    Ok(write!(std::io::stdout().lock(), "{table}")?)
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
