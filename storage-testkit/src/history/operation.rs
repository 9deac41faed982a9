//! One operation of a history: what a client did to one key, when, and what it was told.
//!
//! The checker judges by this alone. An unknown outcome is a fact of its own: such an operation may take effect at any
//! time after its start, or never.

use std::fmt;

use bytes::Bytes;
use storage_core::{Expected, Key, Observed, OperationId, Version};

/// What one client did to one key, and what it was told.
///
/// A transaction of several keys is one operation for each of its keys, with the same [`txn`](Operation::txn).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who did it: a number for each handle. For people; the checker does not look at it.
    pub process: u64,
    /// When it began, in nanoseconds since any moment that is the same for the whole history.
    pub start: u64,
    /// When its answer had come, on the clock of `start` and not before it. `None`: none had come when the history was
    /// taken. The operation took effect at some moment from `start` to `end`, both included; one whose outcome is
    /// unknown at some moment from `start` on, or never.
    pub end: Option<u64>,
    /// The key.
    pub key: Key,
    /// What had to be at the key. A read without a guard, or a blind write, has [`Expected::Any`].
    pub guard: Expected,
    /// What was to be done to the key.
    pub action: Action,
    /// What the client was told.
    pub outcome: Outcome,
    /// The transaction that this is a part of, if that has more than one key. For people.
    pub txn: Option<u64>,
    /// The name of the write, if it has one: operations on a key with one id are one write that was sent several times.
    pub id: Option<OperationId>,
}

/// What is done to a key if the guard holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: the key is read, or only its guard is looked at.
    Read,
    /// It is given this value.
    Put(Bytes),
    /// It is removed.
    Delete,
}

/// What a client was told of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guard held, and the action was done.
    Ok {
        /// What a read saw.
        seen: Seen,
        /// The version that a put gave.
        version: Option<Version>,
    },
    /// The guard did not hold, and nothing was done.
    Conflict {
        /// What was there instead.
        seen: Seen,
    },
    /// It was certainly not applied and never will be, and nothing was learned.
    Failed,
    /// It may have been applied, or may yet be.
    Unknown,
}

/// What an answer told of the state of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing.
    Untold,
    /// The key was absent.
    Absent,
    /// The key had this value.
    Present {
        /// The value.
        value: Bytes,
        /// Its version, if that was told.
        version: Option<Version>,
    },
}

impl From<Observed> for Seen {
    fn from(observed: Observed) -> Self {
        match observed {
            Observed::Present(entry) => Self::Present { value: entry.value, version: Some(entry.version) },
            Observed::Absent => Self::Absent,
            Observed::Unknown => Self::Untold,
        }
    }
}

/// What was done and what came of it, without key and times: `put "b" if version 1f -> ok, version 20`.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.action {
            Action::Read if self.guard == Expected::Any => write!(f, "read")?,
            Action::Read => write!(f, "check")?,
            Action::Put(value) => write!(f, "put {}", Quoted(value))?,
            Action::Delete => write!(f, "delete")?,
        }
        match &self.guard {
            Expected::Any => {}
            Expected::Absent => write!(f, " if absent")?,
            Expected::Exists => write!(f, " if present")?,
            Expected::Version(version) => write!(f, " if version {}", short(*version))?,
            Expected::Value(value) => write!(f, " if {}", Quoted(value))?,
        }
        match &self.outcome {
            Outcome::Ok { seen: Seen::Untold, version: None } => write!(f, " -> ok"),
            Outcome::Ok { seen: Seen::Untold, version: Some(version) } => write!(f, " -> version {}", short(*version)),
            Outcome::Ok { seen, .. } => write!(f, " -> {seen}"),
            Outcome::Conflict { seen: Seen::Untold } => write!(f, " -> conflict"),
            Outcome::Conflict { seen } => write!(f, " -> conflict, {seen}"),
            Outcome::Failed => write!(f, " -> not applied"),
            Outcome::Unknown => write!(f, " -> unknown"),
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untold => write!(f, "untold"),
            Self::Absent => write!(f, "absent"),
            Self::Present { value, version: None } => write!(f, "{}", Quoted(value)),
            Self::Present { value, version: Some(version) } => {
                write!(f, "{} at version {}", Quoted(value), short(*version))
            }
        }
    }
}

/// A version without its leading zeros.
pub(super) fn short(version: Version) -> String {
    format!("{:x}", u128::from_be_bytes(version.to_bytes()))
}

/// A value as text: its first bytes if it is long.
struct Quoted<'a>(&'a [u8]);

impl Quoted<'_> {
    /// So many bytes tell one value from another and fit a line.
    const BYTES: usize = 32;
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get(..Self::BYTES) {
            Some(start) if self.0.len() > Self::BYTES => {
                write!(f, "\"{}\"... ({} bytes)", start.escape_ascii(), self.0.len())
            }
            _ => write!(f, "\"{}\"", self.0.escape_ascii()),
        }
    }
}
