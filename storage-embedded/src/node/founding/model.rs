//! All that can happen when three nodes found a cluster, with crashes and lost disks at every step.
//!
//! What raft does later is one step here: two nodes that have begun count each other's votes. From then on neither may forget.

use std::collections::{BTreeSet, HashSet, VecDeque};

use super::*;

const NODES: [u64; 3] = [1, 2, 3];

/// A node: its disk, and what it knows while it runs.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct ModelNode {
    disk: Phase,
    /// What it knows of the others while it founds.
    founding: Option<Founding>,
    runs: bool,
    /// Another counts on what it has voted.
    counted: bool,
    /// And it has forgotten it.
    forgot: bool,
    /// Its disk was lost at some time.
    wiped: bool,
}

type World = Vec<ModelNode>;

fn others(of: usize) -> impl Iterator<Item = usize> {
    (0..NODES.len()).filter(move |place| *place != of)
}

/// What may happen next, and what it leads to.
fn next(world: &World, wipes_of_counted: usize, decide: fn(&Founding) -> Step) -> Vec<World> {
    let mut found = Vec::new();
    let mut then = |change: &dyn Fn(&mut World)| {
        let mut changed = world.clone();
        change(&mut changed);
        found.push(changed);
    };
    let forgetful = world.iter().filter(|place| place.forgot).count();
    for (at, place) in world.iter().enumerate() {
        if place.runs {
            then(&|world| (world[at].runs, world[at].founding) = (false, None));
        } else {
            then(&|world| {
                let ids = others(at).map(|other| NODES[other]);
                world[at].runs = true;
                world[at].founding = (world[at].disk != Phase::Begun).then(|| Founding::new(world[at].disk, ids));
            });
            if !place.counted || forgetful < wipes_of_counted {
                then(&|world| {
                    (world[at].disk, world[at].wiped) = (Phase::New, true);
                    world[at].forgot |= world[at].counted;
                });
            }
        }
        if let Some(founding) = &place.founding {
            for other in others(at).filter(|other| world[*other].runs) {
                then(&|world| {
                    let phase = world[other].disk;
                    if let Some(founding) = &mut world[at].founding {
                        founding.hear(NODES[other], phase);
                    }
                });
            }
            match decide(founding) {
                Step::Ask => {}
                Step::Prepare => then(&|world| {
                    world[at].disk = Phase::Prepared;
                    if let Some(founding) = &mut world[at].founding {
                        founding.phase = Phase::Prepared;
                    }
                }),
                Step::Begin => then(&|world| (world[at].disk, world[at].founding) = (Phase::Begun, None)),
                Step::Forgot(_) => then(&|world| (world[at].runs, world[at].founding) = (false, None)),
            }
        }
        for other in others(at) {
            if [at, other].iter().all(|place| world[*place].runs && world[*place].disk == Phase::Begun) {
                then(&|world| (world[at].counted, world[other].counted) = (true, true));
            }
        }
    }
    found
}

/// A node takes part that has forgotten what another counts on, or one is told so whose disk was never lost.
fn is_wrong(world: &World, decide: fn(&Founding) -> Step) -> bool {
    let takes_part = |place: &ModelNode| place.forgot && place.disk == Phase::Begun;
    let is_told =
        |place: &ModelNode| place.founding.as_ref().is_some_and(|founding| matches!(decide(founding), Step::Forgot(_)));
    world.iter().any(|place| takes_part(place) || (!place.wiped && is_told(place)))
}

/// Goes through all that can happen. Gives a world that is wrong, if there is one, and whether all can have begun.
fn explore(decide: fn(&Founding) -> Step) -> (Option<World>, bool) {
    let place =
        ModelNode { disk: Phase::New, founding: None, runs: false, counted: false, forgot: false, wiped: false };
    let first = vec![place; NODES.len()];
    let (mut seen, mut queue) = (HashSet::from([first.clone()]), VecDeque::from([first]));
    let mut all_began = false;
    while let Some(world) = queue.pop_front() {
        if is_wrong(&world, decide) {
            return (Some(world), all_began);
        }
        all_began |= world.iter().all(|place| place.runs && place.disk == Phase::Begun);
        // One disk of three may be lost for good; as many as one likes before anybody counts on them.
        for next in next(&world, 1, decide) {
            if seen.insert(next.clone()) {
                queue.push_back(next);
            }
        }
    }
    (None, all_began)
}

#[test]
fn no_node_takes_part_that_has_forgotten_what_another_counts_on() {
    assert_eq!(explore(Founding::step), (None, true));
}

/// Each rule is needed: without it, the same search finds the harm.
#[test]
fn each_rule_is_needed() {
    let without: [fn(&Founding) -> Step; 3] = [
        // A node whose disk is empty does not look whether another has begun.
        |founding| match founding.step() {
            Step::Forgot(_) => Step::Prepare,
            step => step,
        },
        // It asks a majority only.
        |founding| {
            let heard: BTreeSet<_> = founding.others.values().flatten().collect();
            match founding.step() {
                Step::Ask if founding.phase == Phase::New && heard.iter().any(|phase| **phase < Phase::Begun) => {
                    Step::Prepare
                }
                step => step,
            }
        },
        // It begins before all others were prepared.
        |founding| match founding.step() {
            Step::Ask if founding.phase == Phase::Prepared => Step::Begin,
            step => step,
        },
    ];
    for (rule, decide) in without.into_iter().enumerate() {
        assert!(explore(decide).0.is_some(), "rule {rule}");
    }
}
