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
    moved,
};

pub(super) const FILE: &str = "replica.json";
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
        moved::finish(path)?;
        let made = fs::create_dir_all(path);
        made.map_err(|error| Error::unavailable(format!("cannot make {}: {error}", path.display())))?;
        let lock = lock(path)?;
        let found = read(path, replica)?;
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

    /// Takes the directory of a replica that was here before, and leaves it as it is. `None`: none was.
    pub(super) fn take(path: &Path, replica: ReplicaId) -> Result<Option<Self>> {
        if !path.join(FILE).exists() {
            return Ok(None);
        }
        let lock = lock(path)?;
        let found = read(path, replica)?;
        Ok(found.map(|identity| Self { path: path.to_path_buf(), identity, _lock: lock }))
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where its node has its data.
    pub(super) fn node_dir(&self) -> PathBuf {
        node_dir(&self.path)
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

    pub(super) fn has_data(&self) -> bool {
        fs::read_dir(self.node_dir()).is_ok_and(|mut entries| entries.next().is_some())
    }

    fn keep(&self) -> Result<()> {
        self.identity.keep(&self.path)
    }
}

/// Where the node of a replica's directory has its data.
pub(super) fn node_dir(path: &Path) -> PathBuf {
    path.join(NODE)
}

fn lock(path: &Path) -> Result<File> {
    let failed = |error| Error::unavailable(format!("cannot make the lock in {}: {error}", path.display()));
    let lock = File::create(path.join(LOCK)).map_err(failed)?;
    lock.try_lock().map_err(|_| {
        Error::invalid_argument(format!(
            "another process uses {}: stop it, or choose another directory",
            path.display()
        ))
    })?;
    Ok(lock)
}

/// Who the replica of a directory is, if it was this one.
fn read(path: &Path, replica: ReplicaId) -> Result<Option<Identity>> {
    let file = path.join(FILE);
    let found = match fs::read(&file) {
        Ok(bytes) => serde_json::from_slice::<Identity>(&bytes)
            .map_err(|error| Error::corrupt(format!("{} is damaged: {error}", file.display())))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::unavailable(format!("cannot read {}: {error}", file.display()))),
    };
    if found.replica != replica {
        let path = path.display();
        return Err(Error::invalid_argument(format!(
            "{path} belongs to replica {}, not to replica {replica}",
            found.replica
        )));
    }
    Ok(Some(found))
}

impl Identity {
    /// Writes it into a directory. It is on stable storage when this returns.
    pub(super) fn keep(&self, path: &Path) -> Result<()> {
        let aside = path.join(ASIDE);
        let kept = serde_json::to_vec_pretty(self).map_err(io::Error::other).and_then(|bytes| {
            let mut file = File::create(&aside)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&aside, path.join(FILE))?;
            File::open(path)?.sync_all()
        });
        kept.map_err(|error| Error::unavailable(format!("cannot write {}: {error}", aside.display())))
    }

    /// One that founds a cluster alone, and has the data for it already.
    pub(super) fn founder(replica: ReplicaId, cluster: ClusterId) -> Result<Self> {
        let node = Some(NodeIdentity { id: mint_node()?, founds: true, has_run: true });
        Ok(Self { cluster: Some(cluster), node, ..Self::new(replica, Promises::default())? })
    }

    fn new(replica: ReplicaId, promises: Promises) -> Result<Self> {
        let incarnation = getrandom::u64().map_err(|error| Error::unavailable(error.to_string()))?;
        Ok(Self { replica, incarnation, cluster: None, node: None, promises, proposed: None })
    }
}

/// The id of a node that founds a cluster. Clients of etcd have ids of 63 bits, and zero is none.
pub(super) fn mint_node() -> Result<NodeId> {
    let id = getrandom::u64().map_err(|error| Error::unavailable(error.to_string()))?;
    Ok((id >> 1).max(1))
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
