//! What nodes say to each other, as bytes.

use bytes::{BufMut, Bytes};
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendError, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};

use crate::{
    codec::{DecodeError, Decoded, Reader, boolean, put_bytes, put_length, put_with_length},
    command::Applied,
    log::{MAX_ENTRY_BYTES, Phase},
    mvcc::{LeaseLife, life, put_life},
    raft::{
        Entry, Member, Proposal, SnapshotMeta, TypeConfig, Vote, entry, log_id, member, optional_log_id, put_entry,
        put_log_id, put_member, put_optional_log_id, put_stored_membership, put_vote, stored_membership, vote,
    },
};

/// The longest change of the members: a name, an address and an URL of a few hundred bytes each, or the ids of some members. All members
/// together are one entry of the log.
const MAX_CHANGE_BYTES: usize = 16 << 10;

/// What is asked on a control connection. Each request is answered before the next is sent.
#[derive(Debug)]
pub(crate) enum ControlRequest {
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    Heartbeat(AppendEntriesRequest<TypeConfig>),
    TransferLeader(TransferLeaderRequest<TypeConfig>),
}

impl ControlRequest {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Vote(request) => {
                out.put_u8(1);
                put_vote_request(out, request);
            }
            Self::PreVote(request) => {
                out.put_u8(2);
                put_vote_request(out, request);
            }
            Self::Heartbeat(request) => {
                out.put_u8(3);
                put_append_request(out, request);
            }
            Self::TransferLeader(request) => {
                out.put_u8(4);
                put_vote(out, request.from_leader());
                out.put_u64_le(*request.to_node_id());
                put_optional_log_id(out, request.last_log_id());
            }
        }
    }

    /// In whose name it is sent: that of a candidate or of a leader.
    pub(crate) fn sender(&self) -> u64 {
        match self {
            Self::Vote(request) | Self::PreVote(request) => sender(&request.vote),
            Self::Heartbeat(request) => sender(&request.vote),
            Self::TransferLeader(request) => sender(request.from_leader()),
        }
    }

    pub(crate) fn decode(bytes: Bytes) -> Decoded<Self> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            1 => vote_request(reader).map(Self::Vote),
            2 => vote_request(reader).map(Self::PreVote),
            3 => append_request(reader.rest()).map(Self::Heartbeat),
            4 => {
                let (from, to) = (vote(&mut reader)?, reader.u64()?);
                let last_log_id = optional_log_id(&mut reader)?;
                reader.end()?;
                Ok(Self::TransferLeader(TransferLeaderRequest::new(from, to, last_log_id)))
            }
            _ => Err(DecodeError("an unknown control request")),
        }
    }
}

/// Whose vote it is: whoever asks for votes, or leads, votes for itself.
pub(crate) fn sender(vote: &Vote) -> u64 {
    vote.leader_id.voted_for
}

fn put_vote_request(out: &mut Vec<u8>, request: &VoteRequest<TypeConfig>) {
    put_vote(out, &request.vote);
    put_optional_log_id(out, request.last_log_id.as_ref());
    out.put_u8(request.leadership_transfer.into());
}

fn vote_request(mut reader: Reader) -> Decoded<VoteRequest<TypeConfig>> {
    let mut request = VoteRequest::new(vote(&mut reader)?, optional_log_id(&mut reader)?);
    request.leadership_transfer = boolean(&mut reader)?;
    reader.end()?;
    Ok(request)
}

pub(crate) fn put_vote_response(out: &mut Vec<u8>, response: &VoteResponse<TypeConfig>) {
    put_vote(out, &response.vote);
    put_optional_log_id(out, response.last_log_id.as_ref());
    out.put_u8(response.vote_granted.into());
}

pub(crate) fn vote_response(bytes: Bytes) -> Decoded<VoteResponse<TypeConfig>> {
    let mut reader = Reader::new(bytes);
    let (vote, last_log_id) = (vote(&mut reader)?, optional_log_id(&mut reader)?);
    let granted = boolean(&mut reader)?;
    reader.end()?;
    Ok(VoteResponse::new(vote, last_log_id, granted))
}

pub(crate) fn put_append_request(out: &mut Vec<u8>, request: &AppendEntriesRequest<TypeConfig>) {
    put_vote(out, &request.vote);
    put_optional_log_id(out, request.prev_log_id.as_ref());
    put_optional_log_id(out, request.leader_commit.as_ref());
    put_length(out, request.entries.len());
    for entry in &request.entries {
        // The length is filled in behind: the entry goes straight into the buffer of the socket, and its command is copied this once.
        put_with_length(out, |out| put_entry(out, entry));
    }
}

