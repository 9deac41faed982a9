//! A disk in memory that behaves as badly as a real one may, and the same way every time for the same seed.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile};

/// The unit in which a write reaches the disk, or does not.
const SECTOR: usize = 512;

/// What goes wrong at an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The operation fails, once. A write has written a part. A sync has made a part durable and forgets the rest:
    /// the next one succeeds without it, as on Linux.
    Eio,
    /// The disk is full, once: a write, an extension or a creation fails after a part of it. Others succeed.
    Enospc,
    /// There is no descriptor left, once: what opens something fails, and nothing has happened. Others succeed.
    Emfile,
    /// The power goes: this operation and all later ones fail. [`SimDisk::crash`] says what is found afterwards.
    PowerLoss,
}

/// What a loss of power leaves of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Survival {
    /// Nothing.
    Nothing,
    /// Everything.
    Everything,
    /// Any part, as a seed decides: of names a prefix of the changes in a directory, of writes any sectors, or the
    /// bytes before any offset.
    Any(u64),
}

/// A disk in memory. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct SimDisk(Arc<Mutex<Contents>>);

#[derive(Debug, Clone)]
struct Contents {
    random: fastrand::Rng,
    dirs: BTreeSet<PathBuf>,
    /// Path to place in `nodes`.
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<NameChange>,
    nodes: Vec<Inode>,
    locks: BTreeSet<PathBuf>,
    operations: u64,
    faults: BTreeMap<u64, Fault>,
    power_lost: bool,
    lies: bool,
    /// What is below this path cannot be opened or listed, as by who may not.
    unreadable: Option<PathBuf>,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<UnsyncedChange>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, usize),
}

#[derive(Debug, Clone)]
enum UnsyncedChange {
    Write(usize, Vec<u8>),
    SetLength(usize),
}

impl SimDisk {
    /// An empty disk. The seed decides how faults and crashes bite.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Contents {
            random: fastrand::Rng::with_seed(seed),
            dirs: BTreeSet::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            nodes: Vec::new(),
            locks: BTreeSet::new(),
            operations: 0,
            faults: BTreeMap::new(),
            power_lost: false,
            lies: false,
            unreadable: None,
        })))
    }

    /// How many operations were asked for so far: every call of [`Disk`] and [`DiskFile`] is one.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Makes the operation with this number, counted from 0, go wrong.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.0.lock().faults.insert(operation, fault);
    }

    /// From now on a sync of a file is said to have succeeded and nothing is durable, or it is honest again: to see that tests
    /// find data that were acknowledged before they were synced.
    pub fn lie(&self, lies: bool) {
        self.0.lock().lies = lies;
    }

    /// From now on nothing at or below this path can be opened or listed, whatever is there and over crashes, or everything can be again.
    pub fn deny(&self, path: Option<PathBuf>) {
        self.0.lock().unreadable = path;
    }

    /// Whether anything is denied.
    #[must_use]
    pub fn denies(&self) -> bool {
        self.0.lock().unreadable.is_some()
    }

    /// The disk as it would be found if the power went now, or when it went. This one is left as it is.
    #[must_use]
    pub fn crash(&self, survival: Survival) -> Self {
        let mut state = self.0.lock().clone();
        if let Survival::Any(seed) = survival {
            state.random = fastrand::Rng::with_seed(seed);
        }
        state.lose_power(survival);
        Self(Arc::new(Mutex::new(state)))
    }

    /// The disk as the next process finds it if this one is killed now: with all that was written, durable or not, and no locks. What
    /// this process does with its own is lost. After a loss of power there is less: that of [`Survival::Any`].
    #[cfg(simulated)]
    #[must_use]
    pub fn outlive(&self) -> Self {
        let mut state = self.0.lock().clone();
        if state.power_lost {
            // By a number that is the same in each run of a seed, so that the next process finds the same disk.
            state.lose_power(Survival::Any(state.operations));
        }
        state.locks.clear();
        state.faults.clear();
        Self(Arc::new(Mutex::new(state)))
    }

    /// Another disk with the same contents, durable or not, without faults.
    #[must_use]
    pub fn fork(&self) -> Self {
        self.crash(Survival::Everything)
    }

    /// Every file with its bytes.
    #[must_use]
    pub fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.0.lock();
        let bytes = |place: &usize| state.nodes.get(*place).map(|node| node.bytes.clone()).unwrap_or_default();
        state.names.iter().map(|(path, place)| (path.clone(), bytes(place))).collect()
    }

    /// Damages a file behind the engine's back: what `change` makes of its bytes is at once durable.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut state = self.0.lock();
        let place = state.place(path)?;
        let node = state.node(place)?;
        change(&mut node.bytes);
        // At once durable: damage is of the medium, and no crash takes it back.
        node.durable.clone_from(&node.bytes);
        node.unsynced.clear();
        Ok(())
    }
}

