//! The alarm that there is no space, beside a real etcd, and the limits of what clients keep.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::process::Output;

use common::{ApiCluster, RECOVERY, etcd, rpc::Rpc};
use futures::StreamExt as _;
use storage_embedded::NodeConfig;
use storage_etcd_api::{Options, Server, proto::etcdserverpb as pb};
use storage_testkit::programs;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    time::timeout,
};
use tonic::{Code, Status};

const NO_SPACE: (Code, &str) = (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");

fn put(key: &str, bytes: usize) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: vec![7; bytes].into(), ..pb::PutRequest::default() }
}

fn op(request: pb::request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn delete(key: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: key.to_owned().into(), ..pb::DeleteRangeRequest::default() }
}

async fn alarm(rpc: &Rpc, action: i32, member_id: u64, kind: i32) -> Result<Vec<u64>, Status> {
    let request = pb::AlarmRequest { action, member_id, alarm: kind };
    let answer: pb::AlarmResponse = rpc.unary("/etcdserverpb.Maintenance/Alarm", request).await?;
    assert!(answer.alarms.iter().all(|alarm| alarm.alarm == 1), "{answer:?}");
    Ok(answer.alarms.into_iter().map(|alarm| alarm.member_id).collect())
}

async fn status(rpc: &Rpc) -> pb::StatusResponse {
    rpc.unary("/etcdserverpb.Maintenance/Status", pb::StatusRequest {}).await.unwrap()
}

/// The status line and the body.
async fn get(endpoint: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(endpoint).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {endpoint}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    format!("{} {}", answer.lines().next().unwrap(), body.trim_end())
}

/// What a server says at each step, whatever its id is.
async fn story(endpoint: &str) -> Vec<(&'static str, String)> {
    let rpc = Rpc::connect(endpoint).await;
    let id = status(&rpc).await.header.unwrap().member_id;
    let mut said = Vec::new();
    macro_rules! say {
        ($what:expr, $answer:expr) => {
            let answer = match $answer {
                Ok(answer) => format!("{answer:?}"),
                Err(error) => format!("{:?}: {}", error.code(), error.message()),
            };
            said.push(($what, answer.replace(&format!("memberID:{id} "), "memberID:ID ")));
        };
    }
    rpc.put(put("a", 1)).await.unwrap();
    rpc.grant(7, 600).await.unwrap();
    let [get_alarms, activate, deactivate] = [0, 1, 2];
    let alarm = |rpc: Rpc, action, member, kind| async move {
        let members = alarm(&rpc, action, member, kind).await?;
        Ok::<_, Status>(
            members.into_iter().map(|member| if member == id { "it" } else { "another" }).collect::<Vec<_>>(),
        )
    };
    say!("no alarm", alarm(rpc.clone(), get_alarms, 0, 0).await);
    say!("nothing to disarm", alarm(rpc.clone(), deactivate, id, 1).await);
    say!("no kind", alarm(rpc.clone(), activate, id, 0).await);
    say!("raised", alarm(rpc.clone(), activate, id, 1).await);
    say!("raised again", alarm(rpc.clone(), activate, id, 1).await);
    for kind in [0, 1, 2] {
        say!("list", alarm(rpc.clone(), get_alarms, 0, kind).await);
    }
    say!("status", Ok::<_, Status>(status(&rpc).await.errors));
    for path in ["/health", "/health?exclude=NOSPACE", "/health?serializable=true"] {
        say!(path, Ok::<_, Status>(get(endpoint, path).await));
    }
    let success = vec![op(pb::request_op::Request::RequestDeleteRange(delete("a")))];
    let failure = vec![op(pb::request_op::Request::RequestPut(put("a", 2)))];
    let either = pb::TxnRequest { success: success.clone(), failure, ..pb::TxnRequest::default() };
    let deletes = pb::TxnRequest { success, ..pb::TxnRequest::default() };
    say!("put", rpc.put(put("b", 1)).await.map(drop));
    say!("put to a lease that is not there", rpc.put(pb::PutRequest { lease: 99, ..put("b", 1) }).await.map(drop));
    say!("put or delete", rpc.txn(either).await.map(drop));
    say!("grant", rpc.grant(8, 600).await.map(drop));
    say!(
        "range",
        rpc.range(pb::RangeRequest { key: "a".into(), ..Default::default() }).await.map(|answer| answer.count)
    );
    say!("keep alive", rpc.keep_alive(7).await.map(|answer| answer.ttl));
    say!("delete in a transaction", rpc.txn(deletes).await.map(|answer| answer.succeeded));
    say!("delete", rpc.delete(delete("a")).await.map(|answer| answer.deleted));
    say!("compact", rpc.compact(3).await.map(drop));
    say!("revoke", rpc.revoke(7).await.map(drop));
    say!("another's", alarm(rpc.clone(), deactivate, id.wrapping_add(1), 1).await);
    say!("another kind", alarm(rpc.clone(), deactivate, id, 2).await);
    say!("disarmed", alarm(rpc.clone(), deactivate, id, 1).await);
    say!("no alarm", alarm(rpc.clone(), get_alarms, 0, 0).await);
    say!("status", Ok::<_, Status>(status(&rpc).await.errors));
    say!("put", rpc.put(put("b", 1)).await.map(drop));
    say!("grant", rpc.grant(8, 600).await.map(drop));
    said
}

