//! The comparison: every backend in every size under every load, in interleaved rounds, and the report that comes of
//! it.
//!
//! Each round starts a new cluster for each backend and size, one after the other. So a machine that gets slower or
//! faster does so for all of them, and nothing runs beside the cluster that is measured. No figure is kept whose
//! counters in the store do not add up.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use storage::{Key, Txn, WriteOptions};

use crate::{
    Amount, Backend, BackendFigures, Cell, Clients, ClusterFigures, Error, Load, Machine, Measurement, Physics,
    Placement, Report, Resources, Result, Spread, Target, Workload,
    failover::fail_over,
    on_tmpfs,
    probe::Probes,
    resources::{Meter, Usage},
};

/// Clients work for so long before they are measured: connections, caches and the files of the log are set up then.
pub(crate) const WARM_UP: Duration = Duration::from_millis(300);

/// The backend that others are set in relation to.
pub(crate) const REFERENCE: &str = "etcd";

/// The smallest cluster that goes on without one node.
const NODES_TO_LOSE_ONE: usize = 3;

/// What to compare: each backend in each size under each workload, with each number of clients and at each pace.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The backends.
    pub backends: Vec<&'static Backend>,
    /// The sizes of the clusters; a backend leaves out those that it does not have because they are too small.
    pub nodes: Vec<usize>,
    /// The workloads.
    pub workloads: Vec<Workload>,
    /// Numbers of clients.
    pub clients: Vec<usize>,
    /// Besides the closed loop, open loops of so many iterations per second.
    pub rates: Vec<f64>,
    /// The size of a value, in bytes.
    pub value_bytes: usize,
    /// How much each round of each workload does; iterations are those of each client.
    pub amount: Amount,
    /// How often everything is repeated.
    pub rounds: usize,
    /// Which nodes the clients call.
    pub placement: Placement,
    /// How often the leader is killed, of each backend that has nodes to kill, in a cluster of three if there is one
    /// and of the smallest larger size otherwise.
    pub kills: usize,
    /// Where clusters keep their data.
    pub directory: PathBuf,
    /// The command that repeats the comparison, for the report.
    pub command: String,
}

impl Comparison {
    /// How often [`compare`] reports a step.
    pub fn steps(&self) -> usize {
        let clusters = self.backends.iter().map(|backend| self.sizes(backend).count()).sum::<usize>();
        let kills = self.backends.iter().filter(|backend| backend.can_be_killed()).count() * self.kills;
        self.rounds * clusters * self.loads().count() + kills
    }

    fn sizes(&self, backend: &Backend) -> impl Iterator<Item = usize> {
        let least = backend.least_nodes;
        self.nodes.iter().copied().filter(move |nodes| *nodes >= least)
    }

    fn loads(&self) -> impl Iterator<Item = Load> {
        let paces = || std::iter::once(None).chain(self.rates.iter().copied().map(Some));
        self.workloads.iter().flat_map(move |workload| {
            self.clients.iter().flat_map(move |clients| {
                paces().map(|rate| Load { workload: *workload, clients: *clients, rate, value_bytes: self.value_bytes })
            })
        })
    }

    /// The size of the clusters whose leader is killed.
    fn nodes_to_kill(&self) -> Option<usize> {
        self.nodes.iter().copied().filter(|nodes| *nodes >= NODES_TO_LOSE_ONE).min()
    }

    /// Whether it can be run at all, as far as can be told before.
    ///
    /// # Errors
    /// [`Error::Usage`] says what cannot, [`Error::Servers`] what is not installed.
    pub fn validate(&self) -> Result<()> {
        if self.rounds == 0 || self.steps() == 0 {
            return Err(Error::Usage("nothing to do: give at least one backend, size, operation and round".to_owned()));
        }
        for backend in &self.backends {
            backend.check_any(&self.nodes)?;
        }
        self.loads().try_for_each(|load| load.validate())?;
        if self.kills > 0 && self.nodes_to_kill().is_none() {
            let what = format!("to kill the leader, name a size of {NODES_TO_LOSE_ONE} nodes or more");
            return Err(Error::Usage(what));
        }
        // Now, and not when its turn comes after minutes of the others.
        self.backends.iter().try_for_each(|backend| backend.installed())
    }
}

