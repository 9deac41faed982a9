//! `snet storage serve`

use std::path::PathBuf;

use super::{config, foreground, log};
use crate::exit::Outcome;

/// Do what a configuration file says of one replica: start its node, or only connect to those of the others.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage serve --config cluster.toml --replica 4
      what the row of replica 4 says; each replica is given the same file
  snet storage serve --config snetd.config.json
      a configuration of the original daemon, which describes one replica

It runs until SIGTERM or Ctrl-C, and ends with code 3 if the cluster does not serve within `startup_timeout`.
docs/cluster.example.toml has every key explained; `snet storage config check` looks at a file without starting anything.")]
pub(crate) struct Serve {
    /// The file, TOML or JSON.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The id of the replica; needed if the file lists several.
    #[arg(long, value_name = "ID")]
    replica: Option<u64>,
}

pub(super) async fn run(arguments: &Serve) -> Outcome {
    let settings = config::settings(&arguments.config, arguments.replica)?;
    log::begin(&settings.log)?;
    let patience = settings.startup_timeout;
    foreground::run(settings, Some(patience)).await
}
