//! What a connection begins with: who calls whom, what for, and the challenge that the other side has to answer.

use bytes::{BufMut, Bytes};

use super::belonging::MembershipClaim;
use crate::{
    codec::{DecodeError, Decoded, Reader, boolean},
    host,
    log::MAX_ENTRY_BYTES,
    mvcc,
};

const MAGIC: u64 = u64::from_le_bytes(*b"snetpeer");

/// The version of the protocol between nodes; both sides need the same.
const PROTOCOL: u32 = 4;

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Channel {
    /// A pipeline of appends with entries, and their answers in order.
    Append = 1,
    /// Votes, heartbeats and transfers of leadership, one at a time.
    Control = 2,
    /// One snapshot.
    Snapshot = 3,
    /// Calls of a replica's users, many at a time.
    Calls = 4,
    /// How far is the other node? Asked by one that founds a cluster.
    Founding = 5,
    /// What is the hash of the other node's state after this entry? So that nodes compare.
    StateHash = 6,
}

/// The longest frame that brings something to be logged: the largest entry that the log takes, or 4 MiB of smaller ones, which are 4096 at the
/// most. A MiB holds all that is said beside them. So whatever comes in a frame can be logged, or is refused before anything depends on it.
const LOGGED_BYTES: usize = MAX_ENTRY_BYTES + (1 << 20);

/// The longest answer to a call. What a transaction answers is bounded; a few bytes beside each key and value are not counted there.
const REPLY_BYTES: usize = 2 * mvcc::MAX_ANSWER_BYTES;

/// The longest frame of a snapshot: 256 KiB of its file, or a header, which names the members.
const SNAPSHOT_BYTES: usize = 1 << 20;

/// The longest of all other frames: votes, heartbeats, and what is answered to them, have less than 200 bytes.
const SHORT_BYTES: usize = 4096;

impl Channel {
    /// The longest frame that a caller may send, once it is let in.
    pub(super) fn request_bytes(self) -> usize {
        match self {
            Self::Append | Self::Calls => LOGGED_BYTES,
            Self::Snapshot => SNAPSHOT_BYTES,
            Self::Control | Self::Founding | Self::StateHash => SHORT_BYTES,
        }
    }

    /// The longest frame that is sent back.
    pub(super) fn answer_bytes(self) -> usize {
        match self {
            Self::Calls => REPLY_BYTES,
            Self::Append | Self::Control | Self::Snapshot | Self::Founding | Self::StateHash => SHORT_BYTES,
        }
    }
}

/// Who is calling whom, and what for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hello {
    pub(crate) cluster: u128,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) channel: Channel,
    /// What the data of the caller began with: 0, or a hash of the snapshot that it was restored from.
    pub(crate) origin: u128,
    /// The caller knows that the node it calls has had data. One that has none has lost its disk then.
    pub(crate) has_run: bool,
    /// What the caller says of its own place in the cluster.
    pub(crate) claim: MembershipClaim,
}

impl Hello {
    pub(crate) fn encode(&self, challenge: &Challenge, out: &mut Vec<u8>) {
        out.put_u64_le(MAGIC);
        out.put_u32_le(PROTOCOL);
        out.put_u128_le(self.cluster);
        out.put_u64_le(self.from);
        out.put_u64_le(self.to);
        out.put_u8(self.channel as u8);
        out.put_u128_le(self.origin);
        out.put_u8(self.has_run.into());
        self.claim.encode(out);
        out.put_slice(challenge);
    }

    pub(crate) fn decode(bytes: Bytes) -> Decoded<(Self, Challenge)> {
        let mut reader = Reader::new(bytes);
        if reader.u64()? != MAGIC {
            return Err(DecodeError("no node of this project speaks here"));
        }
        if reader.u32()? != PROTOCOL {
            return Err(DecodeError("another version of the protocol"));
        }
        let (cluster, from, to) = (reader.u128()?, reader.u64()?, reader.u64()?);
        let channel = match reader.u8()? {
            1 => Channel::Append,
            2 => Channel::Control,
            3 => Channel::Snapshot,
            4 => Channel::Calls,
            5 => Channel::Founding,
            6 => Channel::StateHash,
            _ => return Err(DecodeError("an unknown kind of connection")),
        };
        let (origin, has_run) = (reader.u128()?, boolean(&mut reader)?);
        let claim = MembershipClaim::decode(&mut reader)?;
        let challenge = whole(reader)?;
        Ok((Self { cluster, from, to, channel, origin, has_run, claim }, challenge))
    }
}

/// The length of a challenge, and of a proof, in bytes.
pub(crate) const CHALLENGE_BYTES: usize = 32;

/// A number that was never used before.
pub(crate) type Challenge = [u8; CHALLENGE_BYTES];

/// A challenge from the system's source of randomness.
pub(crate) fn challenge() -> std::io::Result<Challenge> {
    let mut challenge = [0; CHALLENGE_BYTES];
    host::fill_random(&mut challenge)?;
    Ok(challenge)
}

/// A challenge or proof, and nothing behind it.
pub(super) fn whole(reader: Reader) -> Decoded<[u8; CHALLENGE_BYTES]> {
    let rest = reader.rest();
    <[u8; CHALLENGE_BYTES]>::try_from(&rest[..]).map_err(|_| DecodeError("a challenge or proof of another length"))
}
