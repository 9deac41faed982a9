//! What applying a command gives: the answer that goes back to whoever proposed it.

use std::{fmt, sync::Arc};

use bytes::{BufMut, Bytes};
use storage_core::{Committed, Conflict, Entry, Observed, Outcome, Revision};

use crate::{
    codec::{DecodeError, Decoded, Reader, boolean, key, put_bytes, put_length, version},
    mvcc,
};

/// What applying one entry of the log gave. It is the same on every replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// There is nothing to say: a blank entry, a change of the members, a row.
    Nothing,
    /// How a transaction or the end of a lease went.
    Outcome(Outcome),
    /// The id of the session that was opened.
    Session(u64),
    /// The request's session was never opened, or was forgotten in favour of sessions used later. Nothing was applied now;
    /// whether an earlier proposal of the same request was applied is not known any more.
    UnknownSession,
    /// The lease that was granted.
    Lease {
        /// Its id.
        id: u64,
        /// How long it lives after it was last kept alive, in seconds.
        ttl_seconds: u64,
    },
    /// There is no lease of this id. Nothing was applied.
    LeaseNotFound,
    /// There is a lease of this id already. Nothing was applied.
    LeaseExists,
    /// How a transaction with branches went.
    Mvcc(Arc<mvcc::TxnAnswer>),
    /// The command cannot be applied. Nothing was applied, here and on every other replica.
    Rejected(Rejection),
}

/// Why a command cannot be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// Its bytes are no command.
    Malformed,
    /// The session has acknowledged this request: an old copy of the proposal came late.
    Acknowledged,
    /// The session has too many requests that it has not acknowledged.
    TooManyRequests,
    /// There are too many leases.
    TooManyLeases,
    /// There are too many rows, or a row is too large.
    TooManyRows,
    /// A row is not what it was expected to be.
    RowsDiffer,
    /// A put that keeps the value or the lease of its key, and there is no such key.
    KeyNotFound,
    /// The revision is older than the history that is kept.
    Compacted,
    /// The revision is yet to come.
    FutureRevision,
    /// The answer would be larger than what nodes can say to each other.
    AnswerTooLarge,
    /// It would take too much work.
    TooCostly,
    /// Too many keys are attached to the lease.
    LeaseFull,
    /// It grows, and an alarm says that there is no space.
    NoSpace,
    /// The member has raised no alarm.
    NoSuchAlarm,
    /// There are as many alarms as there may be.
    TooManyAlarms,
    /// Whoever asks may not, or users and roles are not to be changed like this.
    Denied(mvcc::Denied),
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Denied(denied) => return denied.fmt(f),
            Self::Malformed => "the proposal is malformed",
            Self::Acknowledged => "the request was acknowledged before",
            Self::TooManyRequests => "too many requests of the session are unacknowledged",
            Self::TooManyLeases => "too many leases",
            Self::TooManyRows => "too many or too large rows",
            Self::RowsDiffer => "a row is not what it was expected to be",
            Self::KeyNotFound => "the key was not found",
            Self::Compacted => "the revision is older than the history",
            Self::FutureRevision => "the revision is yet to come",
            Self::AnswerTooLarge => "the answer would be too large",
            Self::TooCostly => "the request takes too much work",
            Self::LeaseFull => "too many keys are attached to the lease",
            Self::NoSpace => NO_SPACE,
            Self::NoSuchAlarm => "the member has raised no alarm",
            Self::TooManyAlarms => "too many alarms",
        })
    }
}

impl From<mvcc::Refused> for Applied {
    fn from(refused: mvcc::Refused) -> Self {
        Self::Rejected(match refused {
            mvcc::Refused::Compacted => Rejection::Compacted,
            mvcc::Refused::FutureRevision => Rejection::FutureRevision,
            mvcc::Refused::KeyNotFound => Rejection::KeyNotFound,
            mvcc::Refused::TooManyLeases => Rejection::TooManyLeases,
            mvcc::Refused::AnswerTooLarge => Rejection::AnswerTooLarge,
            mvcc::Refused::TooCostly => Rejection::TooCostly,
            mvcc::Refused::LeaseFull => Rejection::LeaseFull,
            mvcc::Refused::NoSpace => Rejection::NoSpace,
            mvcc::Refused::LeaseNotFound => return Self::LeaseNotFound,
            mvcc::Refused::LeaseExists => return Self::LeaseExists,
        })
    }
}

