//! Payments on each kind of server, three of them: every rule, and some hundred interleavings of replicas, one on each server.

use storage_servers::Servers;
use storage_testkit::server::ClusterOptions;

use crate::{RULES, bed, model};

async fn holds_on(servers: Servers) {
    // A server that is not on this machine fails here, with the command that installs it.
    let running = servers.start(model::REPLICAS, ClusterOptions::default()).await;
    let running = running.unwrap_or_else(|error| panic!("{error}"));
    // One after the other on the same servers: they have enough to do.
    bed::hold_on(running.stores.clone(), RULES).await;
    model::run_on(running.stores.clone().try_into().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd() {
    holds_on(storage_servers::etcd()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consul() {
    holds_on(storage_servers::consul()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zookeeper() {
    holds_on(storage_servers::zk()).await;
}
