//! Requests that nobody should send, answered with the codes and words of a real etcd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use bytes::Bytes;
use common::{ApiCluster, etcd, rpc::Rpc};
use prost::Message;
use storage_etcd_api::proto::etcdserverpb::{self as pb, request_op::Request};
use tonic::Code;

fn put(key: &str, value: usize) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: Bytes::from(vec![7; value]), ..pb::PutRequest::default() }
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn puts(from: usize, count: usize) -> Vec<pb::RequestOp> {
    (from..from + count).map(|key| op(Request::RequestPut(put(&format!("k{key}"), 1)))).collect()
}

fn txn(success: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest { success, ..pb::TxnRequest::default() }
}

/// So many transactions, each within the one before, the last one with these operations.
fn nested(depth: usize, innermost: Vec<pb::RequestOp>) -> pb::TxnRequest {
    (1..depth).fold(txn(innermost), |inner, _| txn(vec![within(&inner)]))
}

fn within(inner: &pb::TxnRequest) -> pb::RequestOp {
    op(Request::RequestTxn(inner.encode_to_vec().into()))
}

/// A transaction's answer, with what it is made of as it came: a client that read it whole would stop at some 50 levels.
#[derive(Clone, PartialEq, Message)]
struct TxnAnswer {
    #[prost(bool, tag = "2")]
    succeeded: bool,
    #[prost(bytes = "vec", repeated, tag = "3")]
    answers: Vec<Vec<u8>>,
}

fn compares(count: usize, key: &str) -> pb::TxnRequest {
    let compare = pb::Compare { key: key.to_owned().into(), ..pb::Compare::default() };
    pb::TxnRequest { compare: vec![compare; count], ..pb::TxnRequest::default() }
}

/// A comparison of no key with numbers for relation and target that may stand for nothing.
fn compares_as(result: i32, target: i32) -> pb::TxnRequest {
    let compare = pb::Compare { key: "never".into(), result, target, ..pb::Compare::default() };
    pb::TxnRequest { compare: vec![compare], ..pb::TxnRequest::default() }
}

