//! What a request may cost, and the count of it while it is carried out.
//!
//! Costs are counted in units of work: one is what it takes to walk over a key, about 10 ns. The weights below say what else takes how
//! much; `tests/worst_requests.rs` looks for the requests that take longest for what they are counted.
//!
//! # Invariants
//! - A transaction of the log is judged by the limits whose version its command carries, by every replica and every later program alike:
//!   the limits of a version, and how work is counted under it, never change. Others get a new version.
//! - What is counted follows from the request and the keys alone, never from how they are laid out in memory or how long it took.

use super::{KeyValue, Op, Refused, Txn};

/// How much work a request may take: units of about 10 ns, so some 40 to 50 ms at the most.
pub const MAX_WORK: u64 = 4_000_000;

/// How many keys a request may delete by ranges, beside its other work: 160 ms by the weights below. Operators delete prefixes of tens of
/// thousands of keys by one range, and cannot do it again: each key was put, and that was paid for as work.
pub const MAX_DELETED_KEYS: u64 = 98_304;

/// How many bytes of values a request may delete (512 MiB), beside its other work, to hash them: 160 ms by the weights below. Each was sent once, too.
pub const MAX_DELETED_BYTES: u64 = 512 << 20;

/// How many operations and comparisons a transaction may have in both branches, with those within it: more than two levels can have
/// under etcd's limit of 128, with the largest of which a third level would have 75,000.
pub const MAX_OPS: usize = 8192;

/// How many bytes of keys and values the answer to a transaction that writes may have (16 MiB): it has to fit into one message
/// between nodes. A transaction whose answer would be larger is refused and changes nothing.
pub const MAX_ANSWER_BYTES: usize = 16 << 20;

/// How many bytes of keys and values the answer to a request that only reads may have (32 MiB): what a node copies and sends in some 30 ms.
pub const MAX_READ_BYTES: usize = 32 << 20;

/// How many keys may be attached to one lease: its end deletes them all in one revision, as a range may.
pub const MAX_LEASE_KEYS: usize = 98_304;

/// How many bytes of answers a session may leave unacknowledged (64 MiB): they are in memory on every replica.
pub(crate) const MAX_UNACKNOWLEDGED_BYTES: usize = 64 << 20;

/// Work that nobody minds waiting for: half a millisecond. What takes more is done on another thread, on a copy of the keys.
pub(crate) const SHORT_WORK: u64 = 50_000;

/// What things take, in units of work.
pub(super) mod weight {
    /// An operation or a comparison, with the search for its key.
    pub(crate) const OP: u64 = 32;
    /// A key that is walked over.
    pub(crate) const WALKED: u64 = 1;
    /// A key that is collected, to be filtered or answered, or compared; or walked over in the past.
    pub(crate) const COLLECTED: u64 = 8;
    /// A key that is sorted.
    pub(crate) const SORTED: u64 = 16;
    /// A key that is answered: it is converted twice, sent and taken apart again.
    pub(crate) const ANSWERED: u64 = 32;
    /// An operation that writes or deletes, besides its keys: the leaf of the tree where it begins is shared with a copy, and copied first.
    pub(crate) const WRITES: u64 = 1600;
    /// A key that is written or deleted.
    pub(crate) const WRITTEN: u64 = 160;
    /// A change of the history that is undone for a read of the past.
    pub(crate) const UNDONE: u64 = 32;
    /// How many bytes of a value are compared or hashed in a unit.
    pub(crate) const BYTES: u64 = 32;
}

/// What a request may delete beside its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Deleted {
    /// By ranges.
    keys: u64,
    /// Of values, however their keys are named.
    bytes: u64,
}

/// The limits of a transaction, by the version that its command carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    work: Option<u64>,
    /// `None`: what is deleted is work like what is written.
    deleted: Option<Deleted>,
    answer_bytes: usize,
    ops: usize,
    lease_keys: usize,
    pub(crate) unacknowledged_bytes: usize,
}

impl Limits {
    /// Those that this program gives to what it proposes.
    pub(crate) const VERSION: u8 = 2;

