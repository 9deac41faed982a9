//! The figures of a comparison, as they are written to JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Error, Failover, Machine, Measurement, Percentiles, Physics, Result, Spread};

/// The outcome of a comparison. Its JSON has the field names as they are here; a change of their meaning changes [`Report::SCHEMA`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`Report::SCHEMA`].
    pub schema: String,
    /// The version of the program that made it.
    pub version: String,
    /// The command that repeats it.
    pub command: String,
    /// When it was made, in seconds since 1970 (UTC).
    pub made_at: u64,
    /// Where it was made.
    pub machine: Machine,
    /// The size of a value, in bytes.
    pub value_bytes: usize,
    /// Iterations of each client in one round of one cell, if they were given.
    pub iterations: Option<u64>,
    /// Seconds of one round of one cell, if they were given.
    pub seconds: Option<f64>,
    /// How often everything was repeated, on a new cluster each time.
    pub rounds: usize,
    /// For how long clients worked before they were measured.
    pub warm_up_seconds: f64,
    /// Which nodes the clients called: `spread`, `leader` or `follower`.
    pub placement: String,
    /// The directory was in memory: durable writes cost nothing there, and the figures of durable stores say nothing.
    pub on_tmpfs: bool,
    /// What the machine can do, measured before every round.
    pub physics: Physics,
    /// What was compared.
    pub backends: Vec<BackendFigures>,
    /// A line for each backend and size of the cluster.
    pub clusters: Vec<ClusterFigures>,
    /// A cell for each backend, size of the cluster, workload, number of clients and pace.
    pub cells: Vec<Cell>,
    /// What the loss of the leader cost, where that was measured.
    pub failovers: Vec<Failover>,
}

impl Report {
    /// The name and version of this format.
    pub const SCHEMA: &str = "snet-bench/3";

    /// Whether every operation of every round ended without an error, as far as it was begun.
    pub fn is_clean(&self) -> bool {
        self.cells.iter().all(|cell| cell.failures.is_empty())
    }

    /// Reads a report.
    ///
    /// # Errors
    /// [`Error::Usage`] for what is no report, or one of another version of the format.
    pub fn parse(json: &str) -> Result<Self> {
        let value: serde_json::Value = serde_json::from_str(json).map_err(|error| Error::Usage(error.to_string()))?;
        let schema = value.get("schema").and_then(serde_json::Value::as_str).unwrap_or_default();
        if schema != Self::SCHEMA {
            let what = format!("a report of the format `{schema}`, where `{}` is needed", Self::SCHEMA);
            return Err(Error::Usage(what));
        }
        serde_json::from_value(value).map_err(|error| Error::Usage(error.to_string()))
    }
}

/// A backend of a comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackendFigures {
    /// Its name.
    pub name: String,
    /// The version of its servers, as they say; of nodes in the process, that of the program.
    pub version: String,
    /// What it is, in a sentence.
    pub what: String,
    /// What has to have happened before a write is acknowledged.
    pub durability: String,
    /// Whether an acknowledged write of it is on a disk.
    pub durable: bool,
    /// Its nodes run in the process of the clients.
    pub in_process: bool,
}

/// Clusters of one backend and size.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClusterFigures {
    /// The backend.
    pub backend: String,
    /// How many nodes they had.
    pub nodes: usize,
    /// From the start of all nodes, without data, to the first acknowledged write.
    pub start_seconds: Spread,
}

/// What the servers of a cell used while they were measured.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Resources {
    /// Processor time for 100,000 iterations, in seconds. Of nodes in the process of the clients, without the clients' threads.
    pub cpu_seconds_per_100k: f64,
    /// Bytes handed to the block layer for 100,000 iterations, in whole pages (`write_bytes` of proc(5)).
    pub bytes_written_per_100k: f64,
    /// Resident memory of all servers together, at the most. Of nodes in the process of the clients, that of the whole process.
    pub memory_bytes: u64,
}

/// The figures of one workload on one kind of cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// The backend.
    pub backend: String,
    /// How many nodes the cluster had.
    pub nodes: usize,
    /// The workload: `put`, `get`, `cas`, `hot-cas`, `txn` or `payment`.
    pub workload: String,
    /// How many clients there were.
    pub clients: usize,
    /// Iterations per second that were to be begun, in an open loop; none in a closed one.
    pub rate: Option<f64>,
    /// Requests per second, over the rounds. A compare-and-swap counts as two: the read and the swap; so does a payment.
    pub requests_per_second: Spread,
    /// The median of the requests per second, divided by that of etcd under the same load in the same run.
    pub to_reference: Option<f64>,
    /// How long an iteration took, over all rounds; in an open loop, from when it should have begun.
    pub latency: Percentiles,
    /// What clients in a closed loop can reach at the very most on this machine; none where nothing has to be waited for.
    pub limit: Option<f64>,
    /// The median of the requests per second, divided by the limit.
    pub fraction_of_limit: Option<f64>,
    /// What the servers used, where the system tells.
    pub resources: Option<Resources>,
    /// Iterations that met a conflict, in all rounds.
    pub conflicts: u64,
    /// Iterations of an open loop that could not begin in twice their time. Their wait is part of the latency.
    pub unserved: u64,
    /// Iterations that ended with an error, by its kind, in all rounds.
    pub failures: BTreeMap<String, u64>,
    /// Each round, in order.
    pub rounds: Vec<Round>,
}

impl Cell {
    /// Whether both were measured under the same load.
    pub fn is_like(&self, other: &Self) -> bool {
        let load = |cell: &Self| (cell.nodes, cell.workload.clone(), cell.clients, cell.rate.map(f64::to_bits));
        load(self) == load(other)
    }
}

/// One round of one cell, on a cluster that was started for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Round {
    /// How long it took.
    pub seconds: f64,
    /// Calls that were answered.
    pub requests: u64,
    /// Iterations that did what they should.
    pub applied: u64,
    /// How long an iteration took.
    pub latency: Percentiles,
}

impl From<&Measurement> for Round {
    fn from(measured: &Measurement) -> Self {
        Self {
            seconds: measured.elapsed.as_secs_f64(),
            requests: measured.requests,
            applied: measured.applied,
            latency: measured.percentiles(),
        }
    }
}
