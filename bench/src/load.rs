//! What is put on a store, and how much of it: checked once, before anything is started.

use std::time::Duration;

use crate::{Error, Result, Workload};

/// What is put on a store.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// What each client does again and again.
    pub workload: Workload,
    /// How many clients there are. Each waits for one answer before it calls again.
    pub clients: usize,
    /// Iterations per second that all clients together have to begin (an open loop); `None`: each begins one as soon as its last has
    /// ended (a closed loop). In an open loop latencies count from when an iteration should have begun, so that a store that stalls
    /// pays for those that it kept from beginning.
    pub rate: Option<f64>,
    /// The size of a value, in bytes; at least [`Load::MIN_VALUE_BYTES`].
    pub value_bytes: usize,
}

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many iterations, shared evenly among the clients.
    Iterations(u64),
    /// Whatever the clients do in this time.
    Time(Duration),
}

impl Load {
    /// The smallest value, in bytes: it begins with the counter that the verification adds up.
    pub const MIN_VALUE_BYTES: usize = 8;

    /// The most clients: each has a dozen keys that are written before the run and read after it.
    pub const MAX_CLIENTS: usize = 4096;

    /// The highest rate, in iterations per second: one each microsecond, which is about what it takes to tell a client to begin.
    pub const MAX_RATE: f64 = 1e6;

    pub(crate) fn validate(&self) -> Result<()> {
        if self.clients == 0 {
            return Err(Error::Usage("at least one client is needed".to_owned()));
        }
        if self.clients > Self::MAX_CLIENTS {
            return Err(Error::Usage(format!("there are at most {} clients, not {}", Self::MAX_CLIENTS, self.clients)));
        }
        if let Some(rate) = self.rate
            && !(rate > 0.0 && rate <= Self::MAX_RATE)
        {
            return Err(Error::Usage(format!("a rate is above 0 and at most {}, not {rate}", Self::MAX_RATE)));
        }
        if self.value_bytes < Self::MIN_VALUE_BYTES {
            let least = Self::MIN_VALUE_BYTES;
            return Err(Error::Usage(format!(
                "a value has at least {least} bytes: it holds the counter that is verified"
            )));
        }
        Ok(())
    }
}