#[tokio::test]
async fn an_alarm_is_answered_as_etcd_does() {
    let (_etcd, endpoint) = etcd::start().await;
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start_calm(dir.path(), 1).await;
    let (theirs, ours) = (story(&endpoint).await, story(&cluster.endpoints()[0]).await);
    for (theirs, ours) in theirs.iter().zip(&ours) {
        assert_eq!(theirs, ours);
    }
    assert_eq!(theirs.len(), ours.len());
    let refused = theirs.iter().filter(|(_, answer)| answer.contains(NO_SPACE.1)).count();
    assert_eq!(refused, 4, "{theirs:?}");
}

/// Puts until there is no space.
async fn fill(rpc: &Rpc) -> usize {
    for number in 0..10_000 {
        if let Err(error) = rpc.put(put(&format!("k{number}"), 64 << 10)).await {
            assert_eq!((error.code(), error.message()), NO_SPACE, "after {number}");
            return number;
        }
    }
    panic!("there is no end of space");
}

/// From the first put to the one after the alarm; gives how many there was room for.
async fn filled_and_emptied(endpoint: &str) -> usize {
    let rpc = Rpc::connect(endpoint).await;
    let filled = fill(&rpc).await;
    let alarms = alarm(&rpc, 0, 0, 0).await.unwrap();
    assert_eq!((alarms.len(), status(&rpc).await.errors.len()), (1, 1));
    let range = pb::RangeRequest { key: "k0".into(), ..Default::default() };
    assert_eq!(rpc.range(range).await.unwrap().count, 1);
    let all = pb::DeleteRangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    let deleted = rpc.delete(all).await.unwrap();
    assert_eq!(deleted.deleted, filled as i64);
    rpc.compact(deleted.header.unwrap().revision).await.unwrap();
    let _: pb::DefragmentResponse =
        rpc.unary("/etcdserverpb.Maintenance/Defragment", pb::DefragmentRequest {}).await.unwrap();
    let refused = rpc.put(put("again", 1)).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), NO_SPACE, "room alone does not end it");
    assert_eq!(alarm(&rpc, 2, alarms[0], 1).await.unwrap(), alarms);
    rpc.put(put("again", 1)).await.unwrap();
    filled
}

#[tokio::test]
async fn filled_to_the_quota_it_goes_on_as_etcd_does() {
    const QUOTA: u64 = 4 << 20;
    let (_etcd, endpoint) = etcd::start_with(&["--quota-backend-bytes", "4194304"]).await;
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start_small(dir.path(), 3, QUOTA).await;
    let follower = (cluster.leader().unwrap() + 1) % 3;
    let theirs = filled_and_emptied(&endpoint).await;
    let ours = filled_and_emptied(&cluster.endpoints()[follower]).await;
    // A value stands in the state and in the history: half as many fit, beside what etcd's pages waste.
    assert!(ours >= 24 && theirs >= 24, "{ours} {theirs}");
    let rpc = Rpc::connect(&cluster.endpoints()[follower]).await;
    let status = status(&rpc).await;
    let size = cluster.nodes().node(follower).unwrap().status().state_bytes.cast_signed();
    assert_eq!((status.db_size_quota, status.db_size, status.db_size_in_use), (QUOTA.cast_signed(), size, size));
    // The changes of the revision that was compacted to stay, with what was there before them.
    assert!(size > 0 && size < QUOTA.cast_signed() * 3 / 4, "{size}");
}

async fn etcdctl(endpoint: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(programs::find("etcdctl").unwrap_or_else(|error| panic!("{error}")));
    command.env("ETCDCTL_API", "3").args(["--endpoints", endpoint]).args(arguments).kill_on_drop(true);
    timeout(RECOVERY, command.output()).await.expect("etcdctl ends").unwrap()
}

