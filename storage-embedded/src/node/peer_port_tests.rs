//! What others may do on the peer port of a node, message by message: strangers, members, and members that mean harm.

use std::{io, time::Duration};

use bytes::Bytes;
use openraft::{
    EntryPayload,
    alias::CommittedLeaderIdOf,
    raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest},
};
use storage_core::{Key, StoreExt};
use tokio::time::timeout;

use super::{Node, NodeConfig};
use crate::{
    ClusterToken, LocalCluster, Refusal,
    log::MAX_ENTRY_BYTES,
    network::{
        frame::put_frame,
        handshake::{Connection, connect},
        hello::{Channel, Hello},
        message::{Call, ControlRequest, Reply, SnapshotHeader, put_append_request, put_call, reply},
        security::Security,
    },
    raft::{Entry, LogId, Proposal, SnapshotMeta, TypeConfig, Vote},
};

const SOON: Duration = Duration::from_secs(60);

/// Far above the term of any election here.
const LATER: u64 = 1000;

fn hello(node: &Node, from: u64, channel: Channel) -> Hello {
    let (cluster, to) = (node.cluster(), node.id());
    Hello { cluster, from, to, channel, origin: 0, has_run: true, claim: Default::default() }
}

async fn call(node: &Node, hello: Hello, token: &str) -> io::Result<Connection> {
    let security = Security::new(ClusterToken::new(token), None).unwrap();
    let address = node.address().unwrap().to_string();
    connect(&address, hello, &security).await.map(|(_, connection)| connection)
}

/// A connection of a member.
async fn member(node: &Node, from: u64, channel: Channel) -> Connection {
    call(node, hello(node, from, channel), "").await.unwrap()
}

/// Sends a frame, and tells whether it is answered or the connection ends.
async fn answer(connection: &mut Connection, write: impl FnOnce(&mut Vec<u8>)) -> Option<Bytes> {
    let mut out = Vec::new();
    put_frame(&mut out, write);
    // It may be refused by its length, before all of it was sent.
    let _ = connection.writer.send(&out).await;
    timeout(SOON, connection.reader.next()).await.expect("neither answer nor end").ok().flatten()
}

fn append(vote: Vote, prev_log_id: Option<LogId>, entries: Vec<Entry>) -> AppendEntriesRequest<TypeConfig> {
    AppendEntriesRequest { vote, prev_log_id, entries, leader_commit: None }
}

/// Three nodes, of which the second is told things by whoever says to be the third, in the name of the first and in its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_cannot_send_in_the_name_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(dir.path(), 3, NodeConfig::fast).await.unwrap();
    let key = Key::new("a").unwrap();
    cluster.store().unwrap().put(&key, "1").await.unwrap();
    let node = cluster.node(1).unwrap();
    let (own, other) = (3, 1);
    let (asked, led) = (Vote::new(LATER, other), Vote::new_committed(LATER, other));
    let forged = [
        (Channel::Control, "vote", ControlRequest::Vote(VoteRequest::new(asked, None))),
        (Channel::Control, "pre-vote", ControlRequest::PreVote(VoteRequest::new(asked, None))),
        (Channel::Control, "heartbeat", ControlRequest::Heartbeat(append(led, None, Vec::new()))),
        (
            Channel::Control,
            "transfer",
            ControlRequest::TransferLeader(TransferLeaderRequest::new(led, node.id(), None)),
        ),
    ];
    let refused = || node.refusals().count(Refusal::OtherSender);
    for (channel, what, request) in forged {
        let before = refused();
        let mut connection = member(node, own, channel).await;
        assert_eq!(answer(&mut connection, |out| request.encode(out)).await, None, "{what}");
        assert_eq!(refused(), before + 1, "{what}");
    }
    let before = refused();
    let mut connection = member(node, own, Channel::Append).await;
    let appended = answer(&mut connection, |out| put_append_request(out, &append(led, None, Vec::new()))).await;
    assert_eq!(appended, None);
    let header = SnapshotHeader { vote: led, meta: SnapshotMeta::default() };
    let mut connection = member(node, own, Channel::Snapshot).await;
    assert_eq!(answer(&mut connection, |out| header.encode(out)).await, None);
    assert_eq!(refused(), before + 2);
    assert!(node.status().term < LATER, "{:?}", node.status());
    // In its own name it is heard: its log is too short to be voted for.
    let mut connection = member(node, own, Channel::Control).await;
    let request = ControlRequest::Vote(VoteRequest::new(Vote::new(LATER, own), None));
    assert!(answer(&mut connection, |out| request.encode(out)).await.is_some());
    assert_eq!(refused(), before + 2);
    cluster.node(0).unwrap().store().put(&key, "2").await.unwrap();
}

