//! The hashes of the state after the last entries, for comparing with other replicas, which are a little ahead or behind.

use std::collections::VecDeque;

/// Of how many entries: a second of a busy cluster, in 256 KiB.
const KEPT: usize = 16 * 1024;

/// The hashes of the state after the last entries.
#[derive(Debug, Default)]
pub(crate) struct RecentHashes(VecDeque<(u64, u64)>);

impl RecentHashes {
    /// The state after the entry at `index`, which follows the last one. After a gap, which raft never leaves, what was before is forgotten.
    pub(crate) fn push(&mut self, index: u64, hash: u64) {
        if self.0.back().is_some_and(|(last, _)| index != last + 1) {
            self.0.clear();
        }
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((index, hash));
    }

    /// The hash after the entry at `index`, if it is kept.
    pub(crate) fn after(&self, index: u64) -> Option<u64> {
        let (first, _) = self.0.front()?;
        let place = usize::try_from(index.checked_sub(*first)?).ok()?;
        self.0.get(place).map(|(_, hash)| *hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_kept() {
        let mut recent = RecentHashes::default();
        assert_eq!(recent.after(5), None);
        for index in 5..5 + KEPT as u64 + 10 {
            recent.push(index, index * 2);
        }
        let end = 5 + KEPT as u64 + 10;
        for (index, expected) in [(14, None), (15, Some(30)), (end - 1, Some((end - 1) * 2)), (end, None), (0, None)] {
            assert_eq!(recent.after(index), expected, "{index}");
        }
        recent.push(end + 5, 7);
        assert_eq!((recent.after(end - 1), recent.after(end), recent.after(end + 5)), (None, None, Some(7)));
    }
}
