//! The latest changes, for watches and for reading the past.

use imbl::Vector;
use storage_core::{Error, Key, Revision, WatchEvent};

use super::{Record, engine_revision, etcd_revision};

/// One key that a revision changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) key: Key,
    /// What the key holds since then; `None`: it was deleted.
    pub(crate) record: Option<Record>,
    /// What it held before.
    pub(crate) previous: Option<Record>,
}

impl Change {
    pub(crate) fn into_event(self) -> WatchEvent {
        let revision = Some(Revision(self.revision));
        match self.record {
            Some(record) => WatchEvent::Put { entry: record.to_entry(&self.key), revision },
            None => WatchEvent::Delete { key: self.key, revision },
        }
    }

    fn bytes(&self) -> usize {
        let value = |record: &Option<Record>| record.as_ref().map_or(0, |record| record.value.len());
        self.key.as_bytes().len() + value(&self.record) + value(&self.previous)
    }
}

/// A piece of the history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// In the order in which they happened.
    pub(crate) changes: Vec<Change>,
    /// All that happened up to this revision is in here or was here before: ask for what is after it next.
    pub(crate) upto: u64,
}

/// How much of the history is wanted at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) changes: usize,
    pub(crate) bytes: usize,
}

/// The history after the revision that was asked for is not complete any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the history before revision {oldest} is gone")]
pub(crate) struct Compacted {
    /// The oldest revision after which the history is complete.
    pub(crate) oldest: u64,
}

impl From<Compacted> for Error {
    fn from(compacted: Compacted) -> Self {
        Self::Compacted { oldest: Revision(compacted.oldest) }
    }
}

/// The latest changes, bounded in number and bytes, but for the last revision. It is part of what is replicated and of snapshots: which revisions can be
/// read and watched is the same on every replica, and a restart changes nothing about it. A clone costs next to nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// In order of their revisions, which have no gap.
    changes: Vector<Change>,
    bytes: usize,
    /// The changes after this revision are all here, so the state at it and at every later revision can be had.
    oldest: u64,
    /// The oldest revision that may be asked for, after somebody or a bound gave up those before it. It counts as those who ask
    /// do (see [`etcd_revision`]), and the revision of the empty store can be given up too: `None` is before that.
    compacted: Option<u64>,
}

impl History {
    /// How many changes are kept, at most: seconds of a full load, more than a watch needs to connect anew.
    pub(crate) const CHANGES: usize = 65_536;
    /// How many bytes of keys and values, new and old, the kept changes have, at most (128 MiB). A value that was written and
    /// overwritten counts twice and is in memory once.
    pub(crate) const BYTES: usize = 128 << 20;
    /// How many changes one call looks at, at most (and the rest of the last revision): it holds up the writers meanwhile.
    pub(crate) const SEARCH_AT_ONCE: usize = 8192;

    /// An empty history that begins after `revision`.
    pub(crate) fn after(revision: u64, compacted: Option<u64>) -> Self {
        Self { oldest: revision, compacted, ..Self::default() }
    }

    /// # Panics
    /// For a change that does not follow: revisions rise by one, and several changes of one transaction share one.
    pub(super) fn push(&mut self, change: Change) {
        assert!(self.takes(&change), "a revision does not follow the one before it");
        self.bytes += change.bytes();
        self.changes.push_back(change);
    }

    /// Whether a change follows those that are here.
    pub(super) fn takes(&self, change: &Change) -> bool {
        match self.changes.back() {
            Some(last) => change.revision == last.revision || change.revision == last.revision + 1,
            None => change.revision > self.oldest,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    pub(crate) fn oldest(&self) -> u64 {
        self.oldest
    }

    pub(crate) fn compacted(&self) -> Option<u64> {
        self.compacted
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter()
    }

    /// Forgets the oldest revisions until what is left is within the bounds, or is the latest alone: a watch that keeps up is shown it, and it
    /// can be read, however much it has changed. Its values were in memory before it. Called between transactions only.
    #[expect(clippy::expect_used, reason = "its bytes are counted with each change")]
    pub(super) fn trim(&mut self) {
        while self.changes.len() > Self::CHANGES || self.bytes > Self::BYTES {
            let revision = self.changes.front().expect("a history of some bytes has a change").revision;
            if self.changes.back().is_some_and(|last| last.revision == revision) {
                break;
            }
            self.forget_upto(revision);
            // The next revision is the first whose changes are here, and its number is one more where it is asked for.
            self.compacted = self.compacted.max(Some(etcd_revision(revision + 1)));
        }
    }

    /// Gives up what is before a revision, which counts as those do who ask. The changes of the revision itself stay.
    pub(crate) fn compact(&mut self, oldest: u64) {
        assert!(self.compacted < Some(oldest), "what was compacted comes back");
        self.compacted = Some(oldest);
        self.forget_upto(engine_revision(oldest).saturating_sub(1));
    }

    fn forget_upto(&mut self, revision: u64) {
        self.oldest = self.oldest.max(revision);
        while let Some(change) = self.changes.front().filter(|change| change.revision <= revision) {
            self.bytes -= change.bytes();
            self.changes.pop_front();
        }
    }

    /// The next changes after a revision of keys that `wanted` takes: up to a `piece`, and the rest of the last revision.
    pub(crate) fn changes_after(
        &self,
        revision: u64,
        wanted: impl Fn(&Key) -> bool,
        piece: Piece,
    ) -> Result<Changes, Compacted> {
        if revision < self.oldest {
            return Err(Compacted { oldest: self.oldest });
        }
        let mut found = Changes { changes: Vec::new(), upto: revision };
        if self.changes.back().is_none_or(|last| last.revision <= revision) {
            return Ok(found);
        }
        let mut bytes = 0;
        for (looked_at, change) in self.changes.focus().narrow(self.place_after(revision)..).into_iter().enumerate() {
            // A revision is never cut in two: a watch shows it whole.
            let has_piece = found.changes.len() >= piece.changes || bytes >= piece.bytes;
            let enough = looked_at >= Self::SEARCH_AT_ONCE || has_piece;
            if enough && change.revision != found.upto {
                break;
            }
            found.upto = change.revision;
            if wanted(&change.key) {
                bytes += change.bytes();
                found.changes.push(change.clone());
            }
        }
        Ok(found)
    }

    /// What the keys that `wanted` takes and that have changed after `revision` held at it, in order.
    pub(crate) fn undo(&self, revision: u64, wanted: impl Fn(&Key) -> bool) -> Vec<(&Key, Option<&Record>)> {
        let after = self.changes.focus().narrow(self.place_after(revision)..).into_iter();
        let changes = after.filter(|change| wanted(&change.key));
        let mut before: Vec<_> = changes.map(|change| (&change.key, change.previous.as_ref())).collect();
        // The sort keeps the order of those of one key, of which the first counts: what that replaced is what the key held at `revision`.
        before.sort_by_key(|(key, _)| *key);
        before.dedup_by_key(|(key, _)| *key);
        before
    }

    /// How many changes there were after a revision.
    pub(crate) fn changes_since(&self, revision: u64) -> usize {
        self.changes.len() - self.place_after(revision)
    }

    /// Where the changes after a revision begin.
    fn place_after(&self, revision: u64) -> usize {
        let order = |change: &Change| {
            if change.revision <= revision { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater }
        };
        self.changes.binary_search_by(order).unwrap_or_else(|place| place)
    }
}
