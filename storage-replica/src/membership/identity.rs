//! Who a replica is: a file in its directory that is on stable storage before the first message that depends on it.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use storage_core::{Error, Result};

use super::{
    bootstrap::Promises,
    cluster_id::ClusterId,
    decide::{NodeId, ReplicaId},
};

const FILE: &str = "replica.json";
const ASIDE: &str = "replica.json.new";
const LOCK: &str = "replica.lock";
/// The folder of the node's data, beside the file.
const NODE: &str = "node";

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) replica: ReplicaId,
    /// Drawn by lot for each data directory: who has lost its disk is another one.
    pub(super) incarnation: u64,
    /// The one cluster that this replica will ever take part in.
    pub(super) cluster: Option<ClusterId>,
    pub(super) node: Option<NodeIdentity>,
    pub(super) promises: Promises,
    /// The cluster that this replica has proposed to found.
    pub(super) proposed: Option<ClusterId>,
}

/// Who its node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodeIdentity {
    pub(super) id: NodeId,
    /// It founds the cluster, alone.
    pub(super) founds: bool,
    /// It has run, and so has data. Without them it has lost what it has acknowledged and voted.
    pub(super) has_run: bool,
}

/// The directory of a replica, which one process has at a time.
#[derive(Debug)]
pub(super) struct ReplicaDir {
    path: PathBuf,
    identity: Identity,
    _lock: File,
}

impl ReplicaDir {
    /// Takes a directory, and makes who it is if there is none.
    pub(super) fn open(path: &Path, replica: ReplicaId) -> Result<Self> {
        let failed =
            |what: &str, error: io::Error| Error::unavailable(format!("{what} in {}: {error}", path.display()));
        fs::create_dir_all(path).map_err(|error| failed("cannot make a folder", error))?;
        let lock = File::create(path.join(LOCK)).map_err(|error| failed("cannot make the lock", error))?;
        lock.try_lock().map_err(|_| {
            Error::invalid_argument(format!(
                "another process uses {}: stop it, or choose another directory",
                path.display()
            ))
        })?;
        let found = match fs::read(path.join(FILE)) {
            Ok(bytes) => Some(
                serde_json::from_slice::<Identity>(&bytes)
                    .map_err(|error| Error::corrupt(format!("{} is damaged: {error}", path.join(FILE).display())))?,
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("cannot read who this is", error)),
        };
        if let Some(found) = &found
            && found.replica != replica
        {
            return Err(Error::invalid_argument(format!(
                "{} belongs to replica {}, not to replica {replica}",
                path.display(),
                found.replica
            )));
        }
        let is_new = found.is_none();
        let identity = match found {
            Some(identity) => identity,
            None => Identity::new(replica, Promises::default())?,
        };
        let mut dir = Self { path: path.to_path_buf(), identity, _lock: lock };
        if is_new {
            dir.keep()?;
        } else if dir.identity.node.is_some_and(|node| node.has_run) && !dir.has_data() {
            dir.give_up_node()?;
        }
        if dir.identity.node.is_none() {
            // What an earlier attempt to remove it has left.
            dir.remove_data()?;
        }
        Ok(dir)
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where its node has its data.
    pub(super) fn node_dir(&self) -> PathBuf {
        self.path.join(NODE)
    }

    /// Changes who it is, and returns when that is on stable storage.
    pub(super) fn change<T>(&mut self, change: impl FnOnce(&mut Identity) -> T) -> Result<T> {
        let before = self.identity.clone();
        let answer = change(&mut self.identity);
        if self.identity == before {
            return Ok(answer);
        }
        match self.keep() {
            Ok(()) => Ok(answer),
            Err(error) => {
                self.identity = before;
                Err(error)
            }
        }
    }

    /// The node of this directory is no more: its data go, and whoever comes next is another one.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the disk does not do it.
    pub(super) fn give_up_node(&mut self) -> Result<()> {
        let Identity { replica, cluster, promises, .. } = self.identity;
        // First who it is: a crash in between leaves data that nobody uses, and that go at the next start.
        self.identity = Identity { cluster, ..Identity::new(replica, promises)? };
        self.keep()?;
        self.remove_data()
    }

    fn remove_data(&self) -> Result<()> {
        match fs::remove_dir_all(self.node_dir()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::unavailable(format!("cannot remove {}: {error}", self.node_dir().display())))
            }
            _ => Ok(()),
        }
    }

    fn has_data(&self) -> bool {
        fs::read_dir(self.node_dir()).is_ok_and(|mut entries| entries.next().is_some())
    }

    fn keep(&self) -> Result<()> {
        let aside = self.path.join(ASIDE);
        let kept = serde_json::to_vec_pretty(&self.identity).map_err(io::Error::other).and_then(|bytes| {
            let mut file = File::create(&aside)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&aside, self.path.join(FILE))?;
            File::open(&self.path)?.sync_all()
        });
        kept.map_err(|error| Error::unavailable(format!("cannot write {}: {error}", aside.display())))
    }
}

impl Identity {
    fn new(replica: ReplicaId, promises: Promises) -> Result<Self> {
        let incarnation = getrandom::u64().map_err(|error| Error::unavailable(error.to_string()))?;
        Ok(Self { replica, incarnation, cluster: None, node: None, promises, proposed: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_remembers_who_it_is_and_a_lost_node_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut open = ReplicaDir::open(dir.path(), 3).unwrap();
        assert!(ReplicaDir::open(dir.path(), 3).unwrap_err().to_string().contains("another process uses"));
        let first = open.identity().clone();
        let node = NodeIdentity { id: 7, founds: false, has_run: true };
        open.change(|identity| (identity.cluster, identity.node) = (Some(ClusterId(5)), Some(node))).unwrap();
        fs::create_dir_all(open.node_dir().join("log")).unwrap();
        drop(open);
        assert!(ReplicaDir::open(dir.path(), 4).unwrap_err().to_string().contains("belongs to replica 3"));
        let open = ReplicaDir::open(dir.path(), 3).unwrap();
        assert_eq!((open.identity().node, open.identity().incarnation), (Some(node), first.incarnation));
        fs::remove_dir_all(open.node_dir()).unwrap();
        drop(open);
        let open = ReplicaDir::open(dir.path(), 3).unwrap();
        let lost = open.identity();
        assert_eq!((lost.node, lost.cluster), (None, Some(ClusterId(5))), "its cluster is the same");
        assert_ne!(lost.incarnation, first.incarnation);
        drop(open);
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(matches!(ReplicaDir::open(dir.path(), 3), Err(Error::Corrupt { .. })));
    }
}
