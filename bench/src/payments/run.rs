use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use payment_channels::Options;
use storage::{ReadOptions, Store as _};
use tokio::task::JoinSet;

use super::{Open, SimulationReport, audit::audit, client::Client, reaper::Reaper, world::World};
use crate::{Amount, Error, Result, measure::Latencies};

/// How often those who watch are told.
const TICK: Duration = Duration::from_millis(500);

/// A service and its clients.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// How many replicas the service has.
    pub replicas: usize,
    /// How many clients there are. Each waits for an answer before it goes on.
    pub clients: usize,
    /// What share of them pays from the one hot channel, 0 to 1. The others have a channel each.
    pub hot_share: f64,
    /// How many payments, or for how long.
    pub amount: Amount,
    /// What clients do.
    pub traffic: Traffic,
    /// Whether replicas are killed in the middle of payments, and started again.
    pub kill_replicas: bool,
    /// For how long a dead replica may block a channel.
    pub lease: Duration,
    /// What choices come from. The timing of tasks and servers is not repeated.
    pub seed: u64,
}

/// What goes on in a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Payments alone, one after the other: what is measured is what they cost.
    Payments,
    /// Besides, clients try to spend payments twice and use what they have paid for in advance, and a treasurer claims.
    Everything,
}

impl Simulation {
    /// The most clients: each has a key and a task.
    pub const MAX_CLIENTS: usize = 100_000;

    /// The most replicas.
    pub const MAX_REPLICAS: usize = 1000;

    pub(super) fn hot_clients(&self) -> usize {
        let hot = (self.clients as f64 * self.hot_share).round();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of 0 to 1 of a number of clients within MAX_CLIENTS"
        )]
        let hot = hot as usize;
        hot.min(self.clients)
    }

    pub(super) fn own_clients(&self) -> usize {
        self.clients - self.hot_clients()
    }

    /// Whether it can be run, as far as can be told before.
    ///
    /// # Errors
    /// [`Error::Usage`] says what cannot.
    pub fn validate(&self) -> Result<()> {
        let usage = |what: String| Err(Error::Usage(what));
        if !(1..=Self::MAX_CLIENTS).contains(&self.clients) {
            return usage(format!("there are 1 to {} clients, not {}", Self::MAX_CLIENTS, self.clients));
        }
        if !(1..=Self::MAX_REPLICAS).contains(&self.replicas) {
            return usage(format!("there are 1 to {} replicas, not {}", Self::MAX_REPLICAS, self.replicas));
        }
        if !(0.0..=1.0).contains(&self.hot_share) {
            return usage(format!("the share of hot clients is 0 to 1, not {}", self.hot_share));
        }
        let leases = Options::MIN_LEASE..=Options::MAX_LEASE;
        if !leases.contains(&self.lease) {
            return usage(format!("a lease is {:?} to {:?}, not {:?}", leases.start(), leases.end(), self.lease));
        }
        Ok(())
    }
}

/// Runs a simulation and audits it. `interrupt` ends it early; `tick` is told every now and then how many payments there were.
///
/// # Errors
/// [`Error::Usage`] for what cannot be run; [`Error::Store`] if the store cannot be opened or stops working, and then
/// nothing was audited. What the audit finds is in the report.
pub async fn simulate(
    simulation: &Simulation,
    open: Open,
    interrupt: impl Future<Output = ()>,
    mut tick: impl FnMut(u64),
) -> Result<SimulationReport> {
    simulation.validate()?;
    let world = Arc::new(World::new(simulation.clone(), open)?);
    let service = world.service(0, "simulation".to_owned(), Duration::ZERO).await?;
    service.store().ping(ReadOptions::default()).await?;
    let backend = service.store().capabilities().backend.to_owned();

    let mut rng = fastrand::Rng::with_seed(simulation.seed);
    let mut reaper = JoinSet::new();
    reaper.spawn(Reaper::new(Arc::clone(&world), rng.fork()).run());
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0..simulation.clients {
        // The hot channel is that of place 0.
        let channel = (number + 1).saturating_sub(simulation.hot_clients());
        clients.spawn(Client::new(Arc::clone(&world), number, channel, rng.fork()).live());
    }

    let (mut own, mut hot) = (Latencies::default(), Latencies::default());
    let mut failure = None;
    let mut ticks = tokio::time::interval(TICK);
    let over = async {
        match simulation.amount {
            Amount::Time(time) => tokio::time::sleep(time).await,
            Amount::Iterations(_) => std::future::pending().await,
        }
    };
    tokio::pin!(interrupt, over);
    loop {
        tokio::select! {
            joined = clients.join_next() => match joined {
                None => break,
                Some(Ok(Ok((is_hot, latencies)))) => if is_hot { hot.add(&latencies) } else { own.add(&latencies) },
                Some(Ok(Err(error))) => failure = Some(error),
                Some(Err(error)) => failure = Some(Error::Verification(format!("a client ended: {error}"))),
            },
            () = &mut interrupt, if !world.is_over() => drop(world.stop.send_replace(true)),
            () = &mut over, if !world.is_over() => drop(world.stop.send_replace(true)),
            _ = ticks.tick() => tick(world.counts.payments.load(Relaxed)),
        }
        if failure.is_some() {
            world.stop.send_replace(true);
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    world.stop.send_replace(true);
    while reaper.join_next().await.is_some() {}
    if let Some(error) = failure {
        return Err(error);
    }
    let report = SimulationReport::new(&world, backend, seconds, &own, &hot);
    Ok(SimulationReport { audit: audit(&world).await?, ..report })
}
