//! Operation ids in a record: how a retried change of a counter is told from a new one.
//!
//! Invariant: a record remembers its last 128 operations, or all that there were. A retry that comes later than that is
//! told so and is never counted a second time.

use std::collections::VecDeque;

use storage_core::{
    OperationId,
    record::{DecodeError, Reader, Writer},
};

/// One intended change of a counter. Keep it over all retries of that change: it is counted once.
///
/// It notes how many operations the counter had seen when it was first tried. So a retry that comes so late that
/// the record has forgotten it is told that ([`Error::Unsettled`](crate::Error::Unsettled)), and is not counted a second time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation {
    /// Its name: the id of the reservation or the request that it belongs to, or random.
    pub id: OperationId,
    /// How many operations the counter had seen when this one was first tried; `None`: it was not tried.
    pub after: Option<u64>,
}

impl Operation {
    /// An operation of this name that was not tried yet.
    pub fn new(id: OperationId) -> Self {
        Self { id, after: None }
    }

    /// An operation with a random name.
    pub fn random() -> Self {
        Self::new(OperationId::random())
    }
}

/// The last operations of a counter, by which a retry is told from a new one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecentOperations {
    total: u64,
    recent: VecDeque<OperationId>,
}

/// So many operations came since that the record may have forgotten this one.
pub(crate) struct Forgotten;

impl RecentOperations {
    /// How many operations are remembered: as many as may be counted between an attempt and its retry, in two
    /// kilobytes of a record.
    pub const MAX: usize = 128;

    /// So many that another program has counted: nobody retries them, so any ids do that nobody else has.
    pub(crate) fn imported(total: u64, seed: u128) -> Self {
        let total = total.min(u64::MAX - 1);
        let recent = (0..remembered(total) as u128).map(|number| OperationId(seed.wrapping_add(number))).collect();
        Self { total, recent }
    }

    /// How many operations there were.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether the operation was counted already. Notes in it, if it is new, where it was first tried.
    ///
    /// # Errors
    /// [`Forgotten`] if it was tried so long ago that nobody can tell any more.
    pub(crate) fn has(&self, operation: &mut Operation) -> Result<bool, Forgotten> {
        if self.recent.contains(&operation.id) {
            return Ok(true);
        }
        // Noted at the first attempt, before anything is sent, so that a retry knows how many may have pushed it out of the record.
        let after = *operation.after.get_or_insert(self.total);
        let since = usize::try_from(self.total.saturating_sub(after)).unwrap_or(usize::MAX);
        // As many others came since as the record remembers: whether this one is among the forgotten nobody can tell.
        if since > Self::MAX { Err(Forgotten) } else { Ok(false) }
    }

    /// Whether the operation is among those that are remembered.
    pub(crate) fn remembers(&self, id: OperationId) -> bool {
        self.recent.contains(&id)
    }

    /// These operations and one more.
    #[expect(clippy::expect_used, reason = "`decode` refuses such a number")]
    pub(crate) fn and(&self, id: OperationId) -> Self {
        let mut recent = self.recent.clone();
        recent.push_back(id);
        if recent.len() > Self::MAX {
            recent.pop_front();
        }
        let total = self.total.checked_add(1).expect("2^64 operations do not happen");
        Self { total, recent }
    }

    #[expect(clippy::expect_used, reason = "`and` and `decode` let no more in")]
    pub(crate) fn encode(&self, record: Writer) -> Writer {
        let count = u8::try_from(self.recent.len()).expect("RecentOperations::MAX is a byte");
        // What a reader asks for: with fewer, an operation that is retried would be counted twice.
        assert_eq!(usize::from(count), remembered(self.total), "a counter remembers its last operations");
        let record = record.u64(self.total).u8(count);
        self.recent.iter().fold(record, |record, id| record.bytes(&id.0.to_be_bytes()))
    }

    pub(crate) fn decode(record: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (total, count) = (record.u64()?, usize::from(record.u8()?));
        if count != remembered(total) || total == u64::MAX {
            return Err(DecodeError::NonCanonical { field: "operations" });
        }
        let mut recent = VecDeque::with_capacity(count);
        for _ in 0..count {
            recent.push_back(OperationId(u128::from_be_bytes(record.array()?)));
        }
        Ok(Self { total, recent })
    }
}

/// How many of so many operations are remembered: all there were, or as many as there is room for.
fn remembered(total: u64) -> usize {
    usize::try_from(total).map_or(RecentOperations::MAX, |total| total.min(RecentOperations::MAX))
}

#[cfg(test)]
mod tests {
    use storage_core::record::Schema;

    use super::*;

    #[test]
    #[should_panic(expected = "a counter remembers its last operations")]
    fn a_counter_that_has_forgotten_an_operation_is_not_written() {
        let forgetful = RecentOperations { total: 2, recent: VecDeque::from([OperationId(2)]) };
        drop(forgetful.encode(Schema { tag: *b"TEST", version: 1 }.writer()));
    }
}
