//! Payments, claims and prepaid usage on top of any store of the contract.
//!
//! A client signs, for each call, how much in total a service may take from its channel. The replicas of the service share
//! what they know of each channel through one store, so that a signed payment buys one call, whichever replica it reaches.
//! docs/payments.md has the domain, the states, what each operation costs, and which defects cannot come back.
//!
//! - [`Payment`] and [`validate`]: what a client signs, and whether it pays for a call. Pure.
//! - [`Signer`]: the client's side.
//! - [`Ledger`]: whose channels they are, which every key and record names.
//! - [`Payments`]: reserve, commit and release a payment; claims. One transaction each.
//! - [`Operator`]: listing, looking at a channel, forced unlock.
//! - [`PrepaidUsage`] and [`FreeCalls`]: counters that count an operation once, however often it is sent.
//! - [`Payment::from_headers`], [`GrpcCode`], [`ClientMessage`]: what clients of snet-daemon send, and the answers that they expect.
//! - [`DaemonImport`]: what snet-daemon has stored, brought here.
//! - [`ChannelSource`]: the blockchain's view of channels, with [`MemoryChain`] for tests and examples; with the feature `json-rpc`,
//!   `EscrowSource`: the contract as a node tells of it.
//!
//! What is decided is in functions without I/O ([`validate`], [`merge`], [`ReservationRecord`], [`begin_claim`], [`Usage`]); what carries it out
//! reads, asks them, and commits one transaction guarded by the versions that it read.

mod calldata;
mod chain;
mod claim;
mod client_message;
mod counters;
mod daemon;
mod error;
#[cfg(feature = "json-rpc")]
mod escrow;
mod free_calls;
mod headers;
mod ledger;
mod merge;
mod message_refusal;
mod operation;
mod payment;
mod payments;
mod price;
mod reservation_record;
mod retries;
mod signer;
mod usage;
mod validate;

pub use chain::{ChainChannel, ChainError, ChannelSource, MemoryChain, Rejection};
pub use claim::{AfterClaim, Claim, ClaimRefusal, begin_claim};
pub use client_message::{ClientMessage, FreeCallToken};
pub use counters::{FreeCalls, PrepaidUsage};
pub use daemon::{
    DaemonClaim, DaemonImport, DaemonKey, DaemonStore, GobError, Imported, Skipped, chain_id_of, decode_daemon_channel,
    decode_daemon_claim, decode_daemon_free_calls, decode_daemon_prepaid,
};
pub use error::{Error, Result};
#[cfg(feature = "json-rpc")]
pub use escrow::{EscrowOptions, EscrowSource, HttpNode, JsonRpc, NodeError};
pub use free_calls::{FreeCallCount, FreeCallUser};
pub use headers::{ESCROW, GrpcCode, HeaderError, header};
pub use ledger::Ledger;
pub use merge::merge;
pub use message_refusal::MessageRefusal;
pub use operation::{Operation, RecentOperations};
pub use payment::{Authorization, Payment, SignatureError};
pub use payments::{
    ChannelAnswer, ChannelReport, ClaimsReport, MoveReport, Operator, Options, Payments, Reservation, ReservationGuard,
    SettledClaim, SignedAmount, move_unnamed,
};
pub use price::Price;
pub use reservation_record::{Hold, ReservationId, ReservationRecord, ReservationStatus, Settlement};
pub use signer::Signer;
pub use usage::{Usage, UsageChange, UsageRefusal};
pub use validate::{Refusal, Terms, authorize, validate};
