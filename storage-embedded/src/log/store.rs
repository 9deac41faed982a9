//! The log itself.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use super::LogOptions;
use super::data_dir::DataDir;
use super::directory::Directory;
use super::error::{LogError, Stopped};
use super::index::Index;
use super::metrics::{Counters, LogMetrics};
use super::queue::{Done, Queue};
use super::record::{Record, Summary};
use super::recovery::{self, Found};
use super::writer::{Resume, Writer};
use crate::disk::Disk;
use crate::raft::{Entry, LogId};

/// How many bytes may wait for the thread. Beyond it, an append returns when it is durable.
const MAX_QUEUED_BYTES: usize = 64 << 20;

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
    directory: Arc<Directory>,
    counters: Counters,
    #[cfg(simulated)]
    pub(super) machine: Option<super::simulated::Writing>,
}

impl Log {
    /// Opens the log of a node, and keeps the lock of the directory until it is closed.
    ///
    /// # Errors
    /// As [`Log::open_in`].
    pub(crate) fn open(dir: DataDir, options: &LogOptions) -> Result<Self, LogError> {
        let log = Self::open_in(Arc::clone(&dir.disk), &dir.log(), options)?;
        *log.0.dir.lock() = Some(dir);
        Ok(log)
    }

    /// Opens the log in a directory, which is created if it is missing, and begins a new segment.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] and [`LogError::NewerFormat`] after nothing was changed; [`LogError::Full`],
    /// [`LogError::ReadOnly`] and [`LogError::Disk`]. It can be opened again when the reason is gone.
    pub(super) fn open_in(disk: Arc<dyn Disk>, dir: &Path, options: &LogOptions) -> Result<Self, LogError> {
        let Found { mut index, previous, next_sequence, next_batch, tail, leftovers, spares } =
            recovery::recover(&*disk, dir, options)?;
        disk.create_dir(dir).map_err(|error| LogError::disk(dir, error))?;
        if let Some(tail) = tail {
            tail.make_durable(&*disk)?;
        }
        let directory = Arc::new(Directory::new(disk, dir, options));
        directory.adopt(spares)?;
        let summary = index.summary;
        let resume = Resume { sequence: next_sequence, next_batch, previous, summary };
        let writer = Writer::begin(Arc::clone(&directory), resume)?;
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
            directory,
            counters: Counters::default(),
            #[cfg(simulated)]
            machine: options.machine.clone().map(super::simulated::Writing::new),
        });
        #[cfg(simulated)]
        let options = &super::simulated::begin(&shared, options);
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

    /// What it has counted.
    #[must_use]
    pub(crate) fn metrics(&self) -> LogMetrics {
        let queued = self.0.shared.queue.lock().bytes;
        self.0.shared.counters.read(queued)
    }

    /// Writes what waits and a mark, and takes no more. Blocks the thread for a few syncs.
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
            // A thread that panicked has nothing more to say.
            let _ = thread.join();
        }
        if first && shared.failure.borrow().is_none() {
            shared.queue.lock().push(&Record::Mark);
        }
        let flushed = shared.flush();
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

impl Shared {
    fn spawn(shared: &Arc<Self>, options: &LogOptions, dir: &Path) -> Result<Vec<JoinHandle<()>>, LogError> {
        let thread = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
            thread.map_err(|error| LogError::disk(dir, error))
        };
        let (writer, idle_mark) = (Arc::clone(shared), options.idle_mark);
        let directory = Arc::clone(&shared.directory);
        let spares = thread("log-spares", Box::new(move || directory.prepare_spares()))?;
        match thread("log-writer", Box::new(move || writer.write_in_background(idle_mark))) {
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
            let mut queue = self.open_queue()?;
            let mut index = self.index.write();
            for entry in entries {
                if let Err(error) = queue.push_entry(&entry) {
                    drop((queue, index));
                    return Err(self.fail(error));
                }
                index.push(entry, None);
            }
            drop(index);
            #[cfg(simulated)]
            let done = super::simulated::told_early(done);
            queue.notify(done);
            queue.bytes > MAX_QUEUED_BYTES
        };
        if self.inline() {
            #[cfg(simulated)]
            self.disk_takes().await;
            return self.flush();
        }
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
        plan.read()
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
        if self.inline() {
            #[cfg(simulated)]
            self.disk_takes().await;
            return self.flush();
        }
        let (sender, receiver) = oneshot::channel();
        self.queue.lock().notify(Done::Signal(sender));
        self.wake()?;
        receiver.await.unwrap_or_else(|_| Err(Stopped(Arc::new(LogError::Closed))))
    }

    /// Writes and syncs all that waits, in order, and tells whoever waits for it.
    pub(super) fn flush(&self) -> Result<(), Stopped> {
        let mut writer = self.writer.lock();
        loop {
            let taken = self.queue.lock().take();
            let failed = self.failure.borrow().clone();
            let Some(mut batch) = taken else { return failed.map_or(Ok(()), Err) };
            let result = match failed {
                Some(stopped) => Err(stopped),
                None => writer.write(&mut batch).map_err(|error| self.fail(error)),
            };
            let result = result.map(|written| {
                let mut index = self.index.write();
                if let Some(segment) = written.begun {
                    index.segments.insert(written.segment, segment);
                    self.counters.segment();
                }
                index.place(batch.places(written.segment, written.offset));
                self.counters.batch(batch.entry_count(), batch.bytes.len(), written.sync);
            });
            let bytes = batch.finish(&result);
            self.queue.lock().recycle(bytes);
        }
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

    fn write_in_background(&self, idle_mark: std::time::Duration) {
        // How many batches there were at the last look, and at the last mark. A new log has a header, which is as good.
        let (mut seen, mut marked) = (0, 0);
        loop {
            let mut queue = self.queue.lock();
            if !queue.wanted && !queue.closing {
                self.work.wait_for(&mut queue, idle_mark);
            }
            if queue.closing {
                return;
            }
            let wanted = queue.wanted;
            drop(queue);
            if !wanted {
                let written = self.counters.batches();
                if written != seen || written == marked {
                    seen = written;
                    continue;
                }
                self.queue.lock().push(&Record::Mark);
            }
            // Whoever waits was told of a failure; the log stays to tell those who come.
            let _ = self.flush();
            if !wanted {
                (seen, marked) = (self.counters.batches(), self.counters.batches());
            }
        }
    }
}
