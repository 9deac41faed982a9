//! Which store is meant, and how the answer is printed: the same flags for every command that reads or writes one.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ::storage::{ReadOptions, Store, WriteOptions};
use anyhow::anyhow;
use serde::Serialize;
use storage_replica::{
    admin::Admin,
    config::{ClientTls, NodeUrl},
};

use super::{config, tls::ClientFlags};
use crate::{
    exit::{Failure, Outcome},
    output::Output,
};

/// A store, how long to wait for it, and how to print what it says.
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    #[command(flatten)]
    which: Which,
    /// With a configuration file, the id of the replica whose way to the store is taken.
    #[arg(long, value_name = "ID", requires = "config", conflicts_with_all = ["store", "endpoints"])]
    replica: Option<u64>,
    #[command(flatten)]
    tls: ClientFlags,
    /// How long to wait for an answer, in seconds.
    #[arg(long, default_value_t = 5, value_name = "NUMBER")]
    seconds: u64,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: Output,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The store, as `storage::open` takes it.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// The client URLs of a cluster's nodes, with commas between them: those of `snet storage init`, or of an etcd.
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    endpoints: Vec<NodeUrl>,
    /// The store of a configuration file's replicas.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Place {
    pub(super) async fn open(&self) -> Result<Arc<dyn Store>, Failure> {
        let url = match &self.which {
            Which { store: Some(url), .. } => url.clone(),
            Which { config: Some(file), .. } => {
                let settings = config::settings(file, self.replica)?;
                store_url(&settings.endpoints, &settings.client_tls)?
            }
            Which { endpoints, .. } => store_url(endpoints, &self.tls.tls())?,
        };
        Ok(::storage::open(&url).await?)
    }

    pub(super) fn reads(&self) -> ReadOptions {
        ReadOptions::default().timeout(self.timeout())
    }

    pub(super) fn writes(&self) -> WriteOptions {
        WriteOptions::default().timeout(self.timeout())
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Opens the store, asks one thing of it, closes it, and prints the answer.
    pub(super) async fn ask<R: Serialize>(
        &self,
        question: impl AsyncFnOnce(&dyn Store) -> Result<R, Failure>,
        table: impl FnOnce(&R) -> String,
    ) -> Outcome {
        let store = self.open().await?;
        let answer = question(&*store).await;
        let _ = store.close().await;
        print(self.output, &answer?, table)
    }
}

/// A store by its URL or by its nodes, for what takes as long as it takes.
#[derive(Debug, clap::Args)]
pub(super) struct One {
    #[command(flatten)]
    which: UrlOrNodes,
    #[command(flatten)]
    tls: ClientFlags,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: Output,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct UrlOrNodes {
    /// The store, as `storage::open` takes it.
    url: Option<String>,
    /// The client URLs of a cluster's nodes, with commas between them: those of `snet storage init`, or of an etcd.
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    endpoints: Vec<NodeUrl>,
}

impl One {
    /// The store, as `storage::open` takes it.
    pub(super) fn url(&self) -> Result<String, Failure> {
        match &self.which.url {
            Some(url) => Ok(url.clone()),
            None => store_url(&self.which.endpoints, &self.tls.tls()),
        }
    }
}

/// The nodes of a cluster, for what is asked of nodes and not of the store.
#[derive(Debug, clap::Args)]
pub(super) struct Nodes {
    /// The client URLs of the cluster's nodes, with commas between them: those of `snet storage init`, or of an etcd.
    #[arg(long, value_name = "URLS", value_delimiter = ',', required = true)]
    pub(super) endpoints: Vec<NodeUrl>,
    #[command(flatten)]
    tls: ClientFlags,
    /// How long to wait for an answer, in seconds.
    #[arg(long, default_value_t = 5, value_name = "NUMBER")]
    pub(super) seconds: u64,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: Output,
}

impl Nodes {
    /// The nodes, to be asked.
    pub(super) fn admin(&self) -> Result<Admin, Failure> {
        Ok(Admin::with_tls(&self.endpoints, Duration::from_secs(self.seconds), &self.tls.tls())?)
    }
}

/// The store behind client URLs, as `storage::open` takes it.
fn store_url(urls: &[NodeUrl], tls: &ClientTls) -> Result<String, Failure> {
    let authorities = urls.iter().map(NodeUrl::authority).collect::<Vec<_>>().join(",");
    match urls.iter().filter(|url| url.is_tls()).count() {
        0 => return Ok(format!("etcd://{authorities}")),
        some if some < urls.len() => {
            return Err(Failure::Usage(anyhow!("client URLs are of one kind, http or https")));
        }
        _ => {}
    }
    let Some(ca) = &tls.ca else {
        return Err(Failure::Usage(anyhow!(
            "https needs the authority that signs the nodes' certificates: --cacert FILE"
        )));
    };
    let mut url = format!("etcds://{authorities}/?ca={}", encoded(ca));
    if let Some((cert, key)) = &tls.identity {
        url += &format!("&cert={}&key={}", encoded(cert), encoded(key));
    }
    Ok(url)
}

/// A path as the value of a URL's parameter.
fn encoded(path: &Path) -> String {
    let bytes = path.as_os_str().as_encoded_bytes().iter();
    bytes
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => char::from(*byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// Prints what a program or a person can read.
pub(super) fn print<R: Serialize>(output: Output, answer: &R, table: impl FnOnce(&R) -> String) -> Outcome {
    Ok(std::io::stdout().lock().write_all(output.render(answer, table)?.as_bytes())?)
}

/// An answer that is no.
pub(super) fn no(what: impl std::fmt::Display) -> Failure {
    Failure::No(anyhow!("{what}"))
}