#[tokio::test]
async fn etcdctl_shows_and_disarms_the_alarms_of_all_members() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start_calm(dir.path(), 3).await;
    let endpoint = &cluster.endpoints()[0];
    let rpc = Rpc::connect(endpoint).await;
    for member in [1, 3] {
        assert_eq!(alarm(&rpc, 1, member, 1).await.unwrap(), [member]);
    }
    let both = "memberID:1 alarm:NOSPACE \nmemberID:3 alarm:NOSPACE \n";
    let printed = |output: Output| {
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(printed(etcdctl(endpoint, &["alarm", "list"]).await), both);
    let refused = etcdctl(endpoint, &["put", "a", "1"]).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains(NO_SPACE.1), "{refused:?}");
    assert_eq!(printed(etcdctl(endpoint, &["alarm", "disarm"]).await), both);
    assert_eq!(printed(etcdctl(endpoint, &["alarm", "list"]).await), "");
    assert_eq!(printed(etcdctl(endpoint, &["put", "a", "1"]).await), "OK\n");
    // What makes no sense is said so.
    let stranger = alarm(&rpc, 1, 77, 1).await.unwrap_err();
    assert_eq!((stranger.code(), stranger.message()), (Code::NotFound, "etcdserver: member not found"));
    let corrupt = alarm(&rpc, 1, 1, 2).await.unwrap_err();
    assert_eq!(corrupt.code(), Code::InvalidArgument);
}

/// A server in front of one node, with these options.
async fn serve(options: Options) -> (tempfile::TempDir, Server, Rpc) {
    let dir = tempfile::tempdir().unwrap();
    let node = storage_embedded::Node::start(NodeConfig::alone(1, 1, dir.path().join("node")).fast()).await.unwrap();
    node.wait_for_leader(RECOVERY).await.unwrap();
    let server = Server::start(node, "127.0.0.1:0", options).await.unwrap();
    let rpc = Rpc::connect(&server.address().to_string()).await;
    (dir, server, rpc)
}

#[tokio::test]
async fn one_watch_too_many_is_canceled_and_there_is_room_when_another_ends() {
    let mut options = Options::default();
    options.max_watches = 3;
    let (_dir, _server, rpc) = serve(options).await;
    let (requests, sent) = tokio::sync::mpsc::unbounded_channel();
    let sent = futures::stream::unfold(sent, |mut sent| async move { Some((sent.recv().await?, sent)) });
    let mut answers: tonic::Streaming<pb::WatchResponse> = rpc.stream("/etcdserverpb.Watch/Watch", sent).await.unwrap();
    let create = || pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(pb::WatchCreateRequest {
            key: "a".into(),
            ..Default::default()
        })),
    };
    for expected in ["", "", "", "rpc error: code = ResourceExhausted desc = etcdserver: too many requests"] {
        requests.send(create()).unwrap();
        let answer = timeout(RECOVERY, answers.next()).await.unwrap().unwrap().unwrap();
        assert_eq!((answer.created, answer.cancel_reason.as_str()), (true, expected));
        assert_eq!(answer.canceled, !expected.is_empty());
    }
    let cancel = pb::watch_request::RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 0 });
    requests.send(pb::WatchRequest { request_union: Some(cancel) }).unwrap();
    assert!(timeout(RECOVERY, answers.next()).await.unwrap().unwrap().unwrap().canceled);
    requests.send(create()).unwrap();
    let answer = timeout(RECOVERY, answers.next()).await.unwrap().unwrap().unwrap();
    assert!(answer.created && !answer.canceled, "{answer:?}");
}

#[tokio::test]
async fn four_snapshots_are_sent_at_a_time() {
    let (_dir, _server, rpc) = serve(Options::default()).await;
    // More than what is on its way without being read.
    for number in 0..12 {
        rpc.put(put(&format!("k{number}"), 1 << 20)).await.unwrap();
    }
    let download = || async {
        let requests = futures::stream::iter([pb::SnapshotRequest {}]);
        let answers = rpc.stream::<_, pb::SnapshotResponse>("/etcdserverpb.Maintenance/Snapshot", requests).await;
        answers.map_err(|error| (error.code(), error.message().to_owned()))
    };
    let mut downloads = Vec::new();
    for _ in 0..4 {
        downloads.push(download().await.unwrap());
    }
    let refused = download().await.map(drop).unwrap_err();
    assert_eq!(refused, (Code::ResourceExhausted, "etcdserver: too many requests".to_owned()));
    // One that is taken whole, or that nobody wants any more, leaves its place.
    drop(downloads.pop());
    let mut whole = downloads.pop().unwrap();
    while let Some(piece) = whole.message().await.unwrap() {
        drop(piece);
    }
    let again = async {
        while download().await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    timeout(RECOVERY, again).await.expect("there is a place again");
}
