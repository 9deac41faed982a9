//! The rules of payments, one by one: each in memory in simulated time, and those that touch the store on the embedded engine too.
//! With the feature `servers`, clusters of real servers are tried as well, with some of the interleavings.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

/// Rules that have to hold on every backend.
macro_rules! rules {
    ($($name:ident,)*) => {
        pub(crate) const RULES: &[crate::bed::Rule] =
            &[$(crate::bed::Rule { name: stringify!($name), run: |bed| Box::pin($name(bed)) }),*];
        mod in_memory {
            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                super::$name(crate::bed::Bed::memory()).await;
            })*
        }
    };
}

/// Rules that are tried in simulated time alone.
macro_rules! clock_rules {
    ($($name:ident,)*) => {
        mod in_simulated_time {
            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                super::$name(crate::bed::Bed::memory()).await;
            })*
        }
    };
}

mod claims;
mod counters;
mod counting;
mod daemon;
mod defects;
mod ledgers;
mod noting;
mod records;
mod reservations;
#[cfg(feature = "servers")]
mod servers;
mod signatures;
mod validation;

#[path = "../support/bed.rs"]
mod bed;
#[cfg(feature = "servers")]
#[path = "../model/mod.rs"]
mod model;
#[cfg(feature = "servers")]
use model::support;
#[cfg(not(feature = "servers"))]
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;

use storage_core::Store;
use storage_embedded::LocalCluster;

/// The rules that touch the store.
const RULES: &[&[bed::Rule]] = &[
    claims::RULES,
    counters::RULES,
    daemon::RULES,
    defects::RULES,
    ledgers::RULES,
    reservations::RULES,
    validation::RULES,
];

#[tokio::test]
async fn every_rule_holds_on_the_embedded_engine() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = LocalCluster::start(dir.path(), 3, |config| config).await.unwrap();
    let stores = cluster.running().map(|node| Arc::new(node.store()) as Arc<dyn Store>).collect();
    bed::hold_on(stores, RULES).await;
    cluster.stop_all().await;
}
