//! A thousand clusters in which replicas start, die, lose their disks and are cut off at random, with the real decisions and the real protocol of
//! founding on a model of Raft.
//!
//! The model is small and keeps what matters: terms, votes and logs that are durable, configurations that count from the moment they are
//! appended, joint majorities, and questions whose answers are lost. Every step looks for two leaders that commit different things, and for two
//! clusters that commit anything. In the end everything is healed, and the voters have to be as many as the rule says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod growing_simulation {
    pub(crate) mod raft;
    pub(crate) mod world;
}

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use growing_simulation::world::{End, World};

const SEEDS: u64 = 1000;
const STEPS: usize = 1500;

/// What became of the lives.
#[derive(Debug, Default)]
struct Totals {
    settled: u64,
    lost: u64,
    never_founded: u64,
    commits: usize,
    changes: usize,
    cleared: usize,
}

impl Totals {
    fn live(&mut self, seed: u64) {
        let _seed = Seed(seed);
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        match world.quiet() {
            End::Settled => self.settled += 1,
            End::Lost => self.lost += 1,
            End::NeverFounded => self.never_founded += 1,
        }
        self.commits += world.commits();
        self.changes += world.changes;
        self.cleared += world.cleared;
    }

    fn add(&mut self, other: &Self) {
        self.settled += other.settled;
        self.lost += other.lost;
        self.never_founded += other.never_founded;
        self.commits += other.commits;
        self.changes += other.changes;
        self.cleared += other.cleared;
    }
}

/// Tells how to repeat the life that has failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("SEED={} repeats it", self.0);
        }
    }
}

#[test]
fn a_thousand_random_lives_never_have_two_clusters_or_two_histories() {
    let first = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = first.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    let next = AtomicU64::new(seeds.start);
    // A life depends on its seed alone, so each thread takes the next one that nobody has.
    let lives = || {
        let mut totals = Totals::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                return totals;
            }
            totals.live(seed);
        }
    };
    let mut totals = Totals::default();
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..thread::available_parallelism().map_or(1, usize::from)).map(|_| scope.spawn(lives)).collect();
        for thread in threads {
            totals.add(&thread.join().unwrap());
        }
    });
    println!("{totals:?}");
    if first.is_none() {
        assert!(totals.settled > 600, "too few lives come to rest to prove anything: {totals:?}");
        assert!(totals.changes > 2000 && totals.commits > 10_000, "too little happens: {totals:?}");
        assert!(totals.cleared > 200, "rows are deleted too seldom: {totals:?}");
    }
}
