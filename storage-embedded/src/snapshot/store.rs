//! The directory of the snapshots.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use openraft::{alias::SnapshotOf, storage::Snapshot};
use parking_lot::Mutex;

use super::{
    file::{SnapshotFile, TemporaryFile},
    format,
    incoming::IncomingSnapshot,
    metrics::{Counters, SnapshotMetrics},
};
use crate::{
    disk::{Disk, lacks_descriptors, lacks_room, lacks_space},
    host,
    raft::{SnapshotMeta, TypeConfig},
    tables::Tables,
};

const PREFIX: &str = "snapshot-";
const TEMPORARY: &str = ".tmp";

/// How soon a snapshot is tried again for which there were no descriptors or no space: seldom enough that a disk which is full is not busy with it.
const TRIED_AGAIN: Duration = Duration::from_secs(1);

/// The directory of the snapshots. It holds one, and another while that is made or received.
/// Every call uses the disk: make it where that may block.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    newest: Mutex<Option<SnapshotOf<TypeConfig, SnapshotFile>>>,
    /// Makes the names of temporary files differ.
    temporary: AtomicU64,
    /// Whether what there is no room for is tried again.
    is_patient: AtomicBool,
    counters: Arc<Counters>,
}

impl SnapshotStore {
    /// Opens a directory, which is made if there is none, and removes what was not finished. Older snapshots stay until [`SnapshotStore::remove_older`].
    ///
    /// # Errors
    /// `InvalidData` with a [`Damaged`](format::Damaged) if the header of the newest snapshot is damaged, and those of the disk.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        disk.create_dir(&dir)?;
        let names = disk.list(&dir)?;
        // Nobody was told of them.
        for unfinished in names.iter().filter(|name| name.ends_with(TEMPORARY)) {
            disk.remove(&dir.join(unfinished))?;
        }
        let newest = newest(&*disk, &dir, &names)?
            .map(|snapshot| io::Result::Ok(Snapshot { meta: format::meta(&snapshot)?, snapshot }))
            .transpose()?;
        let (newest, temporary, is_patient) = (Mutex::new(newest), AtomicU64::new(0), AtomicBool::new(true));
        Ok(Self(Arc::new(Inner { disk, dir, newest, temporary, is_patient, counters: Arc::default() })))
    }

    /// The newest snapshot.
    pub(crate) fn newest(&self) -> Option<SnapshotOf<TypeConfig, SnapshotFile>> {
        self.0.newest.lock().clone()
    }

    /// What was counted since the directory was opened.
    pub(crate) fn metrics(&self) -> SnapshotMetrics {
        let newest_bytes = self.0.newest.lock().as_ref().map_or(0, |newest| newest.snapshot.length());
        self.0.counters.read(newest_bytes)
    }

    /// Tries nothing again from now on, so that whoever waits is told: for a node that stops.
    pub(crate) fn wait_no_more(&self) {
        self.0.is_patient.store(false, Ordering::Release);
    }

    /// Works until there are descriptors, and space if the disk may be full: nothing depends on what it has not finished.
    fn patiently<T>(&self, passes: fn(&io::Error) -> bool, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let mut is_said = false;
        loop {
            match work() {
                Err(error) if passes(&error) && lacks_space(&error) && self.0.disk.give_way() => {}
                Err(error) if passes(&error) && self.0.is_patient.load(Ordering::Acquire) => {
                    if !std::mem::replace(&mut is_said, true) {
                        tracing::error!(%error, dir = %self.0.dir.display(), "no room for a snapshot; tried again until there is");
                    }
                    host::rest(TRIED_AGAIN);
                }
                done => return done,
            }
        }
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// `InvalidData` with a [`Damaged`](format::Damaged) that names file and offset, and those of the disk.
    pub(crate) fn load(&self, snapshot: &SnapshotFile) -> io::Result<(SnapshotMeta, Tables)> {
        format::read(snapshot)
    }

    /// Writes a snapshot and makes it the newest, unless a newer one has come meanwhile. Gives the newest.
    /// `go_on` is asked now and then whether it is still wanted.
    ///
    /// # Errors
    /// `Interrupted` when `go_on` says no, and those of the disk. The snapshot that was there is still there then.
    pub(crate) fn write(
        &self,
        meta: SnapshotMeta,
        tables: &Tables,
        go_on: &dyn Fn() -> bool,
    ) -> io::Result<SnapshotOf<TypeConfig, SnapshotFile>> {
        let (file, took) = self.patiently(lacks_room, || {
            let began = Instant::now();
            // Another file each time: nobody knows what is in one that could not be written.
            let file = self.temporary_file()?;
            format::write(file.file(), &meta, tables, go_on)?;
            Ok((file, began.elapsed()))
        })?;
        self.0.counters.written(took);
        self.publish(meta, SnapshotFile::temporary(file)?)
    }

    /// Begins to receive a snapshot.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn receive(&self) -> io::Result<IncomingSnapshot> {
        let file = self.temporary_file()?;
        Ok(IncomingSnapshot::new(file, Arc::clone(&self.0.counters)))
    }

    /// Makes a snapshot the newest one, durably, and removes the older ones. Gives the newest: that may be another if it
    /// is newer. A snapshot of another directory is copied.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn publish(
        &self,
        meta: SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> io::Result<SnapshotOf<TypeConfig, SnapshotFile>> {
        let snapshot = if snapshot.unnamed().is_none() && !snapshot.path().starts_with(&self.0.dir) {
            let mut copy = self.receive()?;
            for chunk in snapshot.open_chunks()? {
                copy.write_chunk(&chunk?)?;
            }
            copy.finish()?
        } else {
            snapshot
        };
        // No lock is held while there are no descriptors: the node asks for the newest.
        let published = self.patiently(lacks_descriptors, || self.publish_here(&meta, &snapshot))?;
        if let Err(error) = self.remove_older() {
            // They take room, and do no harm. They are removed with the next, or at the next start.
            tracing::warn!(%error, dir = %self.0.dir.display(), "cannot remove an older snapshot");
        }
        Ok(published)
    }

    fn publish_here(
        &self,
        meta: &SnapshotMeta,
        snapshot: &SnapshotFile,
    ) -> io::Result<SnapshotOf<TypeConfig, SnapshotFile>> {
        let (meta, snapshot) = (meta.clone(), snapshot.clone());
        let mut newest = self.0.newest.lock();
        // One that this node wrote and one that the leader sent may end at the same time: the newer stays, whoever comes last.
        if let Some(newer) = newest.as_ref().filter(|newest| newest.meta.last_log_id > meta.last_log_id) {
            return Ok(newer.clone());
        }
        // What has a lasting name here already is the newest one itself.
        let Some(temporary) = snapshot.unnamed() else { return Ok(Snapshot { meta, snapshot }) };
        let (index, term) = meta.last_log_id.map_or((0, 0), |id| (id.index, id.leader_id.term));
        let path = self.0.dir.join(format!("{PREFIX}{index:020}-{term:020}"));
        // Synced, then renamed, then the directory synced: under this name stands a whole snapshot or none.
        temporary.keep(&path)?;
        let published = Snapshot { meta, snapshot: SnapshotFile::open(&*self.0.disk, &path)? };
        *newest = Some(published.clone());
        Ok(published)
    }

    fn temporary_file(&self) -> io::Result<TemporaryFile> {
        let number = self.0.temporary.fetch_add(1, Ordering::Relaxed);
        TemporaryFile::create(self.0.disk.clone(), self.0.dir.join(format!("{number}{TEMPORARY}")))
    }

    /// Removes all snapshots but the newest, which has to be known to be whole: its header says little.
    ///
    /// # Errors
    /// Those of the disk.
    #[expect(clippy::expect_used, reason = "a snapshot has the name that was given to it")]
    pub(crate) fn remove_older(&self) -> io::Result<()> {
        let Some(newest) = self.newest() else { return Ok(()) };
        let newest = newest.snapshot.path().file_name().and_then(|name| name.to_str());
        let newest = newest.expect("this store has named it").to_owned();
        let names = self.0.disk.list(&self.0.dir)?;
        for older in names.iter().filter(|name| name.starts_with(PREFIX) && **name < newest) {
            self.0.disk.remove(&self.0.dir.join(older))?;
        }
        Ok(())
    }
}

/// Reads the newest snapshot in a directory, if there is one. Nothing is changed.
///
/// # Errors
/// `InvalidData` with a [`Damaged`](format::Damaged) that names file and offset, and those of the disk.
pub(crate) fn read_newest(disk: &dyn Disk, dir: &Path) -> io::Result<Option<(SnapshotMeta, Tables)>> {
    let names = match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        names => names?,
    };
    newest(disk, dir, &names)?.map(|snapshot| format::read(&snapshot)).transpose()
}

/// The newest of the files with these names. The names sort as the indexes do.
fn newest(disk: &dyn Disk, dir: &Path, names: &[String]) -> io::Result<Option<SnapshotFile>> {
    let newest = names.iter().rfind(|name| name.starts_with(PREFIX) && !name.ends_with(TEMPORARY));
    newest.map(|name| SnapshotFile::open(disk, &dir.join(name))).transpose()
}
