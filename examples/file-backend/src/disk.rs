//! The state in a file: written aside, synced, renamed, and the directory synced.
//!
//! Invariants: one process has the directory; the file has the name of the state only once it is whole and on stable
//! storage. After an error from the rename on nobody knows what is there, so nothing is answered before the file is
//! read again.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use storage_core::{Error, Result};

use crate::state::State;

/// The data in its directory, which no other process may use while this lives.
#[derive(Debug)]
pub(crate) struct Disk {
    dir: PathBuf,
    state: State,
    /// It is not known which state is on the disk, so no answer can be given before the file is read again.
    in_doubt: bool,
    _lock: File,
}

impl Disk {
    /// Opens a directory that exists.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a damaged file; [`Error::Unavailable`] if another process has the directory, or the disk fails.
    pub(crate) fn open(dir: PathBuf) -> Result<Self> {
        let lock = File::create(dir.join("LOCK")).map_err(Error::unavailable)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Error::unavailable(format!("another process uses {}", dir.display())),
            TryLockError::Error(error) => Error::unavailable(error),
        })?;
        let state = match fs::read(state_file(&dir)) {
            Ok(bytes) => State::decode(&bytes.into())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::default(),
            Err(error) => return Err(Error::unavailable(error)),
        };
        // A process that ended between renaming and syncing leaves a file that a loss of power could still undo. What
        // is read from here on must stay.
        sync_dir(&dir).and_then(|()| dir.parent().map_or(Ok(()), sync_dir)).map_err(Error::unavailable)?;
        Ok(Self { dir, state, in_doubt: false, _lock: lock })
    }

    /// The state that is on the disk.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if that is in doubt.
    pub(crate) fn state(&self) -> Result<&State> {
        if self.in_doubt {
            return Err(Error::unavailable("the disk has failed: close every handle and open the store again"));
        }
        Ok(&self.state)
    }

    /// Puts another state in the place of this one: both in a moment, whatever crashes.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: this state is still there. [`Error::UnknownOutcome`]: either may be.
    pub(crate) fn replace(&mut self, next: State) -> Result<()> {
        let aside = self.dir.join("state.new");
        // Until it has the name of the state, a file is nothing: whatever fails here has changed nothing.
        write(&aside, &next.encode()).map_err(Error::unavailable)?;
        // From here on the next state may be what a later start finds, even if an error comes back.
        if let Err(error) = fs::rename(&aside, state_file(&self.dir)).and_then(|()| sync_dir(&self.dir)) {
            self.in_doubt = true;
            return Err(Error::unknown_outcome(error));
        }
        self.state = next;
        Ok(())
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A name is durable once its directory is synced.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn state_file(dir: &Path) -> PathBuf {
    dir.join("state")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use storage_core::{Key, Txn};

    use super::*;

    #[test]
    fn a_write_that_fails_before_the_rename_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = Disk::open(folder.path().to_owned()).unwrap();
        let (next, ..) = disk.state().unwrap().after(Txn::new().put(Key::try_from("a").unwrap(), "1").ops);
        // A directory in the way of the file: it can neither be created nor written.
        fs::create_dir(folder.path().join("state.new")).unwrap();
        assert!(matches!(disk.replace(next.clone()), Err(Error::Unavailable { .. })));
        assert_eq!(disk.state().unwrap(), &State::default());
        fs::remove_dir(folder.path().join("state.new")).unwrap();
        disk.replace(next.clone()).unwrap();
        drop(disk);
        assert_eq!(Disk::open(folder.path().to_owned()).unwrap().state().unwrap(), &next);
    }

    #[test]
    fn a_write_that_fails_at_the_rename_is_in_doubt_and_nothing_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = Disk::open(folder.path().to_owned()).unwrap();
        fs::create_dir(state_file(folder.path())).unwrap();
        assert!(matches!(disk.replace(State::default()), Err(Error::UnknownOutcome { .. })));
        assert!(matches!(disk.state(), Err(Error::Unavailable { .. })));
    }

    #[test]
    fn a_directory_in_use_is_refused_for_now() {
        let folder = tempfile::tempdir().unwrap();
        let first = Disk::open(folder.path().to_owned()).unwrap();
        assert!(matches!(Disk::open(folder.path().to_owned()), Err(Error::Unavailable { .. })));
        drop(first);
        Disk::open(folder.path().to_owned()).unwrap();
    }
}
