//! The calls of the API as JSON over plain HTTP, held against a real etcd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{
    ApiCluster, etcd,
    http::{open, post, read_until},
    rpc::Rpc,
};
use serde_json::{Value, json};
use storage_etcd_api::proto::etcdserverpb as pb;

/// Without what belongs to a cluster: of headers the revision stays.
fn plain(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        for own in ["cluster_id", "member_id", "raft_term", "dbSize", "dbSizeInUse", "hash", "version"] {
            fields.remove(own);
        }
        // Earlier releases of etcd's gateway have it, and so has ours.
        if fields.contains_key("code") {
            fields.remove("error");
        }
        for field in fields.values_mut() {
            *field = plain(field.take());
        }
    }
    value
}

/// The answer of one server: its status, and its objects.
async fn answer(endpoint: &str, path: &str, body: &str) -> (u16, Option<String>, Vec<Value>) {
    let answer = post(endpoint, path, "", body).await;
    let objects = serde_json::Deserializer::from_str(&answer.body).into_iter::<Value>();
    (answer.status, answer.content_type, objects.map(|object| plain(object.unwrap())).collect())
}

/// What is asked, in this order. Of what the two refuse in other words the code is compared.
const SAME: &[(&str, &str)] = &[
    ("/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#),
    ("/v3/kv/put", r#"{"key":"Zm9v","value":"YmF6","prev_kv":true}"#),
    ("/v3/kv/put", r#"{"key":"Zm9v","value":"YmF6","prevKv":true,"unknown":1}"#),
    ("/v3/kv/range", r#"{"key":"Zm9v"}"#),
    ("/v3/kv/range", r#"{"key":"Zm9v","revision":2}"#),
    ("/v3/kv/range", r#"{"key":"Zm9v","revision":"2"}"#),
    (
        "/v3/kv/range",
        r#"{"key":"AA==","range_end":"AA==","sort_order":"DESCEND","sort_target":"MOD","keys_only":true}"#,
    ),
    ("/v3/kv/range", r#"{"key":"Zm9v","revision":"1000"}"#),
    ("/v3/kv/range", "{}"),
    ("/v3/kv/range", ""),
    ("/v3/kv/range", r#"{"key":"Zm9v"}{"key":"YmF6"}"#),
    (
        "/v3/kv/txn",
        r#"{"compare":[{"target":"VERSION","key":"Zm9v","version":"3"}],
            "success":[{"request_put":{"key":"Zm9v","value":"MQ=="}},
                       {"requestTxn":{"success":[{"requestRange":{"key":"Zm9v"}}]}}],
            "failure":[{"request_delete_range":{"key":"Zm9v"}}]}"#,
    ),
    ("/v3/kv/txn", r#"{"success":[{"request_range":{"key":"Zm9v","revision":"-3"}},{"request_put":{"key":"Zm9v"}}]}"#),
    ("/v3/kv/deleterange", r#"{"key":"Zm9v","prev_kv":true}"#),
    ("/v3/kv/compaction", r#"{"revision":"3"}"#),
    ("/v3/kv/compaction", r#"{"revision":"3"}"#),
    ("/v3/kv/range", r#"{"key":"Zm9v","revision":"2"}"#),
    ("/v3/lease/grant", r#"{"TTL":60,"ID":77}"#),
    ("/v3/lease/grant", r#"{"TTL":"60","ID":"77"}"#),
    ("/v3/lease/keepalive", r#"{"ID":77}{"ID":"78"}"#),
    ("/v3/lease/leases", "{}"),
    ("/v3/kv/lease/leases", "{}"),
    ("/v3/lease/revoke", r#"{"ID":77}"#),
    ("/v3/lease/timetolive", r#"{"ID":77}"#),
    ("/v3/auth/status", "{}"),
    ("/v3/auth/user/list", "{}"),
    ("/v3/auth/user/get", r#"{"name":"nobody"}"#),
    ("/v3/auth/authenticate", r#"{"name":"root","password":"x"}"#),
    ("/v3/election/leader", r#"{"name":"bm9uZQ=="}"#),
    ("/v3/lock/unlock", r#"{"key":"bm9uZQ=="}"#),
    ("/v3/maintenance/alarm", r#"{"action":"GET"}"#),
    ("/v3/nothing", "{}"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_answers_as_etcds_does() {
    let (_etcd, real) = etcd::start().await;
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start_calm(dir.path(), 1).await;
    let endpoint = cluster.endpoints().swap_remove(0);
    for (path, body) in SAME {
        let (ours, theirs) = (answer(&endpoint, path, body).await, answer(&real, path, body).await);
        assert_eq!(ours, theirs, "{path} {body}");
    }
    // What is no request is refused by both, each in the words of what reads it.
    for body in ["nonsense", r#"{"key":"!"}"#, r#"{"key":7}"#, "[]", r#"{"key":"Zm9v""#] {
        let (ours, theirs) = (answer(&endpoint, "/v3/kv/range", body).await, answer(&real, "/v3/kv/range", body).await);
        assert_eq!((ours.0, &ours.2[0]["code"]), (theirs.0, &theirs.2[0]["code"]), "{body}");
        assert!(!ours.2[0]["message"].as_str().unwrap().is_empty());
    }
    let refused = post(&endpoint, "/v3/kv/range", "", "{}").await;
    let words = "etcdserver: key is not provided";
    assert_eq!(refused.body.parse::<Value>().unwrap(), json!({ "error": words, "code": 3, "message": words }));
}

/// Its client sends one object and nothing more, and listens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_an_object_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start_calm(dir.path(), 3).await;
    let endpoints = cluster.endpoints();
    let create = r#"{"create_request":{"key":"Zm9v","start_revision":"1"}}"#;
    let (mut watch, mut told) = (open(&endpoints[0], "/v3/watch", create).await, String::new());
    read_until(&mut watch, &mut told, r#""created":true}}"#).await;
    for value in ["MQ==", "Mg=="] {
        post(&endpoints[1], "/v3/kv/put", "", &json!({ "key": "Zm9v", "value": value }).to_string()).await;
        read_until(&mut watch, &mut told, &format!(r#""value":"{value}""#)).await;
    }
    let lines = told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok().filter(Value::is_object));
    let lines: Vec<_> = lines.collect();
    assert!(lines.len() >= 3 && lines.iter().all(|line| line["result"].is_object()), "{told}");
    // A watch that is refused, and what is no request at all.
    let refused = r#"{"create_request":{"key":"Zm9v","start_revision":"-5"}}"#;
    let (mut refused, mut words) = (open(&endpoints[0], "/v3/watch", refused).await, String::new());
    read_until(&mut refused, &mut words, r#""canceled":true"#).await;
    let nonsense = post(&endpoints[0], "/v3/watch", "", "nonsense").await;
    assert_eq!((nonsense.status, nonsense.body.contains(r#""code":3"#)), (400, true), "{nonsense:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_asked_for_as_by_grpc() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start_calm(dir.path(), 1).await;
    let endpoint = cluster.endpoints().swap_remove(0);
    let ask = async |path: &str, token: &str, body: &str| {
        let headers = if token.is_empty() { String::new() } else { format!("Authorization: {token}\r\n") };
        let answer = post(&endpoint, path, &headers, body).await;
        (answer.status, answer.body.parse::<Value>().unwrap())
    };
    for (path, body) in [
        ("/v3/auth/user/add", r#"{"name":"root","password":"pw"}"#),
        ("/v3/auth/role/add", r#"{"name":"root"}"#),
        ("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#),
        ("/v3/auth/enable", "{}"),
    ] {
        let (status, answer) = ask(path, "", body).await;
        assert_eq!(status, 200, "{path}: {answer}");
    }
    let (status, refused) = ask("/v3/kv/put", "", r#"{"key":"Zm9v"}"#).await;
    assert_eq!(
        (status, &refused["code"], &refused["message"]),
        (400, &json!(3), &json!("etcdserver: user name is empty"))
    );
    let (status, refused) = ask("/v3/kv/put", "nonsense", r#"{"key":"Zm9v"}"#).await;
    assert_eq!((status, &refused["message"]), (401, &json!("etcdserver: invalid auth token")));
    let (_, login) = ask("/v3/auth/authenticate", "", r#"{"name":"root","password":"pw"}"#).await;
    let token = login["token"].as_str().unwrap();
    for token in [token.to_owned(), format!("Bearer {token}")] {
        let (status, answer) = ask("/v3/kv/put", &token, r#"{"key":"Zm9v"}"#).await;
        assert_eq!(status, 200, "{answer}");
    }
}

/// The limits are those of all calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_long_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start_calm(dir.path(), 1).await;
    let endpoint = cluster.endpoints().swap_remove(0);
    let put = |length: usize| json!({ "key": "Zm9v", "value": "A".repeat(length / 3 * 4) }).to_string();
    let refused = post(&endpoint, "/v3/kv/put", "", &put(1600 << 10)).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(refused.body.contains("etcdserver: request is too large"), "{refused:?}");
    assert_eq!(post(&endpoint, "/v3/kv/put", "", &put(1 << 20)).await.status, 200);
}

/// A client of gRPC says that its messages are compressed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_requests_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start_calm(dir.path(), 1).await;
    let rpc = Rpc::connect(&cluster.endpoints()[0]).await.compressed();
    rpc.put(pb::PutRequest { key: "a".into(), value: vec![7; 100_000].into(), ..Default::default() }).await.unwrap();
    let read = rpc.range(pb::RangeRequest { key: "a".into(), ..Default::default() }).await.unwrap();
    assert_eq!(read.kvs[0].value.len(), 100_000);
    // A small message that is a large one: no more than a message may have is made of it.
    let bomb = pb::PutRequest { key: "a".into(), value: vec![0; 64 << 20].into(), ..Default::default() };
    let refused = rpc.put(bomb).await.unwrap_err();
    assert!(refused.message().contains("exceeded while decompressing"), "{refused}");
}
