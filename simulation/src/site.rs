//! A host with a node on it: it starts, crashes, and starts again from what its disk has kept.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use storage_core::Store;
use storage_embedded::{
    ClusterToken, Member, Node, NodeConfig, Removed, Stopped,
    simulated::{Machine, SimDisk, TcpListener},
};
use tokio::{sync::mpsc, task::spawn_local};

use crate::{
    clients, hostile, leases, locks, outside,
    plan::Plan,
    shared::{Shared, name},
};

const CLUSTER: u128 = 0x5eed;
/// The addresses of simulated machines are not loopback addresses, where nodes without a token are refused.
const TOKEN: &str = "the token of simulated nodes";
const PEER_PORT: u16 = 7000;

/// What a node is asked to do for its operator.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    Transfer(u64),
    AddLearner(u64),
    Promote(u64),
    Remove(Vec<u64>),
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
    /// Its disk was emptied after it had taken part. It must not take part again.
    pub(crate) wiped: Cell<bool>,
    /// Its state was damaged in this life.
    pub(crate) damaged: Cell<bool>,
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
            wiped: Cell::new(false),
            damaged: Cell::new(false),
        }
    }

    fn config(&self, plan: &Plan) -> NodeConfig {
        let mut config = NodeConfig::new(self.id, CLUSTER, "/node", format!("0.0.0.0:{PEER_PORT}")).fast();
        config.token = ClusterToken::new(TOKEN);
        config.founders = self.founders.iter().map(|id| (*id, member(*id))).collect::<BTreeMap<_, _>>();
        config.snapshot_every = plan.snapshot_every;
        config.machine = self.machine.clone();
        config
    }

    /// What runs on the host, until the node ends or the host crashes.
    pub(crate) async fn run(self: Rc<Self>, shared: Rc<Shared>) -> turmoil::Result {
        self.starts.set(self.starts.get() + 1);
        self.damaged.set(false);
        shared.event_log.record(format_args!("n{} starts", self.id));
        let node = match Node::start(self.config(&shared.plan)).await {
            Ok(node) => node,
            Err(error) => {
                shared.event_log.record(format_args!("n{} cannot start: {error}", self.id));
                // One that was removed never starts again.
                let may_fail = if Removed::caused(&error) { self.removed.get() } else { self.excused.get() };
                if !may_fail {
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
        spawn_local(hostile::work(node.clone(), self.id, Rc::clone(&shared)));
        let stopped = node.stopped().await;
        self.node.take();
        self.orders.take();
        shared.event_log.record(format_args!("n{} stopped: {stopped:?}", self.id));
        if !self.may_stop(node.why_stopped().as_ref()) {
            shared.violate(format!("node {} ended by itself: {stopped:?}", self.id));
        }
        Ok(())
    }

    /// Whether it is to serve when everything is healed.
    pub(crate) fn takes_part(&self) -> bool {
        !self.removed.get() && !self.wiped.get()
    }

    /// Whether the node has ended for a reason that there is; a member is never taken for a removed one.
    fn may_stop(&self, why: Option<&Stopped>) -> bool {
        match why {
            Some(Stopped::Forgot(_)) if self.wiped.get() => true,
            Some(Stopped::Removed(_)) => self.removed.get(),
            Some(Stopped::Differs(_)) if self.damaged.get() => true,
            _ => self.excused.get(),
        }
    }
}

const ORDERED_WITHIN: Duration = Duration::from_secs(3);

async fn operate(node: Node, mut orders: mpsc::UnboundedReceiver<Order>, site: Rc<Site>, shared: Rc<Shared>) {
    while let Some(order) = orders.recv().await {
        let done = match order {
            Order::Transfer(to) => node.transfer_leadership(to, ORDERED_WITHIN).await,
            Order::AddLearner(id) => node.add_learner(id, member(id), ORDERED_WITHIN).await,
            Order::Promote(id) => node.promote_in_sync(id, ORDERED_WITHIN).await,
            Order::Remove(ref ids) => node.remove(ids.clone(), ORDERED_WITHIN).await,
            Order::Snapshot => node.snapshot(ORDERED_WITHIN).await,
        };
        let done = done.map_err(|error| error.kind());
        shared.event_log.record(format_args!("n{} did {order:?}: {done:?}", site.id));
    }
}
