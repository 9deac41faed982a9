//! Who a replica is: a file in its directory that is on stable storage before the first message that depends on it.
//!
//! # Invariants
//! - A change is written aside, synced, renamed and synced again before [`ReplicaDir::change`] returns: whoever sends a message after it cannot lose what the
//!   message rests on. If writing fails, the identity in memory is the old one again, and the message must not be sent.
//! - A directory draws an incarnation by lot. A node id is given to one incarnation, so that a replica which has lost its disk is never taken for its former self.
//! - A node that has run and has no data has lost what it voted and acknowledged. It is given up, and never started again with its id.

use std::{
    any::Any,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use storage_core::{Error, Result};
use storage_embedded::disk::{self, Disk as _, RealDisk};

use crate::{
    engine::MemberIds,
    ids::{ClusterId, NodeId, ReplicaId},
    protocol::Promises,
    replace::{self, IDENTITY_FILE},
};

const LOCK: &str = "replica.lock";
/// The folder of the node's data, beside the file.
const NODE: &str = "node";

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) replica: ReplicaId,
    /// Drawn by lot for each data directory: who has lost its disk is another one.
    pub(crate) incarnation: u64,
    /// The one cluster that this replica will ever take part in.
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) node: Option<NodeIdentity>,
    pub(crate) promises: Promises,
    /// The cluster that this replica has proposed to found.
    pub(crate) proposed: Option<ClusterId>,
}

/// Who its node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeIdentity {
    pub(crate) id: NodeId,
    /// It founds the cluster, alone.
    pub(crate) founds: bool,
    /// It has run, and so has data. Without them it has lost what it has acknowledged and voted.
    pub(crate) has_run: bool,
}

/// The directory of a replica, which one process has at a time.
#[derive(Debug)]
pub(crate) struct ReplicaDir {
    path: PathBuf,
    identity: Identity,
    _lock: Lock,
}

/// How it is known that a node is a member no more.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Evidence<'a> {
    /// The members that are committed are without it.
    Committed(&'a MemberIds),
    /// The node has said so itself: members told it by a committed entry, which its directory remembers.
    Node,
}

impl ReplicaDir {
    /// Takes a directory, and makes who it is if there is none.
    pub(crate) fn open(path: &Path, replica: ReplicaId) -> Result<Self> {
        replace::finish(path)?;
        let made = RealDisk.create_dir(path);
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
        } else if dir.identity.node.is_some_and(|node| node.has_run) && !dir.has_data()? {
            dir.become_another()?;
        }
        if dir.identity.node.is_none() {
            // What an earlier attempt to move it has left.
            dir.move_data_aside()?;
        }
        Ok(dir)
    }

    /// Takes the directory of a replica that was here before, and leaves it as it is. `None`: none was.
    pub(crate) fn take(path: &Path, replica: ReplicaId) -> Result<Option<Self>> {
        if read(path, replica)?.is_none() {
            return Ok(None);
        }
        let lock = lock(path)?;
        let found = read(path, replica)?;
        Ok(found.map(|identity| Self { path: path.to_path_buf(), identity, _lock: lock }))
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where its node has its data.
    pub(crate) fn node_dir(&self) -> PathBuf {
        node_dir(&self.path)
    }

    /// Changes who it is, and returns when that is on stable storage.
    pub(crate) fn change<T>(&mut self, change: impl FnOnce(&mut Identity) -> T) -> Result<T> {
        let mut next = self.identity.clone();
        let answer = change(&mut next);
        if next != self.identity {
            next.assert_follows(&self.identity);
            next.keep(&self.path)?;
            self.identity = next;
        }
        Ok(answer)
    }

    /// The node of this directory is a member no more: its data are moved aside, and whoever comes next is another one.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the disk does not do it.
    ///
    /// # Panics
    /// If it is among the committed members: its data may be what a majority rests on.
    pub(crate) fn give_up_node(&mut self, evidence: Evidence<'_>) -> Result<()> {
        if let Evidence::Committed(members) = evidence {
            let is_member = self.identity.node.is_some_and(|node| members.contains(node.id));
            assert!(!is_member, "a node is given up that is a member");
        }
        self.become_another()
    }

    fn become_another(&mut self) -> Result<()> {
        let Identity { replica, cluster, promises, .. } = self.identity;
        // A new incarnation comes with it: the cluster would otherwise give the old node back to this directory.
        // First who it is: a crash in between leaves data that nobody uses, and that are moved at the next start.
        self.identity = Identity { cluster, ..Identity::new(replica, promises)? };
        self.keep()?;
        self.move_data_aside()
    }

    /// Nothing of a node is ever deleted: what looks useless may be all that is left of a cluster.
    fn move_data_aside(&self) -> Result<()> {
        let dir = self.node_dir();
        let moved = disk::move_aside(&dir);
        let moved =
            moved.map_err(|error| Error::unavailable(format!("cannot move {} aside: {error}", dir.display())))?;
        if let Some(to) = moved {
            tracing::warn!(
                replica = self.identity.replica,
                "the data of this replica's former node are in {} now; delete them when nobody needs them",
                to.display()
            );
        }
        Ok(())
    }

    /// Whether its node has data. A node that has run and has none has lost its disk.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if its directory cannot be read: then nobody knows, and nothing may be decided.
    fn has_data(&self) -> Result<bool> {
        let dir = self.node_dir();
        let unused = disk::is_unused(&dir);
        unused.map(|unused| !unused).map_err(|error| {
            Error::unavailable(format!(
                "cannot read {}: {error}; make it readable, or mount its disk, and start again",
                dir.display()
            ))
        })
    }

    fn keep(&self) -> Result<()> {
        self.identity.keep(&self.path)
    }
}

