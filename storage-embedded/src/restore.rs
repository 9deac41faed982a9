//! A new cluster from a snapshot of another one.

use std::{
    ffi::OsString,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use storage_core::{Error, Result};

use crate::{
    NodeConfig,
    disk::{Disk, RealDisk},
    error::{from_file, from_log},
    log::DataDir,
    mvcc,
    raft::{Membership, SnapshotMeta, StoredMembership},
    snapshot::{SnapshotStore, read_file},
    state_machine::{History, Tables},
};

/// Behind the name of a directory that is being made.
const ASIDE: &str = ".restoring";

/// The highest revision, since clients of etcd count in 63 bits.
const MAX_REVISION: u64 = i64::MAX.cast_unsigned() - 1;

/// What a new data directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// How many keys.
    pub keys: u64,
    /// How many leases.
    pub leases: u64,
    /// The revision, as the etcd API shows it.
    pub revision: u64,
}

/// Makes the data directory of a founding member of a new cluster, with the keys of a snapshot file. Each founding member is given the same file;
/// then they are started with the same configuration.
///
/// Kept are keys with their values and revisions, leases (which live their whole time anew), the outcomes of operations by their ids, and the
/// history that the snapshot has. Not kept are the old cluster's members, its configuration rows and its sessions.
///
/// `bump_revision` is added to the revision, so that revisions which clients of the old cluster saw after the snapshot are not given
/// a second time to other writes; the history before then counts as compacted, so that whoever watches notices.
///
/// What follows the snapshot in the file is not looked at. It blocks, and takes as much memory as the state.
///
/// # Errors
/// [`Error::InvalidArgument`] for a directory that has something in it, members of which this node is none, and a revision out of range;
/// [`Error::Corrupt`] for a file that is no snapshot, cut or changed, with the offset; [`Error::Unavailable`] if a file cannot be read or written.
/// No directory is there then that was not there before.
pub fn restore(snapshot: &Path, config: &NodeConfig, bump_revision: u64) -> Result<Restored> {
    check(config)?;
    let file = |error| match from_file(error) {
        Error::Unavailable { source } => Error::unavailable(format!("cannot read {}: {source}", snapshot.display())),
        error => error,
    };
    let (meta, tables) = read_file(&RealDisk, snapshot).map_err(file)?;
    found(&meta, &tables, config, &Renewal { bump_revision, without: None })
}

/// What becomes another than it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Renewal<'a> {
    /// Is added to the revision: see [`restore`].
    pub(crate) bump_revision: u64,
    /// Keys that begin so are left out, and then the whole history is.
    pub(crate) without: Option<&'a [u8]>,
}

fn check(config: &NodeConfig) -> Result<()> {
    config.raft()?;
    if !config.founders.contains_key(&config.id) {
        return Err(Error::invalid_argument(format!("node {} is not among the founding members", config.id)));
    }
    check_unused(&config.data_dir)
}

/// Makes the data directory of a founding member of a new cluster, with the state of an old one.
pub(crate) fn found(
    old_meta: &SnapshotMeta,
    old: &Tables,
    config: &NodeConfig,
    renewal: &Renewal<'_>,
) -> Result<Restored> {
    check(config)?;
    let (dir, disk) = (&config.data_dir, Arc::new(RealDisk));
    let tables = renewed(old, renewal)?;
    let meta = founded(old_meta, config)?;
    let aside = aside(dir);
    let made = clear(&aside)
        .and_then(|()| write(&disk, &aside, config, meta, &tables))
        .and_then(|()| publish(&*disk, &aside, dir));
    if let Err(error) = made {
        // Whatever keeps it from being removed, the next attempt removes it first.
        let _ = fs::remove_dir_all(&aside);
        return Err(error);
    }
    let counts = tables.counts();
    Ok(Restored { keys: counts.records, leases: counts.leases, revision: mvcc::shown(tables.revision) })
}

fn check_unused(dir: &Path) -> Result<()> {
    match fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::invalid_argument(format!(
            "{} has something in it: a snapshot is restored into a new directory only",
            dir.display()
        ))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::unavailable(format!("cannot read {}: {error}", dir.display()))),
    }
}

/// The state that the new cluster begins with.
fn renewed(old: &Tables, Renewal { bump_revision, without }: &Renewal<'_>) -> Result<Tables> {
    let bump_revision = *bump_revision;
    let revision = old.revision.checked_add(bump_revision).filter(|revision| *revision <= MAX_REVISION);
    let revision = revision.ok_or_else(|| {
        Error::invalid_argument(format!("revision {} cannot be raised by {bump_revision}", mvcc::shown(old.revision)))
    })?;
    let mut tables = Tables::default();
    for (id, lease) in old.leases() {
        tables.restore_lease(id, lease.ttl_seconds, lease.granted);
    }
    for (id, outcome) in old.operations() {
        tables.restore_operation(id, outcome.clone());
    }
    for (key, record) in old.scan(b"", None) {
        if without.is_none_or(|prefix| !key.starts_with(prefix)) {
            tables.restore_record(key, record.clone());
        }
    }
    tables.revision = revision;
    tables.history = match (bump_revision, without) {
        (0, None) => old.history.clone(),
        _ => History::after(revision, Some(mvcc::shown(revision))),
    };
    Ok(tables)
}

/// Where in its log the new cluster begins. The index goes on, since leases are known by it; the term is that of an entry that founds a
/// cluster, so that the first election has a higher one.
fn founded(old: &SnapshotMeta, config: &NodeConfig) -> Result<SnapshotMeta> {
    let mut log_id = old.last_log_id.ok_or_else(|| Error::corrupt("the snapshot is of a node that had no cluster"))?;
    log_id.leader_id.term = 0;
    let voters = config.founders.keys().copied().collect();
    let membership = Membership::new(vec![voters], config.founders.clone())
        .map_err(|error| Error::invalid_argument(format!("the founding members: {error}")))?;
    Ok(SnapshotMeta { last_log_id: Some(log_id), last_membership: StoredMembership::new(Some(log_id), membership) })
}

fn write(disk: &Arc<RealDisk>, dir: &Path, config: &NodeConfig, meta: SnapshotMeta, tables: &Tables) -> Result<()> {
    let disk: Arc<dyn Disk> = disk.clone();
    let _locked = DataDir::open(Arc::clone(&disk), dir, config.cluster, config.id).map_err(from_log)?;
    let snapshots = SnapshotStore::open(disk, dir.join("snapshots")).map_err(from_file)?;
    snapshots.write(meta, tables, &|| true).map(drop).map_err(from_file)
}

/// Gives a directory its name, durably.
fn publish(disk: &dyn Disk, aside: &Path, dir: &Path) -> Result<()> {
    let failed = |error| Error::unavailable(format!("cannot make {}: {error}", dir.display()));
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    fs::rename(aside, dir).map_err(failed)?;
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    disk.sync_dir(parent).map_err(failed)
}

fn aside(dir: &Path) -> PathBuf {
    let mut name: OsString = dir.as_os_str().to_owned();
    name.push(ASIDE);
    name.into()
}

/// Removes what an attempt has left that was killed.
fn clear(aside: &Path) -> Result<()> {
    match fs::remove_dir_all(aside) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::unavailable(format!("cannot remove {}: {error}", aside.display())))
        }
        _ => Ok(()),
    }
}
