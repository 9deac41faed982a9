//! The outcome of a rehearsal, in figures. Its JSON is read by programs: a change of meaning changes the schema's name.

use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};
use storage::{Operation, RequestOutcome};

use super::{Audit, world::World};
use bench::{Latencies, Percentiles};

/// The outcome of a rehearsal. Its JSON has the field names as they are here; a change of their meaning changes
/// [`RehearsalReport::SCHEMA`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RehearsalReport {
    /// [`RehearsalReport::SCHEMA`].
    pub schema: String,
    /// The backend, as it calls itself.
    pub backend: String,
    /// How many replicas there were.
    pub replicas: usize,
    /// How many clients paid from channels of their own.
    pub own_clients: usize,
    /// How many clients paid from the one hot channel.
    pub hot_clients: usize,
    /// What the choices of clients and of those who kill came from.
    pub seed: u64,
    /// From the first payment to the last, in seconds.
    pub seconds: f64,
    /// Calls that were paid for and served.
    pub payments: u64,
    /// The same per second.
    pub payments_per_second: f64,
    /// How long a payment from a channel of one's own took, from the wish until the call was served, retries included.
    pub own: Percentiles,
    /// How long a payment from the hot channel took.
    pub hot: Percentiles,
    /// Answers that another payment was in flight at the channel.
    pub busy: u64,
    /// Answers that the payment was spent already, or the nonce claimed.
    pub stale: u64,
    /// Answers that a lease was lost.
    pub lost_leases: u64,
    /// Answers that the store failed and nothing was charged.
    pub failed: u64,
    /// Requests without an answer.
    pub unknown: u64,
    /// Transactions that met a conflict.
    pub conflicts: u64,
    /// Transactions that were committed.
    pub commits: u64,
    /// Reads of a channel and its slot, or of a counter.
    pub reads: u64,
    /// How often a replica or the treasurer was killed.
    pub kills: u64,
    /// How often a client sent a payment twice, at once or later, to get two calls for it.
    pub double_spends: u64,
    /// Changes of prepaid usage that were acknowledged.
    pub prepaid: u64,
    /// What became of everybody's money.
    pub audit: Audit,
}

impl RehearsalReport {
    /// The name and version of this format.
    pub const SCHEMA: &str = "snet-channel-rehearse/1";

    pub(super) fn new(world: &World, backend: String, seconds: f64, own: &Latencies, hot: &Latencies) -> Self {
        let (rehearsal, counts) = (&world.rehearsal, &world.counts);
        let payments = counts.payments.load(Relaxed);
        let requests = |operation, outcome| world.registry.count(operation, outcome);
        Self {
            schema: Self::SCHEMA.to_owned(),
            backend,
            replicas: rehearsal.replicas,
            own_clients: rehearsal.own_clients(),
            hot_clients: rehearsal.hot_clients(),
            seed: rehearsal.seed,
            seconds,
            payments,
            payments_per_second: if seconds > 0.0 { payments as f64 / seconds } else { 0.0 },
            own: own.percentiles(),
            hot: hot.percentiles(),
            busy: counts.busy.load(Relaxed),
            stale: counts.stale.load(Relaxed),
            lost_leases: counts.lost_leases.load(Relaxed),
            failed: counts.failed.load(Relaxed),
            unknown: counts.unknown.load(Relaxed),
            conflicts: requests(Operation::Commit, RequestOutcome::Conflict),
            commits: requests(Operation::Commit, RequestOutcome::Applied),
            reads: requests(Operation::Get, RequestOutcome::Ok) + requests(Operation::GetMany, RequestOutcome::Ok),
            kills: counts.kills.load(Relaxed),
            double_spends: counts.double_spends.load(Relaxed),
            prepaid: counts.prepaid.load(Relaxed),
            audit: Audit::default(),
        }
    }
}
