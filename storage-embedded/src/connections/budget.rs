//! How the descriptors of a process are divided among what a node has open.

/// What a node has open beside connections, and some to spare: the segment that is written, one for each member that reads older ones,
/// the snapshot and one that is made or received, files that are prepared or replaced, directories that are synced, its lock, its ports, what its
/// runtimes wait with, the log of the program. About 40 were counted.
const OWN: u64 = 64;

/// The most connections of members: each has six, and fewer than 32 are usual; the rest is for those that are being replaced.
const MEMBERS: u64 = 512;

/// And the fewest: with these a cluster of three works, however few descriptors there are. What is short then is waited for.
const MEMBERS_AT_LEAST: u64 = 16;

/// The fewest connections of clients: a few clients of etcd.
const CLIENTS_AT_LEAST: u64 = 8;

/// The most connections to the peer port that have not proved yet whose they are. Each takes a kilobyte for the time of a handshake.
const STRANGERS: u64 = 128;

/// The most connections of operators: a monitor needs one, a balancer of load some.
const ADMIN: u64 = 64;

/// The most connections of clients, unless a setting says otherwise: at 20 to 60 KiB of memory each, several hundred MiB. A client of
/// etcd has one or two.
pub const CLIENTS: u64 = 10_000;

/// How many connections each port of a node may have, so that together they leave enough descriptors for its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Budget {
    /// Connections of members to the peer port. As many are left for those that this node makes to them.
    pub members: usize,
    /// Connections to the peer port that have not proved yet that they are of members.
    pub strangers: usize,
    /// Connections to the client port.
    pub clients: usize,
    /// Connections to the port of the operators.
    pub admin: usize,
}

impl Budget {
    /// Divides so many descriptors. With less than 256 the shares of the ports are small, and with less than 128 they are more than there is: raise
    /// the limit of the process.
    pub fn of(descriptors: u64) -> Self {
        let rest = descriptors.saturating_sub(OWN);
        let members = (rest / 4).clamp(MEMBERS_AT_LEAST, MEMBERS);
        let strangers = (rest / 16).clamp(2, STRANGERS);
        let admin = (rest / 32).clamp(1, ADMIN);
        // Twice the members: those that come, and those that go.
        let clients = rest.saturating_sub(2 * members + strangers + admin).max(CLIENTS_AT_LEAST);
        let count = |share: u64| usize::try_from(share).unwrap_or(usize::MAX);
        Self { members: count(members), strangers: count(strangers), clients: count(clients), admin: count(admin) }
    }

    /// That of this process, as its limit is now.
    pub fn of_this_process() -> Self {
        Self::of(super::descriptor_limit().soft)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ports_together_leave_descriptors_for_files() {
        for descriptors in [128, 200, 256, 1000, 1024, 4096, 65_536, 1 << 20, u64::MAX] {
            let Budget { members, strangers, clients, admin } = Budget::of(descriptors);
            let taken = [2 * members, strangers, clients, admin].iter().map(|share| *share as u64).sum::<u64>();
            assert!(taken + OWN <= descriptors, "{descriptors}: {taken}");
        }
    }

    #[test]
    fn three_members_and_some_clients_find_a_place_however_little_there_is() {
        for descriptors in 0..128 {
            let Budget { members, strangers, clients, admin } = Budget::of(descriptors);
            assert!(members >= 2 * 6 && clients >= 4 && strangers.min(admin) > 0, "{descriptors}");
        }
    }

    #[test]
    fn with_the_usual_limits_eight_members_and_many_clients_find_a_place() {
        let (small, usual) = (Budget::of(256), Budget::of(1024));
        assert!(small.members >= 8 * 6 && small.clients >= 64, "{small:?}");
        assert!(usual.clients >= 256, "{usual:?}");
    }
}