    /// Those that were there before they had versions: of the answer alone.
    const UNNUMBERED: Self = Self {
        work: None,
        deleted: None,
        answer_bytes: 16 << 20,
        ops: usize::MAX,
        lease_keys: usize::MAX,
        unacknowledged_bytes: usize::MAX,
    };

    const FIRST: Self = Self {
        work: Some(4_000_000),
        deleted: None,
        answer_bytes: 16 << 20,
        ops: 8192,
        lease_keys: 16_384,
        unacknowledged_bytes: 64 << 20,
    };

    const SECOND: Self = Self {
        work: Some(MAX_WORK),
        deleted: Some(Deleted { keys: MAX_DELETED_KEYS, bytes: MAX_DELETED_BYTES }),
        answer_bytes: MAX_ANSWER_BYTES,
        ops: MAX_OPS,
        lease_keys: MAX_LEASE_KEYS,
        unacknowledged_bytes: MAX_UNACKNOWLEDGED_BYTES,
    };

    /// The limits of [`Limits::VERSION`].
    pub(crate) const CURRENT: Self = Self::SECOND;

    /// The limits of requests that only read: no other replica has to agree.
    pub(crate) const READING: Self = Self { answer_bytes: MAX_READ_BYTES, ..Self::CURRENT };

    /// The limits of a version; `None`: of a program to come.
    pub(crate) const fn of(version: u8) -> Option<Self> {
        match version {
            0 => Some(Self::UNNUMBERED),
            1 => Some(Self::FIRST),
            2 => Some(Self::SECOND),
            _ => None,
        }
    }

    /// What can be seen of a transaction before anything is looked up.
    ///
    /// # Errors
    /// [`Refused::TooCostly`].
    pub(crate) fn check(self, txn: &Txn) -> Result<(), Refused> {
        if count_ops(txn) > self.ops { Err(Refused::TooCostly) } else { Ok(()) }
    }

    /// Whether one more key may be attached to a lease that has so many.
    pub(super) fn attach(self, keys: usize) -> Result<(), Refused> {
        if keys >= self.lease_keys { Err(Refused::LeaseFull) } else { Ok(()) }
    }

    /// Begins to count.
    pub(super) fn meter(self) -> Meter {
        Meter { left: self.work, deletes_left: self.deleted, bytes: 0, most_bytes: self.answer_bytes }
    }
}

fn count_ops(txn: &Txn) -> usize {
    let ops = txn.success.iter().chain(&txn.failure);
    let within = ops.map(|op| if let Op::Txn(txn) = op { 1 + count_ops(txn) } else { 1 });
    txn.compares.len() + within.sum::<usize>()
}

/// What a request may still cost.
#[derive(Debug)]
pub(super) struct Meter {
    /// `None`: there is no limit, as before limits had versions.
    left: Option<u64>,
    deletes_left: Option<Deleted>,
    /// How large the answer is so far.
    bytes: usize,
    most_bytes: usize,
}

impl Meter {
    /// Of what was counted before.
    pub(super) fn without_limit() -> Self {
        Self { left: None, deletes_left: None, bytes: 0, most_bytes: usize::MAX }
    }

