//! The connection on which a replica hands its users' calls to the leader: many at a time, answered in any order.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    frame::{FrameReader, invalid, put_frame},
    handshake::Connection,
    hello::Channel,
    message::{Call, Reply, put_call, reply},
    peer::PeerContext,
    stream::{ReadHalf, WriteHalf},
};

/// How many calls may wait to be written to one connection. More callers than this wait their turn, each within its deadline.
const QUEUED_CALLS: usize = 4096;

/// How many bytes of calls are put into one write to the socket, at the most (and one call more).
const WRITE_BYTES: usize = 256 << 10;

/// An open connection to a node, for calls. Cloned freely; closed when the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    queue: mpsc::Sender<(u64, Call)>,
    waiting: Arc<Waiting>,
    _tasks: Arc<JoinSet<()>>,
}

/// Who waits for which reply. Closed when the connection is lost: then nobody may begin to wait any more.
#[derive(Debug, Default)]
struct Waiting {
    next: AtomicU64,
    /// In order, so that they hear of it in the order in which they called.
    replies: Mutex<Option<BTreeMap<u64, Waiter>>>,
}

#[derive(Debug)]
struct Waiter {
    reply: oneshot::Sender<Reply>,
    awaits: Option<Arc<dyn Awaits>>,
}

/// What ends with the reply to a call, whether its caller looks at that or not.
pub(crate) trait Awaits: Debug + Send + Sync {
    /// The reply is there.
    fn answered(&self, reply: &Reply);
}

impl Caller {
    /// Connects to a node at `address`. The connection lives on the current runtime, and is lost when that ends.
    pub(crate) async fn open(context: Arc<PeerContext>, target: u64, address: &str) -> io::Result<Self> {
        let Connection { reader, writer } = context.open(target, address, Channel::Calls).await?;
        let (queue, calls) = mpsc::channel(QUEUED_CALLS);
        let waiting = Arc::new(Waiting { next: AtomicU64::new(0), replies: Mutex::new(Some(BTreeMap::new())) });
        let mut tasks = JoinSet::new();
        let (write_ended, read_ended) = (CloseOnDrop(waiting.clone()), CloseOnDrop(waiting.clone()));
        tasks.spawn(async move {
            let _ended = write_ended;
            let _ = write_calls(writer, calls).await;
        });
        tasks.spawn(async move {
            let _ = context.connected(read_replies(reader, &read_ended.0)).await;
        });
        Ok(Self { queue, waiting, _tasks: Arc::new(tasks) })
    }

    /// Whether the connection is lost.
    pub(crate) fn is_closed(&self) -> bool {
        self.waiting.replies.lock().is_none()
    }

    /// Makes a call. `None`: the connection was lost, and whether the call arrived is not known.
    ///
    /// # Cancel safety
    /// Dropped, the call may have been made or not.
    pub(crate) async fn call(&self, call: Call, awaits: Option<Arc<dyn Awaits>>) -> Option<Reply> {
        let number = self.waiting.next.fetch_add(1, Ordering::Relaxed);
        let (reply, receiver) = oneshot::channel();
        // Before the call is sent: its reply may come at once.
        self.waiting.replies.lock().as_mut()?.insert(number, Waiter { reply, awaits });
        let forget = Forget { waiting: &self.waiting, number };
        let (caller, gone) = oneshot::channel::<()>();
        match self.queue.clone().try_reserve_owned() {
            Ok(place) => drop(place.send((number, call))),
            // In a task: a caller that is kept and not polled would be given a place and hold up all behind it.
            Err(_) => {
                let queue = self.queue.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = queue.send((number, call)) => {}
                        _ = gone => {}
                    }
                });
            }
        }
        let reply = receiver.await.ok();
        drop((forget, caller));
        reply
    }
}

/// Takes a call off the list when its caller stops waiting, so that the list is bounded by the callers.
struct Forget<'a> {
    waiting: &'a Waiting,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(replies) = self.waiting.replies.lock().as_mut() {
            replies.remove(&self.number);
        }
    }
}

/// Tells all who wait that the connection is lost, when a task of it ends: also when the runtime that it is on does.
struct CloseOnDrop(Arc<Waiting>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        *self.0.replies.lock() = None;
    }
}

async fn write_calls(mut writer: WriteHalf, mut calls: mpsc::Receiver<(u64, Call)>) -> io::Result<()> {
    let mut out = Vec::new();
    while let Some((number, call)) = calls.recv().await {
        put_frame(&mut out, |out| put_call(out, number, &call));
        while out.len() < WRITE_BYTES {
            let Ok((number, call)) = calls.try_recv() else { break };
            put_frame(&mut out, |out| put_call(out, number, &call));
        }
        writer.send(&out).await?;
        out.clear();
    }
    Ok(())
}

async fn read_replies(mut reader: FrameReader<ReadHalf>, waiting: &Waiting) -> io::Result<()> {
    while let Some(frame) = reader.next().await? {
        let (number, reply) = reply(frame).map_err(invalid)?;
        let Some(waiter) = waiting.replies.lock().as_mut().and_then(|replies| replies.remove(&number)) else {
            continue;
        };
        if let Some(awaits) = waiter.awaits {
            awaits.answered(&reply);
        }
        let _ = waiter.reply.send(reply);
    }
    Ok(())
}
