//! The ids that each founding node of a cluster finds by itself.
//!
//! They are made of what all of them are given, so that the same flags on each machine agree, and a node with another token
//! or another list of members belongs to another cluster, whose nodes refuse it:
//!
//! - node: the first 8 bytes of SHA-256(`"storage node"`, peer URL, token), as a big-endian number. The URL is taken with `http:`, so that TLS can be turned on;
//! - cluster: the first 16 bytes of SHA-256(`"storage cluster"`, token, the ids of its nodes in ascending order), likewise.
//!
//! Each part is hashed with its length before it (8 bytes, big-endian). etcd makes its ids of the same things. As there, a name may
//! change and a peer URL may not. The token itself never leaves the machine; the ids do, so that whoever sees them can try
//! words until one makes the same ids. Tokens that are drawn by lot, of 16 bytes or more, are out of reach of that.

use sha2::{Digest, Sha256};

use crate::config::{ClusterState, InitialCluster, NodeSettings, NodeUrl, Token};

/// The id of the node with this peer URL.
pub fn node_id(peer_url: &NodeUrl, token: &Token) -> u64 {
    let hash = hash(b"storage node", [peer_url.identity().as_bytes(), token.as_str().as_bytes()]);
    // Zero is no id. That it comes out is as likely as that two nodes get the same one.
    hash.first_chunk().map_or(1, |bytes| u64::from_be_bytes(*bytes)).max(1)
}

/// What the id of a node's cluster can be. Who joins one is told its founders, and may stand among them without being one.
pub(super) fn possible_clusters(settings: &NodeSettings) -> Vec<u128> {
    let NodeSettings { cluster, token, peer_url, state, .. } = settings;
    if let ClusterState::Given { cluster, .. } = state {
        return vec![*cluster];
    }
    let mut possible = vec![cluster_id(cluster, token)];
    if *state != ClusterState::New {
        let others = cluster.members().iter().filter(|member| member.peer_url != *peer_url).cloned();
        possible.extend(InitialCluster::new(others).map(|others| cluster_id(&others, token)));
    }
    possible
}

/// The id of the cluster that these members found.
pub fn cluster_id(cluster: &InitialCluster, token: &Token) -> u128 {
    let mut nodes: Vec<_> = cluster.members().iter().map(|member| node_id(&member.peer_url, token)).collect();
    nodes.sort_unstable();
    let nodes: Vec<_> = nodes.into_iter().flat_map(u64::to_be_bytes).collect();
    let hash = hash(b"storage cluster", [token.as_str().as_bytes(), &nodes]);
    hash.first_chunk().map_or(1, |bytes| u128::from_be_bytes(*bytes))
}

fn hash(kind: &[u8], parts: [&[u8]; 2]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [kind].into_iter().chain(parts) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(text: &str) -> InitialCluster {
        text.parse().unwrap()
    }

    /// Clusters that run have these ids in their directories: a change would lock them out.
    #[test]
    fn ids_never_change() {
        let (token, members) = ("unique-token".parse().unwrap(), "n1=http://10.0.1.1:2380,n2=http://10.0.1.2:2380");
        assert_eq!(format!("{:016x}", node_id(&"http://10.0.1.1:2380".parse().unwrap(), &token)), "3e907059e54deff1");
        assert_eq!(format!("{:032x}", cluster_id(&cluster(members), &token)), "9236d4ace38e5297f42013a3ec30638c");
    }

    #[test]
    fn the_order_and_names_of_members_do_not_matter_and_all_else_does() {
        let id = |members: &str, token: &str| cluster_id(&cluster(members), &token.parse().unwrap());
        let usual = id("a=http://h:1,b=http://h:2", "t");
        assert_eq!(usual, id("c=http://h:2,d=http://h:1", "t"));
        for (members, token) in
            [("a=http://h:1,b=http://h:2", "u"), ("a=http://h:1", "t"), ("a=http://h:1,b=http://h:3", "t")]
        {
            assert_ne!(usual, id(members, token), "{members} {token}");
        }
    }
}
