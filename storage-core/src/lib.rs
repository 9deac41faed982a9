//! The contract of a strongly consistent store for payment-channel state.
//!
//! [`Store`] is the contract, a small object-safe trait; [`StoreExt`] has the shorter forms of its calls.
//! A backend implements `Store`. docs/contract.md has the contract clause by clause, docs/mapping.md how each backend fulfils it.

mod backoff;
mod capabilities;
pub mod channel;
#[cfg(feature = "conformance")]
pub mod conformance;
mod deadline;
mod error;
mod ext;
mod id;
mod key;
mod lock;
mod memory;
mod options;
pub mod record;
mod revision;
#[cfg(feature = "servers")]
pub mod servers;
mod store;
mod txn;
mod version;
mod wrap;

pub use backoff::Backoff;
pub use capabilities::{Capabilities, WatchSupport};
pub use deadline::Deadline;
pub use error::{Cause, Error, Result};
pub use ext::StoreExt;
pub use id::{OperationId, unique_id};
pub use key::Key;
pub use lock::{FencingToken, Lock, LockOptions, LockStatus};
pub use memory::MemoryStore;
pub use options::{Consistency, DEFAULT_TIMEOUT, ReadOptions, ScanOptions, WatchOptions, WriteOptions};
pub use revision::Revision;
pub use store::{Page, Store, WatchEvent, WatchStream};
pub use txn::{Committed, Conflict, Entry, Expected, Guard, Observed, Op, Outcome, Txn};
pub use version::Version;
pub use wrap::{FaultGuard, FaultInjecting, Metered, Metrics, Operation, Prefixed, Registry, RequestOutcome};
