//! A host with a node on it: it starts, crashes, and starts again from what its disk has kept.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use storage_core::Store;
use storage_embedded::{
    Member, Node, NodeConfig,
    disk::SimDisk,
    simulated::{Machine, TcpListener},
};
use storage_testkit::history::Recorder;
use tokio::{sync::mpsc, task::spawn_local};

use crate::{clients, leases, locks, outside, outside::Tickets, plan::Plan, trace::Trace};

const CLUSTER: u128 = 0x5eed;
const PEER_PORT: u16 = 7000;

/// What everything in a run shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) trace: Trace,
    pub(crate) recorder: Recorder,
    pub(crate) clock: Arc<AtomicU64>,
    pub(crate) tickets: Tickets,
    /// The clients begin nothing more.
    pub(crate) ended: Cell<bool>,
    pub(crate) violations: RefCell<Vec<String>>,
    pub(crate) books: RefCell<clients::Books>,
    pub(crate) tenures: RefCell<locks::Tenures>,
    pub(crate) leases: RefCell<leases::Granted>,
}

impl Shared {
    pub(crate) fn new(plan: Plan, shown: bool) -> Self {
        let clock = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&clock);
        // Each moment is a moment of its own: the order of the calls in this one thread is the order of time.
        let recorder = Recorder::with_clock(move || read.fetch_add(1, Relaxed));
        Self {
            plan,
            trace: Trace::new(shown),
            recorder,
            clock,
            tickets: Tickets::default(),
            ended: Cell::new(false),
            violations: RefCell::default(),
            books: RefCell::default(),
            tenures: RefCell::default(),
            leases: RefCell::default(),
        }
    }

    /// A new tick, of a millisecond.
    pub(crate) fn at(&self, tick: u64) {
        self.trace.at(tick);
        self.clock.fetch_max(tick * 1_000_000, Relaxed);
    }

    pub(crate) fn violate(&self, what: String) {
        self.trace.say(format_args!("VIOLATION {what}"));
        self.violations.borrow_mut().push(what);
    }
}

/// What a node is asked to do for its operator.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    Transfer(u64),
    AddLearner(u64),
    Promote(u64),
    Remove(u64),
    Snapshot,
}

/// A host with a node on it.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) id: u64,
    pub(crate) machine: Machine,
    founders: Vec<u64>,
    pub(crate) node: RefCell<Option<Node>>,
    pub(crate) orders: RefCell<Option<mpsc::UnboundedSender<Order>>>,
    /// How often it was started.
    pub(crate) starts: Cell<u64>,
    /// Its disk has been made to fail since it was started: the node may end.
    pub(crate) excused: Cell<bool>,
    /// It was removed from the cluster for good.
    pub(crate) removed: Cell<bool>,
}

pub(crate) fn name(id: u64) -> String {
    format!("n{id}")
}

fn member(id: u64) -> Member {
    Member { name: name(id), peer_address: format!("{}:{PEER_PORT}", name(id)), client_url: String::new() }
}

impl Site {
    pub(crate) fn new(id: u64, plan: &Plan) -> Self {
        let disk = SimDisk::new(fastrand::u64(..));
        let founders = if id <= plan.founders { (1..=plan.founders).collect() } else { Vec::new() };
        Self {
            id,
            machine: Machine::new(disk, plan.segment_bytes, plan.entries_kept),
            founders,
            node: RefCell::default(),
            orders: RefCell::default(),
            starts: Cell::new(0),
            excused: Cell::new(false),
            removed: Cell::new(false),
        }
    }

    fn config(&self, plan: &Plan) -> NodeConfig {
        let mut config = NodeConfig::new(self.id, CLUSTER, "/node", format!("0.0.0.0:{PEER_PORT}")).fast();
        config.founders = self.founders.iter().map(|id| (*id, member(*id))).collect::<BTreeMap<_, _>>();
        config.snapshot_every = plan.snapshot_every;
        config.machine = self.machine.clone();
        config
    }

    /// What runs on the host, until the node ends or the host crashes.
    pub(crate) async fn run(self: Rc<Self>, shared: Rc<Shared>) -> turmoil::Result {
        self.starts.set(self.starts.get() + 1);
        shared.trace.say(format_args!("n{} starts", self.id));
        let node = match Node::start(self.config(&shared.plan)).await {
            Ok(node) => node,
            Err(error) => {
                shared.trace.say(format_args!("n{} cannot start: {error}", self.id));
                if !self.excused.get() {
                    shared.violate(format!("node {} cannot start: {error}", self.id));
                }
                return Ok(());
            }
        };
        self.node.replace(Some(node.clone()));
        let (orders, ordered) = mpsc::unbounded_channel();
        self.orders.replace(Some(orders));
        spawn_local(operate(node.clone(), ordered, Rc::clone(&self), Rc::clone(&shared)));
        let store = Arc::new(node.store()) as Arc<dyn Store>;
        let listener = TcpListener::bind(("0.0.0.0", outside::PORT)).await?;
        spawn_local(outside::serve(listener, Arc::clone(&store), shared.tickets.clone()));
        for _ in 0..shared.plan.inside {
            spawn_local(clients::work(Arc::clone(&store), format!("n{}", self.id), Rc::clone(&shared)));
        }
        spawn_local(locks::work(Arc::clone(&store), self.id, Rc::clone(&shared)));
        spawn_local(leases::work(node.clone(), Rc::clone(&shared)));
        let stopped = node.stopped().await;
        self.node.take();
        self.orders.take();
        shared.trace.say(format_args!("n{} stopped: {stopped:?}", self.id));
        if !self.excused.get() {
            shared.violate(format!("node {} ended by itself: {stopped:?}", self.id));
        }
        Ok(())
    }
}

const ORDERED_WITHIN: Duration = Duration::from_secs(3);

async fn operate(node: Node, mut orders: mpsc::UnboundedReceiver<Order>, site: Rc<Site>, shared: Rc<Shared>) {
    while let Some(order) = orders.recv().await {
        let done = match order {
            Order::Transfer(to) => node.transfer_leadership(to, ORDERED_WITHIN).await,
            Order::AddLearner(id) => node.add_learner(id, member(id), ORDERED_WITHIN).await,
            Order::Promote(id) => node.promote_in_sync(id, ORDERED_WITHIN).await,
            Order::Remove(id) => node.remove([id], ORDERED_WITHIN).await,
            Order::Snapshot => node.snapshot(ORDERED_WITHIN).await,
        };
        let done = done.map_err(|error| error.kind());
        shared.trace.say(format_args!("n{} did {order:?}: {done:?}", site.id));
    }
}
