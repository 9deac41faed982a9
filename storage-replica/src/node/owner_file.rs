//! A file in a node's directory that says whose it is, in the words of the one who started it.
//!
//! An etcd that has data ignores the token and members that it is given, and knows nothing of the embedded engine; the embedded engine's own
//! file has numbers only. So this file is looked at first. It guards against mistakes of operators, not against damage.

use std::{fs, io, path::Path};

use storage_core::{Error, Result};
use storage_embedded::disk::{self, Disk as _, RealDisk};

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
        // One that an earlier release was killed while writing, not yet aside: it says nothing else than the whole one.
        Ok(found) if is_begun(&found, settings) => check_engine(settings),
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
        Err(error) if error.kind() == io::ErrorKind::NotFound => check_engine(settings),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => refuse("is no directory".to_owned()),
        Err(error) => Err(unreadable(&dir.join(FILE), &error)),
    }
}

/// Refuses a directory without the file that was made for another engine.
fn check_engine(settings: &NodeSettings) -> Result<()> {
    match found_engine(&settings.data_dir)? {
        Some(engine) if engine != settings.engine => Err(Error::invalid_argument(format!(
            "{} has data of the engine `{engine}`, not of `{}`",
            settings.data_dir.display(),
            settings.engine
        ))),
        _ => Ok(()),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::unavailable(format!("cannot read {}: {error}", path.display()))
}

/// Who a node is that was not told by its founding flags alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joined {
    pub(super) cluster: u128,
    /// The id that the cluster has given it.
    pub(super) id: u64,
}

/// Writes the file into a directory that has been checked. Again and again does no harm.
pub(super) fn write(settings: &NodeSettings, joined: Option<Joined>) -> Result<()> {
    let path = settings.data_dir.join(FILE);
    let content = match joined {
        Some(Joined { cluster, id }) => content(settings, cluster) + &format!("{ID}{id:016x}\n"),
        None => possible_clusters(settings).first().map(|cluster| content(settings, *cluster)).unwrap_or_default(),
    };
    let made = RealDisk.create_dir(&settings.data_dir);
    let written = made.and_then(|()| disk::replace(&RealDisk, &path, content.as_bytes()));
    written.map_err(|error| Error::unavailable(format!("cannot write {}: {error}", path.display())))
}

/// Who the node of a directory is, if it has joined a cluster.
///
/// # Errors
/// [`Error::Unavailable`] if that cannot be read.
pub(super) fn joined(settings: &NodeSettings) -> Result<Option<Joined>> {
    let path = settings.data_dir.join(FILE);
    let found = match fs::read_to_string(&path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(&path, &error)),
    };
    // A number that is cut short is none.
    let field = |name: &str| found.split_inclusive('\n').find_map(|line| line.strip_prefix(name)?.strip_suffix('\n'));
    let cluster = field(CLUSTER).and_then(|cluster| u128::from_str_radix(cluster, 16).ok());
    let id = field(ID).and_then(|id| u64::from_str_radix(id, 16).ok());
    Ok(cluster.zip(id).map(|(cluster, id)| Joined { cluster, id }))
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

/// Whether it is the beginning of what would be written, and no more.
fn is_begun(found: &str, settings: &NodeSettings) -> bool {
    possible_clusters(settings).into_iter().any(|cluster| {
        let whole = content(settings, cluster);
        found.len() < whole.len() && whole.starts_with(found)
    })
}

/// Whose data a directory without the file has.
fn found_engine(dir: &Path) -> Result<Option<Engine>> {
    for (name, engine) in [("identity", Engine::Embedded), ("member", Engine::Etcd)] {
        let path = dir.join(name);
        if !disk::is_absent(&path).map_err(|error| unreadable(&path, &error))? {
            return Ok(Some(engine));
        }
    }
    Ok(None)
}
