//! An open snapshot file.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;

use crate::disk::{Disk, DiskFile, parent};

/// How many bytes of a file are sent at once, at most.
const SEND_BYTES: usize = 256 << 10;

/// A snapshot in a file that is complete and synced. It stays readable after a newer snapshot has replaced it.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    path: Arc<Path>,
    file: Arc<dyn DiskFile>,
    length: u64,
    /// For a file that has no lasting name yet.
    temporary: Option<Arc<TemporaryFile>>,
}

impl SnapshotFile {
    /// Opens the file with a lasting name.
    pub(super) fn open(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        let file = disk.open_to_read(path)?;
        Ok(Self { path: path.into(), length: file.length()?, file, temporary: None })
    }

    /// A file without a lasting name, complete and synced; it is removed when it is dropped without having been given one.
    pub(super) fn temporary(temporary: TemporaryFile) -> io::Result<Self> {
        let file = temporary.file.clone();
        let path = temporary.path.as_path().into();
        Ok(Self { path, length: file.length()?, file, temporary: Some(Arc::new(temporary)) })
    }

    /// Where it was when it was opened; for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn file(&self) -> &dyn DiskFile {
        &*self.file
    }

    /// The file that has no lasting name yet, if this is one.
    pub(super) fn unnamed(&self) -> Option<&TemporaryFile> {
        self.temporary.as_deref()
    }

    /// Its bytes, in pieces of up to 256 KiB.
    ///
    /// # Errors
    /// Those of reading; they come with the pieces.
    pub(crate) fn open_chunks(&self) -> io::Result<impl Iterator<Item = io::Result<Bytes>> + Send + use<>> {
        let (file, length) = (self.file.clone(), self.length);
        Ok((0..length).step_by(SEND_BYTES).map(move |offset| {
            let wanted = usize::try_from(length - offset).map_or(SEND_BYTES, |rest| rest.min(SEND_BYTES));
            let mut chunk = vec![0; wanted];
            if file.read_at(&mut chunk, offset)? < wanted {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(chunk.into())
        }))
    }
}

/// A file that is removed when it is dropped, unless it was given a lasting name.
#[derive(Debug)]
pub(super) struct TemporaryFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    kept: AtomicBool,
}

impl TemporaryFile {
    pub(super) fn create(disk: Arc<dyn Disk>, path: PathBuf) -> io::Result<Self> {
        let file = disk.create(&path)?;
        Ok(Self { disk, path, file, kept: AtomicBool::new(false) })
    }

    pub(super) fn file(&self) -> &dyn DiskFile {
        &*self.file
    }

    /// Gives it a lasting name in its directory. Durable when it returns. What was missing for that may be there when it is called again.
    pub(super) fn keep(&self, path: &Path) -> io::Result<()> {
        if !self.kept.load(Ordering::Relaxed) {
            self.disk.rename(&self.path, path)?;
            self.kept.store(true, Ordering::Relaxed);
        }
        parent(path).map_or(Ok(()), |dir| self.disk.sync_dir(dir))
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Relaxed)
            && let Err(error) = self.disk.remove(&self.path)
        {
            // It is removed at the next start.
            tracing::debug!(path = %self.path.display(), %error, "cannot remove an unfinished snapshot");
        }
    }
}
