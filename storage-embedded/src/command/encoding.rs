//! The encoding of commands: version, tag, fields. It is canonical, so equal commands have equal bytes.

use bytes::{BufMut, Bytes};
use storage_core::{Expected, Guard, Op, OperationId, Txn};

use super::{
    Command, Request,
    rows::{put_row_change, row_change},
};
use crate::{
    auth,
    codec::{DecodeError, Decoded, Reader, boolean, key, put_bytes, put_length, version},
    mvcc,
};

/// The version of the encoding.
const VERSION: u8 = 1;

/// The second byte. A transaction before its limits had versions is [`tag::MVCC`], of version 0. Numbers are never used again for something else; 5 was a put with a lease, which no node has ever proposed.
mod tag {
    pub(super) const TXN: u8 = 1;
    pub(super) const OPEN_SESSION: u8 = 2;
    pub(super) const LEASE_GRANT: u8 = 3;
    pub(super) const LEASE_REVOKE: u8 = 4;
    pub(super) const ROW_PUT: u8 = 6;
    pub(super) const ROW_DELETE: u8 = 7;
    pub(super) const ONCE: u8 = 8;
    pub(super) const MVCC: u8 = 9;
    pub(super) const COMPACT: u8 = 10;
    pub(super) const LEASE_EXPIRE: u8 = 11;
    pub(super) const ROWS: u8 = 12;
    pub(super) const MVCC_WITHIN: u8 = 13;
    pub(super) const AUTH: u8 = 14;
    pub(super) const BY: u8 = 15;
    pub(super) const ALARM: u8 = 16;
}

/// What an alarm is about: space. Others, if there ever are any, get another number.
const NO_SPACE: u8 = 1;

/// Flags of a transaction: which optional fields follow.
const HAS_OPERATION: u8 = 1;
const HAS_REQUEST: u8 = 2;

