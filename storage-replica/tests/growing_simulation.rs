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

use growing_simulation::world::{End, World};

const SEEDS: u64 = 1000;
const STEPS: usize = 1500;

#[test]
fn a_thousand_random_lives_never_have_two_clusters_or_two_histories() {
    let first = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = first.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    let (mut settled, mut lost, mut never, mut commits, mut changes) = (0, 0, 0, 0, 0);
    for seed in seeds {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        match world.quiet() {
            End::Settled => settled += 1,
            End::Lost => lost += 1,
            End::NeverFounded => never += 1,
        }
        commits += world.commits();
        changes += world.changes;
    }
    println!(
        "{settled} settled, {lost} lost a majority of the disks, {never} were never founded; {commits} commits, {changes} changes"
    );
    if first.is_none() {
        assert!(settled > 600, "too few lives come to rest to prove anything: {settled}");
        assert!(changes > 2000 && commits > 10_000, "too little happens");
    }
}
