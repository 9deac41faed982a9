//! Watches through a node that shows nothing of its state yet.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use common::{ApiCluster, RECOVERY, rpc::Rpc};
use futures::{FutureExt, StreamExt, channel::mpsc};
use storage_etcd_api::proto::etcdserverpb::{
    PutRequest, WatchCreateRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
};

/// After a start a replica compares its state with that of a majority before it shows any. A client that comes earlier waits; as its stream was
/// ended without a word, it took that for the end of what it watches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_waits_for_a_replica_that_has_not_compared_its_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = ApiCluster::start(dir.path(), 3).await;
    let rpc = Rpc::connect(&cluster.endpoints()[0]).await;
    rpc.put(PutRequest { key: "key".into(), value: "1".into(), ..PutRequest::default() }).await.unwrap();
    for place in 0..3 {
        cluster.stop(place).await;
    }
    cluster.restart(0).await;

    let rpc = Rpc::connect(&cluster.endpoints()[0]).await;
    let (requests, outgoing) = mpsc::unbounded();
    let create = WatchCreateRequest { key: "key".into(), start_revision: 1, ..WatchCreateRequest::default() };
    requests.unbounded_send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).unwrap();
    let answers = rpc.stream::<_, WatchResponse>("/etcdserverpb.Watch/Watch", outgoing);
    let mut answers = tokio::time::timeout(RECOVERY, answers).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(answers.next().now_or_never().is_none(), "it has nobody to compare its state with");

    cluster.restart(1).await;
    let created = tokio::time::timeout(RECOVERY, answers.next()).await.unwrap().unwrap().unwrap();
    assert!(created.created && !created.canceled);
    let told = tokio::time::timeout(RECOVERY, answers.next()).await.unwrap().unwrap().unwrap();
    let values: Vec<_> = told.events.iter().map(|event| event.kv.as_ref().unwrap().value.clone()).collect();
    assert_eq!(values, ["1"]);
}