pub(crate) fn append_request(bytes: Bytes) -> Decoded<AppendEntriesRequest<TypeConfig>> {
    let mut reader = Reader::new(bytes);
    let vote = vote(&mut reader)?;
    let (prev_log_id, leader_commit) = (optional_log_id(&mut reader)?, optional_log_id(&mut reader)?);
    // Bounded by the bytes that are there, whatever number stands here: see [`Reader::length`].
    let count = reader.length()?;
    let entries = (0..count).map(|_| loggable(reader.bytes()?)).collect::<Decoded<_>>()?;
    reader.end()?;
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

/// An entry, unless the log cannot take it: handed to raft, it would end this node.
fn loggable(bytes: Bytes) -> Decoded<Entry> {
    let length = bytes.len();
    let entry = entry(bytes)?;
    let length = if let EntryPayload::Normal(Proposal(command)) = &entry.payload { command.len() } else { length };
    if length > MAX_ENTRY_BYTES {
        return Err(DecodeError("an entry that is longer than the log takes"));
    }
    Ok(entry)
}

pub(crate) fn put_append_result(out: &mut Vec<u8>, result: &StreamAppendResult<TypeConfig>) {
    match result {
        Ok(matching) => {
            out.put_u8(0);
            put_optional_log_id(out, matching.as_ref());
        }
        Err(StreamAppendError::Conflict(at)) => {
            out.put_u8(1);
            put_log_id(out, at);
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            out.put_u8(2);
            put_vote(out, vote);
        }
    }
}

pub(crate) fn append_result(bytes: Bytes) -> Decoded<StreamAppendResult<TypeConfig>> {
    let mut reader = Reader::new(bytes);
    let result = match reader.u8()? {
        0 => Ok(optional_log_id(&mut reader)?),
        1 => Err(StreamAppendError::Conflict(log_id(&mut reader)?)),
        2 => Err(StreamAppendError::HigherVote(vote(&mut reader)?)),
        _ => return Err(DecodeError("an unknown answer to an append")),
    };
    reader.end()?;
    Ok(result)
}

pub(crate) fn put_transfer_response(out: &mut Vec<u8>, response: &TransferLeaderResponse<TypeConfig>) {
    match response {
        Ok(()) => out.put_u8(0),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            out.put_u8(1);
            put_vote(out, expected);
            put_vote(out, actual);
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            out.put_u8(2);
            put_optional_log_id(out, expected.as_ref());
            put_optional_log_id(out, actual.as_ref());
        }
    }
}

pub(crate) fn transfer_response(bytes: Bytes) -> Decoded<TransferLeaderResponse<TypeConfig>> {
    let mut reader = Reader::new(bytes);
    let response = match reader.u8()? {
        0 => Ok(()),
        1 => Err(TransferLeaderError::VoteChanged { expected: vote(&mut reader)?, actual: vote(&mut reader)? }),
        2 => Err(TransferLeaderError::LogNotFlushed {
            expected: optional_log_id(&mut reader)?,
            actual: optional_log_id(&mut reader)?,
        }),
        _ => return Err(DecodeError("an unknown answer to a transfer of leadership")),
    };
    reader.end()?;
    Ok(response)
}

/// The first frame on a snapshot connection; the file's bytes follow in frames, then an empty one.
#[derive(Debug)]
pub(crate) struct SnapshotHeader {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
}

impl SnapshotHeader {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_vote(out, &self.vote);
        put_optional_log_id(out, self.meta.last_log_id.as_ref());
        put_stored_membership(out, &self.meta.last_membership);
    }

    pub(crate) fn decode(bytes: Bytes) -> Decoded<Self> {
        let mut reader = Reader::new(bytes);
        let vote = vote(&mut reader)?;
        let last_log_id = optional_log_id(&mut reader)?;
        let meta = SnapshotMeta { last_log_id, last_membership: stored_membership(&mut reader)? };
        reader.end()?;
        Ok(Self { vote, meta })
    }
}

pub(crate) fn put_snapshot_response(out: &mut Vec<u8>, response: &SnapshotResponse<TypeConfig>) {
    put_vote(out, &response.vote);
}

