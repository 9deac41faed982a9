//! The conformance suite: the contract as named cases, the same for every backend.
//!
//! A backend says how one of its stores is opened, as a [`Harness`], and gets one named test for each case:
//!
//! ```
//! use std::sync::Arc;
//!
//! use async_trait::async_trait;
//! use storage_core::conformance::{Harness, Namespace, Servers};
//! use storage_core::{MemoryStore, Result, Store};
//!
//! struct Memory;
//!
//! #[async_trait]
//! impl Harness for Memory {
//!     fn name(&self) -> &str {
//!         "memory"
//!     }
//!     fn servers(&self) -> Servers {
//!         Servers::Own
//!     }
//!     async fn namespace(&self) -> Result<Box<dyn Namespace>> {
//!         Ok(Box::new(Space(MemoryStore::new())))
//!     }
//! }
//!
//! struct Space(MemoryStore);
//!
//! #[async_trait]
//! impl Namespace for Space {
//!     async fn open(&self) -> Result<Arc<dyn Store>> {
//!         Ok(Arc::new(self.0.handle()))
//!     }
//! }
//!
//! async fn harness() -> Memory {
//!     Memory
//! }
//!
//! // The tests `memory::basics::put_get`, `memory::race::bank_sum_holds` and so on. In tests/conformance.rs of the backend.
//! storage_core::conformance_tests!(memory, harness);
//! ```
//!
//! A backend whose servers are shared between tests (one cluster for all of them) gives each namespace a prefix or a
//! root of its own, says [`Servers::Shared`], and deletes the keys in [`Namespace::remove`]. Cases that break servers then run
//! alone, without any effort of the backend. What a harness can break is told by [`Faults`]; [`Injected`] adds to any
//! harness the faults that need no help of the servers.
//!
//! # Verdicts
//! A case passes, fails, or is skipped with a reason: a hook that the harness does not have, or a capability that the
//! store does not declare and whose absence cannot be seen. A skipped case is printed to stderr as
//! `SKIPPED group::case: reason`, and never counts as passed. A capability that is not declared and whose absence can be
//! seen is checked to be refused.
//!
//! If the environment variable `STORAGE_CONFORMANCE_REPORT` names a file, each test appends one line of JSON to it:
//! `{"backend":"etcd","nodes":3,"case":"cas::succeeds","verdict":"passed","reason":"","millis":12}`.
//!
//! Programs run the same cases with [`CASES`] and [`run`]. Every case has a deadline, so a store that hangs fails.
//!
//! # What the suite expects of timing
//! Nothing but deadlines: cases retry what is certainly not applied, for as long as an election may take, and wait for
//! conditions. Only where time is the subject (leases, deadlines) do they look at a clock, with room for a busy machine.

mod case;
mod cases;
mod context;
mod harness;
mod injected;
mod register;
mod report;
mod run;
mod stop;

pub use case::{Case, Kind, Verdict};
pub use cases::CASES;
pub use harness::{FaultError, FaultResult, Faults, Harness, Namespace, Servers};
pub use injected::Injected;
pub use run::{run, run_within, test};
