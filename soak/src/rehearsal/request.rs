//! What a client asks of a replica over the wire, and what the replica says.

use payment_channels::{Operation, Payment, Refusal, UsageChange};
use tokio::sync::oneshot;

/// What a client wants.
pub(super) enum Ask {
    /// A call for this payment.
    Pay(Payment),
    /// A change of the channel's prepaid usage.
    Change(Operation, UsageChange),
}

/// A request over the wire. If the replica dies, the reply never comes.
pub(super) struct Request {
    pub(super) channel: usize,
    pub(super) ask: Ask,
    pub(super) reply: oneshot::Sender<Reply>,
}

/// What a replica says.
#[derive(Debug)]
pub(super) enum Reply {
    /// The payment was taken, and the call made; or the change was counted.
    Done,
    /// The payment does not pay. The client is not charged.
    Refused(Refusal),
    /// Another payment is in flight. The client is not charged.
    Busy,
    /// Another one took over. The client is not charged.
    LeaseLost,
    /// The store failed. The client is not charged.
    Failed(String),
    /// Nobody knows whether the client is charged.
    Unknown,
    /// This must not happen.
    Wrong(String),
}
