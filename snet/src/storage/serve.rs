//! `snet storage serve`: what a file says of a replica.

use std::path::PathBuf;

use anyhow::anyhow;
use storage_replica::config::{Bootstrap, parse_bootstrap};

use super::{config, foreground, log};
use crate::exit::{Failure, Outcome};

/// Do what a configuration file says of one replica: start its node, or only connect to those of the others.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage serve --config cluster.toml --replica 4
      what the row of replica 4 says; each replica is given the same file
  snet storage serve --config snetd.config.json
      a configuration of the original daemon, which describes one replica
  snet storage serve --incremental --config cluster.toml --replica 1 --bootstrap new
      the first start of the first replica of a cluster that grows by itself; the others, and this one from then on, without --bootstrap

It runs until SIGTERM or Ctrl-C, and ends with code 3 if the cluster does not serve within `startup_timeout`; with --incremental it waits as long
as it takes. docs/cluster.example.toml has every key explained; `snet storage config check` looks at a file without starting anything.")]
pub(crate) struct Serve {
    /// The file, TOML or JSON.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The id of the replica; needed if the file lists several.
    #[arg(long, value_name = "ID")]
    replica: Option<u64>,
    /// Take part in a cluster that grows by itself: its leader says which replicas have nodes.
    #[arg(long, requires = "replica")]
    incremental: bool,
    /// What a replica without data does: join, wait for its cluster; new, found one, once; quorum, found one together with a majority of all replicas.
    #[arg(long, value_name = "MODE", requires = "incremental", default_value = "join", value_parser = parse_bootstrap)]
    bootstrap: Bootstrap,
    /// While this replica's node leads, only tell what it would change: see `snet storage cluster show`.
    #[arg(long, requires = "incremental")]
    dry_run: bool,
}

pub(super) async fn run(arguments: &Serve) -> Outcome {
    if let (true, Some(replica)) = (arguments.incremental, arguments.replica) {
        let growing = config::load(&arguments.config)?.growing(replica, arguments.bootstrap);
        let mut growing = growing.map_err(|reason| Failure::Usage(anyhow!(reason)))?;
        growing.membership.is_dry_run = arguments.dry_run;
        log::begin(&growing.log)?;
        return foreground::grow(growing).await;
    }
    let settings = config::settings(&arguments.config, arguments.replica)?;
    log::begin(&settings.log)?;
    let patience = settings.startup_timeout;
    foreground::run(settings, Some(patience)).await
}
