//! What all services share.

use storage_core::ReadOptions;
use storage_embedded::{Node, mvcc::Mvcc};

use super::{REQUEST_TIMEOUT, proto::etcdserverpb::ResponseHeader};

/// The node behind the services.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) mvcc: Mvcc,
}

impl Context {
    pub(super) fn node(&self) -> &Node {
        self.mvcc.node()
    }

    /// The header of an answer, with this replica's revision.
    pub(super) fn header(&self) -> Option<ResponseHeader> {
        self.header_at(self.mvcc.revision())
    }

    /// The header of an answer, with this revision.
    pub(super) fn header_at(&self, revision: u64) -> Option<ResponseHeader> {
        let node = self.node();
        Some(ResponseHeader {
            cluster_id: cluster_id(node.cluster()),
            member_id: node.id(),
            revision: revision.cast_signed(),
            raft_term: node.term(),
        })
    }
}

/// etcd's ids of clusters have 64 bits.
fn cluster_id(cluster: u128) -> u64 {
    let bytes = cluster.to_le_bytes();
    let (low, high) = bytes.split_at(8);
    let half = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
    half(low) ^ half(high)
}

/// How a read is made.
pub(super) fn read_options(serializable: bool) -> ReadOptions {
    let options = ReadOptions::default().timeout(REQUEST_TIMEOUT);
    if serializable { options.stale() } else { options }
}
