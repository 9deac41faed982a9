//! The table of all replicas.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use storage_etcd_api::Options;

use super::{
    Bounds, ClientTls, DEFAULT_STARTUP_TIMEOUT, Engine, InitialCluster, Log, Member, NodeUrl, Timing, Tls, Token,
    cluster,
    fields::{At, Fields, path},
    mistakes::{Location, Reporter},
    secret,
    settings::{duration, parse_bytes, parse_connections},
    tree::{Table, Value},
};

/// A file that lists all replicas.
#[derive(Clone, Debug)]
pub(super) struct Replicas {
    pub(super) token: Token,
    pub(super) engine: Engine,
    pub(super) data_dir: PathBuf,
    pub(super) bounds: Bounds,
    pub(super) max_connections: usize,
    pub(super) etcd_program: Option<PathBuf>,
    pub(super) startup_timeout: Duration,
    pub(super) log: Log,
    pub(super) rows: Vec<ReplicaRow>,
    /// The nodes of all rows.
    pub(super) cluster: InitialCluster,
    /// The table `membership`: the cluster grows by itself.
    pub(super) timing: Option<Timing>,
}

/// One replica in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaRow {
    /// Its id, which no other replica has.
    pub id: u64,
    /// The node that it starts; `None`: it only connects to those of the others.
    pub node: Option<NodeRow>,
    /// Where its metrics and health are served, if anywhere.
    pub admin_url: Option<NodeUrl>,
    /// How it reaches the nodes of the others, if they have TLS.
    pub client_tls: ClientTls,
}

/// The node of a replica in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// Its name.
    pub name: String,
    /// Where clients reach it.
    pub client_url: NodeUrl,
    /// Where the other nodes reach it.
    pub peer_url: NodeUrl,
    /// Its certificates.
    pub tls: Tls,
}

pub(super) const KEYS: [&str; 16] = [
    "token",
    "token_file",
    "engine",
    "data_dir",
    "snapshot_bytes",
    "log_kept_bytes",
    "quota_backend_bytes",
    "max_connections",
    "etcd_program",
    "startup_timeout",
    "log_level",
    "log_outputs",
    "log_format",
    "tls",
    "membership",
    "replicas",
];

/// The keys of the table `membership`.
const MEMBERSHIP_KEYS: [&str; 2] = ["dead_after", "rest"];

const ROW_KEYS: [&str; 14] = [
    "id",
    "start_node",
    "node_name",
    "client_url",
    "peer_url",
    "admin_url",
    // What this replica has for itself, of the table `tls`.
    "cert_file",
    "key_file",
    "trusted_ca_file",
    "crl_file",
    "peer_cert_file",
    "peer_key_file",
    "peer_trusted_ca_file",
    "peer_crl_file",
];

/// What a row has if its replica starts a node.
const NODE_KEYS: [&str; 3] = ["node_name", "client_url", "peer_url"];

/// Where data are kept if the file does not say.
const DEFAULT_DATA_DIR: &str = "storage-data";

