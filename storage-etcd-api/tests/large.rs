//! Stores and transactions that are larger than what is answered at once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use bytes::Bytes;
use common::{ApiCluster, rpc::Rpc};
use storage_etcd_api::proto::etcdserverpb::{self as pb, request_op::Request, response_op::Response};
use tonic::Code;

fn put(key: String, value: Bytes) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value, ..pb::PutRequest::default() }
}

fn all() -> pb::RangeRequest {
    pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..pb::RangeRequest::default() }
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

#[tokio::test]
async fn many_keys_are_read_in_pages() {
    const KEYS: usize = 12_800;
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start(dir.path(), 1).await;
    let rpc = Rpc::connect(&cluster.endpoints()[0]).await;
    for some in 0..KEYS / 128 {
        let puts = (0..128).map(|one| op(Request::RequestPut(put(format!("{:06}", some * 128 + one), Bytes::new()))));
        rpc.txn(pb::TxnRequest { success: puts.collect(), ..pb::TxnRequest::default() }).await.unwrap();
    }
    let whole = rpc.range(all()).await.unwrap();
    assert_eq!((whole.kvs.len(), whole.count, whole.more), (KEYS, 12_800, false));
    let page = pb::RangeRequest { key: "010000".into(), limit: 3, ..all() };
    let page = rpc.range(page).await.unwrap();
    let keys: Vec<_> = page.kvs.iter().map(|entry| entry.key.clone()).collect();
    assert_eq!(keys, ["010000", "010001", "010002"]);
    assert_eq!((page.count, page.more), (2_800, true));
    let past = pb::RangeRequest { revision: 3, count_only: true, ..all() };
    assert_eq!(rpc.range(past).await.unwrap().count, 256);
}

#[tokio::test]
async fn a_transaction_with_too_large_an_answer_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start_calm(dir.path(), 3).await;
    let follower = (cluster.leader().unwrap() + 1) % 3;
    let rpc = Rpc::connect(&cluster.endpoints()[follower]).await;
    for key in 0..17 {
        rpc.put(put(format!("large/{key}"), vec![7; 1 << 20].into())).await.unwrap();
    }
    let write = |reads: pb::RangeRequest| pb::TxnRequest {
        success: vec![op(Request::RequestPut(put("written".to_owned(), "1".into()))), op(Request::RequestRange(reads))],
        ..pb::TxnRequest::default()
    };
    let refused = rpc.txn(write(all())).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "etcdserver: answer is too large"));
    let written = || rpc.range(pb::RangeRequest { key: "written".into(), ..pb::RangeRequest::default() });
    assert_eq!(written().await.unwrap().count, 0);
    let answer = rpc.txn(write(pb::RangeRequest { keys_only: true, ..all() })).await.unwrap();
    assert!(matches!(&answer.responses[1].response, Some(Response::ResponseRange(range)) if range.kvs.len() == 18));
    assert_eq!(written().await.unwrap().count, 1);
    let read = rpc.range(all()).await.unwrap();
    assert_eq!(read.kvs.len(), 18, "what is only read may be longer");
    for key in 17..34 {
        rpc.put(put(format!("large/{key}"), vec![7; 1 << 20].into())).await.unwrap();
    }
    let refused = rpc.range(all()).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "etcdserver: answer is too large"));
    let reads = pb::TxnRequest { success: vec![op(Request::RequestRange(all()))], ..pb::TxnRequest::default() };
    let refused = rpc.txn(reads).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "etcdserver: answer is too large"));
    let page = rpc.range(pb::RangeRequest { limit: 20, ..all() }).await.unwrap();
    assert_eq!((page.kvs.len(), page.count, page.more), (20, 35, true));
}

#[tokio::test]
async fn what_would_take_too_long_is_refused_in_the_words_of_etcd() {
    const KEYS: usize = 100_352;
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start(dir.path(), 1).await;
    let rpc = Rpc::connect(&cluster.endpoints()[0]).await;
    let txn = |success| pb::TxnRequest { success, ..pb::TxnRequest::default() };
    for some in 0..KEYS / 128 {
        let puts = (0..128).map(|one| op(Request::RequestPut(put(format!("{:06}", some * 128 + one), Bytes::new()))));
        rpc.txn(txn(puts.collect())).await.unwrap();
    }
    let newest = pb::RangeRequest { limit: 1, sort_order: 2, sort_target: 3, ..all() };
    let all_deleted = pb::DeleteRangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    let a_put = || op(Request::RequestPut(put("new".to_owned(), Bytes::new())));
    let within = |each: usize, ops: Vec<pb::RequestOp>| {
        let inner = Bytes::from(prost::Message::encode_to_vec(&txn(ops)));
        vec![op(Request::RequestTxn(inner)); each]
    };
    let newest_often = vec![op(Request::RequestRange(newest.clone())); 64];
    let too_many = "etcdserver: too many operations in txn request";
    let cases = [
        ("sorted reads", txn(newest_often.clone()), too_many),
        ("sorted reads and a put", txn([newest_often, vec![a_put()]].concat()), too_many),
        ("a delete beside a put", txn(vec![a_put(), op(Request::RequestDeleteRange(all_deleted.clone()))]), too_many),
        (
            "operations of three levels",
            txn(within(40, within(40, vec![op(Request::RequestRange(newest.clone())); 40]))),
            too_many,
        ),
    ];
    for (name, request, words) in cases {
        let refused = rpc.txn(request).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, words), "{name}");
    }
    let refused = rpc.delete(all_deleted).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "etcdserver: request is too large"));
    let counts = vec![op(Request::RequestRange(pb::RangeRequest { count_only: true, ..all() })); 30];
    let answer = rpc.txn(txn([vec![a_put()], counts].concat())).await.unwrap();
    assert!(matches!(&answer.responses[30].response, Some(Response::ResponseRange(range)) if range.count == 100_353));
    let newest = rpc.range(newest).await.unwrap();
    assert_eq!((newest.kvs[0].key.as_ref(), newest.count), (&b"new"[..], 100_353));
}

#[tokio::test]
async fn requests_over_the_limits_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start(dir.path(), 1).await;
    let rpc = Rpc::connect(&cluster.endpoints()[0]).await;
    let refused = async |bytes: usize| {
        let status = rpc.put(put("a".to_owned(), vec![7; bytes].into())).await.unwrap_err();
        (status.code(), status.message().to_owned())
    };
    let too_large = "etcdserver: request is too large".to_owned();
    assert_eq!(refused(1536 << 10).await, (Code::InvalidArgument, too_large));
    let (code, words) = refused(2 << 20).await;
    assert!(code == Code::ResourceExhausted && words.starts_with("grpc: received message larger than max"), "{words}");
    rpc.put(put("a".to_owned(), vec![7; 1500 << 10].into())).await.unwrap();
}
