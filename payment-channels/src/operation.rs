use std::collections::VecDeque;

use storage_core::{
    OperationId,
    record::{DecodeError, Reader, Writer},
};

use crate::Error;

/// One intended change of a counter. Keep it over all retries of that change: it is counted once.
///
/// It notes how many operations the counter had seen when it was first tried. So a retry that comes so late that
/// the record has forgotten it is told that ([`Error::Unsettled`]), and is not counted a second time.
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

impl RecentOperations {
    /// How many operations are remembered: as many as may be counted between an attempt and its retry, in two
    /// kilobytes of a record.
    pub const MAX: usize = 128;

    /// How many operations there were.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether the operation was counted already. Notes in it, if it is new, where it was first tried.
    ///
    /// # Errors
    /// [`Error::Unsettled`] if it was tried so long ago that it would be forgotten.
    pub(crate) fn has(&self, operation: &mut Operation) -> Result<bool, Error> {
        if self.recent.contains(&operation.id) {
            return Ok(true);
        }
        let after = *operation.after.get_or_insert(self.total);
        let since = usize::try_from(self.total.saturating_sub(after)).unwrap_or(usize::MAX);
        if since > Self::MAX { Err(Error::Unsettled) } else { Ok(false) }
    }

    /// These operations and one more.
    pub(crate) fn and(&self, id: OperationId) -> Self {
        let mut recent = self.recent.clone();
        recent.push_back(id);
        if recent.len() > Self::MAX {
            recent.pop_front();
        }
        // 2^64 operations do not happen.
        Self { total: self.total.saturating_add(1), recent }
    }

    pub(crate) fn encode(&self, record: Writer) -> Writer {
        let count = u8::try_from(self.recent.len()).unwrap_or(u8::MAX);
        let record = record.u64(self.total).u8(count);
        self.recent.iter().take(count.into()).fold(record, |record, id| record.bytes(&id.0.to_be_bytes()))
    }

    pub(crate) fn decode(record: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (total, count) = (record.u64()?, usize::from(record.u8()?));
        // All there were, or as many as there is room for.
        if count != usize::try_from(total).unwrap_or(usize::MAX).min(Self::MAX) {
            return Err(DecodeError::NonCanonical { field: "operations" });
        }
        let mut recent = VecDeque::with_capacity(count);
        for _ in 0..count {
            recent.push_back(OperationId(u128::from_be_bytes(record.array()?)));
        }
        Ok(Self { total, recent })
    }
}
