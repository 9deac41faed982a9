//! The flags for the token of a cluster.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use storage_replica::config::{Token, exposure, token_in};

use crate::exit::Failure;

/// What the nodes of a cluster have in common and nobody else knows. The command line counts before the environment.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub(super) struct TokenFlags {
    /// The file with the secret that all nodes of the cluster have in common, and no other: `openssl rand -hex 32` [env: SNET_STORAGE_TOKEN_FILE].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The secret itself. Whoever is on this machine can read a command line: better in a file [env: SNET_STORAGE_TOKEN].
    #[arg(long)]
    token: Option<Token>,
}

impl TokenFlags {
    pub(super) fn read(&self) -> Result<Token, Failure> {
        let variable = |name: &str| env::var(name).ok().filter(|text| !text.is_empty());
        if let Some(token) = &self.token {
            return Ok(token.clone());
        }
        if let Some(file) = &self.token_file {
            return in_file(file);
        }
        if let Some(token) = variable("SNET_STORAGE_TOKEN") {
            return token.parse().map_err(|reason: String| Failure::Usage(anyhow!("SNET_STORAGE_TOKEN: {reason}")));
        }
        match variable("SNET_STORAGE_TOKEN_FILE") {
            Some(file) => in_file(Path::new(&file)),
            None => Err(Failure::Usage(anyhow!(
                "the nodes of a cluster need a secret in common: --token-file FILE, or the variable SNET_STORAGE_TOKEN_FILE"
            ))),
        }
    }
}

fn in_file(file: &Path) -> Result<Token, Failure> {
    if let Some(exposure) = exposure(file) {
        tracing::warn!("{exposure}");
    }
    token_in(file).map_err(|reason| Failure::Usage(anyhow!(reason)))
}