pub(crate) fn snapshot_response(bytes: Bytes) -> Decoded<SnapshotResponse<TypeConfig>> {
    let mut reader = Reader::new(bytes);
    let vote = vote(&mut reader)?;
    reader.end()?;
    Ok(SnapshotResponse::new(vote))
}

/// How far a node is, as it tells who founds a cluster with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Standing {
    pub(crate) phase: Phase,
    /// What its data began with.
    pub(crate) origin: u128,
}

impl Standing {
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        out.put_u8(self.phase as u8);
        out.put_u128_le(self.origin);
    }

    pub(crate) fn decode(bytes: Bytes) -> Decoded<Self> {
        let mut reader = Reader::new(bytes);
        let standing = Self { phase: Phase::decode(reader.u8()?)?, origin: reader.u128()? };
        reader.end()?;
        Ok(standing)
    }
}

/// The entry after which the hash of the state is asked for.
pub(crate) fn put_state_hash_request(out: &mut Vec<u8>, index: u64) {
    out.put_u64_le(index);
}

pub(crate) fn state_hash_request(bytes: Bytes) -> Decoded<u64> {
    let mut reader = Reader::new(bytes);
    let index = reader.u64()?;
    reader.end()?;
    Ok(index)
}

/// The hash, if it is known.
pub(crate) fn put_state_hash(out: &mut Vec<u8>, hash: Option<u64>) {
    out.put_u8(hash.is_some().into());
    out.put_u64_le(hash.unwrap_or_default());
}

pub(crate) fn state_hash(bytes: Bytes) -> Decoded<Option<u64>> {
    let mut reader = Reader::new(bytes);
    let (is_known, hash) = (boolean(&mut reader)?, reader.u64()?);
    reader.end()?;
    Ok(is_known.then_some(hash))
}

/// What a replica asks of the leader for its users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Append this encoded command and answer what it did.
    Write(Bytes),
    /// Answer an index of the log; a replica that has applied it reads nothing older than this moment.
    ReadIndex,
    /// Change the members.
    Change(MembershipChange),
    /// How long does this lease live? If `renew`, keep it alive from now on.
    Lease { id: u64, renew: bool },
}

/// A change of the members, as the leader carries it out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MembershipChange {
    /// Take a node in that receives the log but does not vote. Returns when it is known, not when it has caught up.
    AddLearner {
        /// Its node id: never used before in this cluster.
        id: u64,
        /// Where it is.
        member: Member,
    },
    /// Make learners voters, together in one joint change.
    Promote(Vec<u64>),
    /// Make a learner a voter if it has caught up.
    PromoteInSync(u64),
    /// Reach a member at another address from now on.
    Readdress {
        /// Its node id.
        id: u64,
        /// Where the other nodes reach it: `host:port`.
        peer_address: String,
    },
    /// Remove nodes, voters or learners, together in one joint change.
    Remove(Vec<u64>),
    /// Hand the leadership to this voter.
    TransferLeadership(u64),
}

/// What the leader answers to a [`Call`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The command was applied, at this index of the log and with this result.
    Applied { index: u64, applied: Applied },
    /// Everything up to this index was committed when the call arrived.
    ReadIndex(u64),
    /// How long the lease lives; `None`: there is no such lease.
    Lease(Option<LeaseLife>),
    /// The change is committed, or the transfer has begun.
    Changed,
    /// This node does not lead; the call had no effect here.
    NotLeader,
    /// This node lost the leadership while the command was in its log: it may be committed by the next leader, or not.
    Undecided,
    /// This node does not take the call now, and the call had no effect.
    Refused(String),
    /// Another change of members is under way; this one had no effect, and can be made after it.
    Changing,
}

/// Calls and replies of one connection are matched by a number that the caller chose.
pub(crate) fn put_call(out: &mut Vec<u8>, number: u64, call: &Call) {
    out.put_u64_le(number);
    match call {
        Call::Write(command) => {
            out.put_u8(1);
            out.put_slice(command);
        }
        Call::ReadIndex => out.put_u8(2),
        Call::Change(change) => {
            out.put_u8(3);
            put_change(out, change);
        }
        Call::Lease { id, renew } => {
            out.put_u8(4);
            out.put_u64_le(*id);
            out.put_u8((*renew).into());
        }
    }
}

