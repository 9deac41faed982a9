//! A node as a process whose descriptors run out: it serves on, and serves all when there are some again.
#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    fs,
    net::TcpStream,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use common::snet;
use storage::{Key, Store, StoreExt};
use storage_testkit::server::{Cluster, ClusterOptions, Launch, NodeContext, ServerError, ServerSpec};

/// However busy the machine is, it is done by then.
const DEADLINE: Duration = Duration::from_secs(90);

/// Two of these a MiB: a segment of the log has 31 of them.
const LARGE: usize = 512 << 10;

/// One node that may have so few files open.
async fn node_with(descriptors: &'static str) -> Cluster {
    nodes_with(1, descriptors).await
}

/// Nodes that may each have so few files open.
async fn nodes_with(nodes: usize, descriptors: &'static str) -> Cluster {
    let launch = move |node: &NodeContext| {
        let url = |port: &str| Ok::<_, ServerError>(format!("http://127.0.0.1:{}", node.port(port)?));
        let (name, client, peer) = (node.name(), url("client")?, url("peer")?);
        let founder = |node: &NodeContext| Ok(format!("{}=http://127.0.0.1:{}", node.name(), node.port("peer")?));
        let founders = node.nodes().map(|node| founder(&node)).collect::<Result<Vec<_>, ServerError>>()?.join(",");
        // Both limits, so that the node cannot raise the one.
        Ok(Launch::new("sh")
            .args(["-c", "ulimit -n \"$0\" && exec \"$@\"", descriptors, env!("CARGO_BIN_EXE_snet"), "storage", "init"])
            .args(["--name", &name, "--token", node.token(), "--client-url", &client, "--peer-url", &peer])
            .args(["--initial-cluster", &founders, "--admin-url", &url("admin")?])
            .env("SNET_STORAGE_LOG_LEVEL", "warn"))
    };
    let spec = ServerSpec::new("snet-init", launch).port("client").port("peer").port("admin");
    Cluster::start(spec, nodes, ClusterOptions::default()).await.unwrap()
}

fn port(cluster: &Cluster, name: &str) -> u16 {
    cluster.node(0).unwrap().port(name).unwrap()
}

/// A client of the node, connected: it does what it is asked to as soon as the node serves.
async fn client(cluster: &Cluster) -> Arc<dyn Store> {
    let store = storage::open(&format!("etcd://127.0.0.1:{}", port(cluster, "client"))).await.unwrap();
    let began = Instant::now();
    while let Err(error) = store.put(&key("first"), "1").await {
        assert!(began.elapsed() < DEADLINE, "{error}");
    }
    store
}

fn key(name: &str) -> Key {
    Key::try_from(name).unwrap()
}

async fn metric(cluster: &Cluster, series: &str) -> f64 {
    let answer = storage_testkit::server::http_get(port(cluster, "admin"), "/metrics").await.unwrap();
    let line = answer.body.lines().find_map(|line| line.strip_prefix(series)).unwrap_or_else(|| panic!("no {series}"));
    line.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_idle_connections_take_no_descriptor_from_the_log_and_none_from_a_client_that_was_there_before() {
    const REFUSED: &str = "storage_refused_connections_total{port=\"client\",reason=\"too_many\"}";
    let mut cluster = node_with("256").await;
    let store = client(&cluster).await;
    let address = ("127.0.0.1", port(&cluster, "client"));
    let idle: Vec<_> = (0..300).map_while(|_| TcpStream::connect(address).ok()).collect();
    assert!(idle.len() > 200, "{}", idle.len());
    // More than two segments.
    for number in 0..70 {
        store.put(&key(&format!("k{number}")), vec![7; LARGE]).await.unwrap();
    }
    assert!(metric(&cluster, REFUSED).await > 0.0);
    assert!(metric(&cluster, "storage_log_segments_total").await >= 2.0);
    assert_eq!(metric(&cluster, "storage_log_segment_waits_total").await, 0.0);
    drop(idle);
    let url = format!("http://127.0.0.1:{}", port(&cluster, "client"));
    let began = Instant::now();
    while !snet(&["storage", "put", "last", "1", "--endpoints", &url, "--seconds", "10"]).status.success() {
        assert!(began.elapsed() < DEADLINE, "a new client is not served");
    }
    assert!(cluster.is_running(0).unwrap());
}

/// The process itself has no descriptor left: as if something else in it had taken them all.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_a_descriptor_for_its_next_segment_refuses_writes_until_it_has_one() {
    let mut cluster = node_with("1024").await;
    let store = client(&cluster).await;
    let pid = cluster.node(0).unwrap().pid().unwrap();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    // The soft limit alone: anyone may raise that again. Below it what is open stays open.
    let limit = |soft: &str| {
        let limited = Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--nofile={soft}:")]).status();
        assert!(limited.expect("prlimit, of util-linux").success());
    };
    limit(&(open / 2).to_string());
    let (mut done, mut refused) = (0, 0);
    let began = Instant::now();
    while refused < 3 {
        assert!(began.elapsed() < DEADLINE, "no write is refused, {done} were made");
        match store.put(&key(&format!("k{}", done % 10)), vec![7; LARGE]).await {
            Ok(_) => done += 1,
            Err(storage::Error::Throttled { .. }) => refused += 1,
            // The one that was in the log already when there was no file for it. The client asks again for each of the others until its
            // deadline, and one whose last try is under way then is not known to it either.
            Err(error) => assert!(error.may_be_applied(), "{error}"),
        }
    }
    assert!(done >= 20, "the segment that is open takes what fits: {done}");
    assert_eq!(store.get(&key("first"), Default::default()).await.unwrap().unwrap().value, "1", "it can be read");
    limit("1024");
    let began = Instant::now();
    while let Err(error) = store.put(&key("last"), vec![7; LARGE]).await {
        assert!(began.elapsed() < DEADLINE, "{error}");
    }
    assert!(metric(&cluster, "storage_log_segment_waits_total").await >= 1.0);
    assert_eq!(metric(&cluster, "storage_log_waits_for_segment").await, 0.0);
    assert!(cluster.is_running(0).unwrap());
}

/// The fewest with which three nodes find each other, and their logs have files for all that they keep.
#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_with_few_descriptors_write_many_segments_and_start_again() {
    let mut cluster = nodes_with(3, "64").await;
    let store = client(&cluster).await;
    for number in 0..160 {
        let key = key(&format!("k{}", number % 10));
        let began = Instant::now();
        // Leaders may come and go on a busy machine.
        while let Err(error) = store.put(&key, vec![7; LARGE]).await {
            assert!(began.elapsed() < DEADLINE, "{error}");
        }
    }
    for place in 0..3 {
        cluster.kill(place).unwrap();
    }
    for place in 0..3 {
        cluster.restart(place).unwrap();
    }
    let began = Instant::now();
    while let Err(error) = store.put(&key("last"), "1").await {
        assert!(began.elapsed() < DEADLINE, "{error}");
    }
    for place in 0..3 {
        assert!(cluster.is_running(place).unwrap(), "{place}");
    }
}
