//! The files of the original daemon: JSON, where `payment_channel_storage_server` tells the node that a replica starts, and
//! `payment_channel_storage_client` where it finds the cluster. Keys are in any case, and what is missing has the daemon's
//! defaults: a server section that does not say otherwise starts a node. Keys of a section that the daemon does not know are warned of, as it passes
//! over them. Of the rest of the file the client's certificates are read; all else is the daemon's own, and left alone.

use super::{
    Bounds, ClientTls, ClusterState, DEFAULT_STARTUP_TIMEOUT, InitialCluster, Log, NodeSettings, NodeUrl, Settings,
    Tls, Token, environment,
    fields::{At, Fields, path},
    mistakes::{Location, Reporter},
    replicas::{log, warn_if_even},
    secret,
    settings::duration,
    tree::{Table, Value},
};

const SERVER: &str = "payment_channel_storage_server";
const CLIENT: &str = "payment_channel_storage_client";

const SERVER_KEYS: [&str; 18] = [
    "id",
    "scheme",
    "host",
    "client_port",
    "peer_port",
    "token",
    "cluster",
    "startup_timeout",
    "data_dir",
    "log_level",
    "log_outputs",
    "enabled",
    // Not of the daemon, which knew one engine, and no secrets.
    "token_file",
    "engine",
    "etcd_program",
    "log_format",
    "admin_url",
    "tls",
];

const CLIENT_KEYS: [&str; 5] = ["endpoints", "connection_timeout", "request_timeout", "hot_reload", "tls"];

/// What the daemon has, and this program does not do.
const UNUSED: [(&str, &str); 3] = [
    ("connection_timeout", "each call has a deadline of its own, within which it connects"),
    ("request_timeout", "each call has a deadline of its own"),
    ("hot_reload", "certificates that were renewed take effect at a restart"),
];

/// The certificates of the client, which the daemon has outside of its section.
const CA: &str = "payment_channel_ca_path";
const CERT: &str = "payment_channel_cert_path";
const KEY: &str = "payment_channel_key_path";

/// What the daemon takes for a key that is not there.
mod default {
    pub(super) const NAME: &str = "storage-1";
    pub(super) const HOST: &str = "127.0.0.1";
    pub(super) const CLIENT_PORT: u16 = 2379;
    pub(super) const PEER_PORT: u16 = 2380;
    pub(super) const TOKEN: &str = "unique-token";
    pub(super) const DATA_DIR: &str = "storage-data-dir-1.etcd";
}

/// Whether this is a file of the original daemon.
pub(super) fn is(table: &Table) -> bool {
    table.entries.iter().any(|entry| [SERVER, CLIENT].iter().any(|name| entry.name.eq_ignore_ascii_case(name)))
}

/// Whether a file has nothing that this program reads: perhaps one of the daemon, which then starts a node by its own defaults. What to add to it.
pub(super) fn hint(table: &Table, own: &[&str]) -> Option<String> {
    let has_own = table.entries.iter().any(|entry| own.contains(&entry.name.as_str()));
    (!has_own && !table.entries.is_empty()).then(|| {
        format!(
            "this file says nothing of a store: one of snet-daemon needs `{SERVER}`, the node that it starts, or `{CLIENT}` with `endpoints`, \
             where its cluster is"
        )
    })
}

pub(super) fn read(
    mut file: Table,
    exposed: Option<&str>,
    variable: impl Fn(&str) -> Option<String>,
    report: &Reporter,
) -> Option<Settings> {
    let client = section(&mut file, CLIENT, report);
    let paths = client_paths(&mut file, report);
    let (endpoints, own_tls) = client.as_ref().map_or_else(Default::default, |client| {
        let fields = Fields::of_foreign(client, &CLIENT_KEYS, report);
        for (name, instead) in UNUSED.iter().filter(|(name, _)| fields.has(name)) {
            report.warning(fields.location, format!("`{name}` is not used: {instead}"));
        }
        let own_tls = fields.table("tls").map(|table| Tls::read(table, report).client());
        (fields.parsed_list::<NodeUrl>("endpoints", str::parse), own_tls)
    });
    let Some(mut server) = section(&mut file, SERVER, report) else {
        check_endpoints(&endpoints, Location::Line(1), report);
        let (startup_timeout, log) = (DEFAULT_STARTUP_TIMEOUT, Log::default());
        let client_tls = own_tls.or(paths).unwrap_or_default();
        return Some(Settings { node: None, endpoints, client_tls, startup_timeout, log, admin_url: None });
    };
    environment::apply(&mut server, variable);
    let fields = Fields::of_foreign(&server, &SERVER_KEYS, report);
    let startup_timeout = fields.parsed("startup_timeout", duration).map_or(DEFAULT_STARTUP_TIMEOUT, |at| at.value);
    let log = log(&fields);
    let admin_url = fields.parsed("admin_url", str::parse).map(|at| at.value);
    // Also of a node that is not to be started: its mistakes would be found when it is.
    let tls = fields.table("tls").map_or_else(Tls::default, |table| Tls::read(table, report));
    let client_tls = own_tls.or(paths).unwrap_or_else(|| tls.client());
    let node = node(&fields, tls, &log, exposed, report);
    if fields.flag("enabled").is_some_and(|enabled| !enabled.value) {
        check_endpoints(&endpoints, fields.location, report);
        return Some(Settings { node: None, endpoints, client_tls, startup_timeout, log, admin_url });
    }
    let node = node?;
    let own = node.client_url.clone();
    let others = endpoints.into_iter().filter(|url| *url != own);
    Some(Settings {
        endpoints: [own.clone()].into_iter().chain(others).collect(),
        node: Some(node),
        client_tls,
        startup_timeout,
        log,
        admin_url,
    })
}

