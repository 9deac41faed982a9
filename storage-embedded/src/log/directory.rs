//! The directory of a log: begins segments, keeps files ready for them, and takes back those that are not needed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::LogOptions;
use super::error::LogError;
use super::record::{SEGMENT_HEADER, SegmentHeader};
use super::recovery::SPARE_SUFFIX;
use super::segment::{Segment, SegmentName};
use crate::disk::Disk;

/// How much is written at once to fill a file with zeros. The page cache keeps what one call writes in large pieces, and a sync
/// looks at, and the system accounts for, the whole piece around a few changed bytes: with 1 MiB a sync took 33 to 46 us of
/// processor time, with this 27 us.
const ZEROS: usize = 16 << 10;
/// How many files are kept ready at most. More than one, since a purge frees many at once and they will be used again.
const MAX_SPARES: usize = 4;

#[derive(Debug)]
pub(super) struct Directory {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) path: PathBuf,
    segment_bytes: u64,
    state: Mutex<State>,
    taken: Condvar,
}

#[derive(Debug)]
struct State {
    /// Files of the length of a segment. What is in them does not matter.
    spares: Vec<PathBuf>,
    random: fastrand::Rng,
    closed: bool,
}

impl Directory {
    pub(super) fn new(disk: Arc<dyn Disk>, path: &Path, options: &LogOptions) -> Self {
        let random = options.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let state = Mutex::new(State { spares: Vec::new(), random, closed: false });
        Self { disk, path: path.to_path_buf(), segment_bytes: options.segment_bytes, state, taken: Condvar::new() }
    }

    /// Keeps what an earlier run had prepared, and removes what it left half done.
    pub(super) fn adopt(&self, spares: Vec<PathBuf>) -> Result<(), LogError> {
        for path in spares {
            let file = self.disk.open(&path).map_err(|error| LogError::disk(&path, error))?;
            let length = file.length().map_err(|error| LogError::disk(&path, error))?;
            let mut state = self.state.lock();
            if length == self.segment_bytes && state.spares.len() < MAX_SPARES {
                state.spares.push(path);
            } else {
                drop(state);
                self.remove(&path)?;
            }
        }
        Ok(())
    }

    /// Creates a segment with room for a batch of `room` bytes. It is durable, with its header, when this returns.
    pub(super) fn begin(&self, mut header: SegmentHeader, room: usize) -> Result<Segment, LogError> {
        header.nonce = self.state.lock().random.u64(..);
        header.size = self.segment_bytes.max((SEGMENT_HEADER + room) as u64);
        let spare = if header.size == self.segment_bytes { self.take_spare() } else { None };
        let spare = spare.map_or_else(|| self.make_spare(header.size), Ok)?;
        let name = SegmentName { sequence: header.sequence, nonce: header.nonce };
        let path = name.path(&self.path);
        let failed = |error| LogError::disk(&path, error);
        self.disk.rename(&spare, &path).map_err(failed)?;
        let file = self.disk.open(&path).map_err(failed)?;
        file.write_at(&header.encode(), 0).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        self.sync()?;
        Ok(Segment { name, path, file, size: header.size })
    }

    /// Takes segments back, oldest first: keeps some as spares and removes the others.
    pub(super) fn reclaim(&self, segments: Vec<Arc<Segment>>) -> Result<(), LogError> {
        if segments.is_empty() {
            return Ok(());
        }
        for segment in segments {
            // Whoever still reads from a segment must not see it overwritten: then it is only removed.
            let full = self.state.lock().spares.len() >= MAX_SPARES;
            if full || segment.size != self.segment_bytes || Arc::strong_count(&segment) > 1 {
                self.remove(&segment.path)?;
            } else {
                let spare = self.spare_path();
                self.disk.rename(&segment.path, &spare).map_err(|error| LogError::disk(&segment.path, error))?;
                self.state.lock().spares.push(spare);
            }
        }
        // Before a file is overwritten, the name of the segment that it was must be gone.
        self.sync()
    }

    pub(super) fn remove(&self, path: &Path) -> Result<(), LogError> {
        self.disk.remove(path).map_err(|error| LogError::disk(path, error))
    }

    pub(super) fn sync(&self) -> Result<(), LogError> {
        self.disk.sync_dir(&self.path).map_err(|error| LogError::disk(&self.path, error))
    }

    /// Keeps a spare ready until the log is closed. For a thread of its own: filling a file takes tens of milliseconds.
    pub(super) fn prepare_spares(&self) {
        loop {
            {
                let mut state = self.state.lock();
                while !state.closed && !state.spares.is_empty() {
                    self.taken.wait(&mut state);
                }
                if state.closed {
                    return;
                }
            }
            match self.make_spare(self.segment_bytes) {
                Ok(path) => self.state.lock().spares.push(path),
                Err(error) => {
                    // The writer will need it, try again, and stop the log if it fails too.
                    tracing::warn!(%error, "cannot prepare a log segment");
                    let mut state = self.state.lock();
                    if !state.closed {
                        self.taken.wait(&mut state);
                    }
                }
            }
        }
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.taken.notify_all();
    }

    fn take_spare(&self) -> Option<PathBuf> {
        let spare = self.state.lock().spares.pop();
        self.taken.notify_all();
        spare
    }

    /// Overwriting blocks that are on disk already syncs faster than extending a file.
    fn make_spare(&self, size: u64) -> Result<PathBuf, LogError> {
        let path = self.spare_path();
        let filled = self.disk.create(&path).and_then(|file| {
            let zeros = vec![0; ZEROS.min(usize::try_from(size).unwrap_or(ZEROS))];
            let mut at = 0;
            while at < size {
                let length = usize::try_from(size - at).map_or(zeros.len(), |left| left.min(zeros.len()));
                file.write_at(zeros.get(..length).unwrap_or(&zeros), at)?;
                at += length as u64;
            }
            file.sync_data()
        });
        if let Err(error) = filled {
            // It may not even exist. If it cannot be removed now, it is when the log is opened again.
            let _ = self.disk.remove(&path);
            return Err(LogError::disk(&path, error));
        }
        Ok(path)
    }

    fn spare_path(&self) -> PathBuf {
        self.path.join(format!("{:016x}{SPARE_SUFFIX}", self.state.lock().random.u64(..)))
    }
}
