//! One seed, from the first tick to the verdict.

use std::{fmt, rc::Rc, time::Duration};

use serde::{Deserialize, Serialize};
use storage_embedded::simulated::{self, Flaw};
use storage_testkit::checker::Checker;
use turmoil::{Builder, Sim};

use crate::{
    clients,
    invariants::Invariants,
    nemesis::{Nemesis, Planted},
    outside,
    plan::Plan,
    shared::{Shared, name},
    site::Site,
};

/// How a seed is run.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How many ticks, of a millisecond each, the faults strike.
    pub ticks: u64,
    /// Print what happens.
    pub trace: bool,
    /// A defect to be found.
    pub planted: Option<Planted>,
}

impl Options {
    /// Runs in which faults strike for so many ticks.
    #[must_use]
    pub fn new(ticks: u64) -> Self {
        Self { ticks, trace: false, planted: None }
    }

    /// These options with a defect to be found.
    #[must_use]
    pub fn planted(self, planted: Option<Planted>) -> Self {
        Self { planted, ..self }
    }
}

/// How long the cluster may take to serve again when everything is healed, in ticks: some elections that fail, each with a pause.
const RECOVERS_WITHIN: u64 = 20_000;

/// How long all nodes may take after that to have applied the same, in ticks.
const AGREES_WITHIN: u64 = 20_000;

/// After so many ticks the operator looks again who the members are.
const MEMBERS_FOLLOWED: u64 = 50;

/// How many connections all hosts together may try within a second: a node that cannot reach another pauses before it tries again.
const MOST_CONNECTS: u64 = 2000;

/// What came of a seed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The ticks that were simulated.
    pub ticks: u64,
    /// The voters that founded the cluster.
    pub nodes: u64,
    /// Operations on the store: answered, refused, and without an answer.
    pub operations: (u64, u64, u64),
    /// Faults that struck.
    pub faults: u64,
    /// Starts of nodes, the first ones among them.
    pub starts: u64,
    /// Terms that had a leader.
    pub terms: usize,
    /// Entries that were committed.
    pub entries: usize,
    /// How often two nodes were seen at the same index, with the same state.
    pub compared: u64,
    /// Locks that were acquired, and leases that were granted.
    pub locks: (u64, usize),
    /// How many ticks the cluster took to serve again after the last fault.
    pub recovery: u64,
    /// A hash of all that happened.
    pub hash: u64,
    /// What did not hold.
    pub violations: Vec<String>,
}

impl Outcome {
    /// Whether everything held.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, ticks, nodes, operations: (answered, refused, unheard), faults, starts, .. } = self;
        let Self { terms, entries, compared, locks: (locks, leases), recovery, hash, .. } = self;
        write!(
            f,
            "seed {seed}: {ticks} ticks, {nodes} nodes, {faults} faults, {starts} starts, {terms} leaders, {entries} entries, \
             {answered} answers, {refused} refusals, {unheard} unknown, {locks} locks, {leases} leases, {compared} states \
             compared, served again after {recovery} ticks, hash {hash:016x}"
        )?;
        self.violations.iter().try_for_each(|what| write!(f, "\n  violation: {what}"))
    }
}

/// Runs one seed. Everything happens on this thread. It repeats only in a process that has run no tokio before and runs none beside:
/// run each in a new one.
///
/// # Panics
/// If a node or the simulation does.
#[must_use]
pub fn run(seed: u64, options: &Options) -> Outcome {
    // Every choice of this thread comes of the seed from here on, those of the engine too.
    fastrand::seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut rng = fastrand::Rng::new();
    let plan = Plan::new(&mut rng);
    simulated::plant(match options.planted {
        Some(Planted::Engine(flaw)) => Some(flaw),
        Some(Planted::EmptiedDisk) => Some(Flaw::ForgottenDisk),
        _ => None,
    });
    simulated::blocking_takes(Duration::from_millis(plan.blocking));
    let shared = Rc::new(Shared::new(plan, options.trace));
    let mut world = World::new(seed, rng, shared, options);
    world.strike(options.ticks);
    world.recover();
    world.judge(seed)
}