/// Runs a comparison. In every round, every backend and size gets a new cluster, one after the other, so that a machine
/// that becomes slower or faster does so for all of them, and nothing else runs beside the cluster that is measured.
/// `step` is told what is about to be measured.
///
/// # Errors
/// [`Error::Verification`] if a store turns out to be wrong, and whatever keeps a cluster from running.
pub fn compare(comparison: &Comparison, clients: &Clients, mut step: impl FnMut(&str)) -> Result<Report> {
    comparison.validate()?;
    let mut probes = Probes::default();
    let mut groups = Vec::new();
    for backend in &comparison.backends {
        groups.extend(comparison.sizes(backend).map(|nodes| Group::new(backend, nodes, comparison)));
    }
    let sizes: BTreeSet<usize> = groups.iter().map(|group| group.nodes).collect();
    for round in 1..=comparison.rounds {
        probes.measure(&comparison.directory, sizes.iter().copied())?;
        for group in &mut groups {
            group.round(round, comparison, clients, &mut step)?;
        }
    }
    let mut failovers = Vec::new();
    if let Some(nodes) = comparison.nodes_to_kill().filter(|_| comparison.kills > 0) {
        for backend in comparison.backends.iter().filter(|backend| backend.can_be_killed()) {
            failovers.push(fail_over(backend, nodes, comparison.kills, &comparison.directory, clients, &mut step)?);
        }
    }
    let mut report = Report { failovers, ..report(comparison, probes.physics(), groups)? };
    relate(&mut report.cells);
    Ok(report)
}

/// What is measured on the clusters of one backend and size.
struct Group {
    backend: &'static Backend,
    nodes: usize,
    version: String,
    /// From the start to the first acknowledged write, in seconds.
    starts: Vec<f64>,
    cells: Vec<Measured>,
}

/// What one cell of the report is made of.
struct Measured {
    load: Load,
    rounds: Vec<Measurement>,
    used: Vec<Usage>,
}

impl Group {
    fn new(backend: &'static Backend, nodes: usize, comparison: &Comparison) -> Self {
        let cells = comparison.loads().map(|load| Measured { load, rounds: Vec::new(), used: Vec::new() });
        Self { backend, nodes, version: String::new(), starts: Vec::new(), cells: cells.collect() }
    }

    fn round(
        &mut self,
        round: usize,
        comparison: &Comparison,
        clients: &Clients,
        step: &mut impl FnMut(&str),
    ) -> Result<()> {
        let Self { backend, nodes, version, starts, cells } = self;
        let began = Instant::now();
        let target = clients.block_on(async {
            // A new cluster in each round, so that none works on what the one before has left.
            let target = backend.start(*nodes, &comparison.directory).await?;
            first_write(&*target).await?;
            Ok::<_, Error>(target)
        })?;
        starts.push(began.elapsed().as_secs_f64());
        target.version().clone_into(version);
        let handles = target.handles(backend.placement.unwrap_or(comparison.placement));
        for Measured { load, rounds, used } in cells {
            step(&format!("round {round}: {} x {nodes}, {}, {} clients", backend.name, load.workload, load.clients));
            let mut session = clients.prepare(&handles, load)?;
            session.run(Amount::Time(WARM_UP))?;
            let meter = Meter::start(target.servers());
            rounds.push(session.run(amount_of(comparison.amount, load.clients))?);
            used.extend(meter.and_then(Meter::stop));
            session.verify()?;
        }
        clients.block_on(target.stop());
        Ok(())
    }
}

async fn first_write(target: &dyn Target) -> Result<()> {
    if let Some(store) = target.stores().first() {
        let txn = Txn::new().put(Key::new("bench/first")?, "");
        // Without a guard there is no conflict.
        let _ = store.commit(txn, WriteOptions::default()).await?;
    }
    Ok(())
}

/// The work of all clients together.
fn amount_of(each: Amount, clients: usize) -> Amount {
    match each {
        Amount::Iterations(iterations) => Amount::Iterations(iterations.saturating_mul(clients as u64)),
        time @ Amount::Time(_) => time,
    }
}