pub(super) fn read(table: &Table, exposed: Option<&str>, report: &Reporter) -> Option<Replicas> {
    let fields = Fields::of(table, &KEYS, report);
    let token = secret::token(&fields, exposed, report);
    if !fields.has("token") && !fields.has("token_file") {
        report.mistake(
            Location::Line(1),
            "there is no `token` and no `token_file`: draw a secret that no other cluster has, `openssl rand -hex 32`",
        );
    }
    let engine = fields.parsed("engine", str::parse).map(|at| at.value).unwrap_or_default();
    let data_dir = fields.parsed("data_dir", path).map_or_else(|| DEFAULT_DATA_DIR.into(), |at| at.value);
    let mut bounds = Bounds::default();
    for (name, bound) in [
        ("snapshot_bytes", &mut bounds.snapshot_bytes),
        ("log_kept_bytes", &mut bounds.log_kept_bytes),
        ("quota_backend_bytes", &mut bounds.quota_backend_bytes),
    ] {
        *bound = fields.parsed(name, parse_bytes).map_or(*bound, |at| at.value);
    }
    let max_connections = fields.count("max_connections", parse_connections);
    let max_connections = max_connections.map_or(Options::default().max_connections, |at| at.value);
    let etcd_program = fields.parsed("etcd_program", path).map(|at| at.value);
    let startup_timeout = fields.parsed("startup_timeout", duration).map_or(DEFAULT_STARTUP_TIMEOUT, |at| at.value);
    let log = log(&fields);
    let tls = fields.table("tls").map_or_else(Tls::default, |table| Tls::read(table, report));
    let timing = fields.table("membership").map(|table| timing(table, report));
    let (rows, cluster) = rows(&fields, &tls, timing.is_some(), report);
    let (token, cluster) = (token?, cluster?);
    Some(Replicas {
        token,
        engine,
        data_dir,
        bounds,
        max_connections,
        etcd_program,
        startup_timeout,
        log,
        rows,
        cluster,
        timing,
    })
}

fn timing(table: &Table, report: &Reporter) -> Timing {
    let fields = Fields::of(table, &MEMBERSHIP_KEYS, report);
    let usual = Timing::default();
    let time = |name, usual| fields.parsed(name, duration).map_or(usual, |at| at.value);
    Timing { dead_after: time("dead_after", usual.dead_after), rest: time("rest", usual.rest) }
}

pub(super) fn log(fields: &Fields<'_>) -> Log {
    Log {
        level: fields.parsed("log_level", str::parse).map(|at| at.value).unwrap_or_default(),
        outputs: fields.parsed_list("log_outputs", str::parse),
        format: fields.parsed("log_format", str::parse).map(|at| at.value).unwrap_or_default(),
    }
}

/// The warning about an even number of nodes.
pub(super) fn warn_if_even(nodes: usize, location: Location, report: &Reporter) {
    if nodes > 0 && nodes.is_multiple_of(2) {
        let (losses, fewer) = ((nodes - 1) / 2, nodes - 1);
        let text = format!("{nodes} nodes survive the loss of {losses}, as {fewer} would: an odd number is better");
        report.warning(location, text);
    }
}

/// `grows`: each replica may have a node, and so describes one.
fn rows(fields: &Fields<'_>, tls: &Tls, grows: bool, report: &Reporter) -> (Vec<ReplicaRow>, Option<InitialCluster>) {
    let Some(nodes) = fields.list("replicas") else {
        report.mistake(Location::Line(1), "there are no `replicas`: list each with its `id` and `start_node`");
        return (Vec::new(), None);
    };
    let mut seen = Seen { grows, ..Seen::default() };
    let mut rows = Vec::new();
    for node in nodes {
        match &node.value {
            Value::Table(table) => rows.extend(row(&Fields::of(table, &ROW_KEYS, report), tls, &mut seen, report)),
            other => report.mistake(node.location, format!("a replica is a table, not {}", other.kind())),
        }
    }
    let location = nodes.first().map_or(fields.location, |node| node.location);
    if seen.nodes == 0 {
        report.mistake(location, "no replica starts a node, so there is no cluster: set `start_node` for 1, 3 or 5");
    }
    if !grows {
        warn_if_even(seen.nodes, location, report);
    }
    let members = rows.iter().filter_map(|row: &ReplicaRow| row.node.as_ref());
    let members = members.map(|node| Member { name: node.name.clone(), peer_url: node.peer_url.clone() });
    // What could be wrong with it was reported with its line already.
    let cluster = InitialCluster::new(members).ok();
    (rows, cluster)
}