/// The certificates that the daemon shows and trusts as a client of its cluster.
fn client_paths(file: &mut Table, report: &Reporter) -> Option<ClientTls> {
    let mut own = |name: &'static str| {
        let mut found = None;
        for entry in file.entries.extract_if(.., |entry| entry.name.eq_ignore_ascii_case(name)) {
            match entry.node.value {
                Value::Text(text) if text.is_empty() => {}
                Value::Text(text) => found = path(&text).ok(),
                other => report.mistake(entry.location, format!("`{name}` is text, not {}", other.kind())),
            }
        }
        found
    };
    let [ca, cert, key] = [CA, CERT, KEY].map(&mut own);
    if cert.is_some() != key.is_some() {
        report
            .mistake(Location::Line(1), format!("`{CERT}` and `{KEY}` belong together, and one of them is not there"));
    }
    let tls = ClientTls { ca, identity: cert.zip(key), login: None };
    (tls != ClientTls::default()).then_some(tls)
}

fn check_endpoints(endpoints: &[NodeUrl], location: Location, report: &Reporter) {
    if endpoints.is_empty() {
        let text =
            "no node is started, so `payment_channel_storage_client` needs `endpoints`, the client URLs of nodes";
        report.mistake(location, text);
    }
}

/// A part of the file, with its keys in lower case.
fn section(file: &mut Table, name: &str, report: &Reporter) -> Option<Table> {
    let mut found = None;
    for entry in file.entries.extract_if(.., |entry| entry.name.eq_ignore_ascii_case(name)) {
        match entry.node.value {
            Value::Table(mut table) => {
                table.entries.iter_mut().for_each(|entry| entry.name.make_ascii_lowercase());
                found = Some(table);
            }
            other => report.mistake(entry.location, format!("`{name}` is a table, not {}", other.kind())),
        }
    }
    found
}

/// The node that the file describes.
fn node(fields: &Fields<'_>, tls: Tls, log: &Log, exposed: Option<&str>, report: &Reporter) -> Option<NodeSettings> {
    let name = fields.text("id").map_or(default::NAME, |at| at.value).to_owned();
    let host = fields.text("host").map_or(default::HOST, |at| at.value);
    let scheme = fields.text("scheme");
    if let Some(At { location, value }) = scheme.filter(|scheme| !["http", "https"].contains(&scheme.value)) {
        report.mistake(location, format!("`scheme` is `http` or `https`, not `{value}`"));
    }
    let is_tls = scheme.is_some_and(|scheme| scheme.value == "https");
    let url = |port| if is_tls { NodeUrl::new(host, port).with_tls() } else { NodeUrl::new(host, port) };
    let port = |number| u16::try_from(number).ok().filter(|port| *port > 0).ok_or("a port is 1 to 65535".to_owned());
    let client_port = fields.number("client_port", port);
    let peer_port = fields.number("peer_port", port);
    let client_url = url(client_port.map_or(default::CLIENT_PORT, |at| at.value));
    let peer_url = url(peer_port.map_or(default::PEER_PORT, |at| at.value));
    if client_url == peer_url {
        let location = peer_port.or(client_port).map_or(fields.location, |at| at.location);
        report.mistake(location, "`client_port` and `peer_port` are the same: each needs a port of its own");
    }
    for missing in tls.suffices(&client_url, &peer_url).err().unwrap_or_default() {
        report.mistake(scheme.map_or(fields.location, |at| at.location), format!("{missing}, in `tls`"));
    }
    let token: Option<Token> = match fields.has("token") || fields.has("token_file") {
        true => secret::token(fields, exposed, report),
        false => default::TOKEN.parse().ok(),
    };
    let cluster = cluster(fields, &name, &peer_url, report);
    let data_dir = fields.parsed("data_dir", path).map_or_else(|| default::DATA_DIR.into(), |at| at.value);
    let engine = fields.parsed("engine", str::parse).map(|at| at.value).unwrap_or_default();
    let etcd_program = fields.parsed("etcd_program", path).map(|at| at.value);
    let (token, cluster, log) = (token?, cluster?, log.clone());
    let state = ClusterState::New;
    Some(NodeSettings {
        name,
        token,
        client_url,
        peer_url,
        cluster,
        state,
        tls,
        data_dir,
        engine,
        bounds: Bounds::default(),
        max_connections: storage_etcd_api::Options::default().max_connections,
        etcd_program,
        log,
    })
}

/// The founding nodes, of which this one has to be one.
fn cluster(fields: &Fields<'_>, name: &str, peer_url: &NodeUrl, report: &Reporter) -> Option<InitialCluster> {
    if !fields.has("cluster") {
        let own = format!("{name}={peer_url}").parse();
        let say =
            |reason| report.mistake(fields.location, format!("`id`, `host` and `peer_port` name no node: {reason}"));
        return own.map_err(say).ok();
    }
    let At { location, value: cluster } = fields.parsed("cluster", str::parse::<InitialCluster>)?;
    match cluster.member(name) {
        None => {
            let names: Vec<_> = cluster.members().iter().map(|member| member.name.as_str()).collect();
            report.mistake(location, format!("`cluster` has no node `{name}`, only {}", names.join(", ")));
        }
        Some(member) if member.peer_url != *peer_url => {
            let listed = &member.peer_url;
            report.mistake(
                location,
                format!("`cluster` has {listed} for `{name}`; `host` and `peer_port` say {peer_url}"),
            );
        }
        Some(_) => {}
    }
    warn_if_even(cluster.members().len(), location, report);
    Some(cluster)
}
