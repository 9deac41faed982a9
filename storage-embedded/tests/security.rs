//! Whom a node lets in, without TLS: see the tests of `storage-replica` for certificates.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{collections::BTreeMap, net::TcpListener, path::Path, time::Duration};

use storage_core::{Key, StoreExt};
use storage_embedded::{ClusterToken, Member, Node, NodeConfig, Refusal};
use tokio::time::Instant;

const DEADLINE: Duration = Duration::from_secs(30);

/// Nodes with these tokens, that were all told to found one cluster.
async fn nodes(dir: &Path, tokens: &[&str]) -> Vec<Node> {
    let listeners: Vec<_> = tokens.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let member = |listener: &TcpListener| Member {
        peer_address: listener.local_addr().unwrap().to_string(),
        ..Member::default()
    };
    let founders: BTreeMap<_, _> = (1..).zip(listeners.iter().map(member)).collect();
    let mut nodes = Vec::new();
    for (((id, member), listener), token) in founders.iter().zip(listeners).zip(tokens) {
        let mut config = NodeConfig::new(*id, 7, dir.join(id.to_string()), &member.peer_address).fast();
        config.founders.clone_from(&founders);
        config.token = ClusterToken::new(*token);
        nodes.push(Node::start_on(config, listener).await.unwrap());
    }
    nodes
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_token_takes_no_part_and_both_sides_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = nodes(dir.path(), &["right", "right", "wrong"]).await;
    let leader = nodes[0].wait_for_leader(DEADLINE).await.unwrap();
    assert_ne!(leader, 3);
    nodes[0].store().put(&Key::new("a").unwrap(), "1").await.unwrap();
    let (insiders, outsider) = nodes.split_at(2);
    let refused = |refusal| insiders.iter().map(|node| node.refusals().count(refusal)).sum::<u64>();
    // It calls them, and they call it.
    until("it is refused", || refused(Refusal::WrongToken) > 0 && outsider[0].refusals().count(Refusal::ByOther) > 0)
        .await;
    until("it refuses", || outsider[0].refusals().count(Refusal::WrongToken) > 0 && refused(Refusal::ByOther) > 0)
        .await;
    let status = outsider[0].status();
    assert_eq!((status.leader, status.revision), (None, 0), "it has heard nothing");
    assert_eq!(nodes[1].status().voters.len(), 3);
    for node in &nodes {
        node.stop().await;
    }
}
