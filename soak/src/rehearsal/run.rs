//! Runs a rehearsal from the first payment to the audit.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use storage::{ReadOptions, Store as _};
use tokio::task::JoinSet;

use super::{Open, Rehearsal, RehearsalReport, audit::audit, client::Client, reaper::Reaper, world::World};
use bench::{Amount, Error, Latencies, Result};

/// How often those who watch are told.
const TICK: Duration = Duration::from_millis(500);

/// Runs a rehearsal and audits it. `interrupt` ends it early; `tick` is told every now and then how many payments there were.
///
/// # Errors
/// [`Error::Usage`] for what cannot be run; [`Error::Store`] if the store cannot be opened or stops working, and then
/// nothing was audited. What the audit finds is in the report.
pub async fn rehearse(
    rehearsal: &Rehearsal,
    open: Open,
    interrupt: impl Future<Output = ()>,
    mut tick: impl FnMut(u64),
) -> Result<RehearsalReport> {
    rehearsal.validate()?;
    let world = Arc::new(World::new(rehearsal.clone(), open)?);
    let service = world.service(0, "rehearsal".to_owned(), Duration::ZERO).await?;
    service.store().ping(ReadOptions::default()).await?;
    let backend = service.store().capabilities().backend.to_owned();

    let mut rng = fastrand::Rng::with_seed(rehearsal.seed);
    let mut reaper = JoinSet::new();
    reaper.spawn(Reaper::new(Arc::clone(&world), rng.fork()).run());
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0..rehearsal.clients {
        // The hot channel is that of place 0.
        let channel = (number + 1).saturating_sub(rehearsal.hot_clients());
        clients.spawn(Client::new(Arc::clone(&world), number, channel, rng.fork()).live());
    }

    let (mut own, mut hot) = (Latencies::default(), Latencies::default());
    let mut failure = None;
    let mut ticks = tokio::time::interval(TICK);
    let over = async {
        match rehearsal.amount {
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
    let report = RehearsalReport::new(&world, backend, seconds, &own, &hot);
    Ok(RehearsalReport { audit: audit(&world).await?, ..report })
}