impl Contents {
    /// Counts an operation and says what befalls it.
    fn operate(&mut self) -> Option<Fault> {
        let fault = self.faults.remove(&self.operations);
        self.operations += 1;
        // It stays gone: nothing works again before the machine is started anew, whatever other faults were planned.
        self.power_lost |= fault == Some(Fault::PowerLoss);
        if self.power_lost { Some(Fault::PowerLoss) } else { fault }
    }

    /// For an operation that changes nothing and needs no space.
    fn begin_read(&mut self) -> io::Result<()> {
        self.operate_opened().filter(|fault| *fault != Fault::Enospc).map_or(Ok(()), |fault| Err(error(fault)))
    }

    /// For one that opens a file and changes nothing.
    fn begin_open(&mut self) -> io::Result<()> {
        self.operate().filter(|fault| *fault != Fault::Enospc).map_or(Ok(()), |fault| Err(error(fault)))
    }

    /// For an operation that opens nothing.
    fn operate_opened(&mut self) -> Option<Fault> {
        self.operate().filter(|fault| *fault != Fault::Emfile)
    }

    /// Refuses what is denied.
    fn look(&self, path: &Path) -> io::Result<()> {
        match &self.unreadable {
            #[cfg(simulated)]
            Some(denied) if path.starts_with(denied) && super::is_planted(super::Flaw::UnreadableIsAbsent) => {
                Err(io::ErrorKind::NotFound.into())
            }
            Some(denied) if path.starts_with(denied) => Err(io::ErrorKind::PermissionDenied.into()),
            _ => Ok(()),
        }
    }

    fn place(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn node(&mut self, place: usize) -> io::Result<&mut Inode> {
        self.nodes.get_mut(place).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    /// Of the changes in `dir`, the first `count` become durable, the others are no more waited for.
    fn settle_names(&mut self, dir: &Path, count: usize) {
        let (here, elsewhere) = std::mem::take(&mut self.unsynced_names)
            .into_iter()
            .partition::<Vec<_>, _>(|change| change.dir() == Some(dir));
        self.unsynced_names = elsewhere;
        here.iter().take(count).for_each(|change| change.apply(&mut self.durable_names));
    }

    fn unsynced_names_in(&self, dir: &Path) -> usize {
        self.unsynced_names.iter().filter(|change| change.dir() == Some(dir)).count()
    }

    fn lose_power(&mut self, survival: Survival) {
        // A journal keeps the order of the changes in one directory. Between two directories there is none.
        for dir in self.dirs.clone() {
            let all = self.unsynced_names_in(&dir);
            let count = match survival {
                Survival::Nothing => 0,
                Survival::Everything => all,
                Survival::Any(_) => self.random.usize(..=all),
            };
            self.settle_names(&dir, count);
        }
        for node in &mut self.nodes {
            for change in std::mem::take(&mut node.unsynced) {
                match survival {
                    Survival::Nothing => {}
                    Survival::Everything => change.apply(&mut node.durable),
                    Survival::Any(_) => change.apply_partly(&mut node.durable, &mut self.random),
                }
            }
            node.bytes.clone_from(&node.durable);
        }
        self.names.clone_from(&self.durable_names);
        self.locks.clear();
        self.operations = 0;
        self.faults.clear();
        self.power_lost = false;
        self.lies = false;
    }
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::Eio => io::Error::other("input/output error (simulated)"),
        Fault::Enospc => io::Error::new(io::ErrorKind::StorageFull, "no space left (simulated)"),
        Fault::Emfile => io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error()),
        Fault::PowerLoss => io::Error::other("the power is gone (simulated)"),
    }
}

impl NameChange {
    fn dir(&self) -> Option<&Path> {
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::Rename(path, _, _) => path.parent(),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Link(path, place) => {
                names.insert(path.clone(), *place);
            }
            Self::Unlink(path) => {
                names.remove(path);
            }
            Self::Rename(from, to, place) => {
                names.remove(from);
                names.insert(to.clone(), *place);
            }
        }
    }
}