enum Case {
    Put(pb::PutRequest),
    Range(pb::RangeRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Grant { id: i64, ttl: i64 },
    Revoke(i64),
    TimeToLive(i64),
    KeepAlive(i64),
}

/// What a client is told: that it worked and how, or the code and the words.
async fn ask(rpc: &Rpc, case: &Case) -> Result<String, (Code, String)> {
    let answer = match case {
        Case::Put(put) => rpc.put(put.clone()).await.map(|_| String::new()),
        Case::Range(range) => rpc.range(range.clone()).await.map(|answer| answer.count.to_string()),
        Case::Delete(delete) => rpc.delete(delete.clone()).await.map(|answer| answer.deleted.to_string()),
        Case::Txn(txn) => {
            rpc.unary("/etcdserverpb.KV/Txn", txn.clone()).await.map(|answer: TxnAnswer| format!("{answer:?}"))
        }
        Case::Grant { id, ttl } => rpc.grant(*id, *ttl).await.map(|answer| answer.ttl.to_string()),
        Case::Revoke(id) => rpc.revoke(*id).await.map(|_| String::new()),
        Case::TimeToLive(id) => rpc.time_to_live(*id).await.map(|answer| answer.ttl.to_string()),
        Case::KeepAlive(id) => rpc.keep_alive(*id).await.map(|answer| answer.ttl.to_string()),
    };
    answer.map_err(|status| (status.code(), status.message().to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_beyond_the_limits_is_refused_in_the_words_of_etcd() {
    let (_etcd, real) = etcd::start().await;
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start(dir.path(), 1).await;
    let (theirs, ours) = (Rpc::connect(&real).await, Rpc::connect(&cluster.endpoints()[0]).await);
    let nested_puts = |outer: usize, inner: usize| {
        let mut ops = puts(inner, outer - 1);
        ops.push(within(&txn(puts(0, inner))));
        Case::Txn(txn(ops))
    };
    let no_value = pb::PutRequest { ignore_value: true, ..put("absent", 0) };
    let leased = |lease| pb::PutRequest { lease, ..put("leased", 1) };
    let cases = [
        ("1,000 KiB", Case::Put(put("a", 1000 << 10)), None),
        ("1.5 MiB", Case::Put(put("a", 1536 << 10)), Some(Code::InvalidArgument)),
        (
            "1.5 MiB in a transaction",
            Case::Txn(txn(vec![op(Request::RequestPut(put("a", 1536 << 10)))])),
            Some(Code::InvalidArgument),
        ),
        ("2 MiB", Case::Put(put("a", 2 << 20)), Some(Code::ResourceExhausted)),
        ("128 operations", Case::Txn(txn(puts(0, 128))), None),
        ("129 operations", Case::Txn(txn(puts(0, 129))), Some(Code::InvalidArgument)),
        ("128 comparisons", Case::Txn(compares(128, "k")), None),
        ("129 comparisons", Case::Txn(compares(129, "k")), Some(Code::InvalidArgument)),
        ("64 operations in 64", nested_puts(64, 64), None),
        ("65 operations in 64", nested_puts(64, 65), Some(Code::InvalidArgument)),
        ("no key to put", Case::Put(put("", 1)), Some(Code::InvalidArgument)),
        ("no key to read", Case::Range(pb::RangeRequest::default()), Some(Code::InvalidArgument)),
        ("no key to delete", Case::Delete(pb::DeleteRangeRequest::default()), Some(Code::InvalidArgument)),
        ("no key to compare", Case::Txn(compares(1, "")), Some(Code::InvalidArgument)),
        ("a comparison of a kind to come", Case::Txn(compares_as(1, 7)), None),
        ("one that differs from a kind to come", Case::Txn(compares_as(3, 7)), None),
        ("a relation to come", Case::Txn(compares_as(7, 1)), None),
        ("a relation to come, to a value", Case::Txn(compares_as(7, 3)), None),
        ("no key within", Case::Txn(nested(2, vec![op(Request::RequestPut(put("", 1)))])), Some(Code::InvalidArgument)),
        ("no operation", Case::Txn(txn(vec![pb::RequestOp { request: None }])), Some(Code::InvalidArgument)),
        ("the same key twice", Case::Txn(txn([puts(0, 1), puts(0, 1)].concat())), Some(Code::InvalidArgument)),
        ("a value to keep of no key", Case::Put(no_value), Some(Code::InvalidArgument)),
        ("128 transactions deep", Case::Txn(nested(128, puts(0, 1))), None),
        ("129 transactions deep", Case::Txn(nested(129, puts(0, 1))), Some(Code::InvalidArgument)),
        ("129 transactions deep around nothing", Case::Txn(nested(129, vec![])), None),
        ("130 transactions deep around nothing", Case::Txn(nested(130, vec![])), Some(Code::InvalidArgument)),
        ("5,000 transactions deep", Case::Txn(nested(5000, puts(0, 1))), Some(Code::InvalidArgument)),
        ("an unknown lease to put with", Case::Put(leased(77)), Some(Code::NotFound)),
        ("an unknown lease to revoke", Case::Revoke(77), Some(Code::NotFound)),
        ("an unknown lease to ask for", Case::TimeToLive(77), None),
        ("an unknown lease to keep", Case::KeepAlive(77), None),
        ("a lease", Case::Grant { id: 7, ttl: 1000 }, None),
        ("the same lease", Case::Grant { id: 7, ttl: 1000 }, Some(Code::FailedPrecondition)),
        ("a lease of less than no time", Case::Grant { id: -9, ttl: -5 }, None),
        ("a lease of 300 years", Case::Grant { id: 8, ttl: 9_000_000_001 }, Some(Code::OutOfRange)),
    ];
    for (name, case, code) in cases {
        let (theirs, ours) = (ask(&theirs, &case).await, ask(&ours, &case).await);
        assert_eq!(ours, theirs, "{name}");
        assert_eq!(ours.err().map(|(code, _)| code), code, "{name}");
    }

    // What is no transaction within one is found before anything is done. In etcd the words behind these are those of its reader.
    let no_txn = txn(vec![op(Request::RequestPut(put("no", 1))), op(Request::RequestTxn(vec![0xff].into()))]);
    for rpc in [&theirs, &ours] {
        let (code, words) = ask(rpc, &Case::Txn(no_txn.clone())).await.unwrap_err();
        assert!(code == Code::Internal && words.starts_with("grpc: error unmarshalling request"), "{code:?} {words}");
    }
    assert_eq!(
        ask(&ours, &Case::Range(pb::RangeRequest { key: "k0".into(), ..Default::default() })).await.unwrap(),
        "1"
    );
}
