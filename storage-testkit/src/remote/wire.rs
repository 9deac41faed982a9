//! What is spoken: a line for each request, and one for each answer. A watch is answered by a line for each event.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use storage_core::{
    Committed, Conflict, Consistency, Entry, Error, Expected, Guard, Key, Observed, Op, OperationId, Outcome, Page,
    ReadOptions, Result, Revision, ScanOptions, Txn, Version, WatchEvent, WatchOptions, WriteOptions,
};

/// Bytes as text: each the character of its number, which every byte has and JSON can say.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Raw(String);

impl Raw {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(bytes.iter().map(|byte| char::from(*byte)).collect())
    }

    pub(super) fn bytes(&self) -> Result<Bytes> {
        let bytes = self.0.chars().map(|letter| u8::try_from(u32::from(letter)));
        bytes.collect::<std::result::Result<Vec<u8>, _>>().map(Bytes::from).map_err(|_| garbled("a byte over 255"))
    }

    pub(super) fn key(&self) -> Result<Key> {
        Key::new(self.bytes()?)
    }
}

pub(super) fn garbled(what: &str) -> Error {
    Error::invalid_argument(format!("not what a remote store says: {what}"))
}

/// Options of a read: whether it may be stale, and its deadline in milliseconds.
type Read = (bool, u64);

fn read(options: ReadOptions) -> Read {
    (options.consistency == Consistency::Stale, millis(options.timeout))
}

fn read_options((stale, timeout): Read) -> ReadOptions {
    let options = ReadOptions::default().timeout(Duration::from_millis(timeout));
    if stale { options.stale() } else { options }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    Get(Raw, Read),
    GetMany(Vec<Raw>, Read),
    Scan { prefix: Raw, after: Option<Raw>, limit: usize, read: Read },
    Commit { guards: Vec<(Raw, Expect)>, ops: Vec<(Raw, Option<Raw>)>, timeout: u64, id: Option<u128> },
    Watch { prefix: Raw, after: Option<u64>, timeout: u64 },
    Ping(Read),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Expect {
    Any,
    Absent,
    Exists,
    Version(String),
    Value(Raw),
}

/// A key with its value and version.
pub(super) type Row = (Raw, Raw, String);

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Entries(Vec<Option<Row>>),
    Page {
        entries: Vec<Row>,
        next: Option<Raw>,
        revision: Option<u64>,
    },
    Committed {
        versions: Vec<Option<String>>,
        revision: Option<u64>,
    },
    Conflict {
        guard: usize,
        seen: Option<Option<Row>>,
    },
    /// A watch begins, or a ping is answered.
    Done,
    Put(Row, Option<u64>),
    Deleted(Raw, Option<u64>),
    Failed {
        kind: String,
        text: String,
        oldest: Option<u64>,
    },
}

pub(super) fn row(entry: &Entry) -> Row {
    (Raw::of(entry.key.as_bytes()), Raw::of(&entry.value), entry.version.to_string())
}

pub(super) fn entry((key, value, version): &Row) -> Result<Entry> {
    Ok(Entry { key: key.key()?, value: value.bytes()?, version: version.parse()? })
}

impl Request {
    pub(super) fn get(key: &Key, options: ReadOptions) -> Self {
        Self::Get(Raw::of(key.as_bytes()), read(options))
    }

    pub(super) fn get_many(keys: &[Key], options: ReadOptions) -> Self {
        Self::GetMany(keys.iter().map(|key| Raw::of(key.as_bytes())).collect(), read(options))
    }

    pub(super) fn scan(prefix: &[u8], options: &ScanOptions) -> Self {
        let after = options.after.as_ref().map(|key| Raw::of(key.as_bytes()));
        Self::Scan { prefix: Raw::of(prefix), after, limit: options.limit, read: read(options.read) }
    }

    pub(super) fn commit(txn: &Txn, options: WriteOptions) -> Self {
        let guards = txn.guards.iter().map(|guard| {
            let expected = match &guard.expected {
                Expected::Any => Expect::Any,
                Expected::Absent => Expect::Absent,
                Expected::Exists => Expect::Exists,
                Expected::Version(version) => Expect::Version(version.to_string()),
                Expected::Value(value) => Expect::Value(Raw::of(value)),
            };
            (Raw::of(guard.key.as_bytes()), expected)
        });
        let ops = txn.ops.iter().map(|op| match op {
            Op::Put { key, value } => (Raw::of(key.as_bytes()), Some(Raw::of(value))),
            Op::Delete { key } => (Raw::of(key.as_bytes()), None),
        });
        let (timeout, id) = (millis(options.timeout), options.operation_id.map(|id| id.0));
        Self::Commit { guards: guards.collect(), ops: ops.collect(), timeout, id }
    }

    pub(super) fn watch(prefix: &[u8], options: WatchOptions) -> Self {
        let (after, timeout) = (options.after.map(|revision| revision.0), millis(options.timeout));
        Self::Watch { prefix: Raw::of(prefix), after, timeout }
    }

    pub(super) fn ping(options: ReadOptions) -> Self {
        Self::Ping(read(options))
    }
}

/// What a request asks of the store.
pub(super) enum Call {
    GetMany(Vec<Key>, ReadOptions, bool),
    Scan(Bytes, ScanOptions),
    Commit(Txn, WriteOptions),
    Watch(Bytes, WatchOptions),
    Ping(ReadOptions),
}

