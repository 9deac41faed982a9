//! Plain HTTP/1.1 on the port of etcd's clients, held against a real etcd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use common::{ApiCluster, RECOVERY, etcd, rpc::Rpc};
use storage_etcd_api::{ETCD_VERSION, proto::etcdserverpb as pb};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    content_type: Option<String>,
    body: String,
}

async fn request(endpoint: &str, method: &str, path: &str) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(endpoint).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {endpoint}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(DEADLINE, exchange).await.expect("it is answered");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
    let content_type = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-type").then(|| value.trim().to_owned())
    });
    Answer { status, content_type, body: body.to_owned() }
}

async fn get(endpoint: &str, path: &str) -> Answer {
    request(endpoint, "GET", path).await
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
        for path in ["/health", "/health?serializable=true", "/health?exclude=NOSPACE"] {
            assert_eq!(get(&endpoint, path).await, get(&real, path).await, "{path}");
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
        for (method, path) in [("GET", "/nowhere"), ("POST", "/health")] {
            let (ours, theirs) = (request(&endpoint, method, path).await, request(&real, method, path).await);
            assert_eq!(ours.status, theirs.status, "{method} {path}");
        }
        // gRPC goes on beside it, and a service that is not there is still refused in gRPC's way.
        let rpc = Rpc::connect(&endpoint).await;
        rpc.put(pb::PutRequest { key: "a".into(), ..Default::default() }).await.unwrap();
        let refused = rpc.unary::<_, pb::AlarmResponse>("/v3lockpb.Lock/Lock", pb::AlarmRequest::default()).await;
        assert_eq!(refused.unwrap_err().code(), tonic::Code::Unimplemented);
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
