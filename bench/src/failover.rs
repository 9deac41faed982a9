//! What the loss of the leader costs: it is killed again and again while clients work, and the time without an
//! acknowledgement is measured.
//!
//! Service counts as back with the first acknowledged swap that began after the kill: an earlier one may have been on
//! its way. At the end every acknowledged swap has to be in the store.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::{Backend, Clients, Error, Load, Measurement, Result, Spread, Workload, client::Client, target::Killable};

/// So many clients work while the leader is killed.
const CLIENTS: usize = 8;

/// A call that has no answer after this counts as failed, and the client tries again: the resolution of the figures where a store
/// leaves calls hanging.
const PATIENCE: Duration = Duration::from_millis(250);

/// A client that failed waits so long before it tries again.
const PAUSE: Duration = Duration::from_millis(2);

/// The cluster works so long between two kills, once it serves with all its nodes.
const SETTLE: Duration = Duration::from_secs(1);

/// After this a cluster counts as gone for good.
const GONE: Duration = Duration::from_secs(60);

/// How often the clients' notes are looked at.
const LOOK: Duration = Duration::from_millis(1);

/// The timeline shows so much before the kill, and so much after service is back.
const AROUND: Duration = Duration::from_millis(500);

/// The longest timeline.
const LONGEST: Duration = Duration::from_secs(10);

/// The width of a step of the timeline.
const STEP: Duration = Duration::from_millis(25);

/// What the loss of the leader costs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failover {
    /// The backend.
    pub backend: String,
    /// How many nodes the cluster had.
    pub nodes: usize,
    /// How many clients read and swapped all the while, each a key of its own.
    pub clients: usize,
    /// The time without service, in seconds: from the SIGKILL to the first acknowledgement of a compare-and-swap that began after it.
    pub seconds: Spread,
    /// The same of each kill, in order.
    pub kills: Vec<f64>,
    /// Swaps that were acknowledged, over the whole time. All were found in the store at the end.
    pub applied: u64,
    /// Swaps of which nobody knows.
    pub unknown: u64,
    /// Acknowledgements around the kill whose time without service is the median.
    pub timeline: Timeline,
}

/// Acknowledgements in steps of time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Timeline {
    /// When the first step begins, in milliseconds after the kill: a negative number.
    pub from_ms: f64,
    /// The width of a step, in milliseconds.
    pub step_ms: f64,
    /// Acknowledgements in each step.
    pub acknowledged: Vec<u32>,
}

/// Kills the leader again and again while clients work, and measures for how long none of them gets an acknowledgement.
///
/// # Errors
/// [`Error::Verification`] if an acknowledged write is lost; [`Error::Usage`] where nodes cannot be killed; [`Error::Store`] if
/// the cluster does not come back.
pub(crate) fn fail_over(
    backend: &Backend,
    nodes: usize,
    kills: usize,
    directory: &Path,
    clients: &Clients,
    step: &mut dyn FnMut(&str),
) -> Result<Failover> {
    clients.block_on(async {
        let cluster = backend.start_to_kill(nodes, directory).await?;
        let mut run = Run::begin(cluster).await?;
        let mut outages = Vec::with_capacity(kills);
        for kill in 1..=kills {
            step(&format!("{} x {nodes}: kill {kill} of the leader", backend.name));
            outages.push(run.kill_the_leader().await?);
        }
        let (tally, cluster) = run.end().await?;
        cluster.stop().await;
        let seconds = Spread::of(outages.iter().map(|outage| outage.seconds));
        let middle = outages
            .iter()
            .min_by(|a, b| (a.seconds - seconds.median).abs().total_cmp(&(b.seconds - seconds.median).abs()));
        Ok(Failover {
            backend: backend.name.to_owned(),
            nodes,
            clients: CLIENTS,
            seconds,
            timeline: middle.map(|outage| outage.timeline.clone()).unwrap_or_default(),
            kills: outages.iter().map(|outage| outage.seconds).collect(),
            applied: tally.applied,
            unknown: tally.failures.get("unknown_outcome").copied().unwrap_or(0),
        })
    })
}

/// One kill.
struct Outage {
    seconds: f64,
    timeline: Timeline,
}

/// A swap that was acknowledged: which client's, when it began, and when the answer came.
#[derive(Clone, Copy)]
struct Ack {
    client: usize,
    began: Instant,
    at: Instant,
}

/// What the clients of one run share.
#[derive(Default)]
struct Notes {
    acks: Mutex<Vec<Ack>>,
    is_over: AtomicBool,
}

struct Run {
    cluster: Box<dyn Killable>,
    notes: Arc<Notes>,
    tasks: JoinSet<Result<(Client, Measurement)>>,
}