/// What the log cannot take is refused before anything depends on it: it would end the node that is to log it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_for_the_log_ends_a_connection_and_no_node() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(dir.path(), 3, NodeConfig::fast).await.unwrap();
    let leader = cluster.leader().unwrap();
    let follower = cluster.running().find(|node| node.id() != leader.id()).unwrap();
    let third = cluster.running().find(|node| ![leader.id(), follower.id()].contains(&node.id())).unwrap().id();
    let too_long = || Bytes::from(vec![7; MAX_ENTRY_BYTES + 1]);

    let mut connection = member(leader, third, Channel::Calls).await;
    let refused = answer(&mut connection, |out| put_call(out, 1, &Call::Write(too_long()))).await.unwrap();
    assert!(matches!(reply(refused).unwrap(), (1, Reply::Refused(why)) if why.contains("over the limit")));

    let last = leader.status().last_log_index;
    let vote = Vote::new_committed(LATER, third);
    let entry = Entry {
        log_id: LogId::new(CommittedLeaderIdOf::<TypeConfig>::new(LATER), last.map_or(0, |last| last + 1)),
        payload: EntryPayload::Normal(Proposal(too_long())),
    };
    let mut connection = member(follower, third, Channel::Append).await;
    let appended = answer(&mut connection, |out| put_append_request(out, &append(vote, None, vec![entry]))).await;
    assert_eq!(appended, None, "an entry that is too long");

    for (channel, bytes) in [
        (Channel::Calls, MAX_ENTRY_BYTES + (2 << 20)),
        (Channel::Append, MAX_ENTRY_BYTES + (2 << 20)),
        (Channel::Snapshot, 2 << 20),
        (Channel::Control, 8192),
        (Channel::StateHash, 8192),
    ] {
        let mut connection = member(follower, third, channel).await;
        assert_eq!(answer(&mut connection, |out| out.resize(bytes, 0)).await, None, "{channel:?}");
    }
    for node in cluster.running() {
        assert!(node.why_stopped().is_none(), "{:?}", node.why_stopped());
    }
    cluster.store().unwrap().put(&Key::new("a").unwrap(), "1").await.unwrap();
}

/// Before it has proved the token, nobody is told which cluster and which node this is, whatever it gets right or wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_told_neither_cluster_nor_node() {
    const TOKEN: &str = "0123456789abcdef";
    let dir = tempfile::tempdir().unwrap();
    let with_token = |config| NodeConfig { token: ClusterToken::new(TOKEN), ..config };
    let cluster = LocalCluster::start(dir.path(), 1, with_token).await.unwrap();
    let node = cluster.node(0).unwrap();
    let right = hello(node, 1, Channel::Control);
    let wrong = [
        ("right", right),
        ("another cluster", Hello { cluster: 9, ..right }),
        ("another node", Hello { to: 9, ..right }),
        ("another origin", Hello { origin: 9, ..right }),
    ];
    for (what, hello) in wrong {
        let told = call(node, hello, "a guess of a token").await.unwrap_err().to_string();
        assert_eq!(told, "the token of the cluster is another one", "{what}");
    }
    // Its own log says what is to be mended.
    let counts = || [Refusal::OtherCluster, Refusal::WrongToken].map(|refusal| node.refusals().count(refusal));
    // It tells first, and counts then.
    let counted = async {
        while counts() != [1, 3] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, counted).await.unwrap_or_else(|_| panic!("{:?}", node.refusals()));
    // With the token, one that errs is told so.
    // One that has run would say that this node was founded anew.
    let other_origin = Hello { has_run: false, ..wrong[3].1 };
    for (hello, told) in [(wrong[1].1, "this is cluster"), (wrong[2].1, "this is node 1"), (other_origin, "restored")] {
        let refused = call(node, hello, TOKEN).await.unwrap_err().to_string();
        assert!(refused.contains(told), "{refused}");
    }
}