pub(crate) fn call(bytes: Bytes) -> Decoded<(u64, Call)> {
    let mut reader = Reader::new(bytes);
    let number = reader.u64()?;
    let call = match reader.u8()? {
        1 => Call::Write(reader.rest_detached()),
        2 => {
            reader.end()?;
            Call::ReadIndex
        }
        3 => Call::Change(change(reader)?),
        4 => {
            let lease = Call::Lease { id: reader.u64()?, renew: boolean(&mut reader)? };
            reader.end()?;
            lease
        }
        _ => return Err(DecodeError("an unknown call")),
    };
    Ok((number, call))
}

fn put_change(out: &mut Vec<u8>, change: &MembershipChange) {
    match change {
        MembershipChange::AddLearner { id, member } => {
            out.put_u8(1);
            out.put_u64_le(*id);
            put_member(out, member);
        }
        MembershipChange::Promote(ids) => {
            out.put_u8(2);
            put_ids(out, ids);
        }
        MembershipChange::Remove(ids) => {
            out.put_u8(3);
            put_ids(out, ids);
        }
        MembershipChange::TransferLeadership(id) => {
            out.put_u8(4);
            out.put_u64_le(*id);
        }
        MembershipChange::PromoteInSync(id) => {
            out.put_u8(5);
            out.put_u64_le(*id);
        }
        MembershipChange::Readdress { id, peer_address } => {
            out.put_u8(6);
            out.put_u64_le(*id);
            put_bytes(out, peer_address.as_bytes());
        }
    }
}

fn change(reader: Reader) -> Decoded<MembershipChange> {
    let bytes = reader.rest();
    if bytes.len() > MAX_CHANGE_BYTES {
        return Err(DecodeError("a change of the members that is too long"));
    }
    let mut reader = Reader::new(bytes);
    let change = match reader.u8()? {
        1 => MembershipChange::AddLearner { id: reader.u64()?, member: member(&mut reader)? },
        2 => MembershipChange::Promote(ids(&mut reader)?),
        3 => MembershipChange::Remove(ids(&mut reader)?),
        4 => MembershipChange::TransferLeadership(reader.u64()?),
        5 => MembershipChange::PromoteInSync(reader.u64()?),
        6 => MembershipChange::Readdress { id: reader.u64()?, peer_address: reader.string()? },
        _ => return Err(DecodeError("an unknown change of the members")),
    };
    reader.end()?;
    Ok(change)
}

fn put_ids(out: &mut Vec<u8>, ids: &[u64]) {
    put_length(out, ids.len());
    ids.iter().for_each(|id| out.put_u64_le(*id));
}

fn ids(reader: &mut Reader) -> Decoded<Vec<u64>> {
    let count = reader.length()?;
    (0..count).map(|_| reader.u64()).collect()
}

pub(crate) fn put_reply(out: &mut Vec<u8>, number: u64, reply: &Reply) {
    out.put_u64_le(number);
    match reply {
        Reply::Applied { index, applied } => {
            out.put_u8(1);
            out.put_u64_le(*index);
            applied.encode(out);
        }
        Reply::ReadIndex(index) => {
            out.put_u8(2);
            out.put_u64_le(*index);
        }
        Reply::Changed => out.put_u8(3),
        Reply::NotLeader => out.put_u8(4),
        Reply::Undecided => out.put_u8(5),
        Reply::Refused(reason) => {
            out.put_u8(6);
            put_bytes(out, reason.as_bytes());
        }
        Reply::Lease(life) => {
            out.put_u8(7);
            put_life(out, *life);
        }
        Reply::Changing => out.put_u8(8),
    }
}

pub(crate) fn reply(bytes: Bytes) -> Decoded<(u64, Reply)> {
    let mut reader = Reader::new(bytes);
    let number = reader.u64()?;
    let reply = match reader.u8()? {
        1 => {
            let index = reader.u64()?;
            return Ok((number, Reply::Applied { index, applied: Applied::decode(reader.rest())? }));
        }
        2 => Reply::ReadIndex(reader.u64()?),
        3 => Reply::Changed,
        4 => Reply::NotLeader,
        5 => Reply::Undecided,
        6 => Reply::Refused(reader.string()?),
        7 => Reply::Lease(life(&mut reader)?),
        8 => Reply::Changing,
        _ => return Err(DecodeError("an unknown reply")),
    };
    reader.end()?;
    Ok((number, reply))
}