    /// Counts work, before it is done.
    ///
    /// # Errors
    /// [`Refused::TooCostly`].
    pub(super) fn work(&mut self, units: u64) -> Result<(), Refused> {
        #[cfg(test)]
        counted::charge(units);
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(units).ok_or(Refused::TooCostly)?;
        }
        Ok(())
    }

    /// Counts work of so much for each of some items.
    pub(super) fn each(&mut self, weight: u64, items: usize) -> Result<(), Refused> {
        self.work(weight.saturating_mul(items as u64))
    }

    /// Counts the bytes of a value that is compared or hashed.
    pub(super) fn value(&mut self, bytes: usize) -> Result<(), Refused> {
        self.work(bytes as u64 / weight::BYTES)
    }

    /// Counts a key that a range deletes, with its value.
    ///
    /// # Errors
    /// [`Refused::TooCostly`].
    pub(super) fn delete(&mut self, value: usize) -> Result<(), Refused> {
        match &mut self.deletes_left {
            None => self.work(weight::WRITTEN)?,
            Some(left) => {
                #[cfg(test)]
                counted::charge(weight::WRITTEN);
                left.keys = left.keys.checked_sub(1).ok_or(Refused::TooCostly)?;
            }
        }
        self.deleted_value(value)
    }

    /// Counts a value that is deleted: it is hashed, to take it out of the hash of the state.
    ///
    /// # Errors
    /// [`Refused::TooCostly`].
    pub(super) fn deleted_value(&mut self, bytes: usize) -> Result<(), Refused> {
        let Some(left) = &mut self.deletes_left else { return self.value(bytes) };
        #[cfg(test)]
        counted::charge(bytes as u64 / weight::BYTES);
        left.bytes = left.bytes.checked_sub(bytes as u64).ok_or(Refused::TooCostly)?;
        Ok(())
    }

    /// Counts an entry of the answer, as it is made: no more than what is allowed is ever in memory.
    ///
    /// # Errors
    /// [`Refused::AnswerTooLarge`], and [`Refused::TooCostly`].
    pub(super) fn answer(&mut self, entry: &KeyValue) -> Result<(), Refused> {
        self.work(weight::ANSWERED)?;
        self.bytes += entry.bytes();
        if self.bytes > self.most_bytes { Err(Refused::AnswerTooLarge) } else { Ok(()) }
    }
}

/// What was charged and what was done on this thread: tests compare the two.
#[cfg(test)]
pub(crate) mod counted {
    use std::cell::Cell;

    thread_local! {
        static UNITS: Cell<u64> = const { Cell::new(0) };
        static STEPS: Cell<u64> = const { Cell::new(0) };
    }

    pub(in crate::mvcc) fn charge(units: u64) {
        UNITS.set(UNITS.get().saturating_add(units));
    }

    /// A key that was looked at or changed.
    pub(in crate::mvcc) fn step() {
        STEPS.set(STEPS.get() + 1);
    }

    /// The units and the steps since this was asked last.
    pub(crate) fn take() -> (u64, u64) {
        (UNITS.replace(0), STEPS.replace(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exactly_at_a_limit_passes_and_one_more_does_not() {
        let mut meter = Limits::CURRENT.meter();
        meter.work(MAX_WORK).unwrap();
        assert_eq!(meter.work(1), Err(Refused::TooCostly));
        (0..MAX_DELETED_KEYS).for_each(|_| meter.delete(0).unwrap());
        assert_eq!(meter.delete(0), Err(Refused::TooCostly));
        meter.deleted_value(512 << 20).unwrap();
        assert_eq!(meter.deleted_value(1), Err(Refused::TooCostly));
        assert_eq!(Limits::CURRENT.attach(MAX_LEASE_KEYS - 1), Ok(()));
        assert_eq!(Limits::CURRENT.attach(MAX_LEASE_KEYS), Err(Refused::LeaseFull));
        let deep = |ops: usize| Txn {
            success: vec![Op::Txn(Txn { success: vec![], ..Txn::default() }); ops],
            ..Txn::default()
        };
        assert_eq!(Limits::CURRENT.check(&deep(MAX_OPS)), Ok(()));
        assert_eq!(Limits::CURRENT.check(&deep(MAX_OPS + 1)), Err(Refused::TooCostly));
        assert_eq!(Limits::UNNUMBERED.check(&deep(MAX_OPS + 1)), Ok(()));
    }

    /// Logs hold commands of these versions: other numbers would make another state of them.
    #[test]
    fn the_limits_of_a_version_never_change() {
        let second = Some(Deleted { keys: 98_304, bytes: 536_870_912 });
        for (version, most_deleted, most_attached) in [(1, None, 16_384), (2, second, 98_304)] {
            let Limits { work, deleted, answer_bytes, ops, lease_keys, unacknowledged_bytes } =
                Limits::of(version).unwrap();
            assert_eq!((work, answer_bytes, ops), (Some(4_000_000), 16_777_216, 8192));
            assert_eq!((deleted, lease_keys, unacknowledged_bytes), (most_deleted, most_attached, 67_108_864));
        }
        assert_eq!(Limits::of(0).unwrap().answer_bytes, 16_777_216);
        assert_eq!((Limits::of(Limits::VERSION), Limits::of(Limits::VERSION + 1)), (Some(Limits::CURRENT), None));
    }
}
