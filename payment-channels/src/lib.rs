//! Payments, claims and prepaid usage on top of any store of the contract.
//!
//! A client signs, for each call, how much in total a service may take from its channel. The replicas of the service share
//! what they know of each channel through one store, so that a signed payment buys one call, whichever replica it reaches.
//! docs/payments.md has the domain, the states, what each operation costs, and which defects cannot come back.
//!
//! - [`Payment`] and [`validate`]: what a client signs, and whether it pays for a call. Pure.
//! - [`Signer`]: the client's side.
//! - [`Payments`]: reserve, commit and release a payment; claims. One transaction each.
//! - [`Operator`]: listing, looking at a channel, forced unlock.
//! - [`PrepaidUsage`] and [`FreeCalls`]: counters that count an operation once, however often it is sent.
//! - [`ChannelSource`]: the blockchain's view of channels, with [`MemoryChain`] for tests and examples.
//!
//! What is decided is in functions without I/O ([`validate`], [`merge`], [`Slot`], [`begin_claim`], [`Usage`]); what carries it out
//! reads, asks them, and commits one transaction guarded by the versions that it read.

mod attempts;
mod chain;
mod claim;
mod error;
mod free_calls;
mod keys;
mod merge;
mod operation;
mod payment;
mod payments;
mod signer;
mod slot;
mod update;
mod usage;
mod validate;

pub use chain::{ChainChannel, ChainError, ChannelSource, MemoryChain, Rejection};
pub use claim::{AfterClaim, Claim, ClaimRefusal, begin_claim};
pub use error::{Error, Result};
pub use free_calls::{FreeCallCount, FreeCalls};
pub use keys::{
    CLAIM_PREFIX, FREE_CALLS_PREFIX, SLOT_PREFIX, USAGE_PREFIX, claim_key, free_calls_key, slot_key, usage_key,
};
pub use merge::merge;
pub use operation::{Operation, RecentOperations};
pub use payment::{Authorization, Payment, SignatureError};
pub use payments::{ChannelReport, Operator, Options, Payments, Reservation};
pub use signer::Signer;
pub use slot::{Hold, ReservationId, Settlement, Slot, Standing};
pub use usage::{PrepaidUsage, Usage, UsageChange, UsageRefusal};
pub use validate::{Refusal, Terms, authorize, validate};
