//! The directory of a log: begins segments, keeps files ready for them, and takes back those that are not needed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::LogOptions;
use super::data_dir::IdentityFile;
use super::error::LogError;
use super::record::{SEGMENT_HEADER, SegmentHeader};
use super::recovery::SPARE_SUFFIX;
use super::segment::{Segment, SegmentName};
use crate::disk::{Disk, DiskFile, lacks_descriptors};

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
    /// Where it is remembered which segment is the newest.
    identity: Option<Arc<IdentityFile>>,
    spares: Mutex<Spares>,
    taken: Condvar,
}

#[derive(Debug)]
struct Spares {
    /// Files of the length of a segment. What is in them does not matter.
    ready: Vec<PathBuf>,
    /// Segments that nothing needs any more, but that somebody still reads, or that could not be removed.
    in_use: Vec<Arc<Segment>>,
    /// Files that were segments: spares when the loss of those names is durable.
    renamed: Vec<PathBuf>,
    random: fastrand::Rng,
    closed: bool,
}

impl Directory {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        path: &Path,
        options: &LogOptions,
        identity: Option<Arc<IdentityFile>>,
    ) -> Self {
        let random = options.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let spares =
            Mutex::new(Spares { ready: Vec::new(), in_use: Vec::new(), renamed: Vec::new(), random, closed: false });
        let (path, segment_bytes) = (path.to_path_buf(), options.segment_bytes);
        Self { disk, path, segment_bytes, identity, spares, taken: Condvar::new() }
    }

    /// Keeps what an earlier run had prepared, and removes what it left half done.
    pub(super) fn adopt(&self, spares: Vec<PathBuf>) -> Result<(), LogError> {
        for path in spares {
            let file = self.disk.open(&path).map_err(|error| LogError::disk(&path, error))?;
            let length = file.length().map_err(|error| LogError::disk(&path, error))?;
            let mut spares = self.spares.lock();
            if length == self.segment_bytes && spares.ready.len() < MAX_SPARES {
                spares.ready.push(path);
            } else {
                drop(spares);
                self.remove(&path)?;
            }
        }
        Ok(())
    }

    /// Creates a segment with room for a batch of `room` bytes, and opens it for writing. It is durable, with its header, when [`Directory::sync`] has
    /// returned after this, and may be written when [`Directory::remember`] has.
    ///
    /// # Errors
    /// [`LogError::NoSegment`] if it may be tried again.
    pub(super) fn begin(
        &self,
        mut header: SegmentHeader,
        room: usize,
    ) -> Result<(Segment, Arc<dyn DiskFile>), LogError> {
        // Random, so that no value of a client and no earlier life of the file can hold a batch that is taken for one of this segment.
        header.nonce = self.spares.lock().random.u64(..);
        header.size = self.segment_bytes.max((SEGMENT_HEADER + room) as u64);
        let spare = if header.size == self.segment_bytes { self.take_spare() } else { None };
        let spare = spare.map_or_else(|| self.with_reserve(|| self.make_spare(header.size)), Ok);
        let spare = spare.map_err(LogError::before_a_segment)?;
        let name = SegmentName { sequence: header.sequence, nonce: header.nonce };
        let path = name.path(&self.path);
        // Opened and written under the name of a spare: whatever is missing for that, the log is as it was. The nonce in the name is what the checksums
        // begin with, so what a recycled file holds from before means nothing under it.
        let begun = self.disk.open(&spare).and_then(|file| {
            file.write_at(&header.encode(), 0)?;
            file.sync_data()?;
            self.disk.rename(&spare, &path)?;
            Ok(file)
        });
        match begun {
            Ok(file) => {
                // There is room again for those that could not be prepared.
                self.taken.notify_all();
                Ok((Segment { name, path, size: header.size }, file))
            }
            Err(error) if lacks_descriptors(&error) && header.size == self.segment_bytes => {
                self.spares.lock().ready.push(spare);
                Err(LogError::disk(&path, error).before_a_segment())
            }
            Err(error) => {
                // Nobody knows what is in it. If it cannot be removed now, it is when the log is opened again.
                let _ = self.disk.remove(&spare);
                Err(LogError::disk(&path, error).before_a_segment())
            }
        }
    }

    /// Takes segments back, oldest first: keeps some as spares and removes the others. Those that somebody still reads wait for the next
    /// time, or the next start: a reader opens their files by name, and must not find them gone or overwritten.
    pub(super) fn reclaim(&self, segments: Vec<Arc<Segment>>) -> Result<(), LogError> {
        let unneeded = {
            let mut spares = self.spares.lock();
            spares.in_use.extend(segments);
            let (in_use, unneeded) = spares.in_use.drain(..).partition(|segment| Arc::strong_count(segment) > 1);
            spares.in_use = in_use;
            unneeded
        };
        self.recycle(unneeded)
    }

    fn recycle(&self, segments: Vec<Arc<Segment>>) -> Result<(), LogError> {
        if segments.is_empty() {
            return Ok(());
        }
        for segment in segments {
            let full = {
                let spares = self.spares.lock();
                spares.ready.len() + spares.renamed.len() >= MAX_SPARES
            };
            let spare = (!full && segment.size == self.segment_bytes).then(|| self.spare_path());
            let gone = match &spare {
                Some(spare) => self.disk.rename(&segment.path, spare),
                None => self.disk.remove(&segment.path),
            };
            match gone {
                Ok(()) => self.spares.lock().renamed.extend(spare),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    // It takes room and does no harm: what it holds is known to be given up.
                    tracing::warn!(segment = %segment.path.display(), %error, "cannot give up a log segment");
                    self.spares.lock().in_use.push(segment);
                }
            }
        }
        // Before a file is overwritten, the name of the segment that it was must be gone.
        match self.sync() {
            // Then it is gone at the next time, or the next start.
            Err(error) if error.lacks_descriptors() => Ok(()),
            synced => {
                synced?;
                let mut spares = self.spares.lock();
                let renamed = std::mem::take(&mut spares.renamed);
                spares.ready.extend(renamed);
                Ok(())
            }
        }
    }

    pub(super) fn remove(&self, path: &Path) -> Result<(), LogError> {
        self.disk.remove(path).map_err(|error| LogError::disk(path, error))
    }

    pub(super) fn sync(&self) -> Result<(), LogError> {
        self.disk.sync_dir(&self.path).map_err(|error| LogError::disk(&self.path, error))
    }

    /// Remembers that a segment is the newest, so that its loss is noticed. For one that is durable, and before anything is written to it: of one that is
    /// remembered sooner or later than it is there, a crash would look like a loss, or the other way round.
    ///
    /// # Errors
    /// [`LogError::NoSegment`] if it may be tried again.
    pub(super) fn remember(&self, sequence: u64) -> Result<(), LogError> {
        let note = || self.identity.as_ref().map_or(Ok(()), |identity| identity.note_segment(sequence));
        self.with_reserve(note).map_err(LogError::before_a_segment)
    }

    /// Works, and once more if there was no space and some was held in reserve. For what nothing depends on before it has succeeded.
    fn with_reserve<T>(&self, work: impl Fn() -> Result<T, LogError>) -> Result<T, LogError> {
        match work() {
            Err(error) if error.lacks_space() && self.disk.give_way() => work(),
            done => done,
        }
    }

    /// Keeps a spare ready until the log is closed. For a thread of its own: filling a file takes tens of milliseconds.
    pub(super) fn prepare_spares(&self) {
        let mut is_said = false;
        loop {
            {
                let mut spares = self.spares.lock();
                while !spares.closed && !spares.ready.is_empty() {
                    self.taken.wait(&mut spares);
                }
                if spares.closed {
                    return;
                }
            }
            match self.make_spare(self.segment_bytes) {
                Ok(path) => {
                    is_said = false;
                    self.spares.lock().ready.push(path);
                }
                Err(error) => {
                    // The writer will need it, and try again. Until it has begun a segment, there is no room for another.
                    if !std::mem::replace(&mut is_said, true) {
                        tracing::warn!(%error, "cannot prepare a log segment");
                    }
                    let mut spares = self.spares.lock();
                    if !spares.closed {
                        self.taken.wait(&mut spares);
                    }
                }
            }
        }
    }

    pub(super) fn close(&self) {
        self.spares.lock().closed = true;
        self.taken.notify_all();
    }

    fn take_spare(&self) -> Option<PathBuf> {
        let spare = self.spares.lock().ready.pop();
        if spare.is_some() {
            self.taken.notify_all();
        }
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
                let (piece, _) = zeros.split_at(length);
                file.write_at(piece, at)?;
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
        self.path.join(format!("{:016x}{SPARE_SUFFIX}", self.spares.lock().random.u64(..)))
    }
}
