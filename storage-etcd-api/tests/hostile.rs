//! Frames and requests that nobody should send to the port of clients. `FRAMES=1000000` in the environment sends so many frames; how long requests are
//! tried is said in docs/decisions/0024-fuzzing.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use common::{ApiCluster, rpc::Rpc};
use prost::Message;
use storage_etcd_api::proto::etcdserverpb::{self as pb, request_op::Request, watch_request::RequestUnion};
use storage_testkit::{
    fuzz::fuzz_times,
    hostile::{GROWTH_BYTES, Strike, resident_bytes},
};
use tokio::{runtime::Handle, task::block_in_place, time::timeout};
use tonic::{
    Code, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};

/// How many frames are sent by default, of HTTP/2 and of HTTP/1.1 each.
const FRAMES: u64 = 5000;

/// How many requests of each kind are tried by default: each goes to the node and back.
const REQUESTS: u64 = 100;

/// How long an answer may take, on a machine that is busy.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// What a connection of HTTP/2 begins with: its preface and the settings of the client.
const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The kinds of frames that carry a request, and the flags that end it.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.put_u32(stream);
    frame.extend_from_slice(payload);
    frame
}

/// The frames of a call, with its headers as literals.
fn call(stream: u32, path: &str, message: &[u8]) -> Vec<u8> {
    let literal = |out: &mut Vec<u8>, text: &str| {
        out.push(u8::try_from(text.len()).unwrap());
        out.extend_from_slice(text.as_bytes());
    };
    // `POST` and `http` of the table of RFC 7541, then the names of path, authority and content type.
    let mut headers = vec![0x83, 0x86, 0x04];
    literal(&mut headers, path);
    headers.push(0x01);
    literal(&mut headers, "a");
    headers.extend([0x0f, 0x10]);
    literal(&mut headers, "application/grpc");
    headers.push(0x00);
    literal(&mut headers, "te");
    literal(&mut headers, "trailers");
    let mut data = vec![0];
    data.put_u32(u32::try_from(message.len()).unwrap());
    data.extend_from_slice(message);
    [frame(HEADERS, END_HEADERS, stream, &headers), frame(DATA, END_STREAM, stream, &data)].concat()
}

/// Makes lengths right: of a frame that claims more than there is, and of the message in one with data.
#[allow(clippy::ptr_arg, reason = "that of a strike, which may change the length")]
fn mend(frames: &mut Vec<u8>) {
    let mut rest = &mut frames[..];
    while let Some((header, behind)) = rest.split_first_chunk_mut::<9>() {
        let claimed = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let length = claimed.min(behind.len());
        header[..3].copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes()[1..]);
        let (payload, next) = behind.split_at_mut(length);
        if header[3] == DATA && payload.len() >= 5 {
            let message = u32::try_from(payload.len() - 5).unwrap();
            payload[1..5].copy_from_slice(&message.to_be_bytes());
        }
        rest = next;
    }
}

fn put(key: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: "v".into(), ..pb::PutRequest::default() }
}

fn range() -> pb::RangeRequest {
    pb::RangeRequest { key: "a".into(), range_end: "z".into(), limit: 3, ..pb::RangeRequest::default() }
}

fn txn() -> pb::TxnRequest {
    let op = |request| pb::RequestOp { request: Some(request) };
    let within = pb::TxnRequest { success: vec![op(Request::RequestPut(put("within")))], ..pb::TxnRequest::default() };
    let compare = pb::Compare { key: "a".into(), range_end: "c".into(), ..pb::Compare::default() };
    let delete = pb::DeleteRangeRequest { key: "d".into(), range_end: "e".into(), prev_kv: true };
    pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(Request::RequestPut(put("b"))), op(Request::RequestTxn(within.encode_to_vec().into()))],
        failure: vec![op(Request::RequestRange(range())), op(Request::RequestDeleteRange(delete))],
    }
}

