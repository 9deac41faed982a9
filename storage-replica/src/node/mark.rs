//! A file in a node's directory that says whose it is, in the words of the one who started it.
//!
//! An etcd that has data ignores the token and members that it is given, and knows nothing of the embedded engine; the embedded engine's own
//! file has numbers only. So this file is looked at first. It guards against mistakes of operators, not against damage.

use std::{fs, io, path::Path};

use storage_core::{Error, Result};

use super::ids::possible_clusters;
use crate::config::{Engine, NodeSettings};

const FILE: &str = "snet-node";

/// Before the id of a node that was given one.
const ID: &str = "id ";
/// Before the id of the cluster.
const CLUSTER: &str = "cluster ";

/// Refuses a directory that was made for another engine, cluster or node.
pub(super) fn check(settings: &NodeSettings) -> Result<()> {
    let dir = &settings.data_dir;
    let refuse = |why: String| Err(Error::invalid_argument(format!("{} {why}", dir.display())));
    match fs::read_to_string(dir.join(FILE)) {
        Ok(found) => match differs(&found, settings) {
            Some("engine") => refuse(format!("has data of another engine than `{}`", settings.engine)),
            Some("node") => refuse(format!(
                "has data of another node than `{}` with peer URL {}: each node needs a directory of its own, and its peer URL may not change",
                settings.name, settings.peer_url
            )),
            Some(_) => refuse(
                "has data of another cluster: the token and the initial cluster have to be those that founded it; for a new \
                 cluster take another directory"
                    .to_owned(),
            ),
            None => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => match found_engine(dir) {
            Some(engine) if engine != settings.engine => {
                refuse(format!("has data of the engine `{engine}`, not of `{}`", settings.engine))
            }
            _ => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => refuse("is no directory".to_owned()),
        Err(error) => Err(Error::unavailable(format!("cannot read {}: {error}", dir.join(FILE).display()))),
    }
}

/// Who a node is that was not told by its founding flags alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joined {
    pub(super) cluster: u128,
    /// The id that the cluster has given it.
    pub(super) id: u64,
}

/// Marks a directory that has been checked. Again and again does no harm.
pub(super) fn write(settings: &NodeSettings, joined: Option<Joined>) -> Result<()> {
    let path = settings.data_dir.join(FILE);
    let content = match joined {
        Some(Joined { cluster, id }) => content(settings, cluster) + &format!("{ID}{id:016x}\n"),
        None => possible_clusters(settings).first().map(|cluster| content(settings, *cluster)).unwrap_or_default(),
    };
    let written = fs::create_dir_all(&settings.data_dir).and_then(|()| fs::write(&path, content));
    written.map_err(|error| Error::unavailable(format!("cannot write {}: {error}", path.display())))
}

/// Who the node of a directory is, if it has joined a cluster.
pub(super) fn joined(settings: &NodeSettings) -> Option<Joined> {
    let found = fs::read_to_string(settings.data_dir.join(FILE)).ok()?;
    let field = |name: &str| found.lines().find_map(|line| line.strip_prefix(name));
    let cluster = u128::from_str_radix(field(CLUSTER)?, 16).ok()?;
    Some(Joined { cluster, id: u64::from_str_radix(field(ID)?, 16).ok()? })
}

/// A line for each thing that has to stay the same.
fn content(settings: &NodeSettings, cluster: u128) -> String {
    let NodeSettings { engine, peer_url, .. } = settings;
    format!("engine {engine}\n{CLUSTER}{cluster:032x}\nnode {}\n", peer_url.identity())
}

/// The first thing that is not the same, whichever of the possible clusters it is.
fn differs(found: &str, settings: &NodeSettings) -> Option<&'static str> {
    let differing = possible_clusters(settings).into_iter().map(|cluster| {
        let mut found = found.lines();
        let expected = content(settings, cluster);
        let line = expected.lines().find(|line| found.next() != Some(*line))?;
        ["engine", "cluster", "node"].into_iter().find(|kind| line.starts_with(kind))
    });
    differing.reduce(|one, other| if one.is_none() { one } else { other })?
}

/// Whose data a directory without the file has.
fn found_engine(dir: &Path) -> Option<Engine> {
    if dir.join("identity").exists() {
        Some(Engine::Embedded)
    } else if dir.join("member").exists() {
        Some(Engine::Etcd)
    } else {
        None
    }
}
