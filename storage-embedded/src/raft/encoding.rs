//! Entries, votes and members as bytes: what the log, snapshots and the network have in common.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes};
use openraft::{EntryPayload, alias::CommittedLeaderIdOf};

use super::{Entry, LogId, Member, Membership, Payload, Proposal, StoredMembership, TypeConfig, Vote};
use crate::codec::{DecodeError, Decoded, Reader, boolean, put_bytes, put_length};

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// An entry of the raft log: term, index, kind, payload.
pub(crate) fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    put_log_id(out, &entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => out.put_u8(BLANK),
        EntryPayload::Normal(proposal) => {
            out.put_u8(NORMAL);
            out.put_slice(&proposal.0);
        }
        EntryPayload::Membership(membership) => {
            out.put_u8(MEMBERSHIP);
            put_membership(out, membership);
        }
    }
}

/// The reverse of [`put_entry`]: takes all of `bytes`.
pub(crate) fn entry(bytes: Bytes) -> Decoded<Entry> {
    let mut reader = Reader::new(bytes);
    let log_id = log_id(&mut reader)?;
    let payload: Payload = match reader.u8()? {
        BLANK => {
            reader.end()?;
            EntryPayload::Blank
        }
        NORMAL => EntryPayload::Normal(Proposal(reader.rest_detached())),
        MEMBERSHIP => {
            let membership = membership(&mut reader)?;
            reader.end()?;
            EntryPayload::Membership(membership)
        }
        _ => return Err(DecodeError("an entry of unknown kind")),
    };
    Ok(Entry { log_id, payload })
}

pub(crate) fn put_log_id(out: &mut Vec<u8>, id: &LogId) {
    out.put_u64_le(id.leader_id.term);
    out.put_u64_le(id.index);
}

pub(crate) fn log_id(reader: &mut Reader) -> Decoded<LogId> {
    let term = CommittedLeaderIdOf::<TypeConfig>::new(reader.u64()?);
    Ok(LogId::new(term, reader.u64()?))
}

/// Presence byte, then the id.
pub(crate) fn put_optional_log_id(out: &mut Vec<u8>, id: Option<&LogId>) {
    out.put_u8(id.is_some().into());
    if let Some(id) = id {
        put_log_id(out, id);
    }
}

pub(crate) fn optional_log_id(reader: &mut Reader) -> Decoded<Option<LogId>> {
    if boolean(reader)? { log_id(reader).map(Some) } else { Ok(None) }
}

pub(crate) fn put_vote(out: &mut Vec<u8>, vote: &Vote) {
    out.put_u64_le(vote.leader_id.term);
    out.put_u64_le(vote.leader_id.voted_for);
    out.put_u8(vote.committed.into());
}

pub(crate) fn vote(reader: &mut Reader) -> Decoded<Vote> {
    let mut vote = Vote::new(reader.u64()?, reader.u64()?);
    vote.committed = boolean(reader)?;
    Ok(vote)
}

pub(crate) fn put_membership(out: &mut Vec<u8>, membership: &Membership) {
    let configs = membership.get_joint_config();
    put_length(out, configs.len());
    for config in configs {
        put_length(out, config.len());
        config.iter().for_each(|id| out.put_u64_le(*id));
    }
    put_length(out, membership.nodes().count());
    for (id, member) in membership.nodes() {
        out.put_u64_le(*id);
        put_member(out, member);
    }
}

pub(crate) fn membership(reader: &mut Reader) -> Decoded<Membership> {
    let mut configs = Vec::new();
    for _ in 0..reader.length()? {
        let mut ids = BTreeSet::new();
        for _ in 0..reader.length()? {
            ids.insert(id_after(ids.last(), reader)?);
        }
        configs.push(ids);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..reader.length()? {
        let id = id_after(nodes.last_key_value().map(|(last, _)| last), reader)?;
        nodes.insert(id, member(reader)?);
    }
    Membership::new(configs, nodes).map_err(|_| DecodeError("a membership that contradicts itself"))
}

/// The id of a node. They stand in their order, each once: one set of members has one encoding.
fn id_after(last: Option<&u64>, reader: &mut Reader) -> Decoded<u64> {
    let id = reader.u64()?;
    if last.is_some_and(|last| *last >= id) { Err(DecodeError("members out of their order")) } else { Ok(id) }
}

pub(crate) fn put_member(out: &mut Vec<u8>, member: &Member) {
    put_bytes(out, member.name.as_bytes());
    put_bytes(out, member.peer_address.as_bytes());
    put_bytes(out, member.client_url.as_bytes());
}

pub(crate) fn member(reader: &mut Reader) -> Decoded<Member> {
    Ok(Member { name: reader.string()?, peer_address: reader.string()?, client_url: reader.string()? })
}

pub(crate) fn put_stored_membership(out: &mut Vec<u8>, stored: &StoredMembership) {
    put_optional_log_id(out, stored.log_id().as_ref());
    put_membership(out, stored.membership());
}

pub(crate) fn stored_membership(reader: &mut Reader) -> Decoded<StoredMembership> {
    Ok(StoredMembership::new(optional_log_id(reader)?, membership(reader)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(entry_in: Entry) {
        let mut out = Vec::new();
        put_entry(&mut out, &entry_in);
        for cut in 0..out.len() {
            // A cut proposal is a shorter proposal: its own checksum is the record's. Everything else is noticed.
            let _ = entry(Bytes::copy_from_slice(&out[..cut]));
        }
        assert_eq!(entry(out.into()).unwrap(), entry_in);
    }

    #[test]
    fn entries_survive() {
        let log_id = LogId::new(CommittedLeaderIdOf::<TypeConfig>::new(7), 42);
        round_trip(Entry { log_id, payload: EntryPayload::Blank });
        round_trip(Entry { log_id, payload: EntryPayload::Normal(Proposal("abc".into())) });
        let member = |n: u64| Member {
            name: format!("n{n}"),
            peer_address: format!("127.0.0.1:{n}"),
            client_url: String::new(),
        };
        let membership = Membership::new(
            vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])],
            (1..=5).map(|n| (n, member(n))).collect::<BTreeMap<_, _>>(),
        );
        round_trip(Entry { log_id, payload: EntryPayload::Membership(membership.unwrap()) });
    }

    #[test]
    fn votes_survive() {
        for sample in [Vote::new(3, 9), Vote::new_committed(4, 1)] {
            let mut out = Vec::new();
            put_vote(&mut out, &sample);
            let mut reader = Reader::new(out.into());
            assert_eq!(vote(&mut reader).unwrap(), sample);
            reader.end().unwrap();
        }
    }
}
