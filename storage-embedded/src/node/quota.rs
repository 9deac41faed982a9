//! How large the state may become: the leader raises the alarm before the first write for which there is no room.
//!
//! The size follows from the state alone, so it is the same on every replica ([`KeySpace::bytes`](crate::keys::KeySpace::bytes)). The quota is that of
//! the node that leads, as in etcd, and no part of the state: the log says where the alarm was raised, and from there on each replica refuses the same.
//!
//! Invariants: what is refused for want of space was not applied and never will be. A write that needs no room is never refused for want of it.

use std::time::Duration;

use bytes::Bytes;
use storage_core::Result;

use super::Node;
use crate::{command::Command, state_machine::SharedState};

/// How many bytes of the state a byte of a command makes at the most: the shortest put has 7 bytes, and counts for two items.
const GROWTH_OF_A_BYTE: u64 = 128;

/// The quota of a node that may lead.
#[derive(Clone, Debug)]
pub(super) struct Quota {
    pub(super) bytes: u64,
    /// In whose name the alarm is raised.
    pub(super) node: u64,
}

impl Quota {
    /// Where in a batch the alarm has to stand: before the first command that grows and has no room behind those before it.
    pub(super) fn alarm_at<'a>(
        &self,
        state: &SharedState,
        batch: impl Iterator<Item = &'a Bytes> + Clone,
    ) -> Option<usize> {
        let (bytes, is_full) = state.read(|replica| {
            let tables = replica.state.tables();
            (tables.keys.bytes(), tables.is_full())
        });
        if is_full {
            return None;
        }
        // Far from the quota nothing is looked at twice.
        let length = batch.clone().map(|command| command.len() as u64).sum::<u64>();
        if bytes.saturating_add(length.saturating_mul(GROWTH_OF_A_BYTE)) < self.bytes {
            return None;
        }
        // What is no command is refused where it is applied.
        let growths = batch.map(|command| Command::decode(command.clone()).map_or(0, |command| command.growth()));
        first_without_room(bytes, self.bytes, growths)
    }

    /// The command that raises the alarm.
    pub(super) fn alarm(&self) -> Command {
        Command::Alarm { member: self.node, raise: true }
    }
}

fn first_without_room(mut bytes: u64, quota: u64, growths: impl Iterator<Item = u64>) -> Option<usize> {
    for (place, growth) in growths.enumerate().filter(|(_, growth)| *growth > 0) {
        bytes = bytes.saturating_add(growth);
        if bytes > quota {
            return Some(place);
        }
    }
    None
}

impl Node {
    /// Whether what grows is refused, by all that was acknowledged before the call: then it need not take a place in the log.
    ///
    /// # Errors
    /// As for a linearizable read.
    pub(crate) async fn has_no_space(&self, timeout: Duration) -> Result<bool> {
        let is_full = || self.state().read(|replica| replica.state.tables().is_full());
        if !is_full() {
            return Ok(false);
        }
        // This replica may be behind one through which the alarm was taken back.
        self.patient_barrier(timeout).await?;
        Ok(is_full())
    }
}

#[cfg(test)]
mod tests {
    use storage_core::{Key, Txn};

    use super::*;
    use crate::{keys::KeySpace, mvcc};

    #[test]
    fn the_alarm_stands_before_the_first_write_that_has_no_room() {
        for (bytes, growths, place) in [
            (0, vec![40, 60], None),
            (0, vec![40, 0, 61], Some(2)),
            (100, vec![0, 0, 0], None),
            (100, vec![0, 1], Some(1)),
            (200, vec![0, 1], Some(1)),
            (u64::MAX, vec![u64::MAX], Some(0)),
        ] {
            assert_eq!(first_without_room(bytes, 100, growths.iter().copied()), place, "{bytes} {growths:?}");
        }
    }

    /// The commands that grow most for their length.
    #[test]
    fn no_command_grows_more_than_its_length_says() {
        let key = Key::try_from("k").unwrap();
        let put = mvcc::Op::Put(mvcc::Put { key: key.clone(), value: None, lease: None, previous: false });
        let txn = mvcc::Txn { success: vec![put; 1000], ..mvcc::Txn::default() };
        let contract = (0..100).fold(Txn::new(), |txn, _| txn.put(key.clone(), ""));
        for command in [
            Command::mvcc(txn),
            Command::Txn { txn: contract, operation: None, request: None },
            Command::LeaseGrant { id: 1, ttl_seconds: 1 },
        ] {
            let (growth, length) = (command.growth(), command.encode().len() as u64);
            assert!(growth > 0 && growth <= length * GROWTH_OF_A_BYTE, "{growth} of {length}");
        }
        assert!(KeySpace::put_bytes(&key, 0) > 0);
    }
}
