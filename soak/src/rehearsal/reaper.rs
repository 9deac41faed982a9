//! Starts the replicas and the treasurer of a rehearsal, kills some of them in the middle, and ends all in good order.

use std::{sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use super::{Traffic, replica, treasurer, world::World};

/// Between two kills, at random.
const BETWEEN: std::ops::Range<u64> = 100..900;

/// A dead replica is started again after so long, at random.
const DEAD: std::ops::Range<u64> = 0..400;

/// Owns the replicas and the treasurer: starts them, kills some of them, and ends them in good order.
pub(super) struct Reaper {
    world: Arc<World>,
    rng: fastrand::Rng,
    tasks: JoinSet<()>,
    /// How each of them is killed; the treasurer is the last.
    victims: Vec<AbortHandle>,
}

impl Reaper {
    /// Starts everybody.
    pub(super) fn new(world: Arc<World>, rng: fastrand::Rng) -> Self {
        let mut reaper = Self { world, rng, tasks: JoinSet::new(), victims: Vec::new() };
        for number in 0..reaper.world.mailboxes.len() {
            let handle = reaper.start_replica(number);
            reaper.victims.push(handle);
        }
        if reaper.world.rehearsal.traffic == Traffic::Everything {
            let handle = reaper.start_treasurer();
            reaper.victims.push(handle);
        }
        reaper
    }

    /// Kills, if that is wanted, until the end; then lets everybody end what is under way.
    pub(super) async fn run(mut self) {
        let mut stop = self.world.stop.subscribe();
        while self.world.rehearsal.kill_replicas && !self.world.is_over() {
            self.world.pause(Duration::from_millis(self.rng.u64(BETWEEN))).await;
            if !self.world.is_over() {
                self.kill_one().await;
            }
        }
        // The sender lives as long as the world.
        let _ = stop.wait_for(|stop| *stop).await;
        // A request that is under way holds a sender of its own until it is in the queue, so nothing is lost.
        self.world.mailboxes.iter().for_each(|mailbox| drop(mailbox.lock().take()));
        while self.tasks.join_next().await.is_some() {}
    }

    async fn kill_one(&mut self) {
        let number = self.rng.usize(..self.victims.len().max(1));
        let Some(victim) = self.victims.get(number) else { return };
        if let Some(mailbox) = self.world.mailboxes.get(number) {
            mailbox.lock().take();
        }
        victim.abort();
        self.world.counts.kills.fetch_add(1, Relaxed);
        self.world.pause(Duration::from_millis(self.rng.u64(DEAD))).await;
        let started =
            if number < self.world.mailboxes.len() { self.start_replica(number) } else { self.start_treasurer() };
        if let Some(victim) = self.victims.get_mut(number) {
            *victim = started;
        }
        // Those that are dead.
        while self.tasks.try_join_next().is_some() {}
    }

    fn start_replica(&mut self, number: usize) -> AbortHandle {
        let (mailbox, requests) = mpsc::channel(replica::QUEUE);
        if let Some(place) = self.world.mailboxes.get(number) {
            *place.lock() = Some(mailbox);
        }
        self.tasks.spawn(replica::serve(Arc::clone(&self.world), number, requests))
    }

    fn start_treasurer(&mut self) -> AbortHandle {
        self.tasks.spawn(treasurer::serve(Arc::clone(&self.world), self.rng.fork()))
    }
}
