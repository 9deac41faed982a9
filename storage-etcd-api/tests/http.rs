//! Plain HTTP/1.1 on the port of etcd's clients, held against a real etcd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{
    ApiCluster, RECOVERY, etcd,
    http::{Answer, get, request},
    rpc::Rpc,
};
use storage_etcd_api::{ETCD_VERSION, proto::etcdserverpb as pb};
use tokio::time::Instant;

/// Etcd looks at its checks in any order.
fn sorted(answer: Answer) -> (u16, Option<String>, Vec<String>) {
    let mut lines: Vec<_> = answer.body.lines().map(str::to_owned).collect();
    lines.sort();
    (answer.status, answer.content_type, lines)
}

async fn becomes_healthy(endpoint: &str) {
    let deadline = Instant::now() + RECOVERY;
    while get(endpoint, "/health").await.status != 200 {
        assert!(Instant::now() < deadline, "it stays unhealthy");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_node_answers_as_etcd_does() {
    let (_etcd, real) = etcd::start().await;
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start_calm(dir.path(), 3).await;
    for endpoint in cluster.endpoints() {
        becomes_healthy(&endpoint).await;
        for path in [
            "/health",
            "/health?serializable=true",
            "/health?exclude=NOSPACE",
            "/livez",
            "/livez?verbose",
            "/livez/serializable_read",
            "/readyz",
            "/readyz?verbose",
            "/readyz?verbose&exclude=data_corruption",
            "/readyz/linearizable_read",
            "/readyz/nothing",
            "/nowhere",
        ] {
            assert_eq!(sorted(get(&endpoint, path).await), sorted(get(&real, path).await), "{path}");
        }
        let (ours, theirs) = (get(&endpoint, "/version").await, get(&real, "/version").await);
        assert_eq!((ours.status, &ours.content_type), (theirs.status, &theirs.content_type));
        let server = |answer: &Answer| answer.body.split('"').nth(3).unwrap().to_owned();
        assert_eq!(server(&ours), ETCD_VERSION);
        assert_eq!(
            ours.body,
            theirs.body.replace(&server(&theirs), ETCD_VERSION),
            "of a real etcd, another release at most"
        );
        for (method, path) in [("POST", "/health"), ("POST", "/livez"), ("GET", "/debug/vars")] {
            let (ours, theirs) = (request(&endpoint, method, path).await, request(&real, method, path).await);
            assert_eq!(ours.status, theirs.status, "{method} {path}");
        }
        // gRPC goes on beside it, and a service that is not there is still refused in gRPC's way.
        let rpc = Rpc::connect(&endpoint).await;
        rpc.put(pb::PutRequest { key: "a".into(), ..Default::default() }).await.unwrap();
        let refused = rpc.unary::<_, pb::AlarmResponse>("/v3lockpb.Look/Look", pb::AlarmRequest::default()).await;
        let refused = refused.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (tonic::Code::Unimplemented, "unknown service v3lockpb.Look"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_leader_is_unhealthy_until_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = ApiCluster::start(dir.path(), 3).await;
    let endpoint = cluster.endpoints().swap_remove(0);
    cluster.stop(1).await;
    cluster.stop(2).await;
    let deadline = Instant::now() + RECOVERY;
    loop {
        let answer = get(&endpoint, "/health").await;
        if answer.status == 503 && answer.body == r#"{"health":"false","reason":"RAFT NO LEADER"}"# {
            break;
        }
        let is_on_the_way =
            answer.status == 200 || answer.body.starts_with(r#"{"health":"false","reason":"QGET ERROR:"#);
        assert!(is_on_the_way && Instant::now() < deadline, "{answer:?}");
    }
    assert_eq!(get(&endpoint, "/health?serializable=true").await.status, 200, "it is there");
    assert_eq!(get(&endpoint, "/version").await.status, 200);
    cluster.heal().await;
    becomes_healthy(&endpoint).await;
}

/// The kinds and names of what a page has, and which values are told by labels.
fn families(page: &str) -> Vec<&str> {
    page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_have_the_names_and_kinds_of_etcds() {
    let (_etcd, real) = etcd::start().await;
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start_calm(dir.path(), 1).await;
    let endpoint = cluster.endpoints().swap_remove(0);
    let rpc = Rpc::connect(&endpoint).await;
    rpc.put(pb::PutRequest { key: "a".into(), ..Default::default() }).await.unwrap();
    rpc.put(pb::PutRequest::default()).await.unwrap_err();
    let (ours, theirs) = (get(&endpoint, "/metrics").await, get(&real, "/metrics").await);
    assert_eq!(ours.status, 200);
    let theirs = families(&theirs.body);
    for family in families(&ours.body) {
        assert!(theirs.contains(&family), "etcd has no {family}");
    }
    for line in [
        "etcd_server_has_leader 1",
        "etcd_server_is_leader 1",
        "etcd_debugging_mvcc_current_revision 2",
        r#"grpc_server_started_total{grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 2"#,
        r#"grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1"#,
        r#"grpc_server_handled_total{grpc_code="InvalidArgument",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1"#,
    ] {
        assert!(ours.body.lines().any(|shown| shown == line), "{line}: {}", ours.body);
    }
    assert!(ours.body.contains("etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"}"));
    drop(cluster);
}
