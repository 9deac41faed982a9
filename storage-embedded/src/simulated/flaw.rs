//! Defects that are planted on purpose: a simulation that does not find them is worth nothing.

use std::cell::Cell;

/// A defect that is planted to see that it is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Flaw {
    /// A vote is answered before it is synced.
    UnsyncedVote,
    /// The leader answers reads without asking anybody whether it still leads.
    UnconfirmedRead,
    /// Raft is told that entries are durable before they are written.
    EarlyAcknowledgement,
    /// A leader that restarts leads on in its old term.
    RestoredLeader,
    /// Applying an entry draws a random number.
    RandomState,
    /// A write that is sent again is another write.
    RepeatedWrite,
    /// A node whose disk is empty does not find out whether it has run.
    ForgottenDisk,
    /// Members are changed whoever is alive.
    UncheckedChange,
    /// What cannot be read counts as absent: a node begins anew in a directory that has its data.
    UnreadableIsAbsent,
    /// A batch for which no segment can be begun is acknowledged all the same.
    IgnoredSegment,
    /// A leader goes on counting the time of leases where it ended when it led before.
    StaleLeaseClock,
    /// The cluster is told that a write is acknowledged which is still under way, and forgets that it has applied it.
    EarlyNumbers,
    /// A delete of a range takes the key at its end, too.
    GreedyDelete,
    /// Nodes do not compare their states.
    Uncompared,
}

thread_local! {
    static PLANTED: Cell<Option<Flaw>> = const { Cell::new(None) };
}

/// Plants a defect in every node that this thread simulates from now on, or none.
pub fn plant(flaw: Option<Flaw>) {
    PLANTED.set(flaw);
}

pub(crate) fn is_planted(flaw: Flaw) -> bool {
    PLANTED.get() == Some(flaw)
}
