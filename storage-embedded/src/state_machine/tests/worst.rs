//! Looks for requests that do more than they are charged, and for those that take a node longest among those that the limits allow. That is a
//! measurement, run alone: `cargo test --release -p storage-embedded --lib worst_requests -- --ignored --nocapture`.

use std::time::Duration;

use super::*;
use crate::{
    keys::KeySpace,
    mvcc::{Compare, Delete, Direction, Limits, MAX_OPS, Op, Operand, Order, OrderBy, Put, Range, Relation},
};

/// How many shapes are tried, half of them near the best so far; `TRIED` in the environment says otherwise.
const TRIED: usize = 1000;

/// What the operations of a request do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Count,
    Read,
    KeysOnly,
    SortedByMod,
    SortedByValue,
    Filtered,
    Past,
    PastOfOne,
    Put,
    PutWithPrevious,
    PutNew,
    DeleteRange,
    DeleteRangeWithPrevious,
    DeleteOne,
    CompareNumbers,
    CompareValues,
    Nest,
}

const KINDS: [Kind; 17] = [
    Kind::Count,
    Kind::Read,
    Kind::KeysOnly,
    Kind::SortedByMod,
    Kind::SortedByValue,
    Kind::Filtered,
    Kind::Past,
    Kind::PastOfOne,
    Kind::Put,
    Kind::PutWithPrevious,
    Kind::PutNew,
    Kind::DeleteRange,
    Kind::DeleteRangeWithPrevious,
    Kind::DeleteOne,
    Kind::CompareNumbers,
    Kind::CompareValues,
    Kind::Nest,
];

/// A request: two kinds of operations, how often each, and over how much of the keys.
#[derive(Clone, Copy, Debug)]
struct Shape {
    kinds: [Kind; 2],
    times: [usize; 2],
    /// Of a thousand.
    share: [usize; 2],
}

impl Shape {
    fn any() -> Self {
        let pick = || KINDS[fastrand::usize(..KINDS.len())];
        let times = || 1 << fastrand::u32(..=MAX_OPS.ilog2());
        let share = || [1, 10, 100, 1000][fastrand::usize(..4)];
        Self { kinds: [pick(), pick()], times: [times(), times()], share: [share(), share()] }
    }

    fn near(mut self) -> Self {
        let one = fastrand::usize(..2);
        match fastrand::u8(..4) {
            0 => self.kinds[one] = Self::any().kinds[one],
            1 => self.times[one] = (self.times[one] * fastrand::usize(50..200) / 100).max(1),
            2 => self.share[one] = (self.share[one] * fastrand::usize(50..200) / 100).clamp(1, 1000),
            _ => self.times[one] = self.times[one].saturating_sub(1).max(1),
        }
        self
    }

    fn txn(self, store: &Store) -> mvcc::Txn {
        let mut txn = mvcc::Txn::default();
        for ((kind, times), share) in self.kinds.into_iter().zip(self.times).zip(self.share) {
            let width = (store.keys * share / 1000).max(1);
            for one in 0..times {
                store.op(kind, width, one, &mut txn);
            }
        }
        txn
    }
}

/// The keys that requests are tried on.
struct Store {
    name: &'static str,
    keys: usize,
    value: usize,
    space: KeySpace,
}

fn name(one: usize) -> String {
    format!("k{one:07}")
}

impl Store {
    /// Written twice, so that there is a past.
    fn filled(what: &'static str, keys: usize, value: usize) -> Self {
        let mut applier = Applier::default();
        for some in (0..2 * keys).step_by(100) {
            let puts = (some..some + 100).map(|one| (one * 7919 + one / keys) % keys);
            let txn = puts.fold(Txn::new(), |txn, one| txn.put(key(&name(one)), vec![7; value]));
            applier.txn(txn).committed().unwrap();
        }
        Self { name: what, keys, value, space: applier.state.tables().keys.clone() }
    }

    fn op(&self, kind: Kind, width: usize, one: usize, txn: &mut mvcc::Txn) {
        let first = (one * 997) % (self.keys - width + 1);
        let range = KeyRange::Between(name(first).into(), name(first + width).into());
        let read = Range::new(range.clone());
        let sorted =
            |by| Range { order: Order { by, direction: Some(Direction::Descending) }, limit: 1, ..read.clone() };
        let past = self.space.revision - 600.min(self.space.revision - 1);
        let put = |name: String, previous| {
            Op::Put(Put { key: key(&name), value: Some("w".into()), lease: Some(0), previous })
        };
        let compare = |with| Compare { keys: range.clone(), relation: Relation::Equal, with };
        txn.success.push(match kind {
            Kind::Count => Op::Range(Range { count_only: true, ..read }),
            Kind::Read => Op::Range(read),
            Kind::KeysOnly => Op::Range(Range { keys_only: true, ..read }),
            Kind::SortedByMod => Op::Range(sorted(OrderBy::Mod)),
            Kind::SortedByValue => Op::Range(sorted(OrderBy::Value)),
            Kind::Filtered => {
                let revisions = mvcc::RevisionFilter { min_mod: i64::MAX, ..Default::default() };
                Op::Range(Range { revisions, ..read })
            }
            Kind::Past => Op::Range(Range { revision: past, ..read }),
            Kind::PastOfOne => Op::Range(Range { revision: past, ..Range::new(KeyRange::One(name(first).into())) }),
            Kind::Put => put(name(first), false),
            Kind::PutWithPrevious => put(name(first), true),
            Kind::PutNew => put(format!("n{one:07}"), false),
            Kind::DeleteRange => Op::Delete(Delete { keys: range, previous: false }),
            Kind::DeleteRangeWithPrevious => Op::Delete(Delete { keys: range, previous: true }),
            Kind::DeleteOne => Op::Delete(Delete { keys: KeyRange::One(name(first).into()), previous: false }),
            Kind::CompareNumbers => {
                return txn.compares.push(Compare { relation: Relation::Greater, ..compare(Operand::Version(0)) });
            }
            Kind::CompareValues => return txn.compares.push(compare(Operand::Value(vec![7; self.value].into()))),
            Kind::Nest => Op::Txn(mvcc::Txn::default()),
        });
    }

