//! The log on a simulated machine, where a sync takes time: what the threads do elsewhere is done by a task.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::Notify;

use super::super::queue::Done;
use super::super::record::{self, Record};
use super::super::{LogError, LogOptions};
use super::{Log, Shared, TRIED_AGAIN};
use crate::raft::{Entry, Vote};
use crate::simulated::{Flaw, Machine, is_planted};

/// What the log needs of the machine.
#[derive(Debug)]
pub(super) struct Writing {
    machine: Machine,
    /// Rung when there is something to write.
    asked: Notify,
}

impl Writing {
    pub(super) fn new(machine: Machine) -> Self {
        Self { machine, asked: Notify::new() }
    }
}

/// Starts the task that writes, and says that there shall be no threads.
pub(super) fn begin(shared: &Arc<Shared>, options: &LogOptions) -> LogOptions {
    if options.machine.is_none() {
        return options.clone();
    }
    let (shared, confirm_after) = (Arc::clone(shared), options.confirm_after);
    tokio::spawn(async move {
        while let Some(writing) = &shared.machine {
            let waits = shared.is_waiting();
            if waits {
                tokio::time::sleep(TRIED_AGAIN).await;
            }
            let asked = waits || tokio::time::timeout(confirm_after, writing.asked.notified()).await.is_ok();
            if shared.queue.lock().closing {
                return;
            }
            if asked {
                writing.machine.disk_takes().await;
            } else {
                shared.queue.lock().push(&Record::Confirmation);
            }
            // Whoever waits is told of a failure.
            let _ = shared.flush();
        }
    });
    LogOptions { background: false, ..options.clone() }
}

/// Who is told that an append is durable; with the flaw of that name, that has been told already.
pub(super) fn told_early(done: Done) -> Done {
    match done {
        Done::Raft(callback) if is_planted(Flaw::EarlyAcknowledgement) => {
            callback.io_completed(Ok(()));
            Done::Signal(tokio::sync::oneshot::channel().0)
        }
        done => done,
    }
}

impl Shared {
    /// Says that there is something to write.
    pub(super) fn ask(&self) {
        if let Some(writing) = &self.machine {
            writing.asked.notify_one();
        }
    }

    /// Waits as long as the disk takes.
    pub(super) async fn disk_takes(&self) {
        if let Some(writing) = &self.machine {
            writing.machine.disk_takes().await;
        }
    }
}

impl Log {
    /// The vote that was saved last.
    pub(crate) fn vote(&self) -> Option<Vote> {
        self.shared().summary().vote
    }

    /// The entries of a range that the log has.
    pub(crate) fn entries(&self, range: Range<u64>) -> Result<Vec<Entry>, LogError> {
        self.shared().read(range, usize::MAX)
    }
}

/// A hash of all that an entry is.
pub(crate) fn hash(entry: &Entry) -> u32 {
    let mut bytes = Vec::new();
    record::put_entry(&mut bytes, entry);
    crc32c::crc32c(&bytes)
}