fn watch() -> Vec<u8> {
    let create =
        pb::WatchCreateRequest { key: "a".into(), range_end: "z".into(), start_revision: 1, ..Default::default() };
    pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }.encode_to_vec()
}

/// Calls that change neither the members nor whether users are asked for: what comes after them would only be refused.
fn calls() -> Vec<(&'static str, Vec<u8>)> {
    // An empty message leaves nothing to change: this has a field that nobody knows.
    let unknown = [0x78, 1];
    let role = || pb::AuthRoleGrantPermissionRequest {
        name: "r".into(),
        perm: Some(storage_etcd_api::proto::authpb::Permission {
            perm_type: 2,
            key: "a".into(),
            range_end: "b".into(),
        }),
    };
    vec![
        ("/etcdserverpb.KV/Range", range().encode_to_vec()),
        ("/etcdserverpb.KV/Put", put("a").encode_to_vec()),
        (
            "/etcdserverpb.KV/DeleteRange",
            pb::DeleteRangeRequest { key: "q".into(), range_end: "r".into(), prev_kv: true }.encode_to_vec(),
        ),
        ("/etcdserverpb.KV/Txn", txn().encode_to_vec()),
        ("/etcdserverpb.KV/Compact", pb::CompactionRequest { revision: 2, physical: true }.encode_to_vec()),
        ("/etcdserverpb.Watch/Watch", watch()),
        ("/etcdserverpb.Lease/LeaseGrant", pb::LeaseGrantRequest { ttl: 600, id: 7 }.encode_to_vec()),
        ("/etcdserverpb.Lease/LeaseRevoke", pb::LeaseRevokeRequest { id: 7 }.encode_to_vec()),
        ("/etcdserverpb.Lease/LeaseKeepAlive", pb::LeaseKeepAliveRequest { id: 7 }.encode_to_vec()),
        ("/etcdserverpb.Lease/LeaseTimeToLive", pb::LeaseTimeToLiveRequest { id: 7, keys: true }.encode_to_vec()),
        ("/etcdserverpb.Lease/LeaseLeases", unknown.to_vec()),
        ("/etcdserverpb.Cluster/MemberList", pb::MemberListRequest { linearizable: true }.encode_to_vec()),
        ("/etcdserverpb.Maintenance/Status", unknown.to_vec()),
        ("/etcdserverpb.Maintenance/HashKV", pb::HashKvRequest { revision: 300 }.encode_to_vec()),
        (
            "/etcdserverpb.Auth/UserAdd",
            pb::AuthUserAddRequest { name: "u".into(), password: "p".into(), ..Default::default() }.encode_to_vec(),
        ),
        ("/etcdserverpb.Auth/UserGet", pb::AuthUserGetRequest { name: "u".into() }.encode_to_vec()),
        ("/etcdserverpb.Auth/RoleAdd", pb::AuthRoleAddRequest { name: "r".into() }.encode_to_vec()),
        ("/etcdserverpb.Auth/RoleGrantPermission", role().encode_to_vec()),
        ("/etcdserverpb.Auth/RoleGet", pb::AuthRoleGetRequest { role: "r".into() }.encode_to_vec()),
        (
            "/etcdserverpb.Auth/Authenticate",
            pb::AuthenticateRequest { name: "u".into(), password: "p".into() }.encode_to_vec(),
        ),
    ]
}