fn report(comparison: &Comparison, physics: Physics, groups: Vec<Group>) -> Result<Report> {
    let mut backends: Vec<BackendFigures> = Vec::new();
    let (mut clusters, mut cells) = (Vec::new(), Vec::new());
    for Group { backend, nodes, version, starts, cells: measured } in groups {
        if backends.last().is_none_or(|last| last.name != backend.name) {
            backends.push(BackendFigures {
                name: backend.name.to_owned(),
                version,
                what: backend.what.to_owned(),
                durability: backend.durability.to_owned(),
                durable: backend.durable,
                in_process: backend.in_process,
            });
        }
        let start_seconds = Spread::of(starts);
        clusters.push(ClusterFigures { backend: backend.name.to_owned(), nodes, start_seconds });
        for Measured { load, rounds, used } in measured {
            let limit = physics.limit(load.workload, load.clients, nodes, backend.in_process);
            cells.push(cell(
                backend,
                nodes,
                &load,
                &rounds,
                &used,
                // Without a sync there is no such limit, and an open loop does not try to reach it.
                limit.filter(|_| backend.durable && load.rate.is_none()),
            ));
        }
    }
    #[expect(clippy::disallowed_methods, reason = "a report says when it was made")]
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Report {
        schema: Report::SCHEMA.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: comparison.command.clone(),
        made_at: since_1970.as_secs(),
        machine: Machine::this(&comparison.directory),
        value_bytes: comparison.value_bytes,
        iterations: match comparison.amount {
            Amount::Iterations(iterations) => Some(iterations),
            Amount::Time(_) => None,
        },
        seconds: match comparison.amount {
            Amount::Iterations(_) => None,
            Amount::Time(time) => Some(time.as_secs_f64()),
        },
        rounds: comparison.rounds,
        warm_up_seconds: WARM_UP.as_secs_f64(),
        placement: match comparison.placement {
            Placement::Spread => "spread".to_owned(),
            Placement::Leader => "leader".to_owned(),
            Placement::Follower => "follower".to_owned(),
        },
        on_tmpfs: on_tmpfs(&comparison.directory)?,
        physics,
        backends,
        clusters,
        cells,
        failovers: Vec::new(),
    })
}

fn cell(
    backend: &Backend,
    nodes: usize,
    load: &Load,
    rounds: &[Measurement],
    used: &[Usage],
    limit: Option<f64>,
) -> Cell {
    let mut all = Measurement::new();
    rounds.iter().for_each(|round| all.add(round));
    let requests_per_second = Spread::of(rounds.iter().map(Measurement::throughput));
    Cell {
        backend: backend.name.to_owned(),
        nodes,
        workload: load.workload.to_string(),
        clients: load.clients,
        rate: load.rate,
        requests_per_second,
        to_reference: None,
        latency: all.percentiles(),
        limit,
        fraction_of_limit: limit.map(|limit| requests_per_second.median / limit),
        resources: resources(&all, used),
        conflicts: all.conflicts,
        unserved: all.unserved,
        failures: all.failures,
        rounds: rounds.iter().map(crate::Round::from).collect(),
    }
}

fn resources(all: &Measurement, used: &[Usage]) -> Option<Resources> {
    let operations = all.applied + all.conflicts;
    if operations == 0 || used.is_empty() {
        return None;
    }
    let per_100k = 1e5 / operations as f64;
    let written: u64 = used.iter().map(|usage| usage.bytes_written).sum();
    Some(Resources {
        cpu_seconds_per_100k: used.iter().map(|usage| usage.cpu_seconds).sum::<f64>() * per_100k,
        bytes_written_per_100k: written as f64 * per_100k,
        memory_bytes: used.iter().map(|usage| usage.memory_bytes).max().unwrap_or(0),
    })
}

/// Sets each cell in relation to that of etcd under the same load.
fn relate(cells: &mut [Cell]) {
    let of_reference: Vec<_> = cells.iter().filter(|cell| cell.backend == REFERENCE).cloned().collect();
    for cell in cells.iter_mut().filter(|cell| cell.rate.is_none()) {
        let other = of_reference.iter().find(|other| other.is_like(cell));
        let other = other.map(|other| other.requests_per_second.median).filter(|median| *median > 0.0);
        cell.to_reference = other.map(|median| cell.requests_per_second.median / median);
    }
}
