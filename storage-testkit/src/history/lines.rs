//! Histories as JSON lines: docs/histories.md is the reference.

use std::io::{self, BufRead, Read as _, Write};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use storage_core::{Expected, Key, OperationId, Version};

use super::{Action, History, Operation, Outcome, Seen, operation::short};

/// What the first line calls the format.
pub const FORMAT: &str = "storage-history";
/// The version of the format that is written, and the only one that is read.
pub const FORMAT_VERSION: u32 = 1;
/// The longest line, in bytes (16 MiB): a value, a guard and an observation of the largest value of any store (1 MiB)
/// fit, with each byte in two hexadecimal digits. A longer line is not a history but another file.
pub const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// Why a history could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A line is not what it should be.
    #[error("line {line}: {reason}")]
    Line {
        /// Which, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The bytes could not be read.
    #[error("line {line} cannot be read: {source}")]
    Io {
        /// Which, counted from 1.
        line: usize,
        /// What the system said.
        source: io::Error,
    },
}

impl History {
    /// Reads JSON lines.
    ///
    /// # Errors
    /// [`ReadError`] names the first line that is wrong.
    pub fn read(mut from: impl BufRead) -> Result<Self, ReadError> {
        let (mut operations, mut faults) = (Vec::new(), Vec::new());
        let mut bytes = Vec::new();
        for line in 1.. {
            let wrong = |reason: String| ReadError::Line { line, reason };
            bytes.clear();
            // One byte more than is permitted: so a line that is too long is seen without being read whole.
            let limit = MAX_LINE_BYTES as u64 + 1;
            let read = from.by_ref().take(limit).read_until(b'\n', &mut bytes);
            if read.map_err(|source| ReadError::Io { line, source })? == 0 {
                if line == 1 {
                    return Err(wrong("the history is empty: it has not even a header".to_owned()));
                }
                break;
            }
            if bytes.len() > MAX_LINE_BYTES {
                return Err(wrong(format!("longer than {MAX_LINE_BYTES} bytes")));
            }
            if line == 1 {
                Header::parse(&bytes).map_err(wrong)?;
            } else if bytes.trim_ascii_start().starts_with(FAULT_LINE) {
                faults.push(serde_json::from_slice(&bytes).map_err(|error| wrong(describe(&error)))?);
            } else if !bytes.trim_ascii().is_empty() {
                let parsed: Line = serde_json::from_slice(&bytes).map_err(|error| wrong(describe(&error)))?;
                operations.push(parsed.try_into().map_err(wrong)?);
            }
        }
        Ok(Self::new(operations).with_faults(faults))
    }

    /// Writes JSON lines.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut to, &Header { format: FORMAT.to_owned(), version: FORMAT_VERSION })?;
        writeln!(to)?;
        for operation in self.operations() {
            serde_json::to_writer(&mut to, operation)?;
            writeln!(to)?;
        }
        for fault in self.faults() {
            serde_json::to_writer(&mut to, fault)?;
            writeln!(to)?;
        }
        to.flush()
    }
}

/// How a line begins that is no operation but a fault.
const FAULT_LINE: &[u8] = b"{\"fault\":";

/// What the parser says, with the column alone: it takes each line for the first.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(reason) => format!("{reason} (column {})", error.column()),
        None => text,
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<(), String> {
        let expected = format!("a history begins with {{\"format\":\"{FORMAT}\",\"version\":{FORMAT_VERSION}}}");
        let header: Self =
            serde_json::from_slice(bytes).map_err(|error| format!("{expected}: {}", describe(&error)))?;
        if header.format != FORMAT {
            return Err(format!("{expected}, and this is `{}`", header.format));
        }
        if header.version != FORMAT_VERSION {
            return Err(format!("version {} of the format, and only {FORMAT_VERSION} can be read", header.version));
        }
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    process: u64,
    start: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<u64>,
    key: Text,
    action: ActionName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Text>,
    #[serde(rename = "if", default, skip_serializing_if = "Option::is_none")]
    guard: Option<Guard>,
    outcome: OutcomeName,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    seen: Option<Option<Entry>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    txn: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ActionName {
    Read,
    Put,
    Delete,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutcomeName {
    Ok,
    Conflict,
    Failed,
    Unknown,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Guard {
    Absent,
    Exists,
    Version(String),
    Value(Text),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    value: Text,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
}

/// Bytes: as text where they are text.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a string, or {\"hex\": \"...\"} for bytes that are no UTF-8")]
enum Text {
    Plain(String),
    Hex { hex: String },
}

/// Tells `null` from a field that is not there.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<Entry>>, D::Error> {
    Option::deserialize(from).map(Some)
}

impl From<&Bytes> for Text {
    fn from(bytes: &Bytes) -> Self {
        match str::from_utf8(bytes) {
            Ok(text) => Self::Plain(text.to_owned()),
            Err(_) => Self::Hex { hex: bytes.iter().map(|byte| format!("{byte:02x}")).collect() },
        }
    }
}

impl TryFrom<Text> for Bytes {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        let hex = match text {
            Text::Plain(text) => return Ok(text.into()),
            Text::Hex { hex } => hex,
        };
        let pairs = hex.as_bytes().chunks(2).map(|pair| match str::from_utf8(pair) {
            Ok(pair) if pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
                u8::from_str_radix(pair, 16).ok()
            }
            _ => None,
        });
        pairs
            .collect::<Option<Vec<u8>>>()
            .map(Self::from)
            .ok_or_else(|| "hex is pairs of hexadecimal digits".to_owned())
    }
}

