//! What is done to servers while clients work: faults of several classes, in a seeded order, on a cluster of any backend.
//!
//! [`Victims`] are a cluster with what only its backend knows: who leads, and how members change. A [`Fault`] strikes and
//! mends; [`inject`] lets faults of a [`Class`] strike for a while, mends everything, and tells what it did. What a
//! machine does not permit is known before: [`Class::possible`] has the reason, and such a case is skipped and reported.

mod classes;
mod client;
mod files_full;
mod kill;
mod membership;
mod operator;
mod partition;
mod pause;
mod power;
mod restart;
mod schedule;
mod unreadable;
mod victims;

use async_trait::async_trait;

pub use classes::Class;
pub use schedule::{FaultSchedule, inject};
pub use victims::{ChangeMembers, Leads, Needs, Victims};

use crate::server::{ServerError, Unavailable};

/// A fault could not be made, or not be mended: the run proves nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NemesisError {
    /// The servers could not be handled.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The system refused something.
    #[error(transparent)]
    System(#[from] Unavailable),
    /// The members could not be changed.
    #[error("the members cannot be changed: {0}")]
    Members(String),
}

/// What a strike came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strike {
    /// What was struck, for people: `n0`, `n2, which led`, `n0 | n1 n2`.
    pub target: String,
    /// Whether the fault is really there: looked at from the outside, not assumed.
    pub bit: bool,
}

/// One way to do harm.
#[async_trait]
pub trait Fault: Send {
    /// Its name in histories and reports.
    fn name(&self) -> &'static str;

    /// Does it, and sees that it is done. It lasts until it is mended.
    async fn strike(&mut self, victims: &mut Victims, rng: &mut fastrand::Rng) -> Result<Strike, NemesisError>;

    /// Undoes it, without waiting for the servers to serve. Nothing to mend is fine.
    async fn mend(&mut self, victims: &mut Victims) -> Result<(), NemesisError>;
}
