//! Frames that nobody should send to the peer port, many of them: from strangers, and from members. `FRAMES=1000000` in the environment sends so many.

use std::time::Duration;

use fastrand::Rng;
use futures::FutureExt;
use storage_core::{Key, StoreExt};
use storage_testkit::{
    fuzz::changed,
    hostile::{GROWTH_BYTES, Strike, resident_bytes},
};

use super::{Node, NodeConfig};
use crate::{
    ClusterToken, LocalCluster, fuzz,
    network::{
        frame::put_frame,
        handshake::{Connection, connect},
        hello::{Channel, Hello},
        message::{Call, ControlRequest, SnapshotHeader, append_request, call, sender},
        security::Security,
    },
};

/// How many frames are sent by default, of strangers and of members each.
const FRAMES: u64 = 5000;

/// How many frames a member sends on one connection: what comes behind one that ends it is not looked at.
const FRAMES_OF_ONE: usize = 4;

/// Who sends frames as a member: one of three, whose own node goes on.
const MEMBER: u64 = 3;

/// A cluster that goes on, of this many nodes, and how much memory it has.
async fn cluster(dir: &std::path::Path) -> (LocalCluster, u64) {
    let cluster = LocalCluster::start(dir, 3, NodeConfig::fast).await.unwrap();
    goes_on(&cluster).await;
    (cluster, resident_bytes())
}

async fn goes_on(cluster: &LocalCluster) {
    for node in cluster.running() {
        assert!(node.why_stopped().is_none(), "{:?}", node.why_stopped());
        node.store().put(&Key::new("written").unwrap(), "1").await.unwrap();
    }
}

fn assert_small(before: u64, frames: u64) {
    let grown = resident_bytes().saturating_sub(before);
    println!("{frames} frames, {} KiB more memory", grown >> 10);
    assert!(grown < GROWTH_BYTES, "{grown} bytes more than before {frames} frames");
}

/// Makes the length and the checksum of a frame right.
fn mend(frame: &mut Vec<u8>) {
    let payload = frame.split_off(frame.len().min(8));
    frame.clear();
    put_frame(frame, |out| out.extend_from_slice(&payload));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_frames_of_strangers_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, before) = cluster(dir.path()).await;
    let node = cluster.node(1).unwrap();
    let framed = |payload: Vec<u8>| {
        let mut frame = Vec::new();
        put_frame(&mut frame, |out| out.extend_from_slice(&payload));
        frame
    };
    let frames: Vec<_> = fuzz::greetings(node.cluster(), node.id()).into_iter().map(framed).collect();
    let strike = Strike { address: node.address().unwrap(), opening: b"", frames_of_one: 2, frames: &frames, mend };
    let frames = strike.run(FRAMES).await;
    goes_on(&cluster).await;
    assert_small(before, frames);
}

async fn member(node: &Node, channel: Channel) -> Option<Connection> {
    let (cluster, to) = (node.cluster(), node.id());
    let hello = Hello { cluster, from: MEMBER, to, channel, origin: 0, has_run: true, claim: Default::default() };
    let security = Security::new(ClusterToken::new(""), None).unwrap();
    // Busy with others, it may be refused.
    connect(&node.address().unwrap().to_string(), hello, &security).await.ok().map(|(_, connection)| connection)
}

/// Whether it is what only a member that lies would send: a vote, an append or a snapshot in its own name. Nothing is promised then. Nor are the
/// members to be changed.
fn is_a_lie(channel: Channel, payload: Vec<u8>) -> bool {
    let payload = payload.into();
    let named = match channel {
        Channel::Control => ControlRequest::decode(payload).ok().map(|request| request.sender()),
        Channel::Append => append_request(payload).ok().map(|request| sender(&request.vote)),
        Channel::Snapshot => SnapshotHeader::decode(payload).ok().map(|header| sender(&header.vote)),
        Channel::Calls => return matches!(call(payload), Ok((_, Call::Change(_)))),
        Channel::Founding | Channel::StateHash => None,
    };
    named == Some(MEMBER)
}

/// Each is a whole frame with the right checksum, on a connection that has proved the token.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_frames_of_members_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, before) = cluster(dir.path()).await;
    let node = cluster.node(1).unwrap();
    let samples = [
        (Channel::Control, fuzz::control_requests()),
        (Channel::Append, fuzz::append_requests()),
        (Channel::Calls, fuzz::calls()),
        (Channel::Snapshot, fuzz::snapshot_headers()),
        (Channel::StateHash, fuzz::state_hash_requests()),
    ];
    let frames = std::env::var("FRAMES").map_or(FRAMES, |text| text.parse().unwrap());
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let (mut random, mut sent) = (Rng::with_seed(seed), 0);
    while sent < frames {
        let (channel, samples) = &samples[random.usize(..samples.len())];
        let Some(mut connection) = member(node, *channel).await else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        for _ in 0..FRAMES_OF_ONE {
            let payload = changed(samples, &mut random);
            if is_a_lie(*channel, payload.clone()) {
                continue;
            }
            let mut out = Vec::new();
            put_frame(&mut out, |out| out.extend_from_slice(&payload));
            sent += 1;
            if connection.writer.send(&out).await.is_err() || !is_open(&mut connection) {
                break;
            }
        }
    }
    let voters = node.status().voters;
    goes_on(&cluster).await;
    assert_eq!(cluster.node(0).unwrap().status().voters, voters);
    assert_small(before, sent);
}

/// Whether the other side has not ended it. What it has answered is read.
fn is_open(connection: &mut Connection) -> bool {
    loop {
        match connection.reader.next().now_or_never() {
            None => return true,
            Some(Ok(Some(_))) => {}
            Some(_) => return false,
        }
    }
}
