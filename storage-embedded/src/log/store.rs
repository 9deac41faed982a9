//! The log itself.

#[cfg(simulated)]
mod simulated;

use std::any::Any;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::{oneshot, watch};

#[cfg(simulated)]
pub(crate) use simulated::hash;

use super::LogOptions;
use super::data_dir::{DataDir, IdentityFile};
use super::directory::Directory;
use super::error::{LogError, Stopped};
use super::index::Index;
use super::metrics::{Counters, LogMetrics};
use super::queue::{Done, Queue};
use super::record::{Record, Summary};
use super::recovery::{self, Found};
use super::writer::{Resume, Writer};
use crate::disk::Disk;
use crate::panics;
use crate::raft::{Entry, LogId};

/// How many bytes may wait for the thread. Beyond it, an append returns when it is durable.
const MAX_QUEUED_BYTES: usize = 64 << 20;

/// How soon it is tried again to begin a segment for which there was no file, or to open one to read it. Filling a file takes a disk tens of
/// milliseconds, and who waits has been told to come back.
pub(super) const TRIED_AGAIN: Duration = Duration::from_millis(250);

/// How many bytes of entries are read at once, for a message to a follower or to be applied; an entry that is longer is read alone.
pub(super) const MAX_READ: usize = 4 << 20;

/// The log of a replica. Clones are the same log; it is closed when the last one is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Log(Arc<Owner>);

/// Closes the log when the last handle goes. The threads hold only what is shared.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    dir: Mutex<Option<DataDir>>,
}

/// Locks are taken in the order of the fields, and none is held during a call of the disk but the writer's.
#[derive(Debug)]
pub(super) struct Shared {
    writer: Mutex<Writer>,
    pub(super) queue: Mutex<Queue>,
    pub(super) index: RwLock<Index>,
    work: Condvar,
    inline: AtomicBool,
    background: bool,
    failure: watch::Sender<Option<Stopped>>,
    /// Why no segment can be begun at present: what is to be written waits.
    waits: watch::Sender<Option<Arc<LogError>>>,
    /// Whether it is tried again to begin a segment, and to open one to read it.
    is_patient: AtomicBool,
    directory: Arc<Directory>,
    counters: Counters,
    #[cfg(simulated)]
    machine: Option<simulated::Writing>,
}

impl Log {
    /// Opens the log of a node, and keeps the lock of the directory until it is closed.
    ///
    /// # Errors
    /// As [`Log::open_in`].
    pub(crate) fn open(dir: DataDir, options: &LogOptions) -> Result<Self, LogError> {
        let log = Self::open_in(Arc::clone(&dir.disk), &dir.log(), options, Some(dir.identity()))?;
        *log.0.dir.lock() = Some(dir);
        Ok(log)
    }

    /// Opens the log in a directory, which is created if it is missing, and begins a new segment. An `identity` remembers which one is the newest.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Missing`] and [`LogError::NewerFormat`] after nothing was changed; [`LogError::Full`],
    /// [`LogError::ReadOnly`] and [`LogError::Disk`]. It can be opened again when the reason is gone.
    pub(super) fn open_in(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: &LogOptions,
        identity: Option<Arc<IdentityFile>>,
    ) -> Result<Self, LogError> {
        let needed = identity.as_ref().map_or(Ok(0), |identity| identity.needed_segment())?;
        let Found { mut index, previous, next_sequence, next_batch, tail, leftovers, spares } =
            recovery::recover(&*disk, dir, options, needed)?;
        // Nothing was changed until here, so a directory that cannot be understood is left for an operator to look at.
        disk.create_dir(dir).map_err(|error| LogError::disk(dir, error))?;
        if let Some(tail) = tail {
            tail.make_durable(&*disk)?;
        }
        let directory = Arc::new(Directory::new(disk, dir, options, identity));
        directory.adopt(spares)?;
        let summary = index.summary;
        let resume = Resume { sequence: next_sequence, next_batch, previous, summary };
        let writer = Writer::begin(Arc::clone(&directory), resume).map_err(|error| match error {
            // Nothing runs yet that could wait.
            LogError::NoSegment { source } => *source,
            error => error,
        })?;
        // The new segment states where the one before it ends; what is left of it after that is not needed.
        if let Some((previous, segment)) = previous.and_then(|p| Some((p, index.segments.get(&p.sequence)?))) {
            let cut =
                directory.disk.open(&segment.path).and_then(|file| file.set_length(previous.end.max(segment.size)));
            cut.map_err(|error| LogError::disk(&segment.path, error))?;
        }
        for path in &leftovers {
            directory.remove(path)?;
        }
        index.segments.insert(next_sequence, Arc::clone(writer.segment()));
        let shared = Arc::new(Shared {
            writer: Mutex::new(writer),
            queue: Mutex::new(Queue::new(summary)),
            index: RwLock::new(index),
            work: Condvar::new(),
            inline: AtomicBool::new(true),
            background: options.background,
            failure: watch::Sender::new(None),
            waits: watch::Sender::new(None),
            is_patient: AtomicBool::new(true),
            directory,
            counters: Counters::default(),
            #[cfg(simulated)]
            machine: options.machine.clone().map(simulated::Writing::new),
        });
        #[cfg(simulated)]
        let options = &simulated::begin(&shared, options);
        let threads = if options.background { Shared::spawn(&shared, options, dir)? } else { Vec::new() };
        Ok(Self(Arc::new(Owner { shared, threads: Mutex::new(threads), dir: Mutex::new(None) })))
    }