impl TryFrom<Request> for Call {
    type Error = Error;

    fn try_from(request: Request) -> Result<Self> {
        Ok(match request {
            Request::Get(key, read) => Self::GetMany(vec![key.key()?], read_options(read), true),
            Request::GetMany(keys, read) => {
                Self::GetMany(keys.iter().map(Raw::key).collect::<Result<_>>()?, read_options(read), false)
            }
            Request::Scan { prefix, after, limit, read } => {
                let after = after.map(|key| key.key()).transpose()?;
                Self::Scan(prefix.bytes()?, ScanOptions { read: read_options(read), after, limit })
            }
            Request::Commit { guards, ops, timeout, id } => {
                let mut txn = Txn::new();
                for (key, expected) in guards {
                    let expected = match expected {
                        Expect::Any => Expected::Any,
                        Expect::Absent => Expected::Absent,
                        Expect::Exists => Expected::Exists,
                        Expect::Version(version) => Expected::Version(version.parse::<Version>()?),
                        Expect::Value(value) => Expected::Value(value.bytes()?),
                    };
                    txn.guards.push(Guard { key: key.key()?, expected });
                }
                for (key, value) in ops {
                    let key = key.key()?;
                    txn.ops.push(match value {
                        Some(value) => Op::Put { key, value: value.bytes()? },
                        None => Op::Delete { key },
                    });
                }
                let options = WriteOptions::default().timeout(Duration::from_millis(timeout));
                Self::Commit(txn, WriteOptions { operation_id: id.map(OperationId), ..options })
            }
            Request::Watch { prefix, after, timeout } => {
                let (after, timeout) = (after.map(Revision), Duration::from_millis(timeout));
                Self::Watch(prefix.bytes()?, WatchOptions { after, timeout })
            }
            Request::Ping(read) => Self::Ping(read_options(read)),
        })
    }
}

impl From<Outcome> for Reply {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Committed(Committed { versions, revision }) => Self::Committed {
                versions: versions.into_iter().map(|version| version.map(|version| version.to_string())).collect(),
                revision: revision.map(|revision| revision.0),
            },
            Outcome::Conflict(Conflict { guard, current }) => Self::Conflict {
                guard,
                seen: match current {
                    Observed::Present(entry) => Some(Some(row(&entry))),
                    Observed::Absent => Some(None),
                    Observed::Unknown => None,
                },
            },
        }
    }
}

impl From<Page> for Reply {
    fn from(page: Page) -> Self {
        Self::Page {
            entries: page.entries.iter().map(row).collect(),
            next: page.next.map(|key| Raw::of(key.as_bytes())),
            revision: page.revision.map(|revision| revision.0),
        }
    }
}

impl From<Error> for Reply {
    fn from(error: Error) -> Self {
        let oldest = if let Error::Compacted { oldest } = &error { Some(oldest.0) } else { None };
        Self::Failed { kind: error.kind().to_owned(), text: error.to_string(), oldest }
    }
}

impl Reply {
    /// This answer, unless it is an error.
    pub(super) fn checked(self) -> Result<Self> {
        let Self::Failed { kind, text, oldest } = self else { return Ok(self) };
        Err(match kind.as_str() {
            "unknown_outcome" => Error::unknown_outcome(text),
            "invalid_argument" => Error::invalid_argument(text),
            "unsupported" => Error::Unsupported { feature: text },
            "throttled" => Error::Throttled { retry_after: None, source: text.into() },
            "compacted" => Error::Compacted { oldest: Revision(oldest.unwrap_or(0)) },
            // A node that ends closes its store; there are others.
            "unavailable" | "closed" => Error::unavailable(text),
            _ => Error::corrupt(format!("{kind}: {text}")),
        })
    }

    pub(super) fn outcome(self) -> Result<Outcome> {
        Ok(match self {
            Self::Committed { versions, revision } => {
                let versions = versions.into_iter().map(|version| version.map(|text| text.parse()).transpose());
                let versions = versions.collect::<Result<_>>()?;
                Outcome::Committed(Committed { versions, revision: revision.map(Revision) })
            }
            Self::Conflict { guard, seen } => {
                let current = match seen {
                    None => Observed::Unknown,
                    Some(None) => Observed::Absent,
                    Some(Some(row)) => Observed::Present(entry(&row)?),
                };
                Outcome::Conflict(Conflict { guard, current })
            }
            _ => return Err(garbled("the answer to a commit")),
        })
    }

    pub(super) fn entries(self) -> Result<Vec<Option<Entry>>> {
        let Self::Entries(rows) = self else { return Err(garbled("the answer to a read")) };
        rows.iter().map(|row| row.as_ref().map(entry).transpose()).collect()
    }

    pub(super) fn page(self) -> Result<Page> {
        let Self::Page { entries, next, revision } = self else { return Err(garbled("the answer to a scan")) };
        let entries = entries.iter().map(entry).collect::<Result<_>>()?;
        Ok(Page { entries, next: next.map(|key| key.key()).transpose()?, revision: revision.map(Revision) })
    }

    pub(super) fn event(self) -> Result<WatchEvent> {
        match self {
            Self::Put(row, revision) => Ok(WatchEvent::Put { entry: entry(&row)?, revision: revision.map(Revision) }),
            Self::Deleted(key, revision) => {
                Ok(WatchEvent::Delete { key: key.key()?, revision: revision.map(Revision) })
            }
            _ => Err(garbled("an event")),
        }
    }
}
