//! The types that the engine gives to openraft, and how they are encoded. Words only: raft itself is put together in `node`.

mod encoding;

use std::fmt;

use bytes::Bytes;
use openraft::impls::leader_id_std::LeaderId;

pub(crate) use encoding::{
    entry, log_id, member, optional_log_id, put_entry, put_log_id, put_member, put_optional_log_id,
    put_stored_membership, put_vote, stored_membership, vote,
};

use crate::command::Applied;

#[cfg(not(simulated))]
openraft::declare_raft_types!(
    /// The types that the engine gives to openraft. Terms are standard Raft's: at most one leader in each.
    pub(crate) TypeConfig:
        D = Proposal,
        R = Applied,
        NodeId = u64,
        Node = Member,
        LeaderId = LeaderId<Self::Term, Self::NodeId>,
);

#[cfg(simulated)]
openraft::declare_raft_types!(
    /// The same, with a runtime whose random numbers can be repeated.
    pub(crate) TypeConfig:
        D = Proposal,
        R = Applied,
        NodeId = u64,
        Node = Member,
        LeaderId = LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = crate::simulated::Runtime,
);

pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type Payload = openraft::EntryPayload<Proposal, u64, Member>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, Member>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;

/// An encoded [`Command`](crate::command::Command). It is encoded once, by the replica that takes the call; the log,
/// the network and the other nodes only copy bytes, and the state machine decodes it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proposal(pub(crate) Bytes);

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What the cluster knows of a member beside its node id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// A name for people; unique in the cluster.
    pub name: String,
    /// Where the other nodes reach it: `host:port`.
    pub peer_address: String,
    /// Where clients reach it, if it serves any: an URL.
    pub client_url: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.peer_address)
    }
}