    /// What a node does for a command, from its bytes to those of the answer; `None`: no client can send it, or it was refused.
    fn cost(&self, shape: Shape, even_refused: bool) -> Option<Cost> {
        let txn = shape.txn(self);
        Limits::CURRENT.check(&txn).ok()?;
        let encoded = Command::mvcc(txn).encode();
        if encoded.len() > 1536 << 10 {
            return None;
        }
        let mut tables = crate::tables::Tables::default();
        tables.keys = self.space.clone();
        let mut state = State::new(tables);
        mvcc::counted::take();
        let began = processor_time();
        let applied = state.apply_proposal(1, &crate::raft::Proposal(encoded));
        let refused = matches!(applied, Applied::Rejected(_));
        let mut answer = Vec::new();
        applied.encode(&mut answer);
        drop((applied, state));
        let took = processor_time() - began;
        let (units, steps) = mvcc::counted::take();
        (even_refused || !refused).then_some(Cost { took, units, steps })
    }

    fn took(&self, shape: Shape, even_refused: bool) -> Option<Duration> {
        self.cost(shape, even_refused).map(|cost| cost.took)
    }
}

#[derive(Clone, Copy, Debug)]
struct Cost {
    took: Duration,
    /// What it was charged.
    units: u64,
    /// How many keys it looked at.
    steps: u64,
}

/// How long this thread has worked, whatever others do meanwhile: the first number of Linux's `schedstat`.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn no_request_does_more_than_it_is_charged() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    fastrand::seed(seed);
    let store = Store::filled("200 keys of 100 bytes", 200, 100);
    let (mut most, mut tried) = (0.0_f64, 0);
    while tried < 300 {
        let mut shape = Shape::any();
        shape.times = shape.times.map(|times| times.min(64));
        let Some(Cost { units, steps, .. }) = store.cost(shape, true) else { continue };
        assert!(steps <= units, "{steps} steps for {units} units");
        most = most.max(steps as f64 / units.max(1) as f64);
        tried += 1;
    }
    assert!(most > 0.5, "a count is charged a unit for each key, so that one more step for each would show: {most}");
}

/// How many times as long as a unit of the usual kind of request one of another may take. A kind that is not counted at all is out by hundreds.
const OUT_OF_LINE: f64 = 30.0;

/// So long a kind of request is measured in all: the clock of a thread's own time moves with the ticks of the system, of up to 4 ms.
const MEASURED: Duration = Duration::from_millis(60);

/// A ratio, so that it holds on any machine: of the time of the processor, since others use it too.
#[test]
fn no_kind_of_request_takes_far_longer_than_it_is_charged() {
    let store = Store::filled("2,000 keys of 100 bytes", 2000, 100);
    let for_a_unit = |kind| {
        let shape = Shape { kinds: [kind, Kind::Nest], times: [128, 1], share: [100, 1] };
        let (mut took, mut units) = (Duration::ZERO, 0);
        while took < MEASURED {
            let cost = store.cost(shape, true).unwrap();
            took += cost.took;
            units += cost.units;
        }
        took.as_nanos() as f64 / units as f64
    };
    let mut each: Vec<_> = KINDS.iter().map(|kind| (for_a_unit(*kind), *kind)).collect();
    each.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    println!("nanoseconds for a unit: {each:.1?}");
    let (usual, _) = each[each.len() / 2];
    let (worst, kind) = each[each.len() - 1];
    assert!(worst < OUT_OF_LINE * usual, "a unit of {kind:?} takes {worst:.0} ns, of the usual request {usual:.0} ns");
}

#[test]
#[ignore = "a measurement"]
fn worst_requests_that_the_limits_allow() {
    fastrand::seed(std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap()));
    let tried_shapes = std::env::var("TRIED").map_or(TRIED, |tried| tried.parse().unwrap());
    let stores = [
        Store::filled("300,000 keys of 10 bytes", 300_000, 10),
        Store::filled("20,000 keys of 1 KiB", 20_000, 1 << 10),
        Store::filled("1,000 keys of 100 KiB", 1000, 100 << 10),
    ];
    // Each kind alone, as often as is allowed: what a unit of work takes.
    for store in &stores {
        for kind in KINDS {
            let takes = |times| {
                let shape = Shape { kinds: [kind, Kind::Nest], times: [times, 1], share: [1000, 1] };
                (0..3).map(|_| store.took(shape, false)).min().flatten().map(|took| (took, times))
            };
            let most = (0..13).filter_map(|power| takes(1 << power)).max();
            println!("{}: {kind:?}: {most:?}", store.name);
        }
    }
    for store in &stores {
        for even_refused in [false, true] {
            let mut best: Option<(Duration, Shape)> = None;
            for tried in 0..tried_shapes {
                let shape = match best {
                    Some((_, best)) if tried % 2 == 1 => best.near(),
                    _ => Shape::any(),
                };
                // The least of some: what else the machine did is not the request's.
                let took = (0..2).map(|_| store.took(shape, even_refused)).min().flatten();
                if let Some(took) = took.filter(|took| best.is_none_or(|(best, _)| *took > best)) {
                    best = Some((took, shape));
                }
            }
            let (took, shape) = best.unwrap();
            let what = if even_refused { "at all" } else { "carried out" };
            println!("{}: longest {what}: {took:?} for {shape:?}", store.name);
        }
    }
}
