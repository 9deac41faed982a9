//! `snet storage init`: a node by flags alone, those of etcd.

use std::{path::PathBuf, time::Duration};

use anyhow::anyhow;
use clap::ValueEnum;
use storage_replica::config::{
    Bounds, ClusterState, Engine, InitialCluster, Log, LogFormat, LogLevel, LogOutput, NodeSettings, NodeUrl, Settings,
    Tls, parse_bytes, parse_connections,
};

use super::{foreground, log, tls::NodeFlags, token::TokenFlags};
use crate::exit::{Failure, Outcome};

/// Start a node of a cluster, in the foreground.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  (umask 077; openssl rand -hex 32 > token)
      a secret, which is copied to each machine
  snet storage init --name n1 --token-file token --client-url http://10.0.1.1:2379 --peer-url http://10.0.1.1:2380 \\
      --initial-cluster n1=http://10.0.1.1:2380,n2=http://10.0.1.2:2380,n3=http://10.0.1.3:2380
      the first of three; the others are given the same token and initial cluster
  snet storage init --name n4 --token-file token --client-url http://10.0.1.4:2379 --peer-url http://10.0.1.4:2380 \\
      --initial-cluster n1=http://10.0.1.1:2380,n2=http://10.0.1.2:2380,n3=http://10.0.1.3:2380 \\
      --initial-cluster-state existing --endpoints http://10.0.1.1:2379
      a further one, after `snet storage member add --peer-url http://10.0.1.4:2380`
  snet storage init --name n1 --client-url https://10.0.1.1:2379 --peer-url https://10.0.1.1:2380 ... \\
      --cert-file n1.crt --key-file n1.key --trusted-ca-file ca.crt
      with TLS, certificates on both sides; `snet storage certs` makes some to try it with
  snet storage get KEY --endpoints http://10.0.1.1:2379,http://10.0.1.2:2379,http://10.0.1.3:2379
      whoever uses the store is given the client URLs

The node serves the etcd v3 API on its client URL, whichever engine it has. It runs until SIGTERM or Ctrl-C. Started again with the
same flags, it goes on where it was: the flags that found a cluster have to stay the same as long as its data are there.")]
pub(crate) struct Init {
    /// The name of this node, one of those of the initial cluster.
    #[arg(long)]
    name: String,
    #[command(flatten)]
    token: TokenFlags,
    /// Where clients reach this node, and where it listens for them.
    #[arg(long, value_name = "URL")]
    client_url: NodeUrl,
    /// Where the other nodes reach this node, and where it listens for them.
    #[arg(long, value_name = "URL")]
    peer_url: NodeUrl,
    /// All nodes that found the cluster, the same for each of them: NAME=PEER_URL,...
    #[arg(long, value_name = "NODES")]
    initial_cluster: InitialCluster,
    /// new: the nodes found the cluster together; existing: the cluster runs and has taken this node in by `member add`.
    #[arg(long, value_enum, value_name = "STATE", default_value_t)]
    initial_cluster_state: InitialState,
    /// With an existing cluster, client URLs of it, with commas between them; an embedded node asks there for its id.
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    endpoints: Vec<NodeUrl>,
    /// Where this node keeps its data [default: NAME.storage, in the current directory].
    #[arg(long, value_name = "DIR", env = "SNET_STORAGE_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// How much log an embedded node applies until it writes a snapshot, or as much as the last snapshot is long.
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = parse_bytes, env = "SNET_STORAGE_SNAPSHOT_BYTES")]
    snapshot_bytes: u64,
    /// How much log an embedded node keeps behind a snapshot, and four times as much for a member that has not got it.
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = parse_bytes, env = "SNET_STORAGE_LOG_KEPT_BYTES")]
    log_kept_bytes: u64,
    /// How large the state may become: keys, values and what is kept of their history, with 256 bytes for each. The same for all nodes.
    #[arg(long, value_name = "BYTES", default_value = "2GiB", value_parser = parse_bytes, env = "SNET_STORAGE_QUOTA_BACKEND_BYTES")]
    quota_backend_bytes: u64,
    /// How many connections clients of an embedded node may have; fewer if the process may not have so many files open.
    #[arg(long, value_name = "NUMBER", default_value = "10000", value_parser = parse_connections, env = "SNET_STORAGE_MAX_CONNECTIONS")]
    max_connections: usize,
    /// What the node is: embedded, a node inside this process; etcd, an etcd that this process starts, watches and stops.
    #[arg(long, value_name = "ENGINE", default_value = "embedded", env = "SNET_STORAGE_ENGINE")]
    engine: Engine,
    /// The program of an etcd [default: etcd on the path].
    #[arg(long, value_name = "FILE", env = "ETCD_BIN")]
    etcd_program: Option<PathBuf>,
    /// The least grave messages to log: debug, info, warn or error.
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "SNET_STORAGE_LOG_LEVEL")]
    log_level: LogLevel,
    /// Where to log: stderr, stdout, or files, with commas between several.
    #[arg(
        long,
        value_name = "OUTPUTS",
        value_delimiter = ',',
        default_value = "stderr",
        env = "SNET_STORAGE_LOG_OUTPUTS"
    )]
    log_outputs: Vec<LogOutput>,
    /// How to log: human, lines for people; json, a JSON object a line, and nothing else on standard output.
    #[arg(long, value_name = "FORMAT", default_value = "human", env = "SNET_STORAGE_LOG_FORMAT")]
    log_format: LogFormat,
    /// Where to serve metrics, health and readiness: /metrics, /health, /ready [default: nowhere].
    #[arg(long, value_name = "URL", env = "SNET_STORAGE_ADMIN_URL")]
    admin_url: Option<NodeUrl>,
    /// Give up if the cluster does not serve after so many seconds [default: wait as long as it takes].
    #[arg(long, value_name = "NUMBER")]
    startup_seconds: Option<u64>,
    #[command(flatten)]
    tls: NodeFlags,
}