impl From<mvcc::Denied> for Applied {
    fn from(denied: mvcc::Denied) -> Self {
        Self::Rejected(Rejection::Denied(denied))
    }
}

/// What whoever holds a handle is told of [`Rejection::NoSpace`].
const NO_SPACE: &str =
    "the store has no space, and nothing was written: delete what is not needed, compact, and disarm the alarm";

/// The number of [`Rejection::Denied`], behind which stands the reason.
const DENIED: u8 = 13;

/// Room for an answer without keys and values.
const SMALL_BYTES: usize = 64;

impl From<Rejection> for String {
    fn from(rejection: Rejection) -> Self {
        rejection.to_string()
    }
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Outcome(Outcome::Committed(Committed { revision: Some(revision), .. })) => {
                write!(f, "committed at revision {revision}")
            }
            Self::Outcome(Outcome::Committed(_)) => f.write_str("committed without a change"),
            Self::Outcome(Outcome::Conflict(conflict)) => write!(f, "conflict at guard {}", conflict.guard),
            Self::Session(id) => write!(f, "session {id}"),
            Self::UnknownSession => f.write_str("unknown session"),
            Self::Lease { id, ttl_seconds } => write!(f, "lease {id} of {ttl_seconds} s"),
            Self::LeaseNotFound => f.write_str("lease not found"),
            Self::LeaseExists => f.write_str("lease exists"),
            Self::Mvcc(answer) => write!(f, "transaction at revision {}", answer.revision),
            Self::Rejected(rejection) => write!(f, "refused: {rejection}"),
        }
    }
}

impl Applied {
    /// How many bytes of keys and values it has, with room for the rest.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Mvcc(answer) => answer.bytes(),
            Self::Outcome(Outcome::Conflict(Conflict { current: Observed::Present(entry), .. })) => {
                SMALL_BYTES + entry.key.as_bytes().len() + entry.value.len()
            }
            _ => SMALL_BYTES,
        }
    }

    /// Appends the encoding.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            // Nodes tell each other these numbers, and snapshots have those of outcomes: new ones come behind the last.
            Self::Nothing => out.put_u8(0),
            Self::Outcome(outcome) => {
                out.put_u8(1);
                put_outcome(out, outcome);
            }
            Self::Session(id) => {
                out.put_u8(2);
                out.put_u64_le(*id);
            }
            Self::UnknownSession => out.put_u8(3),
            Self::Lease { id, ttl_seconds } => {
                out.put_u8(4);
                out.put_u64_le(*id);
                out.put_u64_le(*ttl_seconds);
            }
            Self::LeaseNotFound => out.put_u8(5),
            Self::LeaseExists => out.put_u8(6),
            Self::Rejected(Rejection::Denied(denied)) => out.put_slice(&[7, DENIED, *denied as u8]),
            Self::Rejected(rejection) => {
                out.put_u8(7);
                out.put_u8(match rejection {
                    // In the order in which they came into being, which is not that of the variants.
                    Rejection::Malformed => 1,
                    Rejection::Acknowledged => 2,
                    Rejection::TooManyRequests => 3,
                    Rejection::TooManyLeases => 4,
                    Rejection::TooManyRows => 5,
                    Rejection::KeyNotFound => 6,
                    Rejection::Compacted => 7,
                    Rejection::FutureRevision => 8,
                    Rejection::AnswerTooLarge => 9,
                    Rejection::RowsDiffer => 10,
                    Rejection::TooCostly => 11,
                    Rejection::LeaseFull => 12,
                    Rejection::Denied(_) => DENIED,
                    Rejection::NoSpace => 14,
                    Rejection::NoSuchAlarm => 15,
                    Rejection::TooManyAlarms => 16,
                });
            }
            Self::Mvcc(answer) => {
                out.put_u8(8);
                mvcc::put_txn_answer(out, answer);
            }
        }
    }

    /// The reverse of [`Applied::encode`]: takes all of `bytes`.
    ///
    /// # Errors
    /// For bytes that no answer has.
    pub(crate) fn decode(bytes: Bytes) -> Decoded<Self> {
        let mut reader = Reader::new(bytes);
        let applied = match reader.u8()? {
            0 => Self::Nothing,
            1 => Self::Outcome(outcome(&mut reader)?),
            2 => Self::Session(reader.u64()?),
            3 => Self::UnknownSession,
            4 => Self::Lease { id: reader.u64()?, ttl_seconds: reader.u64()? },
            5 => Self::LeaseNotFound,
            6 => Self::LeaseExists,
            7 => Self::Rejected(match reader.u8()? {
                1 => Rejection::Malformed,
                2 => Rejection::Acknowledged,
                3 => Rejection::TooManyRequests,
                4 => Rejection::TooManyLeases,
                5 => Rejection::TooManyRows,
                6 => Rejection::KeyNotFound,
                7 => Rejection::Compacted,
                8 => Rejection::FutureRevision,
                9 => Rejection::AnswerTooLarge,
                10 => Rejection::RowsDiffer,
                11 => Rejection::TooCostly,
                12 => Rejection::LeaseFull,
                DENIED => Rejection::Denied(mvcc::Denied::of(reader.u8()?).ok_or(DecodeError("an unknown denial"))?),
                14 => Rejection::NoSpace,
                15 => Rejection::NoSuchAlarm,
                16 => Rejection::TooManyAlarms,
                _ => return Err(DecodeError("an unknown rejection")),
            }),
            8 => Self::Mvcc(Arc::new(mvcc::txn_answer(&mut reader)?)),
            _ => return Err(DecodeError("an answer of an unknown kind")),
        };
        reader.end()?;
        Ok(applied)
    }
}

