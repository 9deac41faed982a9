//! What everything in a run shares, and what each kind of client notes in it.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use storage_testkit::history::Recorder;

use crate::{event_log::EventLog, plan::Plan, tickets::Tickets};

/// What everything in a run shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) event_log: EventLog,
    pub(crate) recorder: Recorder,
    pub(crate) clock: Arc<AtomicU64>,
    pub(crate) tickets: Tickets,
    /// The clients begin nothing more.
    pub(crate) ended: Cell<bool>,
    pub(crate) violations: RefCell<Vec<String>>,
    pub(crate) books: RefCell<Books>,
    pub(crate) tenures: RefCell<Tenures>,
    pub(crate) leases: RefCell<Granted>,
}

impl Shared {
    pub(crate) fn new(plan: Plan, prints: bool) -> Self {
        let clock = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&clock);
        // Each moment is a moment of its own: the order of the calls in this one thread is the order of time.
        let recorder = Recorder::with_clock(move || read.fetch_add(1, Relaxed));
        Self {
            plan,
            event_log: EventLog::new(prints),
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
        self.event_log.at(tick);
        self.clock.fetch_max(tick * 1_000_000, Relaxed);
    }

    pub(crate) fn violate(&self, what: String) {
        self.event_log.record(format_args!("VIOLATION {what}"));
        self.violations.borrow_mut().push(what);
    }
}

/// What was added to the counters, beside the store.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) acknowledged: BTreeMap<u64, u64>,
    pub(crate) unknown: BTreeMap<u64, u64>,
    /// How many calls were answered, refused for certain, and left without an answer.
    pub(crate) answered: u64,
    pub(crate) refused: u64,
    pub(crate) unheard: u64,
}

/// When each lock was acquired with which token: the number of the tick in which the call ended.
#[derive(Debug, Default)]
pub(crate) struct Tenures {
    pub(crate) acquired: BTreeMap<u64, u64>,
    pub(crate) count: u64,
}

/// What was granted.
#[derive(Debug, Default)]
pub(crate) struct Granted {
    pub(crate) ids: Vec<u64>,
}

/// The name of a host.
pub(crate) fn name(id: u64) -> String {
    format!("n{id}")
}
