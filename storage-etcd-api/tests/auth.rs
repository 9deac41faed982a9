//! Users, roles and tokens on a cluster: whatever node is asked, through a change of leaders and a restart; and where more is asked of a client
//! than etcd 3.5.16 asks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{ApiCluster, RECOVERY, rpc::Rpc};
use futures::channel::mpsc;
use prost::Message;
use storage_core::ReadOptions;
use storage_embedded::{Identity, mvcc};
use storage_etcd_api::proto::{
    authpb,
    etcdserverpb::{self as pb, request_op::Request as Op, watch_request::RequestUnion},
};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

const DEADLINE: Duration = Duration::from_secs(30);

async fn log_in(rpc: &Rpc, name: &str, password: &str) -> Result<Rpc, Status> {
    let request = pb::AuthenticateRequest { name: name.into(), password: password.into() };
    let answer: pb::AuthenticateResponse = rpc.unary("/etcdserverpb.Auth/Authenticate", request).await?;
    Ok(rpc.with_token(Some(answer.token)))
}

async fn add_user(rpc: &Rpc, name: &str, role: &str) {
    let request = pb::AuthUserAddRequest { name: name.into(), password: name.into(), ..Default::default() };
    let _: pb::AuthUserAddResponse = rpc.unary("/etcdserverpb.Auth/UserAdd", request).await.unwrap();
    let request = pb::AuthUserGrantRoleRequest { user: name.into(), role: role.into() };
    let _: pb::AuthUserGrantRoleResponse = rpc.unary("/etcdserverpb.Auth/UserGrantRole", request).await.unwrap();
}

async fn allow(rpc: &Rpc, role: &str, key: &str, range_end: &str, kind: authpb::permission::Type) {
    let perm = authpb::Permission {
        perm_type: kind.into(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::copy_from_slice(range_end.as_bytes()),
    };
    let request = pb::AuthRoleGrantPermissionRequest { name: role.into(), perm: Some(perm) };
    let path = "/etcdserverpb.Auth/RoleGrantPermission";
    let _: pb::AuthRoleGrantPermissionResponse = rpc.unary(path, request).await.unwrap();
}

/// Users `root` and `alice`, who may read and write what begins with `a`; each has its name for a password.
async fn with_users(rpc: &Rpc) {
    let request = pb::AuthRoleAddRequest { name: "of-a".into() };
    let _: pb::AuthRoleAddResponse = rpc.unary("/etcdserverpb.Auth/RoleAdd", request).await.unwrap();
    allow(rpc, "of-a", "a", "b", authpb::permission::Type::Readwrite).await;
    add_user(rpc, "root", "root").await;
    add_user(rpc, "alice", "of-a").await;
    let _: pb::AuthEnableResponse = rpc.unary("/etcdserverpb.Auth/AuthEnable", pb::AuthEnableRequest {}).await.unwrap();
}

fn put(key: &str) -> pb::PutRequest {
    pb::PutRequest { key: Bytes::copy_from_slice(key.as_bytes()), value: "v".into(), ..Default::default() }
}

fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..Default::default() }
}

fn words<T>(answer: Result<T, Status>) -> String {
    answer.map_or_else(|status| status.message().to_owned(), |_| "done".to_owned())
}

