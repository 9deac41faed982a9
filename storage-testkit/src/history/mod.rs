//! What clients did with a store and what they were told: the material of the [checker](crate::checker).
//!
//! A [`Recorder`] wraps any store, and all that goes through the wrapped handles becomes one [`History`]. The file format,
//! JSON lines, is in docs/histories.md.

mod fault;
mod lines;
mod operation;
mod recorder;

pub use fault::Struck;
pub use lines::{FORMAT, FORMAT_VERSION, MAX_LINE_BYTES, ReadError};
pub use operation::{Action, Operation, Outcome, Seen};
pub use recorder::{Recorder, Recording};

/// Operations on one store, seen by one clock. The order of the list means nothing: the times do.
///
/// ```
/// use std::sync::Arc;
/// use storage_core::{Key, MemoryStore, Store, StoreExt};
/// use storage_testkit::{checker::Checker, history::Recorder};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> storage_core::Result<()> {
/// let recorder = Recorder::new();
/// let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
/// let recorded = recorder.wrap(store);
/// let version = recorded.put(&Key::new("a")?, "1").await?;
/// let _ = recorded.compare_and_swap(&Key::new("a")?, version, "2").await?;
/// let report = Checker::default().check(&recorder.history());
/// assert!(report.is_linearizable());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    operations: Vec<Operation>,
    faults: Vec<Struck>,
}

impl History {
    /// A history of these operations.
    #[must_use]
    pub fn new(operations: Vec<Operation>) -> Self {
        Self { operations, faults: Vec::new() }
    }

    /// This history with what was done to the store meanwhile. The checker does not look at it; people do.
    #[must_use]
    pub fn with_faults(self, faults: Vec<Struck>) -> Self {
        Self { faults, ..self }
    }

    /// What was done to the store meanwhile.
    #[must_use]
    pub fn faults(&self) -> &[Struck] {
        &self.faults
    }

    /// The operations, in the order in which they were recorded or read.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// How many operations were answered as asked or refused by their guard, were certainly not applied, and have an unknown outcome.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        self.operations.iter().fold((0, 0, 0), |(answered, failed, unknown), operation| match operation.outcome {
            Outcome::Ok { .. } | Outcome::Conflict { .. } => (answered + 1, failed, unknown),
            Outcome::Failed => (answered, failed + 1, unknown),
            Outcome::Unknown => (answered, failed, unknown + 1),
        })
    }
}
