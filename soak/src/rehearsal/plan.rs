//! What is rehearsed: how many replicas and clients, and what they do. Checked before anything starts.

use std::time::Duration;

use bench::{Amount, Error, Result};
use payment_channels::Options;

/// A service and its clients.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// How many replicas the service has.
    pub replicas: usize,
    /// How many clients there are. Each waits for an answer before it goes on.
    pub clients: usize,
    /// What share of them pays from the one hot channel, 0 to 1. The others have a channel each.
    pub hot_share: f64,
    /// How many payments, or for how long.
    pub amount: Amount,
    /// What clients do.
    pub traffic: Traffic,
    /// Whether replicas are killed in the middle of payments, and started again.
    pub kill_replicas: bool,
    /// For how long a dead replica may block a channel.
    pub lease: Duration,
    /// What choices come from. The timing of tasks and servers is not repeated.
    pub seed: u64,
}

/// What goes on in a rehearsal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Payments alone, one after the other: what is measured is what they cost.
    Payments,
    /// Besides, clients try to spend payments twice and use what they have paid for in advance, and a treasurer claims.
    Everything,
}

impl Rehearsal {
    /// The most clients: each has a key and a task.
    pub const MAX_CLIENTS: usize = 100_000;

    /// The most replicas.
    pub const MAX_REPLICAS: usize = 1000;

    pub(super) fn hot_clients(&self) -> usize {
        let hot = (self.clients as f64 * self.hot_share).round();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of 0 to 1 of a number of clients within MAX_CLIENTS"
        )]
        let hot = hot as usize;
        hot.min(self.clients)
    }

    pub(super) fn own_clients(&self) -> usize {
        self.clients - self.hot_clients()
    }

    /// Whether it can be run, as far as can be told before.
    ///
    /// # Errors
    /// [`Error::Usage`] says what cannot.
    pub fn validate(&self) -> Result<()> {
        let usage = |what: String| Err(Error::Usage(what));
        if !(1..=Self::MAX_CLIENTS).contains(&self.clients) {
            return usage(format!("there are 1 to {} clients, not {}", Self::MAX_CLIENTS, self.clients));
        }
        if !(1..=Self::MAX_REPLICAS).contains(&self.replicas) {
            return usage(format!("there are 1 to {} replicas, not {}", Self::MAX_REPLICAS, self.replicas));
        }
        if !(0.0..=1.0).contains(&self.hot_share) {
            return usage(format!("the share of hot clients is 0 to 1, not {}", self.hot_share));
        }
        let leases = Options::MIN_LEASE..=Options::MAX_LEASE;
        if !leases.contains(&self.lease) {
            return usage(format!("a lease is {:?} to {:?}, not {:?}", leases.start(), leases.end(), self.lease));
        }
        Ok(())
    }
}
