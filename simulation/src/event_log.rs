//! What happened, line by line: a hash of it always, and the lines themselves if they are wanted.

use std::{
    cell::{Cell, RefCell},
    fmt,
};

/// The events of one run.
#[derive(Debug)]
pub(crate) struct EventLog {
    prints: bool,
    tick: Cell<u64>,
    hash: Cell<u64>,
    lines: Cell<u64>,
    line: RefCell<String>,
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo).
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

impl EventLog {
    pub(crate) fn new(prints: bool) -> Self {
        Self { prints, tick: Cell::new(0), hash: Cell::new(OFFSET), lines: Cell::new(0), line: RefCell::default() }
    }

    /// The tick that begins.
    pub(crate) fn at(&self, tick: u64) {
        self.tick.set(tick);
    }

    pub(crate) fn tick(&self) -> u64 {
        self.tick.get()
    }

    pub(crate) fn record(&self, what: fmt::Arguments<'_>) {
        let mut line = self.line.borrow_mut();
        line.clear();
        // Writing to a string does not fail.
        let _ = fmt::write(&mut *line, format_args!("{:>6} {what}", self.tick.get()));
        self.feed(line.as_bytes());
        self.lines.set(self.lines.get() + 1);
        if self.prints {
            println!("{line}");
        }
    }

    /// Bytes that are part of what happened and nothing to show.
    pub(crate) fn feed(&self, bytes: &[u8]) {
        let hash = bytes.iter().fold(self.hash.get(), |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
        self.hash.set(hash);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash.get()
    }
}