    /// Whether an append writes and syncs before it returns: best for a single node and for followers. Otherwise a
    /// thread does it, and what arrives during one sync goes with the next: best for a leader, whose
    /// followers get the entries meanwhile. True at first; without background threads always true.
    pub(crate) fn sync_inline(&self, inline: bool) {
        self.0.shared.inline.store(inline, Ordering::Relaxed);
    }

    /// Why the log takes no more writes, if it does not. The node must stop then.
    #[must_use]
    pub(crate) fn failure(&self) -> Option<Stopped> {
        self.0.shared.failure.borrow().clone()
    }

    /// Tells when the log fails.
    #[must_use]
    pub(crate) fn watch_failure(&self) -> watch::Receiver<Option<Stopped>> {
        self.0.shared.failure.subscribe()
    }

    /// What the log waits for, in words, while there is no file for its next segment. Nothing is lost, and nothing becomes durable meanwhile.
    #[must_use]
    pub(crate) fn waits(&self) -> Option<String> {
        self.0.shared.waits.borrow().as_ref().map(ToString::to_string)
    }

    /// Returns when the log waits for a file, with what it waits for, in words.
    #[expect(clippy::expect_used, reason = "the sender is here")]
    pub(crate) async fn begins_to_wait(&self) -> String {
        let mut waits = self.0.shared.waits.subscribe();
        let waits = waits.wait_for(Option::is_some).await.expect("the sender is here");
        waits.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// Waits for no file any more: a log that does fails, so that whoever waits for it is told. For a node that stops.
    pub(crate) fn wait_no_more(&self) {
        let shared = &self.0.shared;
        shared.is_patient.store(false, Ordering::Release);
        if shared.is_waiting() {
            // The last try.
            let _ = shared.flush();
        }
    }

    /// Whether nothing was ever written to it: no entry and no vote.
    #[must_use]
    pub(crate) fn is_untouched(&self) -> bool {
        let Summary { vote, purged, last, .. } = self.0.shared.summary();
        vote.is_none() && purged.is_none() && last.is_none()
    }

    /// Whether this node has voted, for itself or another: nothing of a cluster happens without it.
    pub(crate) fn has_voted(&self) -> bool {
        self.0.shared.summary().vote.is_some()
    }

    /// The entries up to this one were given up.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.0.shared.summary().purged
    }

    /// How many bytes of the disk the entries behind `after` take, up to the one at `upto`.
    pub(crate) fn bytes_between(&self, after: Option<u64>, upto: u64) -> u64 {
        self.0.shared.index.read().bytes_between(after, upto)
    }

    /// The last entry that more than `bytes` follow.
    pub(crate) fn last_before(&self, bytes: u64) -> Option<u64> {
        self.0.shared.index.read().last_before(bytes)
    }

    /// Entries from `next` on that are known to be committed: some at a time, and none when there are no more.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] and [`LogError::Disk`].
    pub(crate) fn committed_from(&self, next: u64) -> Result<Vec<Entry>, LogError> {
        let end = self.0.shared.summary().committed.map_or(0, |committed| committed.index + 1);
        self.0.shared.read(next..end, MAX_READ)
    }

    /// What it has counted.
    #[must_use]
    pub(crate) fn metrics(&self) -> LogMetrics {
        let queued = self.0.shared.queue.lock().bytes;
        self.0.shared.counters.read(queued, self.0.shared.is_waiting())
    }

    /// Writes what waits and a confirmation, and takes no more. Blocks the thread for a few syncs.
    ///
    /// # Errors
    /// Why the log has failed, if it has.
    pub(crate) fn close(&self) -> Result<(), Stopped> {
        self.0.close()
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0.shared
    }
}

impl Owner {
    fn close(&self) -> Result<(), Stopped> {
        let shared = &self.shared;
        let first = !std::mem::replace(&mut shared.queue.lock().closing, true);
        shared.work.notify_all();
        #[cfg(simulated)]
        shared.ask();
        shared.directory.close();
        for thread in self.threads.lock().drain(..) {
            // What a panic in it said is the log's failure.
            let _ = thread.join();
        }
        if first && shared.failure.borrow().is_none() {
            shared.queue.lock().push(&Record::Confirmation);
        }
        // Nobody tries again any more.
        shared.is_patient.store(false, Ordering::Release);
        let flushed = shared.flush().map(drop);
        *self.dir.lock() = None;
        flushed
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::debug!(%error, "closed a log that has failed");
        }
    }
}

