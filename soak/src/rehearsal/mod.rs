//! A service of several replicas and its clients, all in this process, on any store: how fast payments are, and whether any was
//! spent twice, lost, or charged for nothing, even when replicas die in the middle of payments.
//!
//! `client` signs and pays, `replica` serves, `treasurer` claims, `reaper` kills; `book` notes what was signed and answered,
//! outside of the store, and `audit` holds the store and the blockchain against it.

mod audit;
mod book;
mod client;
mod plan;
mod reaper;
mod replica;
mod report;
mod request;
mod run;
mod treasurer;
mod world;

pub use audit::Audit;
pub use book::Violation;
pub use plan::{Rehearsal, Traffic};
pub use report::RehearsalReport;
pub use run::rehearse;
pub use world::{Open, in_turn};
