//! A new cluster from a snapshot of another one.

use std::{
    ffi::OsString,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};
use storage_core::{Error, Result};

use crate::{
    NodeConfig,
    codec::DecodeError,
    disk::{Disk, RealDisk, is_unused, parent},
    error::{from_file, from_log},
    host,
    keys::{History, etcd_revision},
    log::{DataDir, LOCK, Phase},
    raft::{Membership, SnapshotMeta, StoredMembership},
    snapshot::{SnapshotFile, SnapshotStore, read_file},
    tables::Tables,
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
/// then they are started with the same configuration, and begin when all of them run.
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
    found(&meta, &tables, config, bump_revision)
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
    bump_revision: u64,
) -> Result<Restored> {
    check(config)?;
    let (dir, disk) = (&config.data_dir, Arc::new(RealDisk));
    let tables = renewed(old, bump_revision)?;
    let meta = founded(old_meta, config)?;
    let aside = aside(dir);
    clear(&aside)?;
    // Nobody else writes there from now on. If somebody was faster, what is there is theirs.
    let locked = DataDir::open(disk.clone(), &aside, config.cluster, config.id).map_err(from_log)?;
    let made = write(disk.clone(), &locked, config, meta, &tables).and_then(|()| publish(&*disk, &aside, dir));
    if let Err(error) = made {
        // Whatever keeps it from being removed, the next attempt removes it first.
        let _ = fs::remove_dir_all(&aside);
        return Err(error);
    }
    let counts = tables.counts();
    Ok(Restored { keys: counts.records, leases: counts.leases, revision: etcd_revision(tables.keys.revision) })
}

fn check_unused(dir: &Path) -> Result<()> {
    match is_unused(dir) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::invalid_argument(format!(
            "{} has something in it: a snapshot is restored into a new directory only",
            dir.display()
        ))),
        Err(error) => Err(Error::unavailable(format!("cannot read {}: {error}", dir.display()))),
    }
}

/// The state that the new cluster begins with.
fn renewed(old: &Tables, bump_revision: u64) -> Result<Tables> {
    let revision = old.keys.revision.checked_add(bump_revision).filter(|revision| *revision <= MAX_REVISION);
    let revision = revision.ok_or_else(|| {
        Error::invalid_argument(format!(
            "revision {} cannot be raised by {bump_revision}",
            etcd_revision(old.keys.revision)
        ))
    })?;
    let damaged = |error: DecodeError| Error::corrupt(format!("the snapshot has {error}"));
    let mut tables = Tables::default();
    for (id, lease) in &old.keys.leases.0 {
        tables.keys.restore_lease(*id, lease.ttl_seconds, lease.granted).map_err(damaged)?;
    }
    for (id, outcome) in old.operations() {
        tables.restore_operation(id, outcome.clone()).map_err(damaged)?;
    }
    for (key, record) in old.keys.scan(b"", None) {
        tables.keys.restore_record(key, record.clone()).map_err(damaged)?;
    }
    tables.auth = old.auth.clone();
    tables.keys.revision = revision;
    tables.keys.history = match bump_revision {
        0 => old.keys.history.clone(),
        _ => History::after(revision, Some(etcd_revision(revision))),
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

fn write(
    disk: Arc<dyn Disk>,
    locked: &DataDir,
    config: &NodeConfig,
    meta: SnapshotMeta,
    tables: &Tables,
) -> Result<()> {
    let snapshots = SnapshotStore::open(disk, locked.snapshots()).map_err(from_file)?;
    let written = snapshots.write(meta, tables, &|| true).map_err(from_file)?;
    // Who founds alone asks nobody. If the same file is restored once more, those that have joined since tell the two clusters apart.
    let is_alone = config.founders.len() == 1;
    let origin = if is_alone { host::random_origin() } else { origin(&written.snapshot) }.map_err(from_file)?;
    // Not begun: a directory that is restored once more looks the same, and its node may have voted in between. The others know.
    locked.identity().advance(Phase::New, origin).map_err(from_log)
}

/// The identity of a restored cluster of several nodes: the first 16 bytes of the SHA-256 of the snapshot that its nodes begin with, which has
/// the founding members in it and the state with what was added to the revision.
#[expect(clippy::expect_used, reason = "a hash has its length")]
fn origin(snapshot: &SnapshotFile) -> io::Result<u128> {
    let mut hash = Sha256::new();
    for chunk in snapshot.open_chunks()? {
        hash.update(chunk?);
    }
    let hash: [u8; 32] = hash.finalize().into();
    let first = hash.first_chunk().expect("SHA-256 has 32 bytes");
    // Zero is the origin of a cluster that began with nothing.
    Ok(u128::from_be_bytes(*first).max(1))
}

/// Gives a directory its name, durably.
fn publish(disk: &dyn Disk, aside: &Path, dir: &Path) -> Result<()> {
    let failed = |error| Error::unavailable(format!("cannot make {}: {error}", dir.display()));
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    fs::rename(aside, dir).map_err(failed)?;
    parent(dir).map_or(Ok(()), |parent| disk.sync_dir(parent)).map_err(failed)
}

fn aside(dir: &Path) -> PathBuf {
    let mut name: OsString = dir.as_os_str().to_owned();
    name.push(ASIDE);
    name.into()
}

/// Removes what an attempt has left that was killed. One that still runs has the lock.
fn clear(aside: &Path) -> Result<()> {
    let _lock = match RealDisk.lock(&aside.join(LOCK)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            return Err(Error::invalid_argument(format!(
                "another restore writes {}: wait until it has ended",
                aside.display()
            )));
        }
        Err(error) => return Err(Error::unavailable(format!("cannot lock {}: {error}", aside.display()))),
    };
    match fs::remove_dir_all(aside) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::unavailable(format!("cannot remove {}: {error}", aside.display())))
        }
        _ => Ok(()),
    }
}