impl Run {
    async fn begin(cluster: Box<dyn Killable>) -> Result<Self> {
        let load = Load { workload: Workload::Cas, clients: CLIENTS, value_bytes: 128, rate: None };
        let (notes, mut tasks) = (Arc::new(Notes::default()), JoinSet::new());
        let stores = cluster.stores();
        for (place, store) in (0..CLIENTS).zip(stores.iter().cycle()) {
            let client = Client::prepare(place, Arc::clone(store), &load).await?.patience(PATIENCE);
            tasks.spawn(work(client, place, Arc::clone(&notes)));
        }
        Ok(Self { cluster, notes, tasks })
    }

    async fn kill_the_leader(&mut self) -> Result<Outage> {
        self.all_served(Instant::now()).await?;
        tokio::time::sleep(SETTLE).await;
        let leader = self.leader().await?;
        let killed = Instant::now();
        self.cluster.kill(leader)?;
        // What began before this may have been served by the leader that dies: it proves nothing.
        let gone = Instant::now();
        let first = self.wait_for(|acks| acks.iter().filter(|ack| ack.began >= gone).map(|ack| ack.at).min()).await?;
        tokio::time::sleep(AROUND).await;
        let timeline = self.timeline(killed, first);
        // Each kill has notes of its own: over a whole run there would be millions.
        self.notes.acks.lock().clear();
        self.cluster.restart(leader).await?;
        Ok(Outage { seconds: (first - killed).as_secs_f64(), timeline })
    }

    /// The node that leads and can be killed. While the one that cannot be leads, others are asked again.
    async fn leader(&mut self) -> Result<usize> {
        let deadline = Instant::now() + GONE;
        loop {
            if let Some(leader) = self.cluster.leader().await? {
                return Ok(leader);
            }
            if Instant::now() > deadline {
                return Err(storage::Error::unavailable("no node says that it leads").into());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until every client was served since.
    async fn all_served(&mut self, since: Instant) -> Result<()> {
        let served = |acks: &[Ack]| {
            let has = |client| acks.iter().any(|ack| ack.client == client && ack.began >= since);
            (0..CLIENTS).all(has).then_some(())
        };
        self.wait_for(served).await
    }

    async fn wait_for<T>(&mut self, look: impl Fn(&[Ack]) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + GONE;
        loop {
            if let Some(seen) = look(&self.notes.acks.lock()) {
                return Ok(seen);
            }
            if let Some(ended) = self.tasks.try_join_next() {
                ended.map_err(|error| Error::Verification(format!("a client ended: {error}")))??;
            }
            if Instant::now() > deadline {
                let what = format!("after the loss of a node, no service for {} s", GONE.as_secs());
                return Err(storage::Error::unavailable(what).into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn timeline(&self, killed: Instant, first: Instant) -> Timeline {
        let span = (first - killed + AROUND).min(LONGEST);
        let steps = (AROUND + span).as_millis() / STEP.as_millis();
        let mut acknowledged = vec![0; usize::try_from(steps).unwrap_or(0) + 1];
        for ack in self.notes.acks.lock().iter() {
            let since = (ack.at + AROUND).checked_duration_since(killed);
            let place = since.map(|since| since.as_millis() / STEP.as_millis());
            let place = place.and_then(|place| usize::try_from(place).ok());
            if let Some(count) = place.and_then(|place| acknowledged.get_mut(place)) {
                *count += 1;
            }
        }
        // The last step is not whole.
        acknowledged.pop();
        Timeline { from_ms: -AROUND.as_secs_f64() * 1e3, step_ms: STEP.as_secs_f64() * 1e3, acknowledged }
    }

    /// Ends the clients and looks whether everything that was acknowledged is there.
    async fn end(mut self) -> Result<(Measurement, Box<dyn Killable>)> {
        self.all_served(Instant::now()).await?;
        self.notes.is_over.store(true, Ordering::Relaxed);
        let (mut clients, mut sum) = (Vec::new(), Measurement::new());
        while let Some(ended) = self.tasks.join_next().await {
            let (client, counted) =
                ended.map_err(|error| Error::Verification(format!("a client ended: {error}")))??;
            clients.push(client);
            sum.add(&counted);
        }
        Client::verify(&clients).await?;
        Ok((sum, self.cluster))
    }
}

async fn work(mut client: Client, place: usize, notes: Arc<Notes>) -> Result<(Client, Measurement)> {
    let mut counted = Measurement::new();
    while !notes.is_over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let conflicts = counted.conflicts;
        match client.iterate(&mut counted).await? {
            Ok(()) if counted.conflicts == conflicts => {
                notes.acks.lock().push(Ack { client: place, began, at: Instant::now() });
            }
            // A conflict with an own swap of unknown outcome.
            Ok(()) => {}
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    Ok((client, counted))
}