/// An outcome; snapshots hold outcomes too.
pub(crate) fn put_outcome(out: &mut Vec<u8>, outcome: &Outcome) {
    match outcome {
        Outcome::Committed(committed) => {
            out.put_u8(0);
            put_committed(out, committed);
        }
        Outcome::Conflict(Conflict { guard, current }) => {
            out.put_u8(1);
            put_length(out, *guard);
            match current {
                Observed::Unknown => out.put_u8(0),
                Observed::Absent => out.put_u8(1),
                Observed::Present(entry) => {
                    out.put_u8(2);
                    put_bytes(out, entry.key.as_bytes());
                    put_bytes(out, &entry.value);
                    out.put_slice(&entry.version.to_bytes());
                }
            }
        }
    }
}

/// The reverse of [`put_outcome`].
pub(crate) fn outcome(reader: &mut Reader) -> Decoded<Outcome> {
    match reader.u8()? {
        0 => committed(reader).map(Outcome::Committed),
        1 => {
            let guard = usize::try_from(reader.u32()?).map_err(|_| DecodeError("a guard out of range"))?;
            let current = match reader.u8()? {
                0 => Observed::Unknown,
                1 => Observed::Absent,
                2 => {
                    let (key, value) = (key(reader)?, reader.bytes()?);
                    Observed::Present(Entry { key, value, version: version(reader)? })
                }
                _ => return Err(DecodeError("an observation of an unknown kind")),
            };
            Ok(Outcome::Conflict(Conflict { guard, current }))
        }
        _ => Err(DecodeError("an outcome of an unknown kind")),
    }
}

fn put_committed(out: &mut Vec<u8>, committed: &Committed) {
    out.put_u8(committed.revision.is_some().into());
    if let Some(Revision(revision)) = committed.revision {
        out.put_u64_le(revision);
    }
    put_length(out, committed.versions.len());
    for version in &committed.versions {
        out.put_u8(version.is_some().into());
        if let Some(version) = version {
            out.put_slice(&version.to_bytes());
        }
    }
}

fn committed(reader: &mut Reader) -> Decoded<Committed> {
    let revision = if boolean(reader)? { Some(Revision(reader.u64()?)) } else { None };
    let count = reader.length()?;
    let versions = (0..count)
        .map(|_| if boolean(reader)? { version(reader).map(Some) } else { Ok(None) })
        .collect::<Decoded<_>>()?;
    Ok(Committed { versions, revision })
}