struct World {
    sim: Sim<'static>,
    shared: Rc<Shared>,
    sites: Vec<Rc<Site>>,
    nemesis: Nemesis,
    invariants: Invariants,
    tick: u64,
    recovery: u64,
    /// How many connections had been tried when the last second ended.
    connects: u64,
}

impl World {
    fn new(seed: u64, rng: fastrand::Rng, shared: Rc<Shared>, options: &Options) -> Self {
        let plan = &shared.plan;
        shared.event_log.record(format_args!("{plan:?}"));
        let mut builder = Builder::new();
        builder
            .rng_seed(seed)
            .tick_duration(Duration::from_millis(1))
            .simulation_duration(Duration::from_secs(1 << 30));
        builder.min_message_latency(Duration::from_millis(plan.latency.start));
        builder
            .max_message_latency(Duration::from_millis(plan.latency.end))
            .tcp_capacity(4096)
            .ephemeral_ports(10_000..=65_535);
        if plan.random_order {
            builder.enable_random_order();
        }
        let mut sim = builder.build();
        let sites: Vec<_> = (1..=plan.founders + plan.spares).map(|id| Rc::new(Site::new(id, plan))).collect();
        for site in &sites {
            site.machine.slow_down(plan.disk);
            let (site, shared) = (Rc::clone(site), Rc::clone(&shared));
            sim.host(name(site.id), move || Rc::clone(&site).run(Rc::clone(&shared)));
        }
        let outside: Vec<_> = (1..=plan.outside).map(|number| format!("c{number}")).collect();
        for (number, host) in (1..).zip(&outside) {
            let shared = Rc::clone(&shared);
            sim.host(host.clone(), move || outside::work(number, Rc::clone(&shared)));
        }
        let nemesis = Nemesis::new(rng, Rc::clone(&shared), sites.clone(), outside, options.planted);
        Self { sim, shared, sites, nemesis, invariants: Invariants::default(), tick: 0, recovery: 0, connects: 0 }
    }

    fn is_broken(&self) -> bool {
        !self.shared.violations.borrow().is_empty()
    }

    fn step(&mut self) {
        self.shared.at(self.tick);
        self.invariants.silent = self.nemesis.silent(&mut self.sim, self.tick);
        if let Err(error) = self.sim.step() {
            self.shared.violate(format!("a host ended: {error}"));
        }
        for site in &self.sites {
            let node = site.node.borrow();
            let Some(node) = &*node else { continue };
            if let Err(what) = self.invariants.look(site.id, site.starts.get(), node, &self.shared.event_log) {
                self.shared.violate(what);
            }
        }
        if let Some(what) = self.nemesis.judge() {
            self.shared.violate(what);
        }
        self.tick += 1;
        if self.tick.is_multiple_of(MEMBERS_FOLLOWED) {
            self.nemesis.follow_members();
        }
        if self.tick.is_multiple_of(1000) {
            let connects = simulated::connects() - std::mem::replace(&mut self.connects, simulated::connects());
            if connects > MOST_CONNECTS {
                self.shared.violate(format!("{connects} connections were tried within a second"));
            }
        }
    }

    fn strike(&mut self, ticks: u64) {
        while self.tick < ticks && !self.is_broken() {
            self.nemesis.act(&mut self.sim, self.tick);
            self.step();
        }
    }