impl From<&Operation> for Line {
    fn from(operation: &Operation) -> Self {
        let (action, value) = match &operation.action {
            Action::Read => (ActionName::Read, None),
            Action::Put(value) => (ActionName::Put, Some(value.into())),
            Action::Delete => (ActionName::Delete, None),
        };
        let guard = match &operation.guard {
            Expected::Any => None,
            Expected::Absent => Some(Guard::Absent),
            Expected::Exists => Some(Guard::Exists),
            Expected::Version(version) => Some(Guard::Version(short(*version))),
            Expected::Value(value) => Some(Guard::Value(value.into())),
        };
        let (outcome, seen, version) = match &operation.outcome {
            Outcome::Ok { seen, version } => (OutcomeName::Ok, told(seen), version.map(short)),
            Outcome::Conflict { seen } => (OutcomeName::Conflict, told(seen), None),
            Outcome::Failed => (OutcomeName::Failed, None, None),
            Outcome::Unknown => (OutcomeName::Unknown, None, None),
        };
        Self {
            process: operation.process,
            start: operation.start,
            end: operation.end,
            key: (&operation.key.clone().into_bytes()).into(),
            action,
            value,
            guard,
            outcome,
            seen,
            version,
            txn: operation.txn,
            id: operation.id.map(|id| format!("{:x}", id.0)),
        }
    }
}

/// As a line of a history.
impl Serialize for Operation {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Line::from(self).serialize(to)
    }
}

fn told(seen: &Seen) -> Option<Option<Entry>> {
    match seen {
        Seen::Untold => None,
        Seen::Absent => Some(None),
        Seen::Present { value, version } => Some(Some(Entry { value: value.into(), version: version.map(short) })),
    }
}

/// Each rule of docs/histories.md that the types of a line do not express.
impl TryFrom<Line> for Operation {
    type Error = String;

    fn try_from(line: Line) -> Result<Self, String> {
        let decided = matches!(line.outcome, OutcomeName::Ok | OutcomeName::Conflict);
        rule(line.end.is_none_or(|end| line.start <= end), "`end` is before `start`")?;
        rule(line.end.is_some() || !decided, "an operation that was answered has an `end`")?;
        rule(line.value.is_some() == (line.action == ActionName::Put), "a put, and nothing else, has a `value`")?;
        let put_ok = line.action == ActionName::Put && line.outcome == OutcomeName::Ok;
        rule(line.version.is_none() || put_ok, "only a put that was ok has a `version`")?;
        rule(line.outcome != OutcomeName::Conflict || line.guard.is_some(), "only a guard (`if`) makes a conflict")?;
        let reads = line.action == ActionName::Read && line.outcome == OutcomeName::Ok;
        rule(line.seen.is_none() || reads || line.outcome == OutcomeName::Conflict, "a write sees nothing")?;
        rule(line.seen.is_some() || !reads || line.guard.is_some(), "a read that was ok has `seen`, null for absent")?;

        let seen = match line.seen {
            None => Seen::Untold,
            Some(None) => Seen::Absent,
            Some(Some(Entry { value, version })) => {
                Seen::Present { value: value.try_into()?, version: version.map(parse_version).transpose()? }
            }
        };
        let action = match (line.action, line.value) {
            (ActionName::Put, Some(value)) => Action::Put(value.try_into()?),
            (ActionName::Delete, _) => Action::Delete,
            _ => Action::Read,
        };
        let guard = match line.guard {
            None => Expected::Any,
            Some(Guard::Absent) => Expected::Absent,
            Some(Guard::Exists) => Expected::Exists,
            Some(Guard::Version(version)) => Expected::Version(parse_version(version)?),
            Some(Guard::Value(value)) => Expected::Value(value.try_into()?),
        };
        let outcome = match line.outcome {
            OutcomeName::Ok => Outcome::Ok { seen, version: line.version.map(parse_version).transpose()? },
            OutcomeName::Conflict => Outcome::Conflict { seen },
            OutcomeName::Failed => Outcome::Failed,
            OutcomeName::Unknown => Outcome::Unknown,
        };
        let key = Key::new(Bytes::try_from(line.key)?).map_err(|error| error.to_string())?;
        let id = line.id.map(parse_version).transpose()?.map(|id| OperationId(u128::from_be_bytes(id.to_bytes())));
        let Line { process, start, end, txn, .. } = line;
        Ok(Self { process, start, end, key, guard, action, outcome, txn, id })
    }
}

fn rule(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}

fn parse_version(text: String) -> Result<Version, String> {
    text.parse().map_err(|error: storage_core::Error| error.to_string())
}
