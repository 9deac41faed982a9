//! What clients do to a store while it is struck, and what has to hold whatever happens: for authors of backends too.
//!
//! A [`Workload`] runs against any [`Open`], which gives each client a handle of its own. [`run`] records all calls in a
//! [history](crate::history), lets the faults happen, waits until the store serves again, makes final reads, and gives a
//! [`RunReport`]: what the workload found, what the [checker](crate::checker) says, and whether the run proves anything at all.
//!
//! Whoever lets clients work in a world of their own, as a simulation does, makes each [`Client`], calls [`Workload::step`], and in the
//! end [`Workload::judge`].
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use futures::FutureExt;
//! use storage_core::{MemoryStore, Store};
//! use storage_testkit::workload::{self, Bank, Faults, Open, Settings};
//!
//! # #[tokio::main] async fn main() -> storage_core::Result<()> {
//! let store = MemoryStore::new();
//! let open: Open = Arc::new(move |_client| {
//!     let handle = Arc::new(store.handle()) as Arc<dyn Store>;
//!     async move { Ok(handle) }.boxed()
//! });
//! // No faults, but some time; a real one is a `nemesis`.
//! let faults = |_| async {
//!     tokio::time::sleep(Duration::from_millis(200)).await;
//!     Faults::default()
//! };
//! let report = workload::run(Arc::new(Bank::default()), &open, &Settings::default(), faults).await?;
//! assert!(report.is_passed(), "{report}");
//! # Ok(()) }
//! ```

mod bank;
mod client;
mod counter;
mod lock;
mod register;
mod report;
mod run;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use storage_core::{Entry, Key, ReadOptions, Result, Store};

pub use bank::Bank;
pub use client::{Client, Tally};
pub use counter::Counter;
pub use lock::Locks;
pub use register::Register;
pub use report::{Breach, Invalid, RunReport};
pub use run::{Faults, Judged, Run, Settings, run};
pub use watch::Watching;

/// A handle that a client uses.
pub type Handle = Arc<dyn Store>;

/// Opens a handle for the client of this number, with a connection of its own where there are connections.
pub type Open = Arc<dyn Fn(usize) -> BoxFuture<'static, Result<Handle>> + Send + Sync>;

/// Clients with something to do, and what has to hold of it.
///
/// A value is for one run: it keeps what the clients were told.
#[async_trait]
pub trait Workload: Send + Sync + 'static {
    /// Its name on command lines and in reports.
    fn name(&self) -> &'static str;

    /// One thing that a client does, of one to a few calls. Errors of the store are part of the run, and not returned.
    async fn step(&self, client: &mut Client);

    /// What a client does when the faults are over and before the final reads.
    async fn last_step(&self, _client: &mut Client) {}

    /// The keys whose last values [`Workload::judge`] looks at.
    fn keys(&self) -> Vec<Key> {
        Vec::new()
    }

    /// What is wrong, given what is at its [`keys`](Workload::keys) when everything is healed. That every key is linearizable is
    /// checked for all workloads besides.
    fn judge(&self, last: &[Option<Entry>]) -> Vec<Breach>;

    /// Final reads, when everything is healed, and what is wrong. An error is one of the store: it is called again.
    async fn verify(&self, store: &Handle) -> Result<Vec<Breach>> {
        let mut last = Vec::new();
        for key in self.keys() {
            last.push(store.get(&key, ReadOptions::default()).await?);
        }
        Ok(self.judge(&last))
    }
}

/// The name of a workload, and how one is made.
pub type Named = (&'static str, fn() -> Arc<dyn Workload>);

/// All workloads of this crate.
pub const WORKLOADS: &[Named] = &[
    ("register", || Arc::new(Register::default())),
    ("counter", || Arc::new(Counter::default())),
    ("bank", || Arc::new(Bank::default())),
    ("lock", || Arc::new(Locks::default())),
    ("watch", || Arc::new(Watching::default())),
];