/// The cluster goes on, and has hardly more memory than before.
async fn goes_on(cluster: &ApiCluster) {
    assert!(cluster.nodes().node(0).unwrap().why_stopped().is_none());
    let rpc = Rpc::connect(&cluster.endpoints()[0]).await;
    rpc.put(put("written")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_frames_of_clients_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start(dir.path(), 1).await;
    goes_on(&cluster).await;
    let before = resident_bytes();
    let address = cluster.endpoints()[0].parse().unwrap();
    let mut frames: Vec<_> =
        (0..).step_by(2).zip(calls()).map(|(stream, (path, message))| call(stream + 1, path, &message)).collect();
    // Priority, reset, settings, push, ping, going away, window, continuation.
    frames.extend((2..10).map(|kind| frame(kind, 0, 1, &[0, 0, 0, 1, 0, 0, 0, 1])));
    frames.extend([
        frame(4, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
        frame(6, 0, 0, &[7; 8]),
        frame(8, 0, 0, &[0, 0, 0xff, 0xff]),
    ]);
    let mut sent = Strike { address, opening: OPENING, frames_of_one: 16, frames: &frames, mend }.run(FRAMES).await;
    let plain = [
        "GET /health HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /v3/kv/put HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}",
    ];
    let plain = plain.map(|request| request.as_bytes().to_vec());
    sent += Strike { address, opening: b"", frames_of_one: 2, frames: &plain, mend: |_| {} }.run(FRAMES).await;
    goes_on(&cluster).await;
    let grown = resident_bytes().saturating_sub(before);
    println!("{sent} frames, {} KiB more memory", grown >> 10);
    assert!(grown < GROWTH_BYTES, "{grown} bytes more than before {sent} frames");
}

/// Bytes as they are, for a message.
#[derive(Default)]
struct Raw;

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

/// The first answer of a call.
async fn ask(mut grpc: Grpc<Channel>, path: &'static str, message: Vec<u8>) -> Result<(), Status> {
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    // A watch may be asked for nothing that has an answer: then for one that has.
    let more = if path.ends_with("/Watch") { Some(watch()) } else { None };
    let requests = tonic::Request::new(futures::stream::iter([message].into_iter().chain(more)));
    let answered = async {
        let mut answers = grpc.streaming(requests, PathAndQuery::from_static(path), Raw).await?.into_inner();
        answers.message().await.map(drop)
    };
    timeout(ANSWERED_WITHIN, answered).await.unwrap_or_else(|_| panic!("{path} is not answered"))
}

/// Each service takes what is a request, and says of all else why not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fuzz_requests_of_clients() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start(dir.path(), 1).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", cluster.endpoints()[0])).unwrap();
    let grpc = Grpc::new(endpoint.connect().await.unwrap());
    goes_on(&cluster).await;
    for (path, message) in calls() {
        fuzz_times(REQUESTS, path, [message], |input| {
            let asked = ask(grpc.clone(), path, input.to_vec());
            match block_in_place(|| Handle::current().block_on(asked)) {
                Ok(()) => Ok(String::new()),
                // No message at all: all others were understood.
                Err(status) if status.code() == Code::Internal => Err(status.message().to_owned()),
                Err(status) => Ok(status.message().to_owned()),
            }
        });
    }
    goes_on(&cluster).await;
}

/// The most memory that this process ever had, in bytes.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

/// Taken apart, four million operations that say nothing have 600 MiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_very_many_operations_is_refused_before_it_is_taken_apart() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start(dir.path(), 1).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", cluster.endpoints()[0])).unwrap();
    let grpc = Grpc::new(endpoint.connect().await.unwrap());
    let operations = |bytes: usize| [0x1a, 0].repeat(bytes / 2);
    let within = pb::RequestOp { request: Some(Request::RequestTxn(operations(2_000_000).into())) };
    let nested = pb::TxnRequest { success: vec![within], ..pb::TxnRequest::default() }.encode_to_vec();
    let before = peak_bytes();
    for (message, words) in [
        (operations(8_000_000), "grpc: received message larger than max (8000000 vs. 2097152)"),
        (operations(2_000_000), "etcdserver: too many operations in txn request"),
        (nested, "etcdserver: too many operations in txn request"),
    ] {
        let refused = ask(grpc.clone(), "/etcdserverpb.KV/Txn", message).await.unwrap_err();
        assert_eq!(refused.message(), words);
    }
    let grown = peak_bytes() - before;
    assert!(grown < 200 << 20, "{grown} bytes for messages of 8 MB");
}
