//! What comes back.

use bytes::Bytes;

/// What is stored under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value; empty where only keys were asked for.
    pub value: Bytes,
    /// The revision that created the key, after its last deletion if it had one.
    pub create_revision: u64,
    /// The revision that wrote the value.
    pub mod_revision: u64,
    /// How often the key was written since it was created.
    pub version: u64,
    /// The lease that the key is attached to; 0: none.
    pub lease: u64,
}

impl KeyValue {
    /// How long its key and value are, with room for the rest.
    pub(crate) fn bytes(&self) -> usize {
        self.key.len() + self.value.len() + 64
    }
}

/// The answer to a [`Range`](super::Range).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranged {
    /// What was read.
    pub entries: Vec<KeyValue>,
    /// Whether there is more than the limit.
    pub more: bool,
    /// How many keys the range has, whatever the limit and the filter.
    pub count: u64,
    /// The revision of the store when it was read.
    pub revision: u64,
}

/// The answer to a [`Txn`](super::Txn).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnAnswer {
    /// Whether the comparisons held.
    pub succeeded: bool,
    /// The answers to the operations that were done, in order.
    pub answers: Vec<OpAnswer>,
    /// The revision of the store after the transaction.
    pub revision: u64,
}

/// Room for an answer without keys and values.
const SMALL_BYTES: usize = 64;

impl TxnAnswer {
    /// How many bytes of keys and values it has, with room for the rest.
    pub(crate) fn bytes(&self) -> usize {
        let of_all = |entries: &[KeyValue]| entries.iter().map(KeyValue::bytes).sum::<usize>();
        let of_ops = self.answers.iter().map(|answer| {
            SMALL_BYTES
                + match answer {
                    OpAnswer::Range(ranged) => of_all(&ranged.entries),
                    OpAnswer::Put { previous, .. } => of_all(previous.as_slice()),
                    OpAnswer::Delete { previous, .. } => of_all(previous),
                    OpAnswer::Txn(answer) => answer.bytes(),
                }
        });
        SMALL_BYTES + of_ops.sum::<usize>()
    }
}

/// The answer to an [`Op`](super::Op).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpAnswer {
    /// What was read.
    Range(Ranged),
    /// A key was written.
    Put {
        /// What was there before, if it was asked for and there was something.
        previous: Option<KeyValue>,
        /// The revision of the transaction.
        revision: u64,
    },
    /// Keys were deleted.
    Delete {
        /// How many.
        deleted: u64,
        /// What was there before, if it was asked for.
        previous: Vec<KeyValue>,
        /// The revision of the transaction so far.
        revision: u64,
    },
    /// A transaction within the transaction.
    Txn(TxnAnswer),
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What the key holds since then; of a deleted key only itself and the revision that deleted it.
    pub entry: KeyValue,
    /// Whether the key was deleted.
    pub deleted: bool,
    /// What it held at the revision before, if it did and that revision can still be read; of a key that was created, nothing, even if one
    /// transaction had deleted it before.
    pub previous: Option<KeyValue>,
}

impl Event {
    /// How many bytes its keys and values have, with room for the rest.
    pub fn bytes(&self) -> usize {
        self.entry.bytes() + self.previous.as_ref().map_or(0, KeyValue::bytes)
    }
}

/// How much of the history is wanted at once, and the rest of the last revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventLimit {
    /// How many events.
    pub events: usize,
    /// How many bytes of keys and values, new and old.
    pub bytes: usize,
}

/// A piece of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// In the order in which they happened; a piece never ends within a revision.
    pub events: Vec<Event>,
    /// All that happened up to this revision was looked at.
    pub upto: u64,
}

/// How long a lease lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseLife {
    /// After it was last kept alive, in seconds.
    pub granted_seconds: u64,
    /// From now on, in milliseconds.
    pub left_millis: u64,
}