/// As long as there is no leader, and as long as a node does not know what was changed elsewhere just now.
async fn until_done<T, F: Future<Output = Result<T, Status>>>(mut call: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + RECOVERY;
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(status) => assert!(Instant::now() < deadline && status.code() == Code::Unavailable, "{status}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_on_every_node_and_behind_a_change_of_leaders() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = ApiCluster::start(dir.path(), 3).await;
    let endpoints = cluster.endpoints();
    let mut nodes = Vec::new();
    for endpoint in &endpoints {
        nodes.push(Rpc::connect(endpoint).await);
    }
    with_users(&nodes[0]).await;
    let alice = log_in(&nodes[0], "alice", "alice").await.unwrap();
    for node in &nodes {
        let alice = node.with_token(alice.token());
        alice.put(put("a/1")).await.unwrap();
        assert_eq!(words(alice.put(put("b")).await), "etcdserver: permission denied");
        assert_eq!(words(node.put(put("a/1")).await), "etcdserver: user name is empty");
        assert_eq!(words(node.range(get("a/1")).await), "etcdserver: user name is empty");
    }
    let leader = cluster.leader().unwrap();
    cluster.stop(leader).await;
    let other = &nodes[(leader + 1) % 3].with_token(alice.token());
    until_done(|| other.put(put("a/2"))).await;
    cluster.restart(leader).await;
    let again = Rpc::connect(&endpoints[leader]).await.with_token(alice.token());
    let found = until_done(|| again.range(get("a/2"))).await;
    assert_eq!(found.count, 1);
    cluster.heal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_there_after_a_restart_of_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = ApiCluster::start(dir.path(), 1).await;
    let rpc = Rpc::connect(&cluster.endpoints()[0]).await;
    with_users(&rpc).await;
    let root = log_in(&rpc, "root", "root").await.unwrap();
    cluster.nodes().node(0).unwrap().snapshot(DEADLINE).await.unwrap();
    let request = pb::AuthUserDeleteRequest { name: "alice".into() };
    let _: pb::AuthUserDeleteResponse = root.unary("/etcdserverpb.Auth/UserDelete", request).await.unwrap();
    cluster.stop(0).await;
    cluster.restart(0).await;
    let rpc = Rpc::connect(&cluster.endpoints()[0]).await;
    assert_eq!(words(rpc.range(get("a")).await), "etcdserver: user name is empty");
    assert_eq!(
        words(log_in(&rpc, "alice", "alice").await),
        "etcdserver: authentication failed, invalid user ID or password"
    );
    let root = rpc.with_token(root.token());
    let status: pb::AuthStatusResponse =
        until_done(|| root.unary("/etcdserverpb.Auth/AuthStatus", pb::AuthStatusRequest {})).await;
    assert!(status.enabled && status.auth_revision > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_by_old_users_and_roles_is_refused_where_it_is_applied() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start(dir.path(), 1).await;
    let rpc = Rpc::connect(&cluster.endpoints()[0]).await;
    with_users(&rpc).await;
    let root = log_in(&rpc, "root", "root").await.unwrap();
    let node = cluster.nodes().node(0).unwrap();
    let mut who = Identity::NOBODY;
    (who.user, who.revision) = ("alice".into(), node.auth().status().revision);
    let mvcc = node.mvcc().by(who);
    let read = mvcc::Range::new(mvcc::KeyRange::One("a".into()));
    assert!(mvcc.range(&read, ReadOptions::default()).await.is_ok());
    let _: pb::AuthRoleAddResponse =
        root.unary("/etcdserverpb.Auth/RoleAdd", pb::AuthRoleAddRequest { name: "other".into() }).await.unwrap();
    let write = mvcc::Txn::of(mvcc::Op::Put(mvcc::Put {
        key: "a".try_into().unwrap(),
        value: Some("v".into()),
        lease: Some(0),
        previous: false,
    }));
    for error in [
        mvcc.txn(write, DEADLINE).await.map(drop).unwrap_err(),
        mvcc.range(&read, ReadOptions::default()).await.map(drop).unwrap_err(),
    ] {
        assert!(matches!(error, mvcc::MvccError::Denied(mvcc::Denied::OldRevision)), "{error:?}");
    }
}

/// Later releases of etcd refuse them, and 3.5.16 lets them through.
#[tokio::test(flavor = "multi_thread")]
async fn what_etcd_once_let_through_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start(dir.path(), 1).await;
    let nobody = Rpc::connect(&cluster.endpoints()[0]).await;
    with_users(&nobody).await;
    let alice = log_in(&nobody, "alice", "alice").await.unwrap();
    let root = log_in(&nobody, "root", "root").await.unwrap();
    root.put(put("b")).await.unwrap();
    root.grant(7, 1000).await.unwrap();
    root.put(pb::PutRequest { lease: 7, ..put("b") }).await.unwrap();

    let (denied, empty) = ("etcdserver: permission denied", "etcdserver: user name is empty");
    let within = |op: Op| {
        let inner = pb::TxnRequest { success: vec![pb::RequestOp { request: Some(op) }], ..Default::default() };
        let op = Op::RequestTxn(inner.encode_to_vec().into());
        pb::TxnRequest { failure: vec![pb::RequestOp { request: Some(op) }], ..Default::default() }
    };
    assert_eq!(words(alice.txn(within(Op::RequestPut(put("b")))).await), denied);
    assert_eq!(words(alice.txn(within(Op::RequestRange(get("b")))).await), denied);
    assert_eq!(words(alice.txn(within(Op::RequestRange(get("a")))).await), "done");
    let leased = Op::RequestPut(pb::PutRequest { lease: 7, ..put("a") });
    let leased = pb::TxnRequest { success: vec![pb::RequestOp { request: Some(leased) }], ..Default::default() };
    assert_eq!(words(alice.txn(leased).await), denied);

    for (rpc, expected) in [(&nobody, empty), (&alice, denied), (&root, "done")] {
        let by = |name: &str, found: String| assert_eq!(found, expected, "{name}");
        by("leases", words(rpc.leases().await));
        by("the keys of a lease", words(rpc.time_to_live(7).await));
        by("a lease kept", words(keep_alive(rpc, 7).await));
        by("a lease ended", words(rpc.revoke(7).await));
        by("a compaction", words(rpc.compact(2).await));
        macro_rules! call {
            ($path:literal, $request:ident => $answer:ident) => {
                by(
                    $path,
                    words(rpc.unary::<_, pb::$answer>(concat!("/etcdserverpb.", $path), pb::$request::default()).await),
                )
            };
        }
        call!("Maintenance/Defragment", DefragmentRequest => DefragmentResponse);
        call!("Maintenance/Hash", HashRequest => HashResponse);
        call!("Maintenance/HashKV", HashKvRequest => HashKvResponse);
        if expected != "done" {
            call!("Maintenance/MoveLeader", MoveLeaderRequest => MoveLeaderResponse);
            call!("Maintenance/Downgrade", DowngradeRequest => DowngradeResponse);
            call!("Cluster/MemberRemove", MemberRemoveRequest => MemberRemoveResponse);
            call!("Cluster/MemberPromote", MemberPromoteRequest => MemberPromoteResponse);
            let request = pb::MemberAddRequest { peer_ur_ls: vec!["http://127.0.0.1:1".into()], is_learner: true };
            by(
                "a member",
                words(rpc.unary::<_, pb::MemberAddResponse>("/etcdserverpb.Cluster/MemberAdd", request).await),
            );
            let snapshot = rpc.stream::<_, pb::SnapshotResponse>(
                "/etcdserverpb.Maintenance/Snapshot",
                futures::stream::iter([pb::SnapshotRequest {}]),
            );
            by("a snapshot", words(snapshot.await));
        }
    }
    for (rpc, expected) in [(&nobody, empty), (&alice, "done"), (&root, "done")] {
        let by = |name: &str, found: String| assert_eq!(found, expected, "{name}");
        let path = "/etcdserverpb.Maintenance/Status";
        by("status", words(rpc.unary::<_, pb::StatusResponse>(path, pb::StatusRequest {}).await));
        let path = "/etcdserverpb.Cluster/MemberList";
        by("members", words(rpc.unary::<_, pb::MemberListResponse>(path, pb::MemberListRequest::default()).await));
        let path = "/etcdserverpb.Maintenance/Alarm";
        by("alarms", words(rpc.unary::<_, pb::AlarmResponse>(path, pb::AlarmRequest::default()).await));
        by("a lease", words(rpc.grant(0, 1000).await));
    }
    let refused = rpc_watch(&alice, "a", "\0").await;
    assert_eq!(refused.cancel_reason, "rpc error: code = PermissionDenied desc = etcdserver: permission denied");
    assert!(refused.created && refused.canceled && refused.watch_id == -1);
}

async fn keep_alive(rpc: &Rpc, id: i64) -> Result<pb::LeaseKeepAliveResponse, Status> {
    let requests = futures::stream::iter([pb::LeaseKeepAliveRequest { id }]);
    let mut answers = rpc.stream("/etcdserverpb.Lease/LeaseKeepAlive", requests).await?;
    Ok(answers.message().await?.expect("an answer"))
}

/// The first answer to a watch.
async fn rpc_watch(rpc: &Rpc, key: &str, range_end: &str) -> pb::WatchResponse {
    let (_requests, mut answers) = watching(rpc, key, range_end).await;
    answers.message().await.unwrap().unwrap()
}

async fn watching(
    rpc: &Rpc,
    key: &str,
    range_end: &str,
) -> (mpsc::UnboundedSender<pb::WatchRequest>, tonic::Streaming<pb::WatchResponse>) {
    let (requests, outgoing) = mpsc::unbounded();
    let create = pb::WatchCreateRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::copy_from_slice(range_end.as_bytes()),
        ..Default::default()
    };
    let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    requests.unbounded_send(create).unwrap();
    let answers = rpc.stream("/etcdserverpb.Watch/Watch", outgoing).await.unwrap();
    (requests, answers)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_when_its_user_may_not_watch_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start(dir.path(), 1).await;
    let rpc = Rpc::connect(&cluster.endpoints()[0]).await;
    with_users(&rpc).await;
    let (alice, root) = (log_in(&rpc, "alice", "alice").await.unwrap(), log_in(&rpc, "root", "root").await.unwrap());
    let (_requests, mut answers) = watching(&alice, "a", "b").await;
    assert!(answers.message().await.unwrap().unwrap().created);
    // A change that is no matter to it.
    allow(&root, "of-a", "x", "", authpb::permission::Type::Read).await;
    alice.put(put("a/1")).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().events.len(), 1);
    let request = pb::AuthUserRevokeRoleRequest { name: "alice".into(), role: "of-a".into() };
    let _: pb::AuthUserRevokeRoleResponse = root.unary("/etcdserverpb.Auth/UserRevokeRole", request).await.unwrap();
    root.put(put("a/2")).await.unwrap();
    let ended = timeout(DEADLINE, answers.message()).await.unwrap().unwrap().unwrap();
    assert!(ended.canceled && ended.events.is_empty(), "{ended:?}");
    assert_eq!(ended.cancel_reason, "rpc error: code = PermissionDenied desc = etcdserver: permission denied");
}