/// Where the node of a replica's directory has its data.
pub fn node_dir(path: &Path) -> PathBuf {
    path.join(NODE)
}

/// Held as long as this lives.
type Lock = Box<dyn Any + Send + Sync>;

fn lock(path: &Path) -> Result<Lock> {
    RealDisk.lock(&path.join(LOCK)).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::invalid_argument(format!(
            "another process uses {}: stop it, or choose another directory",
            path.display()
        )),
        _ => Error::unavailable(format!("cannot make the lock in {}: {error}", path.display())),
    })
}

/// Who the replica of a directory is, if it was this one.
fn read(path: &Path, replica: ReplicaId) -> Result<Option<Identity>> {
    let file = path.join(IDENTITY_FILE);
    let found = match fs::read(&file) {
        Ok(bytes) => serde_json::from_slice::<Identity>(&bytes)
            .map_err(|error| Error::corrupt(format!("{} is damaged: {error}", file.display())))?,
        // A link that leads nowhere is something: what it led to may come back.
        Err(_) if matches!(disk::is_absent(&file), Ok(true)) => return Ok(None),
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
    pub(crate) fn keep(&self, path: &Path) -> Result<()> {
        let file = path.join(IDENTITY_FILE);
        let bytes = serde_json::to_vec_pretty(self).map_err(io::Error::other);
        let kept = bytes.and_then(|bytes| disk::replace(&RealDisk, &file, &bytes));
        kept.map_err(|error| Error::unavailable(format!("cannot write {}: {error}", file.display())))
    }

    /// What every change keeps to: others rely on what this replica has told them.
    ///
    /// # Panics
    /// If this one does not.
    fn assert_follows(&self, before: &Self) {
        assert_eq!(self.replica, before.replica, "a directory is given to another replica");
        assert!(
            before.cluster.is_none() || self.cluster == before.cluster,
            "a replica changes from one cluster to another"
        );
        assert!(before.proposed.is_none() || self.proposed == before.proposed, "a replica proposes a second cluster");
        assert!(self.promises >= before.promises, "a promise is taken back");
    }

    /// One that founds a cluster alone, and has the data for it already.
    pub(crate) fn founder(replica: ReplicaId, cluster: ClusterId) -> Result<Self> {
        let node = Some(NodeIdentity { id: mint_node()?, founds: true, has_run: true });
        Ok(Self { cluster: Some(cluster), node, ..Self::new(replica, Promises::default())? })
    }

    fn new(replica: ReplicaId, promises: Promises) -> Result<Self> {
        let incarnation = getrandom::u64().map_err(|error| Error::unavailable(error.to_string()))?;
        Ok(Self { replica, incarnation, cluster: None, node: None, promises, proposed: None })
    }
}

/// The id of a node that founds a cluster. Clients of etcd have ids of 63 bits, and zero is none.
pub(crate) fn mint_node() -> Result<NodeId> {
    let id = getrandom::u64().map_err(|error| Error::unavailable(error.to_string()))?;
    Ok((id >> 1).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Question;

    fn identity() -> Identity {
        Identity {
            cluster: Some(ClusterId(5)),
            proposed: Some(ClusterId(5)),
            ..Identity::new(3, Promises::default()).unwrap()
        }
    }

    #[test]
    #[should_panic(expected = "a replica changes from one cluster to another")]
    fn a_replica_takes_part_in_one_cluster() {
        Identity { cluster: Some(ClusterId(6)), ..identity() }.assert_follows(&identity());
    }

    #[test]
    #[should_panic(expected = "a replica proposes a second cluster")]
    fn a_replica_proposes_one_cluster() {
        Identity { proposed: None, ..identity() }.assert_follows(&identity());
    }

    #[test]
    #[should_panic(expected = "a promise is taken back")]
    fn a_promise_is_kept() {
        let mut promised = identity();
        promised.promises.answer(Question::Prepare(promised.promises.next_ballot(3)));
        identity().assert_follows(&promised);
    }

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
        fs::write(dir.path().join(IDENTITY_FILE), "{").unwrap();
        assert!(matches!(ReplicaDir::open(dir.path(), 3), Err(Error::Corrupt { .. })));
    }

    /// The start failed to read the directory, took its data for lost, and removed them.
    #[test]
    fn a_node_whose_data_cannot_be_read_keeps_them_and_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let node = NodeIdentity { id: 7, founds: true, has_run: true };
        let mut open = ReplicaDir::open(dir.path(), 3).unwrap();
        open.change(|identity| identity.node = Some(node)).unwrap();
        let node_dir = open.node_dir();
        drop(open);
        // The disk is elsewhere, and not mounted.
        let elsewhere = dir.path().join("elsewhere");
        std::os::unix::fs::symlink(&elsewhere, &node_dir).unwrap();
        let refused = ReplicaDir::open(dir.path(), 3).unwrap_err().to_string();
        assert!(refused.contains("cannot read") && refused.contains("mount its disk"), "{refused}");
        fs::create_dir_all(elsewhere.join("log")).unwrap();
        assert_eq!(ReplicaDir::open(dir.path(), 3).unwrap().identity().node, Some(node));
        assert!(elsewhere.join("log").is_dir());
    }

    /// Whoever it is, its cluster knows it: it must not begin as another.
    #[test]
    fn a_replica_whose_identity_is_a_link_to_nowhere_is_not_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        drop(ReplicaDir::open(dir.path(), 3).unwrap());
        let (file, elsewhere) = (dir.path().join(IDENTITY_FILE), dir.path().join("elsewhere"));
        fs::rename(&file, &elsewhere).unwrap();
        std::os::unix::fs::symlink(dir.path().join("not mounted"), &file).unwrap();
        for refused in [ReplicaDir::open(dir.path(), 3).map(drop), ReplicaDir::take(dir.path(), 3).map(drop)] {
            assert!(refused.unwrap_err().to_string().contains("cannot read"));
        }
        assert!(fs::symlink_metadata(&file).unwrap().is_symlink());
    }

    #[test]
    #[should_panic(expected = "a node is given up that is a member")]
    fn a_member_is_not_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let mut open = ReplicaDir::open(dir.path(), 3).unwrap();
        let node = NodeIdentity { id: 7, founds: false, has_run: true };
        open.change(|identity| identity.node = Some(node)).unwrap();
        let _ = open.give_up_node(Evidence::Committed(&MemberIds { voters: [6].into(), learners: [7].into() }));
    }

    #[test]
    fn the_data_of_a_former_node_are_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        let mut open = ReplicaDir::open(dir.path(), 3).unwrap();
        fs::create_dir_all(open.node_dir()).unwrap();
        fs::write(open.node_dir().join("identity"), "7").unwrap();
        open.give_up_node(Evidence::Committed(&MemberIds::default())).unwrap();
        assert!(!open.has_data().unwrap());
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap());
        let kept: Vec<_> = names.filter(|entry| entry.file_name().to_string_lossy().starts_with("node.2")).collect();
        let [kept] = kept.as_slice() else { panic!("{kept:?}") };
        assert_eq!(fs::read_to_string(kept.path().join("identity")).unwrap(), "7");
    }
}
