//! A real etcd of one server.

use storage_etcd::server::{HEALTH_PATH, Member, PROGRAM, is_healthy};
use storage_testkit::{
    programs,
    server::{Cluster, ClusterOptions, Launch, Probe, ServerSpec},
};

/// Starts a server. Fails the test with what is missing.
pub(crate) async fn start() -> (Cluster, String) {
    start_with(&[]).await
}

/// Starts a server with further arguments.
pub(crate) async fn start_with(further: &'static [&'static str]) -> (Cluster, String) {
    let spec = ServerSpec::new(PROGRAM, |node| {
        let member = Member {
            name: node.name(),
            data_dir: node.data_dir().join("member"),
            client_port: node.port("client")?,
            peer_port: node.port("peer")?,
            tls: None,
        };
        let arguments = member.arguments(std::slice::from_ref(&member), node.token());
        Ok(Launch::new(programs::find(PROGRAM)?).args(arguments).args(further.iter().copied()))
    });
    let spec = spec.port("client").port("peer").client_url("127.0.0.1:{client}");
    let spec = spec.ready_when(Probe::http("client", HEALTH_PATH, |answer, _| is_healthy(&answer.body)));
    let cluster = Cluster::start(spec, 1, ClusterOptions::default()).await.unwrap_or_else(|error| panic!("{error}"));
    let endpoint = cluster.client_urls().swap_remove(0);
    (cluster, endpoint)
}
