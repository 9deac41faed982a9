//! Payments on each kind of server, three of them: every rule, and some hundred interleavings of replicas, one on each server.
//! The rules are in payment-channels/tests/rules, what has to hold in the interleavings in payment-channels/tests/model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

/// In payment-channels the rules are tests in memory besides.
macro_rules! rules {
    ($($name:ident,)*) => {
        pub(crate) const RULES: &[crate::bed::Rule] =
            &[$(crate::bed::Rule { name: stringify!($name), run: |bed| Box::pin($name(bed)) }),*];
    };
}

/// In simulated time alone, there.
macro_rules! clock_rules {
    ($($name:ident,)*) => {
        #[allow(dead_code, reason = "tried in payment-channels")]
        const IN_SIMULATED_TIME: &[crate::bed::Rule] =
            &[$(crate::bed::Rule { name: stringify!($name), run: |bed| Box::pin($name(bed)) }),*];
    };
}

#[allow(dead_code, reason = "what the rules need in memory is for payment-channels")]
#[path = "../../payment-channels/tests/support/bed.rs"]
mod bed;
#[path = "../../payment-channels/tests/rules/claims.rs"]
mod claims;
#[path = "../../payment-channels/tests/rules/counters.rs"]
mod counters;
#[path = "../../payment-channels/tests/rules/counting.rs"]
mod counting;
#[path = "../../payment-channels/tests/rules/defects.rs"]
mod defects;
#[path = "../../payment-channels/tests/model/mod.rs"]
mod model;
#[path = "../../payment-channels/tests/rules/noting.rs"]
mod noting;
#[path = "../../payment-channels/tests/rules/reservations.rs"]
mod reservations;
mod specs;
#[path = "../../payment-channels/tests/rules/validation.rs"]
mod validation;

use std::sync::Arc;

use model::{REPLICAS, support};
use storage_core::Store;
use storage_testkit::server::{Cluster, ClusterOptions};

/// One line for each backend: the test's name, how its servers are started, and how a store on one of them is opened.
macro_rules! backends {
    ($($name:ident: $spec:expr, $open:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            // A server that is not on this machine fails here, with the command that installs it.
            let cluster = Cluster::start($spec, REPLICAS, ClusterOptions::default()).await;
            let cluster = cluster.unwrap_or_else(|error| panic!("{error}"));
            let mut handles = Vec::new();
            for endpoint in cluster.client_urls() {
                let open = $open;
                handles.push(Arc::new(open(endpoint).await.unwrap()) as Arc<dyn Store>);
            }
            // One after the other on the same servers: they have enough to do.
            let rooms = [claims::RULES, counters::RULES, defects::RULES, reservations::RULES, validation::RULES];
            bed::hold_on(handles.clone(), &rooms).await;
            model::run_on(handles.try_into().unwrap()).await;
        }
    )*};
}

backends! {
    etcd: specs::etcd(), async |endpoint| storage_etcd::EtcdStore::new(storage_etcd::EtcdConfig::new([endpoint])?).await;
    consul: specs::consul(), async |endpoint| storage_consul::ConsulStore::new(storage_consul::ConsulConfig::new([endpoint])?).await;
    zookeeper: specs::zookeeper(), async |endpoint| storage_zk::ZkStore::open(&storage_zk::ZkConfig::new([endpoint])?).await;
}
