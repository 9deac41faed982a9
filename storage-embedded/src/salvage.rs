//! What a stopped node holds, when no majority is left that could tell what was acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
};

use storage_core::{Error, Result};

use crate::{
    NodeConfig,
    disk::{Disk, RealDisk},
    error::{from_file, from_log},
    keys::etcd_revision,
    log::{DataDir, StoppedLog},
    raft::Member,
    restore::{self, Restored},
    snapshot,
    state_machine::Replica,
};

/// What a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Salvaged {
    /// The cluster that the node belongs to.
    pub cluster: u128,
    /// The node.
    pub node: u64,
    /// The index of the last entry of its log.
    pub last_index: u64,
    /// The term of that entry. Of two nodes, the one whose last term is higher is further; if these are equal, the one whose last index is.
    pub last_term: u64,
    /// The index up to which the entries are known *here* to be on a majority. Those behind it may have been acknowledged or not.
    pub committed_index: u64,
    /// The members that the log tells of last.
    pub members: BTreeMap<u64, Member>,
    /// Those of them that vote; during a joint change both sets.
    pub voter_sets: Vec<BTreeSet<u64>>,
    /// How many keys.
    pub keys: u64,
    /// How many leases.
    pub leases: u64,
    /// The revision, as the etcd API shows it.
    pub revision: u64,
}

/// Writes a snapshot of all that a stopped node holds into a file, which must not exist: see [`Salvage`]. The file is such as running nodes are saved in,
/// SHA-256 behind, and can be restored.
///
/// # Errors
/// Those of [`Salvage::open`] and [`Salvage::save`].
pub fn salvage(dir: &Path, file: &Path) -> Result<Salvaged> {
    let salvage = Salvage::open(dir)?;
    salvage.save(file)?;
    Ok(salvage.found())
}

/// The state of a stopped node: its newest snapshot, and **every** entry of its log behind that, also those that it does not know to be committed. An acknowledged write may be
/// among these, since a node learns late what is committed. So a write may appear that nobody acknowledged; whoever made it was told that its outcome is unknown.
///
/// The directory is locked for as long as this lives, and nothing in it is changed.
#[derive(Debug)]
pub struct Salvage {
    _dir: DataDir,
    cluster: u128,
    node: u64,
    committed_index: u64,
    replica: Replica,
}

impl Salvage {
    /// Reads what a node holds. It blocks, and takes as much memory as the state.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a directory without a node, of a node that was never in a cluster, or in use; [`Error::Corrupt`] for a log or snapshot
    /// that is damaged, with the file and offset, and for a log of which the newest files are missing; [`Error::Unavailable`] if a file cannot be read.
    pub fn open(dir: &Path) -> Result<Self> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let Some((locked, cluster, node)) = DataDir::take(Arc::clone(&disk), dir).map_err(from_log)? else {
            return Err(Error::invalid_argument(format!("{} has no data of a node", dir.display())));
        };
        let snapshots = dir.join("snapshots");
        let newest = snapshot::read_newest(&*disk, &snapshots).map_err(from_file)?;
        let mut replica = newest.map_or_else(Replica::default, |(meta, tables)| Replica::of(meta, tables));
        let log = StoppedLog::read(&locked).map_err(from_log)?;
        let committed = log.committed().max(replica.last_applied);
        if log.purged().map(|id| id.index) > replica.last_applied.map(|id| id.index) {
            return Err(Error::corrupt(format!(
                "{} has no snapshot of what the log begins with: the entries up to {} are missing",
                snapshots.display(),
                log.purged().map_or(0, |id| id.index)
            )));
        }
        apply(&log, &mut replica, dir)?;
        if replica.last_applied.is_none() {
            return Err(Error::invalid_argument(format!("the node of {} was never in a cluster", dir.display())));
        }
        let committed_index = committed.map_or(0, |id| id.index);
        Ok(Self { _dir: locked, cluster, node, committed_index, replica })
    }

    /// What there is.
    pub fn found(&self) -> Salvaged {
        let tables = self.replica.state.tables();
        let counts = tables.counts();
        let membership = self.replica.membership.membership();
        Salvaged {
            cluster: self.cluster,
            node: self.node,
            last_index: self.replica.applied_index(),
            last_term: self.replica.last_applied.map_or(0, |id| id.leader_id.term),
            committed_index: self.committed_index.min(self.replica.applied_index()),
            members: membership.nodes().map(|(id, member)| (*id, member.clone())).collect(),
            voter_sets: membership.get_joint_config().clone(),
            keys: counts.records,
            leases: counts.leases,
            revision: etcd_revision(tables.keys.revision),
        }
    }

    /// Writes it into a file, which must not exist and appears when it is whole. Until then it has `.part` behind its name.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if one of the two exists; [`Error::Unavailable`] if it cannot be written. Nothing is left behind then.
    pub fn save(&self, file: &Path) -> Result<()> {
        let saved = snapshot::save(file, &self.replica.meta(), self.replica.state.tables());
        saved.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Error::invalid_argument(error.to_string()),
            _ => Error::unavailable(format!("cannot write {}: {error}", file.display())),
        })
    }

    /// Makes the data directory of a founding member of a new cluster with it, as [`restore`](crate::restore) does with a file.
    ///
    /// # Errors
    /// Those of [`restore`](crate::restore).
    pub fn restore(&self, config: &NodeConfig, bump_revision: u64) -> Result<Restored> {
        restore::found(&self.replica.meta(), self.replica.state.tables(), config, bump_revision)
    }
}

/// Applies what follows in the log.
fn apply(log: &StoppedLog, replica: &mut Replica, dir: &Path) -> Result<()> {
    let covered = replica.last_applied;
    // The entry that the snapshot ends with may be there still. If another one stands in its place, what follows came of another leader, whom no majority
    // followed: the snapshot has what was committed.
    if let Some(covered) = covered
        && let Some(entry) = log.entries_from(covered.index).map_err(from_log)?.first()
        && entry.log_id.index == covered.index
        && entry.log_id != covered
    {
        return Ok(());
    }
    loop {
        let next = replica.last_applied.map_or(0, |id| id.index + 1);
        let entries = log.entries_from(next).map_err(from_log)?;
        let Some(first) = entries.first() else { return Ok(()) };
        if first.log_id.index != next {
            let first = first.log_id.index;
            return Err(Error::corrupt(format!(
                "{}: the entries from {next} to {first} are missing",
                dir.join("log").display()
            )));
        }
        for entry in &entries {
            replica.apply(entry);
        }
    }
}