impl Command {
    /// The encoding.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        self.put(&mut out);
        out.into()
    }

    /// The encoding without the version.
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Txn { txn, operation, request } => put_txn_command(out, txn, *operation, *request),
            Self::OpenSession { nonce } => {
                out.put_u8(tag::OPEN_SESSION);
                out.put_u64_le(*nonce);
            }
            Self::LeaseGrant { id, ttl_seconds } => {
                out.put_u8(tag::LEASE_GRANT);
                out.put_u64_le(*id);
                out.put_u64_le(*ttl_seconds);
            }
            Self::LeaseRevoke { id } => {
                out.put_u8(tag::LEASE_REVOKE);
                out.put_u64_le(*id);
            }
            Self::RowPut { name, value } => {
                out.put_u8(tag::ROW_PUT);
                put_bytes(out, name);
                put_bytes(out, value);
            }
            Self::RowDelete { name } => {
                out.put_u8(tag::ROW_DELETE);
                put_bytes(out, name);
            }
            Self::Rows(change) => {
                out.put_u8(tag::ROWS);
                put_row_change(out, change);
            }
            Self::Once { request, command } => {
                out.put_u8(tag::ONCE);
                put_request(out, Some(request));
                command.put(out);
            }
            Self::Mvcc { txn, limits } => {
                match limits {
                    0 => out.put_u8(tag::MVCC),
                    version => out.put_slice(&[tag::MVCC_WITHIN, *version]),
                }
                mvcc::put_txn(out, txn);
            }
            Self::LeaseExpire { id, granted } => {
                out.put_u8(tag::LEASE_EXPIRE);
                out.put_u64_le(*id);
                out.put_u64_le(*granted);
            }
            Self::Compact { revision } => {
                out.put_u8(tag::COMPACT);
                out.put_u64_le(*revision);
            }
            Self::Auth(change) => {
                out.put_u8(tag::AUTH);
                auth::put_auth_change(out, change);
            }
            Self::Alarm { member, raise } => {
                out.put_slice(&[tag::ALARM, NO_SPACE, u8::from(*raise)]);
                out.put_u64_le(*member);
            }
            Self::By { who, command } => {
                out.put_u8(tag::BY);
                auth::put_identity(out, who);
                command.put(out);
            }
        }
    }

    /// The encoding of a [`Command::Txn`], made from borrowed parts.
    pub(crate) fn encode_txn(txn: &Txn, operation: Option<OperationId>, request: Option<Request>) -> Bytes {
        let mut out = vec![VERSION];
        put_txn_command(&mut out, txn, operation, request);
        out.into()
    }

    /// The encoding of a [`Command::Once`], made of the encoding of its command.
    ///
    /// # Panics
    /// For bytes of another version: an empty command would go through the log in their place.
    #[expect(clippy::expect_used, reason = "what is given to it comes from `encode`")]
    pub(crate) fn encode_once(encoded: &[u8], request: Request) -> Bytes {
        let mut out = vec![VERSION, tag::ONCE];
        put_request(&mut out, Some(&request));
        out.put_slice(encoded.strip_prefix(&[VERSION]).expect("an encoded command begins with its version"));
        out.into()
    }

    /// The reverse of [`Command::encode`]: takes all of `bytes` and shares their memory.
    ///
    /// # Errors
    /// For bytes that no command has.
    pub(crate) fn decode(bytes: Bytes) -> Decoded<Self> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(DecodeError("a command of an unknown version"));
        }
        let command = Self::take(&mut reader)?;
        reader.end()?;
        Ok(command)
    }

    fn take(reader: &mut Reader) -> Decoded<Self> {
        Ok(match reader.u8()? {
            tag::TXN => {
                let flags = flags(reader, HAS_OPERATION | HAS_REQUEST)?;
                let operation = (flags & HAS_OPERATION != 0).then(|| reader.u128().map(OperationId)).transpose()?;
                let request = request(reader, flags)?;
                Self::Txn { txn: txn(reader)?, operation, request }
            }
            tag::OPEN_SESSION => Self::OpenSession { nonce: reader.u64()? },
            tag::LEASE_GRANT => Self::LeaseGrant { id: reader.u64()?, ttl_seconds: reader.u64()? },
            tag::LEASE_REVOKE => Self::LeaseRevoke { id: reader.u64()? },
            tag::ROW_PUT => Self::RowPut { name: reader.bytes()?, value: reader.bytes()? },
            tag::ROW_DELETE => Self::RowDelete { name: reader.bytes()? },
            tag::ROWS => Self::Rows(row_change(reader)?),
            tag::ONCE => {
                let request = request(reader, HAS_REQUEST)?.ok_or(DecodeError("a request is missing"))?;
                // It cannot be nested: what is read within it is refused if it is one too.
                let command = if reader.peek() == Some(tag::ONCE) { Err(NESTED) } else { Self::take(reader) }?;
                if command.has_request() {
                    return Err(NESTED);
                }
                Self::Once { request, command: Box::new(command) }
            }
            tag::MVCC => Self::Mvcc { limits: 0, txn: mvcc::txn(reader)? },
            tag::MVCC_WITHIN => {
                let limits = reader.u8()?;
                if limits == 0 || mvcc::Limits::of(limits).is_none() {
                    return Err(DecodeError("a transaction within limits of an unknown version"));
                }
                Self::Mvcc { limits, txn: mvcc::txn(reader)? }
            }
            tag::LEASE_EXPIRE => Self::LeaseExpire { id: reader.u64()?, granted: reader.u64()? },
            tag::COMPACT => Self::Compact { revision: reader.u64()? },
            tag::AUTH => Self::Auth(auth::auth_change(reader)?),
            tag::ALARM => {
                if reader.u8()? != NO_SPACE {
                    return Err(DecodeError("an alarm of an unknown kind"));
                }
                Self::Alarm { raise: boolean(reader)?, member: reader.u64()? }
            }
            tag::BY => {
                let who = auth::identity(reader)?;
                // It cannot be nested: what is read within it is refused if it is one too.
                let is_within = matches!(reader.peek(), Some(tag::BY | tag::ONCE));
                let command = if is_within { Err(NOT_ASKED) } else { Self::take(reader) }?;
                if !command.may_be_asked() {
                    return Err(NOT_ASKED);
                }
                Self::By { who, command: Box::new(command) }
            }
            _ => return Err(DecodeError("a command of an unknown kind")),
        })
    }
}

