//! What a caller may say with a call: deadline, freshness, where to begin, an operation's name.
//!
//! Each backend validates options by the functions here, so that all of them refuse the same with the same words.

use std::time::Duration;

use crate::{Capabilities, Error, Key, OperationId, Result, Revision, WatchSupport};

/// How long a call may take if its options do not say. Longer than an election of any backend with its usual settings.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// How fresh a read has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Consistency {
    /// The read sees every write that ended before it began, on any handle of any replica.
    #[default]
    Linearizable,
    /// The read may see an older state, that of the server which is asked. Cheaper, and possible without a quorum.
    Stale,
}

/// Options of a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadOptions {
    /// How fresh the answer has to be.
    pub consistency: Consistency,
    /// The deadline, counted from the call. It is honoured within 100 ms.
    pub timeout: Duration,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { consistency: Consistency::default(), timeout: DEFAULT_TIMEOUT }
    }
}

impl ReadOptions {
    /// These options with this deadline.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// These options for a read that may be stale.
    pub fn stale(self) -> Self {
        Self { consistency: Consistency::Stale, ..self }
    }
}

/// Options of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteOptions {
    /// The deadline, counted from the call. It is honoured within 100 ms.
    pub timeout: Duration,
    /// Names the write, so that a store which deduplicates applies it at most once however often it is sent.
    /// A store that does not (see [`Capabilities::deduplicates`]) answers
    /// [`Error::Unsupported`] rather than promise what it cannot hold.
    pub operation_id: Option<OperationId>,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { timeout: DEFAULT_TIMEOUT, operation_id: None }
    }
}

impl WriteOptions {
    /// These options with this deadline.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// These options for the write of this name.
    pub fn operation_id(self, id: OperationId) -> Self {
        Self { operation_id: Some(id), ..self }
    }

    /// For backends: whether a store with these capabilities can do what is asked.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an operation id in a store that does not deduplicate.
    pub fn validate(&self, capabilities: &Capabilities) -> Result<()> {
        if self.operation_id.is_some() && capabilities.deduplicates.is_none() {
            let feature = format!("operation ids: {} does not deduplicate", capabilities.backend);
            return Err(Error::Unsupported { feature });
        }
        Ok(())
    }
}

/// Which part of a prefix a scan returns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScanOptions {
    /// Freshness and deadline, of each page.
    pub read: ReadOptions,
    /// Only keys after this one: [`Page::next`](crate::Page::next) of the page before. It need not exist any more.
    pub after: Option<Key>,
    /// The most entries that a page may have, 1 to [`ScanOptions::MAX_LIMIT`].
    pub limit: usize,
}

impl ScanOptions {
    /// The most entries in one page: a page of small values then stays within the few megabytes that each server answers at once.
    pub const MAX_LIMIT: usize = 1000;

    /// These options for the page after this key.
    pub fn after(self, key: Key) -> Self {
        Self { after: Some(key), ..self }
    }

    /// These options with this many entries to a page at the most.
    pub fn limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// For backends: whether the options are within the contract.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a limit that is 0 or over [`ScanOptions::MAX_LIMIT`].
    pub fn validate(&self) -> Result<()> {
        if (1..=Self::MAX_LIMIT).contains(&self.limit) {
            return Ok(());
        }
        let reason = format!("the limit of a scan is 1 to {}, not {}", Self::MAX_LIMIT, self.limit);
        Err(Error::invalid_argument(reason))
    }
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self { read: ReadOptions::default(), after: None, limit: Self::MAX_LIMIT }
    }
}

/// Where a watch begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchOptions {
    /// `None`: every commit that begins after the call has returned is seen.
    /// `Some(r)`: every commit with a revision greater than `r` is seen, where the store can resume
    /// (see [`WatchSupport::Ordered`]).
    pub after: Option<Revision>,
    /// The deadline for the watch to be established; the watch itself has none.
    pub timeout: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self { after: None, timeout: DEFAULT_TIMEOUT }
    }
}

impl WatchOptions {
    /// These options for a watch that resumes after this revision.
    pub fn after(self, revision: Revision) -> Self {
        Self { after: Some(revision), ..self }
    }

    /// For backends: whether a store with these capabilities can do what is asked.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a resumption in a store that keeps no history.
    pub fn validate(&self, capabilities: &Capabilities) -> Result<()> {
        if self.after.is_some() && capabilities.watch == WatchSupport::Latest {
            let feature = format!("resuming a watch: {} keeps no history", capabilities.backend);
            return Err(Error::Unsupported { feature });
        }
        Ok(())
    }
}
