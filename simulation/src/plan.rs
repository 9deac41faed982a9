//! What a seed decides before the run begins.

use std::ops::Range;

/// How many kinds of faults the nemesis has; those from 14 on are an operator's.
pub(crate) const KINDS: u32 = 22;

/// How far an operator goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operator {
    /// Members that were taken in leave again, founders stay.
    Careful,
    /// Founders are removed too.
    Removes,
    /// Disks are emptied, and only members without theirs are removed, and those that were taken in.
    Wipes,
}

/// The shape of a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The voters that found the cluster.
    pub(crate) founders: u64,
    /// Nodes that may be taken in later.
    pub(crate) spares: u64,
    pub(crate) operator: Operator,
    /// How long a message travels, in milliseconds.
    pub(crate) latency: Range<u64>,
    pub(crate) random_order: bool,
    pub(crate) segment_bytes: u64,
    pub(crate) entries_kept: u64,
    pub(crate) snapshot_every: u64,
    /// How long work that blocks takes at the most, in milliseconds.
    pub(crate) blocking: u64,
    /// How long a sync takes at the most, in milliseconds, when nothing is wrong.
    pub(crate) disk: u64,
    /// Clients in each node, and outside.
    pub(crate) inside: u64,
    pub(crate) outside: u64,
    pub(crate) keys: u64,
    /// From one fault to the next, in milliseconds.
    pub(crate) gap: Range<u64>,
    /// How long a fault lasts, in milliseconds.
    pub(crate) lasting: Range<u64>,
    /// Which kinds of faults there are in this run: fewer kinds let each do more.
    pub(crate) kinds: u32,
}

impl Plan {
    pub(crate) fn new(rng: &mut fastrand::Rng) -> Self {
        let slow_network = rng.u8(..4) == 0;
        let fastest = rng.u64(0..3);
        let gap = [60, 200, 600, 1500].get(rng.usize(..4)).copied().unwrap_or(200);
        let lasting = [100, 500, 1500, 4000].get(rng.usize(..4)).copied().unwrap_or(500);
        let operator = rng.choice([Operator::Careful, Operator::Removes, Operator::Wipes]).unwrap_or(Operator::Careful);
        let changes = rng.u8(..3) == 0 || operator == Operator::Wipes;
        Self {
            founders: if rng.u8(..3) == 0 { 5 } else { 3 },
            spares: if changes { rng.u64(1..3) } else { 0 },
            operator,
            latency: fastest..fastest + if slow_network { rng.u64(10..40) } else { rng.u64(1..8) },
            random_order: rng.bool(),
            segment_bytes: [8 << 10, 32 << 10, 128 << 10].get(rng.usize(..3)).copied().unwrap_or(32 << 10),
            entries_kept: rng.u64(0..60),
            snapshot_every: rng.u64(20..200),
            blocking: [0, 2, 50].get(rng.usize(..3)).copied().unwrap_or(0),
            disk: [0, 1, 5, 20].get(rng.usize(..4)).copied().unwrap_or(0),
            inside: rng.u64(1..3),
            outside: rng.u64(1..4),
            keys: rng.u64(1..5),
            gap: gap / 4..gap * 2,
            lasting: lasting / 4..lasting * 2,
            kinds: match rng.u8(..4) {
                0 => u32::MAX,
                // A few.
                1 => rng.u32(1..) & rng.u32(..) & rng.u32(..) | 1 << rng.u32(..KINDS),
                _ => rng.u32(1..),
            },
        }
    }
}