impl UnsyncedChange {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::SetLength(length) => bytes.resize(*length, 0),
            Self::Write(offset, written) => write(bytes, *offset, written),
        }
    }

    /// As a loss of power leaves it: nothing, all, any sectors, or the bytes before any one.
    fn apply_partly(&self, bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
        let Self::Write(offset, written) = self else {
            return if random.bool() {
                self.apply(bytes)
            };
        };
        match random.u8(..4) {
            0 => {}
            1 => self.apply(bytes),
            2 => {
                let torn = random.usize(..=written.len());
                write(bytes, *offset, written.get(..torn).unwrap_or_default());
            }
            _ => {
                let mut at = 0;
                while at < written.len() {
                    let end = written.len().min(at + SECTOR - (offset + at) % SECTOR);
                    if random.bool() {
                        write(bytes, offset + at, written.get(at..end).unwrap_or_default());
                    }
                    at = end;
                }
            }
        }
    }
}

fn write(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    let end = offset + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    if let Some(range) = bytes.get_mut(offset..end) {
        range.copy_from_slice(written);
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        if let Some(fault) = state.operate_opened() {
            return Err(error(fault));
        }
        state.dirs.extend(dir.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut state = self.0.lock();
        state.begin_open()?;
        state.look(dir)?;
        if !state.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let here = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(here.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.begin_open()?;
        state.look(path)?;
        Ok(Arc::new(SimFile { disk: self.clone(), place: state.place(path)? }))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        let fault = state.operate();
        if let Some(fault) = fault.filter(|fault| *fault != Fault::PowerLoss) {
            return Err(error(fault));
        }
        if !path.parent().is_some_and(|dir| state.dirs.contains(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let place = if let Ok(place) = state.place(path) {
            state.node(place)?.change(UnsyncedChange::SetLength(0));
            place
        } else {
            state.nodes.push(Inode::default());
            let place = state.nodes.len() - 1;
            state.change_names(NameChange::Link(path.to_path_buf(), place));
            place
        };
        fault.map_or(Ok(()), |fault| Err(error(fault)))?;
        Ok(Arc::new(SimFile { disk: self.clone(), place }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if from.parent() != to.parent() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut state = self.0.lock();
        let fault = state.operate_opened().filter(|fault| *fault != Fault::Enospc);
        let place = state.place(from)?;
        // With the power gone it may still have happened, which the crash decides.
        if fault != Some(Fault::Eio) {
            state.change_names(NameChange::Rename(from.to_path_buf(), to.to_path_buf(), place));
        }
        fault.map_or(Ok(()), |fault| Err(error(fault)))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        let fault = state.operate_opened().filter(|fault| *fault != Fault::Enospc);
        state.place(path)?;
        if fault != Some(Fault::Eio) {
            state.change_names(NameChange::Unlink(path.to_path_buf()));
        }
        fault.map_or(Ok(()), |fault| Err(error(fault)))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        let all = state.unsynced_names_in(dir);
        match state.operate().filter(|fault| *fault != Fault::Enospc) {
            None => state.settle_names(dir, all),
            Some(Fault::Eio) => {
                let part = state.random.usize(..=all);
                state.settle_names(dir, part);
                return Err(error(Fault::Eio));
            }
            Some(fault) => return Err(error(fault)),
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let missing = self.0.lock().place(path).is_err();
        if missing {
            self.create(path)?;
        }
        let mut state = self.0.lock();
        if !state.locks.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { disk: self.clone(), path: path.to_path_buf() }))
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.0.lock().locks.remove(&self.path);
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    place: usize,
}

impl Inode {
    fn change(&mut self, change: UnsyncedChange) {
        change.apply(&mut self.bytes);
        self.unsynced.push(change);
    }
}

impl DiskFile for SimFile {
    fn length(&self) -> io::Result<u64> {
        let mut state = self.disk.0.lock();
        state.begin_read()?;
        Ok(state.node(self.place)?.bytes.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.0.lock();
        state.begin_read()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let rest = state.node(self.place)?.bytes.get(offset..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..read), rest.get(..read)) {
            to.copy_from_slice(from);
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let fault = state.operate_opened();
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        // A write under which the power goes counts as whole here: the crash decides how much of it is found.
        let written = match fault {
            None | Some(Fault::PowerLoss) => bytes.len(),
            Some(Fault::Eio | Fault::Enospc | Fault::Emfile) => state.random.usize(..=bytes.len()),
        };
        state
            .node(self.place)?
            .change(UnsyncedChange::Write(offset, bytes.get(..written).unwrap_or_default().to_vec()));
        fault.map_or(Ok(()), |fault| Err(error(fault)))
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let fault = state.operate_opened();
        let length = usize::try_from(length).map_err(io::Error::other)?;
        // As for a write: with the power gone, the crash decides whether it has happened.
        if matches!(fault, None | Some(Fault::PowerLoss)) {
            state.node(self.place)?.change(UnsyncedChange::SetLength(length));
        }
        fault.map_or(Ok(()), |fault| Err(error(fault)))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let fault = state.operate_opened().filter(|fault| *fault != Fault::Enospc);
        let Contents { nodes, random, lies, .. } = &mut *state;
        let node = nodes.get_mut(self.place).ok_or(io::ErrorKind::NotFound)?;
        match fault {
            // What is not durable stays with the others that were not synced: an honest sync later makes it so.
            None if *lies => Ok(()),
            None => {
                for change in std::mem::take(&mut node.unsynced) {
                    change.apply(&mut node.durable);
                }
                Ok(())
            }
            Some(Fault::Eio) => {
                for change in std::mem::take(&mut node.unsynced) {
                    change.apply_partly(&mut node.durable, random);
                }
                Err(error(Fault::Eio))
            }
            Some(fault) => Err(error(fault)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::read_all;

    fn disk_with(bytes: &[u8]) -> (SimDisk, Arc<dyn DiskFile>) {
        let disk = SimDisk::new(1);
        disk.create_dir(Path::new("/d")).unwrap();
        let file = disk.create(Path::new("/d/f")).unwrap();
        file.write_at(bytes, 0).unwrap();
        (disk, file)
    }

    fn found(disk: &SimDisk) -> Option<Vec<u8>> {
        disk.open(Path::new("/d/f")).ok().map(|file| read_all(&*file).unwrap())
    }

    #[test]
    fn a_crash_loses_what_was_not_synced() {
        let (disk, file) = disk_with(b"old");
        assert_eq!(found(&disk.crash(Survival::Nothing)), None, "neither name nor bytes were synced");
        file.sync_data().unwrap();
        assert_eq!(found(&disk.crash(Survival::Nothing)), None, "the name was not synced");
        disk.sync_dir(Path::new("/d")).unwrap();
        assert_eq!(found(&disk.crash(Survival::Nothing)).unwrap(), b"old");
        file.write_at(b"new", 0).unwrap();
        assert_eq!(found(&disk).unwrap(), b"new");
        assert_eq!(found(&disk.crash(Survival::Nothing)).unwrap(), b"old");
        assert_eq!(found(&disk.crash(Survival::Everything)).unwrap(), b"new");
    }

    #[test]
    fn a_crash_tears_writes_at_any_byte_and_repeats_itself_for_a_seed() {
        let (disk, file) = disk_with(&[1; 2000]);
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_at(&[2; 2000], 0).unwrap();
        let torn: Vec<_> = (0..200).map(|seed| found(&disk.crash(Survival::Any(seed))).unwrap()).collect();
        assert!(
            torn.iter().any(|bytes| bytes.windows(2).any(|pair| pair == [1, 2])),
            "a later sector without an earlier"
        );
        assert!(
            torn.iter().any(|bytes| bytes.iter().filter(|byte| **byte == 2).count() % SECTOR != 0),
            "a part of a sector"
        );
        let again: Vec<_> = (0..200).map(|seed| found(&disk.crash(Survival::Any(seed))).unwrap()).collect();
        assert_eq!(torn, again);
    }

    #[test]
    fn a_sync_after_a_failed_one_succeeds_without_the_data() {
        let mut lost = 0;
        for seed in 0..20 {
            let disk = SimDisk::new(seed);
            disk.create_dir(Path::new("/d")).unwrap();
            let file = disk.create(Path::new("/d/f")).unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            file.write_at(b"data", 0).unwrap();
            disk.fail_at(disk.operations(), Fault::Eio);
            file.sync_data().unwrap_err();
            file.sync_data().unwrap();
            assert_eq!(found(&disk).unwrap(), b"data", "the page cache still has it");
            lost += usize::from(found(&disk.crash(Survival::Everything)).unwrap() != b"data");
        }
        assert!(lost > 0);
    }

    #[test]
    fn a_rename_is_found_whole_or_not_at_all() {
        let (disk, file) = disk_with(b"x");
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        disk.rename(Path::new("/d/f"), Path::new("/d/g")).unwrap();
        let names: BTreeSet<_> =
            (0..50).map(|seed| disk.crash(Survival::Any(seed)).list(Path::new("/d")).unwrap()).collect();
        assert_eq!(names, BTreeSet::from([vec!["f".to_owned()], vec!["g".to_owned()]]));
    }

    #[test]
    fn a_full_disk_fails_writes_and_nothing_else() {
        let (disk, file) = disk_with(b"x");
        disk.fail_at(disk.operations(), Fault::Enospc);
        assert_eq!(file.write_at(b"yy", 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.fail_at(disk.operations(), Fault::Enospc);
        file.sync_data().unwrap();
    }
}
