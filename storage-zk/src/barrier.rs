//! What makes reads linearizable: something that a majority agreed to, after the read began and before it is served.
//!
//! A ZooKeeper server answers reads from its own memory, which may be behind. `sync` brings it up to what the leader knows,
//! but nobody asks a majority whether that leader still leads (ZOOKEEPER-2136 and ZOOKEEPER-3600 are open). So the barrier is an
//! empty transaction: a `multi` with nothing but a check of a node that never changes. It is logged by a majority and
//! changes nothing. A server serves one session in order, so a read that is sent behind the barrier, on the same session, sees
//! everything that was committed before it; both travel together, and it stays one round trip.
//!
//! Reads that begin while a barrier is under way may not use it. They share the next one, so that many readers cost no
//! more log entries than one.

use std::sync::Arc;

use parking_lot::Mutex;
use storage_core::{Deadline, Error, Result};
use tokio::sync::watch;
use zookeeper_client::Client;

use crate::{config::Reads, error, session::Session};

/// The barriers of one handle.
#[derive(Debug)]
pub(crate) struct Barriers {
    session: Arc<Session>,
    reads: Reads,
    node: Arc<str>,
    queue: Arc<Mutex<Queue>>,
}

/// One barrier is under way at the most; who comes meanwhile waits for the next.
#[derive(Debug, Default)]
struct Queue {
    running: bool,
    next: Option<watch::Receiver<Phase>>,
    publish: Option<watch::Sender<Phase>>,
}

/// How far a barrier is.
#[derive(Clone, Debug)]
enum Phase {
    Waiting,
    /// It was sent on this client: what is sent behind it there is ordered after it.
    Sent(Client),
    Passed(Client),
    /// It did not pass, for this reason.
    Failed(Arc<str>),
}

/// A barrier that was sent and may not have passed yet.
pub(crate) struct Barrier {
    phase: watch::Receiver<Phase>,
}

impl Barriers {
    /// Barriers on `node`, which never changes after it was created.
    pub(crate) fn new(session: Arc<Session>, reads: Reads, node: Arc<str>) -> Self {
        Self { session, reads, node, queue: Arc::default() }
    }

    /// Joins a barrier that is sent after this call began. The read goes to the client that is returned, and counts if
    /// [`Barrier::passed`] says so.
    pub(crate) async fn join(&self, deadline: Deadline) -> Result<(Client, Barrier)> {
        // For its errors, and so that nobody waits behind a barrier that cannot be sent.
        self.session.client(deadline).await?;
        // Joined now, never earlier: a barrier that was sent before this read began says nothing about what was committed since.
        let mut phase = self.enqueue();
        let sent = deadline.reading(phase.wait_for(|phase| !matches!(phase, Phase::Waiting))).await?;
        let client = match sent.as_deref() {
            Ok(Phase::Sent(client) | Phase::Passed(client)) => client.clone(),
            Ok(Phase::Failed(why)) => return Err(Error::unavailable(why.to_string())),
            Ok(Phase::Waiting) | Err(_) => return Err(abandoned()),
        };
        drop(sent);
        Ok((client, Barrier { phase }))
    }

    fn enqueue(&self) -> watch::Receiver<Phase> {
        let mut queue = self.queue.lock();
        let phase = match &queue.next {
            Some(phase) => phase.clone(),
            None => {
                let (publish, phase) = watch::channel(Phase::Waiting);
                (queue.next, queue.publish) = (Some(phase.clone()), Some(publish));
                phase
            }
        };
        if !queue.running {
            queue.running = true;
            let (session, queue) = (Arc::clone(&self.session), Arc::clone(&self.queue));
            tokio::spawn(run(session, self.reads, Arc::clone(&self.node), queue));
        }
        phase
    }
}

impl Barrier {
    /// Waits until the barrier has passed.
    pub(crate) async fn passed(mut self) -> Result<()> {
        match self.phase.wait_for(|phase| !matches!(phase, Phase::Waiting | Phase::Sent(_))).await.as_deref() {
            Ok(Phase::Passed(_)) => Ok(()),
            Ok(Phase::Failed(why)) => Err(Error::unavailable(why.to_string())),
            _ => Err(abandoned()),
        }
    }
}

/// Sends barriers for as long as somebody waits for one.
async fn run(session: Arc<Session>, reads: Reads, node: Arc<str>, queue: Arc<Mutex<Queue>>) {
    loop {
        let publish = {
            let mut queue = queue.lock();
            // Before it is sent: whoever comes from here on waits for another one.
            queue.next = None;
            let Some(publish) = queue.publish.take() else {
                queue.running = false;
                return;
            };
            publish
        };
        let phase = match session.client(Deadline::after(storage_core::DEFAULT_TIMEOUT)).await {
            Ok(client) => match send(&client, reads, &node, &publish).await {
                Ok(()) => Phase::Passed(client),
                Err(error) => Phase::Failed(error.to_string().into()),
            },
            Err(error) => Phase::Failed(error.to_string().into()),
        };
        publish.send_replace(phase);
    }
}

/// The client sends when a call is made, not when its future is polled: so `Sent` is published right behind it.
async fn send(client: &Client, reads: Reads, node: &str, publish: &watch::Sender<Phase>) -> Result<()> {
    let sent = || publish.send_replace(Phase::Sent(client.clone()));
    match reads {
        Reads::Quorum => {
            let mut multi = client.new_multi_writer();
            // A transaction of one check changes nothing and yet goes through the log of a majority. `sync` does not: see the head of this file.
            multi.add_check_version(node, 0).map_err(error::read_error)?;
            let passed = multi.commit();
            sent();
            error::committed(passed.await)?.map(drop).map_err(|_| node_changed(node))
        }
        Reads::Sync => {
            let passed = client.sync(node);
            sent();
            error::read(passed.await)?.map_err(|_| node_changed(node))
        }
    }
}

fn node_changed(node: &str) -> Error {
    Error::unavailable(format!("the node {node} was changed or removed while the store was open"))
}

fn abandoned() -> Error {
    Error::unavailable("a barrier was given up")
}