    /// Heals everything, and waits until the cluster serves again and all nodes agree.
    fn recover(&mut self) {
        self.nemesis.heal(&mut self.sim);
        let healed = self.tick;
        // Entries that are committed after this: of clients, which only those commit who serve.
        let before = self.answers();
        self.wait(RECOVERS_WITHIN, "the cluster does not serve again", |world| {
            let led = world.sites.iter().filter(|site| site.takes_part());
            let led = led
                .filter(|site| site.id <= world.shared.plan.founders)
                .all(|site| site.node.borrow().as_ref().is_some_and(|node| node.probe().leader.is_some()));
            led && world.answers() >= before + 50
        });
        self.recovery = self.tick - healed;
        // Clients end only now: that they are served is how it was seen that the cluster serves.
        self.shared.ended.set(true);
        self.wait(AGREES_WITHIN, "the nodes do not come to agree", |world| {
            let goal = world.invariants.last();
            let voters = world.nemesis.voters();
            let all = world.sites.iter().filter(|site| voters.contains(&site.id) && site.takes_part()).all(|site| {
                let node = site.node.borrow();
                node.as_ref().is_some_and(|node| node.probe().applied.is_some_and(|(index, _)| index >= goal))
            });
            // Leases run out, and the last calls end.
            all && world.tick > healed + world.recovery + 6000
        });
    }

    fn answers(&self) -> u64 {
        self.shared.books.borrow().answered
    }

    fn wait(&mut self, ticks: u64, otherwise: &str, until: impl Fn(&Self) -> bool) {
        let began = self.tick;
        while !self.is_broken() && !until(self) {
            if self.tick - began > ticks {
                self.shared.violate(format!("{otherwise} within {ticks} ticks"));
            }
            // As an operator or a service manager would: a node may have ended by itself under the last fault.
            self.nemesis.restart_fallen(&mut self.sim, self.tick);
            self.nemesis.finish(&mut self.sim, self.tick);
            self.step();
        }
    }

    fn judge(mut self, seed: u64) -> Outcome {
        if !self.is_broken() {
            self.judge_states();
        }
        let history = self.shared.recorder.history();
        for operation in history.operations() {
            self.shared.event_log.feed(format!("{operation:?}").as_bytes());
        }
        let report = Checker::default().check(&history);
        // A violation at the node is nearer to the cause.
        if !report.is_linearizable() && !self.is_broken() {
            self.shared.violate(format!("not linearizable: {report}"));
        }
        for site in &self.sites {
            for (path, bytes) in site.machine.disk().contents() {
                self.shared.event_log.feed(path.as_os_str().as_encoded_bytes());
                self.shared.event_log.feed(&crc32c::crc32c(&bytes).to_le_bytes());
            }
        }
        let books = self.shared.books.borrow();
        Outcome {
            seed,
            ticks: self.tick,
            nodes: self.shared.plan.founders,
            operations: (books.answered, books.refused, books.unheard),
            faults: self.nemesis.struck.values().sum(),
            starts: self.sites.iter().map(|site| site.starts.get()).sum(),
            terms: self.invariants.terms(),
            entries: self.invariants.entries(),
            compared: self.invariants.compared,
            locks: (self.shared.tenures.borrow().count, self.shared.leases.borrow().ids.len()),
            recovery: self.recovery,
            hash: self.shared.event_log.hash(),
            violations: self.shared.violations.take(),
        }
    }

    /// What has to be in the state of every voter in the end.
    fn judge_states(&mut self) {
        let shared = Rc::clone(&self.shared);
        let voters = self.nemesis.voters();
        for site in self.sites.iter().filter(|site| voters.contains(&site.id) && site.takes_part()) {
            let node = site.node.borrow();
            let Some(node) = &*node else { continue };
            for place in 0..clients::COUNTERS {
                let entry = node.peek(&clients::counter(place));
                let (found, books) = (clients::count(entry.as_ref()), shared.books.borrow());
                let acknowledged = books.acknowledged.get(&place).copied().unwrap_or(0);
                let unknown = books.unknown.get(&place).copied().unwrap_or(0);
                drop(books);
                if !(acknowledged..=acknowledged + unknown).contains(&found) {
                    let id = site.id;
                    shared.violate(format!(
                        "node {id}: counter {place} is {found}, of {acknowledged} acknowledged and {unknown} unknown"
                    ));
                }
            }
            for id in &shared.leases.borrow().ids {
                if node.peek(&clients::key(format!("leased/{id:x}"))).is_some() {
                    shared.violate(format!("node {}: the key of lease {id:x} has outlived it", site.id));
                }
            }
        }
    }
}