/// What must not come twice, and how many rows were meant to start a node, with mistakes or without.
#[derive(Default)]
struct Seen {
    ids: BTreeMap<u64, Location>,
    names: BTreeMap<String, Location>,
    /// By host and port: one port speaks TLS or does not.
    urls: BTreeMap<String, (&'static str, Location)>,
    /// Whether the first node talks to the others with TLS.
    peer_tls: Option<bool>,
    nodes: usize,
    grows: bool,
}

fn row(fields: &Fields<'_>, tls: &Tls, seen: &mut Seen, report: &Reporter) -> Option<ReplicaRow> {
    let id = fields.number("id", |id| u64::try_from(id).map_err(|_| "a replica's id is not negative".to_owned()));
    if !fields.has("id") {
        report.mistake(fields.location, "this replica has no `id`");
    }
    if let Some(At { location, value }) = id
        && let Some(first) = seen.ids.insert(value, location)
    {
        report.mistake(location, format!("replica {value} is there already, in {first}"));
    }
    if !fields.has("start_node") && !seen.grows {
        report
            .mistake(fields.location, "this replica does not say whether it starts a node: `start_node` is yes or no");
    }
    let starts = if seen.grows && !fields.has("start_node") { true } else { fields.flag("start_node")?.value };
    let tls = tls.with(fields);
    let client_tls = tls.client();
    let node = if starts { Some(node(fields, tls, seen, report)) } else { None };
    let admin_url = fields.parsed("admin_url", str::parse::<NodeUrl>);
    // That of another row may be the same: each machine has an address of its own that is only for itself.
    if let Some(At { location, value }) = &admin_url
        && let Some(Some(node)) = &node
        && [&node.client_url, &node.peer_url].contains(&value)
    {
        report.mistake(
            *location,
            format!("{value} is another URL of this replica already: each needs a port of its own"),
        );
    }
    let admin_url = admin_url.map(|at| at.value);
    if let Some(node) = node {
        return Some(ReplicaRow { id: id?.value, node: Some(node?), client_tls, admin_url });
    }
    for key in NODE_KEYS.into_iter().filter(|key| fields.has(key)) {
        report.warning(fields.location, format!("this replica starts no node, so its `{key}` is not used"));
    }
    Some(ReplicaRow { id: id?.value, node: None, client_tls, admin_url })
}

fn node(fields: &Fields<'_>, tls: Tls, seen: &mut Seen, report: &Reporter) -> Option<NodeRow> {
    seen.nodes += 1;
    let name = fields.parsed("node_name", |name| cluster::check_name(name).map(|()| name.to_owned()));
    let client_url = fields.parsed("client_url", str::parse::<NodeUrl>);
    let peer_url = fields.parsed("peer_url", str::parse::<NodeUrl>);
    for key in NODE_KEYS.into_iter().filter(|key| !fields.has(key)) {
        report.mistake(fields.location, format!("a replica that starts a node needs `{key}`"));
    }
    if let Some(At { location, value }) = &name
        && let Some(first) = seen.names.insert(value.clone(), *location)
    {
        report.mistake(*location, format!("a node `{value}` is there already, in {first}"));
    }
    for (key, url) in [("client_url", &client_url), ("peer_url", &peer_url)] {
        if let Some(At { location, value }) = url
            && let Some((other, first)) = seen.urls.insert(value.authority(), (key, *location))
        {
            report.mistake(
                *location,
                format!("{value} is a `{other}` already, in {first}: each needs a port of its own"),
            );
        }
    }
    let (name, client_url, peer_url) = (name?.value, client_url?.value, peer_url?);
    if *seen.peer_tls.get_or_insert(peer_url.value.is_tls()) != peer_url.value.is_tls() {
        report.mistake(
            peer_url.location,
            "nodes talk with TLS or without, all of them: another `peer_url` is of the other kind",
        );
    }
    let peer_url = peer_url.value;
    for missing in tls.suffices(&client_url, &peer_url).err().unwrap_or_default() {
        report.mistake(fields.location, format!("{missing}, in `[tls]` or here"));
    }
    Some(NodeRow { name, client_url, peer_url, tls })
}