/// How far a flush has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// All that waited is durable.
    All,
    /// There is no file for the next segment.
    Waits,
}

impl Shared {
    fn spawn(shared: &Arc<Self>, options: &LogOptions, dir: &Path) -> Result<Vec<JoinHandle<()>>, LogError> {
        let thread = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let shared = Arc::clone(shared);
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
                if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
                    shared.broken(&*panic);
                    // Whoever waits is told.
                    let _ = shared.flush();
                }
            });
            thread.map_err(|error| LogError::disk(dir, error))
        };
        let (writer, confirm_after) = (Arc::clone(shared), options.confirm_after);
        let directory = Arc::clone(&shared.directory);
        let spares = thread("log-spares", Box::new(move || directory.prepare_spares()))?;
        match thread("log-writer", Box::new(move || writer.write_in_background(confirm_after))) {
            Ok(writer) => Ok(vec![spares, writer]),
            Err(error) => {
                shared.directory.close();
                let _ = spares.join();
                Err(error)
            }
        }
    }

    /// Appends entries, readable when this returns; `done` is told when they are durable.
    pub(super) async fn append(&self, entries: impl Iterator<Item = Entry>, done: Done) -> Result<(), Stopped> {
        let overfull = {
            // Both locks at once: whoever reads the index sees entries in the order in which they will be written.
            let mut queue = self.open_queue()?;
            let mut index = self.index.write();
            for entry in entries {
                if let Err(error) = queue.push_entry(&entry) {
                    drop((queue, index));
                    return Err(self.fail(error));
                }
                // Readable before it is on disk: the leader sends it to the followers while it syncs its own copy. That it is
                // durable here is told by `done`, and raft counts this node only then.
                index.push(entry, None);
            }
            drop(index);
            #[cfg(simulated)]
            let done = simulated::told_early(done);
            queue.notify(done);
            queue.bytes > MAX_QUEUED_BYTES
        };
        if self.inline() && !self.is_waiting() {
            #[cfg(simulated)]
            self.disk_takes().await;
            match self.flush()? {
                Written::All => return Ok(()),
                Written::Waits => {}
            }
        }
        // The queue is bounded by holding back who fills it.
        if overfull { self.durable().await } else { self.wake() }
    }

    /// Writes a record, and returns when it is durable, with all that was appended before it.
    pub(super) async fn write(&self, record: &Record) -> Result<(), Stopped> {
        self.open_queue()?.push(record);
        self.durable().await
    }

    /// Writes a record when the next one is.
    pub(super) fn write_lazily(&self, record: &Record) -> Result<(), Stopped> {
        self.open_queue()?.push(record);
        Ok(())
    }

    /// Forgets the entries up to an index that is durably purged, and gives their segments back.
    pub(super) fn forget(&self, purged: LogId) -> Result<(), Stopped> {
        let active = self.writer.lock().segment().name.sequence;
        let unneeded = self.index.write().purge_to(purged, active);
        self.directory.reclaim(unneeded).map_err(|error| self.fail(error))
    }

    /// The entries of a range that the log has: all, or the first ones up to `max_bytes`, but at least one.
    ///
    /// Entries that are not in memory are read where they are asked for: it happens for a follower that is far behind,
    /// and they are mostly in the page cache.
    pub(super) fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Entry>, LogError> {
        // Planned under the lock, read without it.
        let plan = self.index.read().plan(range, max_bytes);
        plan.read(&*self.directory.disk)
    }

    pub(super) fn summary(&self) -> Summary {
        self.index.read().summary
    }

    fn open_queue(&self) -> Result<parking_lot::MutexGuard<'_, Queue>, Stopped> {
        if let Some(stopped) = &*self.failure.borrow() {
            return Err(stopped.clone());
        }
        let queue = self.queue.lock();
        if queue.closing { Err(Stopped(Arc::new(LogError::Closed))) } else { Ok(queue) }
    }

    fn inline(&self) -> bool {
        !self.background || self.inline.load(Ordering::Relaxed)
    }

    fn wake(&self) -> Result<(), Stopped> {
        self.queue.lock().wanted = true;
        self.work.notify_one();
        #[cfg(simulated)]
        self.ask();
        Ok(())
    }

    /// Returns when all that was pushed so far is durable.
    async fn durable(&self) -> Result<(), Stopped> {
        if self.inline() && !self.is_waiting() {
            #[cfg(simulated)]
            self.disk_takes().await;
            if self.flush()? == Written::All {
                return Ok(());
            }
        }
        let (sender, receiver) = oneshot::channel();
        self.queue.lock().notify(Done::Signal(sender));
        self.wake()?;
        receiver.await.unwrap_or_else(|_| Err(Stopped(Arc::new(LogError::Closed))))
    }

    /// Writes and syncs all that waits, in order, and tells whoever waits for it. If a segment cannot be begun, what is left waits, untold.
    pub(super) fn flush(&self) -> Result<Written, Stopped> {
        // Held over write and sync: a batch is begun when the one before it is durable, on which recovery relies to tell a write that was
        // cut short from damage. Whoever comes meanwhile fills the queue, and all of that is the next batch.
        let mut writer = self.writer.lock();
        loop {
            let taken = self.queue.lock().take();
            // Asked after the batch was taken: one that slipped in before a failure was known is told of it, and never written.
            let failed = self.failure.borrow().clone();
            let Some(mut batch) = taken else { return failed.map_or(Ok(Written::All), Err) };
            let result = match failed {
                Some(stopped) => Err(stopped),
                None => match writer.write(&mut batch) {
                    Err(error @ LogError::NoSegment { .. }) if self.is_tried_again() => {
                        self.queue.lock().put_back(batch);
                        self.wait_for_segment(error);
                        return Ok(Written::Waits);
                    }
                    written => written.map_err(|error| self.fail(error)),
                },
            };
            let result = result.map(|written| {
                let mut index = self.index.write();
                if let Some(segment) = written.begun {
                    index.segments.insert(written.segment, segment);
                    self.counters.segment();
                    self.segment_begun();
                }
                index.place(batch.places(written.segment, written.offset));
                self.counters.batch(batch.entry_count(), batch.bytes.len(), written.sync);
            });
            let bytes = batch.finish(&result);
            self.queue.lock().recycle(bytes);
        }
    }

    /// Whether somebody writes what waits when there is a file for it.
    fn is_tried_again(&self) -> bool {
        #[cfg(not(simulated))]
        let somebody_writes = self.background;
        #[cfg(simulated)]
        let somebody_writes = self.background || self.machine.is_some();
        somebody_writes && self.is_patient()
    }

    pub(super) fn is_patient(&self) -> bool {
        self.is_patient.load(Ordering::Acquire)
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waits.borrow().is_some()
    }

    fn wait_for_segment(&self, error: LogError) {
        let is_first = self.waits.send_replace(Some(Arc::new(error))).is_none();
        if let (true, Some(error)) = (is_first, &*self.waits.borrow()) {
            self.counters.wait();
            tracing::error!(%error, "no writes are taken; tried again until it passes");
        }
    }

    fn segment_begun(&self) {
        if self.waits.send_replace(None).is_some() {
            tracing::info!("the log has a file for its next segment again, and takes writes");
        }
    }

    /// Does some work for raft, and stops the log if an invariant does not hold.
    pub(super) async fn unbroken<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        match AssertUnwindSafe(work).catch_unwind().await {
            Ok(done) => done,
            Err(panic) => Err(self.broken(&*panic).into()),
        }
    }

    fn broken(&self, panic: &(dyn Any + Send)) -> Stopped {
        self.fail(LogError::Broken { words: panics::words(panic) })
    }

    /// Stops the log for ever. What was written and not synced is in a state that nobody can know: a sync that
    /// succeeds after one that failed proves nothing.
    fn fail(&self, error: LogError) -> Stopped {
        let stopped = Stopped(Arc::new(error));
        let mut kept = stopped.clone();
        self.failure.send_if_modified(|failure| match failure {
            Some(first) => {
                kept = first.clone();
                false
            }
            None => {
                *failure = Some(stopped);
                true
            }
        });
        kept
    }

    fn write_in_background(&self, confirm_after: Duration) {
        // How many batches there were at the last look, and at the last confirmation. A new log has a header, which is as good.
        let (mut seen, mut confirmed) = (0, 0);
        loop {
            let mut queue = self.queue.lock();
            let waits = self.is_waiting();
            if waits {
                let again = std::time::Instant::now() + TRIED_AGAIN;
                self.work.wait_while_until(&mut queue, |queue| !queue.closing, again);
            } else if !queue.wanted && !queue.closing {
                self.work.wait_for(&mut queue, confirm_after);
            }
            if queue.closing {
                return;
            }
            let wanted = queue.wanted || waits;
            drop(queue);
            if !wanted {
                let written = self.counters.batches();
                if written != seen || written == confirmed {
                    seen = written;
                    continue;
                }
                self.queue.lock().push(&Record::Confirmation);
            }
            // Whoever waits was told of a failure; the log stays to tell those who come.
            let _ = self.flush();
            if !wanted {
                (seen, confirmed) = (self.counters.batches(), self.counters.batches());
            }
        }
    }
}