/// Each login takes a processor for a while: those who have a token do not wait for them.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_logins_is_refused_and_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start(dir.path(), 1).await;
    let rpc = Rpc::connect(&cluster.endpoints()[0]).await;
    with_users(&rpc).await;
    let alice = log_in(&rpc, "alice", "alice").await.unwrap();
    // One that takes some ten seconds to compare, if it is compared at all: cost 16.
    let root = log_in(&rpc, "root", "root").await.unwrap();
    let hash = "JDJhJDE2JFhhampRdk5odnZSdDVHU2VGazF4RmV5cVJyc3hraEJrVWlRZWcwZHQud1UxcUQ0YUZEY2dh";
    let request =
        pb::AuthUserChangePasswordRequest { name: "root".into(), hashed_password: hash.into(), ..Default::default() };
    let path = "/etcdserverpb.Auth/UserChangePassword";
    let _: pb::AuthUserChangePasswordResponse = root.unary(path, request).await.unwrap();
    let flood: Vec<_> = (0..400)
        .map(|_| {
            let rpc = rpc.clone();
            tokio::spawn(async move { words(log_in(&rpc, "root", "wrong").await) })
        })
        .collect();
    let mut ends = futures::stream::FuturesUnordered::from_iter(flood);
    let first = futures::StreamExt::next(&mut ends).await.unwrap().unwrap();
    assert_eq!(first, "etcdserver: too many requests", "those that are too many are the first to be told something");
    timeout(DEADLINE, alice.put(put("a"))).await.unwrap().unwrap();
    assert!(ends.len() > 1, "they are still waiting");
}
