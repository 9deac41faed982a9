//! What a client does in one iteration, and of how many requests and durable writes that consists.
//!
//! The physical limit is reckoned from these numbers, so that they have to be those of the client.

use std::{fmt, str::FromStr};

use crate::{Error, Result};

/// What a client does in one iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Workload {
    /// Sets one of its own keys: one request.
    Put,
    /// Reads one of its own keys: one request.
    Get,
    /// Reads one of its own keys and swaps it by version: two requests.
    Cas,
    /// Reads and swaps the one key that all clients share: two requests. Those that lose see a conflict, which is counted.
    HotCas,
    /// Changes three of its own keys, each guarded by its version, in one transaction: one request.
    Txn,
    /// Pays for a call from a channel of its own: reserves it and commits, two requests. The client signs, the service checks the signature.
    Payment,
}

/// What an iteration of a workload consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Calls of the store.
    pub(crate) requests: u32,
    /// Those of them that are durable writes.
    pub(crate) writes: u32,
}

impl Workload {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Put, Self::Get, Self::Cas, Self::HotCas, Self::Txn, Self::Payment];

    /// How many requests an iteration counts as.
    pub fn requests(self) -> u32 {
        self.shape().requests
    }

    /// What it is called on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Cas => "cas",
            Self::HotCas => "hot-cas",
            Self::Txn => "txn",
            Self::Payment => "payment",
        }
    }

    pub(crate) fn shape(self) -> Shape {
        match self {
            Self::Put | Self::Txn => Shape { requests: 1, writes: 1 },
            Self::Get => Shape { requests: 1, writes: 0 },
            Self::Cas | Self::HotCas => Shape { requests: 2, writes: 1 },
            Self::Payment => Shape { requests: 2, writes: 2 },
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Workload {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|workload| workload.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::Usage(format!("there is no operation `{name}`, only {known}"))
        })
    }
}
