//! How many there may be of what clients keep for as long as they like: watches, their streams, and snapshots that they download.
//!
//! Leases are bounded in the replicated state, and connections by the port.

use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    error::{Refusal, TOO_MANY_REQUESTS},
    limits::{SNAPSHOTS, WATCH_STREAMS},
    requests::Requests,
};

/// Places of one kind. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    taken: Gauge,
}

/// One of them. It is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    taken: Gauge,
}

impl Places {
    pub(crate) fn new(places: usize, taken: Gauge) -> Self {
        Self { free: Arc::new(Semaphore::new(places)), taken }
    }

    /// Takes one.
    ///
    /// # Errors
    /// As etcd tells who asks for too much, when there is none.
    pub(crate) fn take(&self) -> Result<Place, Refusal> {
        let permit = Arc::clone(&self.free).try_acquire_owned().map_err(|_| TOO_MANY_REQUESTS)?;
        self.taken.inc();
        Ok(Place { _permit: permit, taken: self.taken.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.dec();
    }
}

/// The places of a node.
#[derive(Clone, Debug)]
pub(crate) struct NodePlaces {
    pub(crate) watch_streams: Places,
    pub(crate) watches: Places,
    pub(crate) snapshots: Places,
}

impl NodePlaces {
    pub(crate) fn counted(watches: usize, requests: &Requests) -> Self {
        Self {
            watch_streams: Places::new(WATCH_STREAMS, requests.watch_streams.clone()),
            watches: Places::new(watches, requests.watches.clone()),
            snapshots: Places::new(SNAPSHOTS, requests.snapshots.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_places_and_one_that_was_left_is_free() {
        let taken = Gauge::default();
        let places = Places::new(2, taken.clone());
        let both = (places.take().unwrap(), places.clone().take().unwrap());
        assert_eq!((taken.get(), places.take().unwrap_err().words()), (2, "etcdserver: too many requests"));
        drop(both);
        assert_eq!(taken.get(), 0);
        assert!(places.take().is_ok());
    }
}
