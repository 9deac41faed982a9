//! Which store is meant, and how the answer is printed: the same flags for every command that reads or writes one.

use std::{
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
    store_url::{from_file_or_environment, store_url},
};

/// A store, how long to wait for it, and how to print what it says.
#[derive(Debug, clap::Args)]
pub(super) struct StoreFlags {
    #[command(flatten)]
    which: Which,
    /// With a configuration file, the id of the replica whose way to the store is taken.
    #[arg(long, value_name = "ID", requires = "config", conflicts_with_all = ["store", "url_file", "endpoints"])]
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

/// One of them, or else the variable `SNET_URL`.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Which {
    /// The store, as `storage::open` takes it: a URL, or `@FILE` or `env:NAME` for one that nobody else shall read [env: SNET_URL].
    #[arg(long, value_name = "URL", value_parser = store_url)]
    store: Option<String>,
    /// The file with the URL of the store.
    #[arg(long, value_name = "FILE")]
    url_file: Option<PathBuf>,
    /// The client URLs of a cluster's nodes, with commas between them: those of `snet storage init`, or of an etcd.
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    endpoints: Vec<NodeUrl>,
    /// The store of a configuration file's replicas.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl StoreFlags {
    pub(super) async fn open(&self) -> Result<Arc<dyn Store>, Failure> {
        let url = match &self.which {
            Which { store: Some(url), .. } => url.clone(),
            Which { config: Some(file), .. } => {
                let settings = config::settings(file, self.replica)?;
                url_of_nodes(&settings.endpoints, &settings.client_tls)?
            }
            Which { endpoints, .. } if !endpoints.is_empty() => url_of_nodes(endpoints, &self.tls.client()?)?,
            Which { url_file, .. } => from_file_or_environment(url_file.as_deref())?,
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
        self.output.print(&answer?, table)
    }
}

/// A store by its URL or by its nodes, for what takes as long as it takes.
#[derive(Debug, clap::Args)]
pub(super) struct StoreUrlFlags {
    #[command(flatten)]
    which: UrlOrNodes,
    #[command(flatten)]
    tls: ClientFlags,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: Output,
}

/// One of them, or else the variable `SNET_URL`.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct UrlOrNodes {
    /// The store, as `storage::open` takes it: a URL, or `@FILE` or `env:NAME` for one that nobody else shall read [env: SNET_URL].
    #[arg(value_parser = store_url)]
    url: Option<String>,
    /// The file with the URL of the store.
    #[arg(long, value_name = "FILE")]
    url_file: Option<PathBuf>,
    /// The client URLs of a cluster's nodes, with commas between them: those of `snet storage init`, or of an etcd.
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    endpoints: Vec<NodeUrl>,
}

impl StoreUrlFlags {
    /// The store, as `storage::open` takes it.
    pub(super) fn url(&self) -> Result<String, Failure> {
        match &self.which.url {
            Some(url) => Ok(url.clone()),
            None if !self.which.endpoints.is_empty() => url_of_nodes(&self.which.endpoints, &self.tls.client()?),
            None => from_file_or_environment(self.which.url_file.as_deref()),
        }
    }
}

/// The nodes of a cluster, for what is asked of nodes and not of the store.
#[derive(Debug, clap::Args)]
pub(super) struct ClusterFlags {
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

impl ClusterFlags {
    /// The nodes, to be asked.
    pub(super) fn admin(&self) -> Result<Admin, Failure> {
        Ok(Admin::with_tls(&self.endpoints, Duration::from_secs(self.seconds), &self.tls.client()?)?)
    }
}

/// The store behind client URLs, as `storage::open` takes it.
fn url_of_nodes(urls: &[NodeUrl], tls: &ClientTls) -> Result<String, Failure> {
    let mut authorities = urls.iter().map(NodeUrl::authority).collect::<Vec<_>>().join(",");
    if let Some(login) = &tls.login {
        let (user, password) = (encoded(login.user().as_bytes(), b""), encoded(login.password()?.as_bytes(), b""));
        authorities = format!("{user}:{password}@{authorities}");
    }
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
    let mut url = format!("etcds://{authorities}/?ca={}", of_path(ca));
    if let Some((cert, key)) = &tls.identity {
        url += &format!("&cert={}&key={}", of_path(cert), of_path(key));
    }
    Ok(url)
}

/// A path as the value of a URL's parameter.
fn of_path(path: &Path) -> String {
    encoded(path.as_os_str().as_encoded_bytes(), b"/")
}

/// As a part of a URL, with `plain` as it is.
fn encoded(bytes: &[u8], plain: &[u8]) -> String {
    let encode = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(*byte).to_string(),
        byte if plain.contains(byte) => char::from(*byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    bytes.iter().map(encode).collect()
}