/// How the node comes into the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum InitialState {
    #[default]
    New,
    Existing,
}

pub(super) async fn run(arguments: Init) -> Outcome {
    let state = match arguments.initial_cluster_state {
        InitialState::New => ClusterState::New,
        InitialState::Existing if arguments.engine == Engine::Embedded && arguments.endpoints.is_empty() => {
            return Err(Failure::Usage(anyhow!(
                "to join an existing cluster, give client URLs of it: --endpoints URLS"
            )));
        }
        InitialState::Existing => ClusterState::Existing { endpoints: arguments.endpoints },
    };
    let log = Log { level: arguments.log_level, outputs: arguments.log_outputs, format: arguments.log_format };
    log::begin(&log)?;
    let data_dir = arguments.data_dir.unwrap_or_else(|| PathBuf::from(format!("{}.storage", arguments.name)));
    let patience = arguments.startup_seconds.map(Duration::from_secs);
    let endpoints = vec![arguments.client_url.clone()];
    let tls = Tls::from(arguments.tls);
    let client_tls = tls.client();
    let mut bounds = Bounds::default();
    (bounds.snapshot_bytes, bounds.log_kept_bytes) = (arguments.snapshot_bytes, arguments.log_kept_bytes);
    bounds.quota_backend_bytes = arguments.quota_backend_bytes;
    let node = NodeSettings {
        name: arguments.name,
        token: arguments.token.read()?,
        client_url: arguments.client_url,
        peer_url: arguments.peer_url,
        cluster: arguments.initial_cluster,
        state,
        tls,
        data_dir,
        engine: arguments.engine,
        bounds,
        max_connections: arguments.max_connections,
        etcd_program: arguments.etcd_program,
        log: log.clone(),
    };
    let startup_timeout = patience.unwrap_or(Duration::MAX);
    let admin_url = arguments.admin_url;
    let settings = Settings { node: Some(node), endpoints, client_tls, startup_timeout, log, admin_url };
    foreground::run(settings, patience).await
}
