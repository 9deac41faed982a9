//! Whom a node lets in, without TLS: see the tests of `storage-replica` for certificates.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{collections::BTreeMap, net::TcpListener, path::Path, time::Duration};

use storage_core::{Key, StoreExt};
use storage_embedded::{ClusterToken, Member, Node, NodeConfig, Refusal};
use tokio::time::Instant;

const DEADLINE: Duration = Duration::from_secs(30);

/// Nodes with these tokens, that are all told to found one cluster.
fn configs(dir: &Path, tokens: &[&str]) -> Vec<(NodeConfig, TcpListener)> {
    let listeners: Vec<_> = tokens.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let member = |(id, listener): (u64, &TcpListener)| {
        let peer_address = listener.local_addr().unwrap().to_string();
        (id, Member { name: format!("n{id}"), peer_address, ..Member::default() })
    };
    let founders: BTreeMap<_, _> = (1..).zip(&listeners).map(member).collect();
    let configured = founders.iter().zip(listeners).zip(tokens).map(|(((id, member), listener), token)| {
        let mut config = NodeConfig::new(*id, 7, dir.join(id.to_string()), &member.peer_address).fast();
        config.founders.clone_from(&founders);
        config.token = ClusterToken::new(*token);
        (config, listener)
    });
    configured.collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// It was there when the cluster was founded; then somebody started it with another token.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_token_takes_no_part_and_both_sides_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let (configs, listeners): (Vec<_>, Vec<_>) = configs(dir.path(), &["right"; 3]).into_iter().unzip();
    let mut nodes = Vec::new();
    for (config, listener) in configs.iter().zip(listeners) {
        nodes.push(Node::start_on(config.clone(), listener).await.unwrap());
    }
    for node in &nodes {
        node.wait_for_leader(DEADLINE).await.unwrap();
    }
    nodes.pop().unwrap().stop().await;
    let mut wrong = configs[2].clone();
    wrong.token = ClusterToken::new("wrong");
    nodes.push(Node::start(wrong).await.unwrap());
    let before = nodes[2].status().revision;
    nodes[0].store().put(&Key::new("a").unwrap(), "1").await.unwrap();
    let (insiders, outsider) = nodes.split_at(2);
    let refused = |refusal| insiders.iter().map(|node| node.refusals().count(refusal)).sum::<u64>();
    // It calls them, and they call it.
    until("it is refused", || refused(Refusal::WrongToken) > 0 && outsider[0].refusals().count(Refusal::ByOther) > 0)
        .await;
    until("it refuses", || outsider[0].refusals().count(Refusal::WrongToken) > 0 && refused(Refusal::ByOther) > 0)
        .await;
    assert_eq!(outsider[0].status().revision, before, "it has heard nothing");
    assert_eq!(nodes[1].status().voters.len(), 3);
    for node in &nodes {
        node.stop().await;
    }
}

/// A node that is told another token than the others: no cluster comes to be of it, and nobody counts it as one that was there.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_not_founded_with_a_node_that_has_another_token() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = Vec::new();
    for (config, listener) in configs(dir.path(), &["right", "right", "wrong"]) {
        nodes.push(Node::start_on(config, listener).await.unwrap());
    }
    until("the first waits for the third alone", || {
        nodes[0].waits_for().is_some_and(|waits| waits.contains("n3 (127.0.0.1") && !waits.contains("n2"))
    })
    .await;
    assert!(nodes[0].refusals().count(Refusal::ByOther) > 0, "{:?}", nodes[0].refusals());
    assert!(nodes.iter().all(|node| node.status().voters.is_empty()));
    for node in &nodes {
        node.stop().await;
    }
}

/// A node alone opens no port, and stays alone. One that others can reach is not started without what keeps strangers out.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_open_that_nobody_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let alone = Node::start(NodeConfig::alone(1, 7, dir.path().join("alone")).fast()).await.unwrap();
    alone.wait_for_leader(DEADLINE).await.unwrap();
    alone.store().put(&Key::new("a").unwrap(), "1").await.unwrap();
    assert_eq!(alone.address(), None);
    let member = Member { name: "n2".to_owned(), peer_address: "127.0.0.1:7".to_owned(), ..Member::default() };
    let refused = alone.add_learner(2, member.clone(), DEADLINE).await.unwrap_err();
    assert!(refused.to_string().contains("listens for no other"), "{refused}");
    alone.stop().await;

    let mut open = NodeConfig::new(1, 7, dir.path().join("open"), "0.0.0.0:0");
    open.founders = [(1, member.clone())].into();
    for (token, expected) in [("", "there is no token"), ("unique-token", "stands in documents"), ("short", "5 bytes")]
    {
        open.token = ClusterToken::new(token);
        let refused = Node::start(open.clone()).await.unwrap_err();
        assert!(refused.to_string().contains(expected) && refused.to_string().contains("openssl rand"), "{refused}");
    }
    assert!(!dir.path().join("open").exists(), "nothing was made");
    open.token = ClusterToken::new("0123456789abcdef");
    Node::start(open).await.unwrap().stop().await;

    // One on this machine whose token keeps nobody out takes in nobody from elsewhere.
    let mut near = NodeConfig::new(1, 7, dir.path().join("near"), "127.0.0.1:0").fast();
    near.founders = [(1, member)].into();
    let near = Node::start(near).await.unwrap();
    near.wait_for_leader(DEADLINE).await.unwrap();
    let far = Member { name: "n2".to_owned(), peer_address: "10.0.0.2:7".to_owned(), ..Member::default() };
    let refused = near.add_learner(2, far, DEADLINE).await.unwrap_err();
    assert!(refused.to_string().contains("not a loopback address"), "{refused}");
    near.stop().await;
}
