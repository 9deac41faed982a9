//! Watches: through a node that shows nothing of its state yet, and what they tell, held against a real etcd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use common::{ApiCluster, RECOVERY, rpc::Rpc};
use futures::{FutureExt, StreamExt, channel::mpsc};
use prost::Message;
use storage_etcd_api::proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
    watch_request::RequestUnion,
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

/// A stream of watches, and what it is told.
struct Watching {
    requests: mpsc::UnboundedSender<WatchRequest>,
    answers: tonic::Streaming<WatchResponse>,
}

impl Watching {
    /// With its first request, before which a server need not say anything.
    async fn open(rpc: &Rpc, first: RequestUnion) -> Self {
        let (requests, outgoing) = mpsc::unbounded();
        requests.unbounded_send(ask(first)).unwrap();
        let answers = rpc.stream("/etcdserverpb.Watch/Watch", outgoing);
        let answers = tokio::time::timeout(RECOVERY, answers).await.expect("it is opened").unwrap();
        Self { requests, answers }
    }

    fn send(&self, request: RequestUnion) {
        self.requests.unbounded_send(ask(request)).unwrap();
    }

    async fn next(&mut self) -> WatchResponse {
        tokio::time::timeout(RECOVERY, self.answers.next()).await.expect("it is told").unwrap().unwrap()
    }
}

fn ask(request: RequestUnion) -> WatchRequest {
    WatchRequest { request_union: Some(request) }
}

fn create(request: WatchCreateRequest) -> RequestUnion {
    RequestUnion::CreateRequest(WatchCreateRequest { key: "k".into(), range_end: "l".into(), ..request })
}

async fn put(rpc: &Rpc, key: &str) -> i64 {
    let put = PutRequest { key: key.to_owned().into(), ..PutRequest::default() };
    rpc.put(put).await.unwrap().header.unwrap().revision
}

/// Each against a real etcd too.
async fn each(check: impl AsyncFn(Rpc)) {
    let (_etcd, real) = common::etcd::start().await;
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start_calm(dir.path(), 3).await;
    for endpoint in cluster.endpoints().into_iter().chain([real]) {
        check(Rpc::connect(&endpoint).await).await;
    }
}

/// As generators in Python and gateways do: nothing more to say, and much to hear.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_when_its_client_has_no_more_to_say() {
    each(async |rpc| {
        let mut watching = Watching::open(&rpc, create(WatchCreateRequest::default())).await;
        watching.requests.close_channel();
        assert!(watching.next().await.created);
        for key in ["k1", "k2"] {
            let revision = put(&rpc, key).await;
            assert_eq!(watching.next().await.events[0].kv.as_ref().unwrap().mod_revision, revision);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_revision_comes_in_fragments_to_those_who_want_them() {
    each(async |rpc| {
        // Deletions are small: what they were is not.
        let keys: Vec<_> = (0..12).map(|key| format!("k/{key:02}")).collect();
        for key in &keys {
            let put = PutRequest { key: key.clone().into(), value: vec![7; 400_000].into(), ..PutRequest::default() };
            rpc.put(put).await.unwrap();
        }
        let delete = DeleteRangeRequest { key: "k/".into(), range_end: "k0".into(), prev_kv: false };
        let revision = rpc.delete(delete).await.unwrap().header.unwrap().revision;
        let request = |watch_id, fragment| {
            create(WatchCreateRequest {
                start_revision: revision,
                prev_kv: true,
                watch_id,
                fragment,
                ..Default::default()
            })
        };
        let mut watching = Watching::open(&rpc, request(5, true)).await;
        watching.send(request(6, false));
        let mut of_watch = [Vec::new(), Vec::new()];
        while of_watch.iter().flatten().map(|(_, events, _)| events).sum::<usize>() < 24 {
            let answer = watching.next().await;
            if !answer.events.is_empty() {
                let told = (answer.fragment, answer.events.len(), answer.encoded_len());
                of_watch[usize::try_from(answer.watch_id - 5).unwrap()].push(told);
            }
        }
        let [fragments, whole] = of_watch;
        assert!(fragments.len() >= 3 && fragments.iter().all(|(_, _, bytes)| *bytes <= 2 << 20), "{fragments:?}");
        let is_last: Vec<_> = fragments.iter().map(|(fragment, _, _)| !fragment).collect();
        assert!(is_last.ends_with(&[true]) && is_last.iter().filter(|is_last| **is_last).count() == 1, "{fragments:?}");
        assert_eq!(whole.len(), 1, "without the wish it comes whole");
    })
    .await;
}

/// As in etcd from 3.6 on; 3.5 tells it at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_told_of_how_far_a_watch_is_that_has_not_begun() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start_calm(dir.path(), 3).await;
    let rpc = Rpc::connect(&cluster.endpoints()[0]).await;
    let now = put(&rpc, "k1").await;
    let request = WatchCreateRequest { start_revision: now + 2, ..Default::default() };
    let mut watching = Watching::open(&rpc, create(request)).await;
    assert!(watching.next().await.created);
    watching.send(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    put(&rpc, "k2").await;
    let begins = put(&rpc, "k3").await;
    let first = watching.next().await;
    assert_eq!(first.events.len(), 1, "no word before: {first:?}");
    assert_eq!(first.events[0].kv.as_ref().unwrap().mod_revision, begins);
    watching.send(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    let progress = watching.next().await;
    assert_eq!((progress.watch_id, progress.header.unwrap().revision), (-1, begins));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_before_everything_is_told_that_it_was_given_up() {
    each(async |rpc| {
        let request = WatchCreateRequest { start_revision: -5, ..Default::default() };
        let mut watching = Watching::open(&rpc, create(request)).await;
        let (created, canceled) = (watching.next().await, watching.next().await);
        assert!(created.created && !created.canceled);
        assert_eq!((canceled.canceled, canceled.compact_revision), (true, -1));
    })
    .await;
}