const NOT_ASKED: DecodeError = DecodeError("a command that no client can ask for");

const NESTED: DecodeError = DecodeError("a command within another that has a request of its own");

fn put_txn_command(out: &mut Vec<u8>, txn: &Txn, operation: Option<OperationId>, request: Option<Request>) {
    out.put_u8(tag::TXN);
    let operation_flag = if operation.is_some() { HAS_OPERATION } else { 0 };
    out.put_u8(operation_flag | request_flag(request.as_ref()));
    if let Some(id) = operation {
        out.put_u128_le(id.0);
    }
    put_request(out, request.as_ref());
    put_txn(out, txn);
}

fn flags(reader: &mut Reader, known: u8) -> Decoded<u8> {
    let flags = reader.u8()?;
    if flags & !known == 0 { Ok(flags) } else { Err(DecodeError("a command with unknown flags")) }
}

fn request_flag(request: Option<&Request>) -> u8 {
    if request.is_some() { HAS_REQUEST } else { 0 }
}

fn put_request(out: &mut Vec<u8>, request: Option<&Request>) {
    if let Some(request) = request {
        out.put_u64_le(request.session);
        out.put_u64_le(request.sequence);
        out.put_u64_le(request.acknowledged_below);
    }
}

fn request(reader: &mut Reader, flags: u8) -> Decoded<Option<Request>> {
    if flags & HAS_REQUEST == 0 {
        return Ok(None);
    }
    Ok(Some(Request { session: reader.u64()?, sequence: reader.u64()?, acknowledged_below: reader.u64()? }))
}

fn put_txn(out: &mut Vec<u8>, txn: &Txn) {
    put_length(out, txn.guards.len());
    for Guard { key, expected } in &txn.guards {
        put_bytes(out, key.as_bytes());
        match expected {
            Expected::Any => out.put_u8(0),
            Expected::Absent => out.put_u8(1),
            Expected::Exists => out.put_u8(2),
            Expected::Version(version) => {
                out.put_u8(3);
                out.put_slice(&version.to_bytes());
            }
            Expected::Value(value) => {
                out.put_u8(4);
                put_bytes(out, value);
            }
        }
    }
    put_length(out, txn.ops.len());
    for op in &txn.ops {
        match op {
            Op::Put { key, value } => {
                out.put_u8(1);
                put_bytes(out, key.as_bytes());
                put_bytes(out, value);
            }
            Op::Delete { key } => {
                out.put_u8(2);
                put_bytes(out, key.as_bytes());
            }
        }
    }
}

fn txn(reader: &mut Reader) -> Decoded<Txn> {
    // The vectors grow with the items that are really there: nothing is reserved for a count that is only claimed.
    let guards = (0..reader.length()?).map(|_| guard(reader)).collect::<Decoded<_>>()?;
    let ops = (0..reader.length()?).map(|_| op(reader)).collect::<Decoded<_>>()?;
    Ok(Txn { guards, ops })
}

fn guard(reader: &mut Reader) -> Decoded<Guard> {
    let key = key(reader)?;
    let expected = match reader.u8()? {
        0 => Expected::Any,
        1 => Expected::Absent,
        2 => Expected::Exists,
        3 => Expected::Version(version(reader)?),
        4 => Expected::Value(reader.bytes()?),
        _ => return Err(DecodeError("a guard of an unknown kind")),
    };
    Ok(Guard { key, expected })
}

fn op(reader: &mut Reader) -> Decoded<Op> {
    match reader.u8()? {
        1 => Ok(Op::Put { key: key(reader)?, value: reader.bytes()? }),
        2 => Ok(Op::Delete { key: key(reader)? }),
        _ => Err(DecodeError("an operation of an unknown kind")),
    }
}
