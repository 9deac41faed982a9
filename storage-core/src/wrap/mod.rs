//! Stores around a store. Each adds one thing, implements [`Store`](crate::Store) for any store, and stacks in any order.

mod fault;
mod metered;
mod metrics;
mod prefixed;

pub use fault::{FaultGuard, FaultInjecting};
pub use metered::Metered;
pub use metrics::{Metrics, Operation, Registry, RequestOutcome};
pub use prefixed::Prefixed;
