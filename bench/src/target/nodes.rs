//! Nodes of the embedded engine as processes of their own: those of `snet storage serve`, with etcd's API in front.

use std::{env, io, path::PathBuf, time::Duration};

use storage_replica::admin::Admin;
use storage_servers::Told;
use storage_testkit::server::{Launch, NodeContext, Probe, ServerError, ServerSpec};

use crate::{Error, Result};

/// Names the program whose processes are the nodes, where it is not the one that runs.
const PROGRAM: &str = "SNET_BIN";

/// The largest cluster: that of the published comparison.
pub(super) const MOST_NODES: usize = 11;

/// Of a node: an acknowledged write is synced by a majority.
pub(super) const DURABILITY: &str = "fdatasync of the log on a majority before a write is acknowledged (default)";

/// A node on this machine tells about itself within this time.
const TELLS_WITHIN: Duration = Duration::from_secs(2);

/// The program `snet`: the one that runs, or the one that the environment names.
///
/// # Errors
/// [`Error::Usage`] if there is neither.
pub(super) fn program() -> Result<PathBuf> {
    if let Some(program) = env::var_os(PROGRAM) {
        return Ok(program.into());
    }
    let this = env::current_exe().ok().filter(|path| path.file_stem().is_some_and(|name| name == "snet"));
    this.ok_or_else(|| Error::Usage(format!("the nodes are processes of `snet`: set {PROGRAM} to that program")))
}

/// The file that tells each node of all.
pub(super) const TABLE: &str = "cluster.toml";

/// How nodes are started: each by a table of all of them, as operators write it.
pub(super) fn spec(program: PathBuf) -> ServerSpec {
    let spec = ServerSpec::new("embedded-node", move |node| {
        Ok(Launch::new(&program)
            .args(["storage", "serve", "--config", TABLE, "--replica", &replica(node.index()).to_string()])
            .file(TABLE, table(node)?))
    });
    spec.port("client").port("peer").ready_when(Probe::http("client", "/health", |answer, _| answer.status == 200))
}

/// The number of a node in the table.
pub(super) fn replica(place: usize) -> u64 {
    place as u64 + 1
}

fn table(node: &NodeContext) -> Result<String, ServerError> {
    let (token, data_dir) = (node.token(), node.data_dir());
    let mut table = format!("token = {token:?}\ndata_dir = {data_dir:?}\nlog_level = \"error\"\n");
    for row in node.nodes() {
        let (id, name, client, peer) =
            (replica(row.index()), row.name(), url(row.port("client")?), url(row.port("peer")?));
        table += &format!("[[replicas]]\nid = {id}\nstart_node = \"yes\"\nnode_name = {name:?}\n");
        table += &format!("client_url = {client:?}\npeer_url = {peer:?}\n");
    }
    Ok(table)
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// Asks a node whether it leads.
pub(super) async fn ask(node: &NodeContext) -> io::Result<Told> {
    let status = admin(node).map_err(io::Error::other)?.status().await;
    let (_, info) = status.into_iter().next().ok_or(io::ErrorKind::NotFound)?;
    let info = info.map_err(io::Error::other)?;
    // The version of the program itself: it runs the nodes too.
    Ok(Told { version: Some(env!("CARGO_PKG_VERSION").to_owned()), leads: info.leader == Some(info.id) })
}

/// Asks a node what operators ask.
pub(super) fn admin(node: &NodeContext) -> Result<Admin> {
    let url = url(node.port("client")?).parse().map_err(Error::Usage)?;
    Ok(Admin::new(&[url], TELLS_WITHIN)?)
}
