//! A node whose disk is lost does not take the place that it had. It was so once: a node that was started with the flags of its first start
//! made a majority with one that had been away, and the two forgot what the third had acknowledged.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{collections::BTreeMap, fs, net::TcpListener, path::Path, time::Duration};

use storage_core::{Error, Key, ReadOptions, Store, StoreExt};
use storage_embedded::{Member, Node, NodeConfig, Refusal, Salvage, Stopped, restore};

const SOON: Duration = Duration::from_secs(30);
const CLUSTER: u128 = 0xf157;

fn key(name: &str) -> Key {
    Key::try_from(name).unwrap()
}

/// The configurations of nodes that found a cluster together, on ports that are free.
fn founders(dir: &Path, size: u64) -> Vec<NodeConfig> {
    // All at once, so that they differ.
    let listeners: Vec<_> = (0..size).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let members = (1..).zip(&listeners).map(|(id, listener)| {
        let peer_address = listener.local_addr().unwrap().to_string();
        (id, Member { name: format!("n{id}"), peer_address, ..Member::default() })
    });
    let members: BTreeMap<_, _> = members.collect();
    let configured = members.iter().map(|(id, member)| {
        let mut config = NodeConfig::new(*id, CLUSTER, dir.join(&member.name), &member.peer_address).fast();
        config.founders.clone_from(&members);
        config
    });
    configured.collect()
}

async fn start(config: &NodeConfig) -> Node {
    Node::start(config.clone()).await.unwrap()
}

async fn started(configs: &[NodeConfig]) -> Vec<Node> {
    let mut nodes = Vec::new();
    for config in configs {
        nodes.push(start(config).await);
    }
    for node in &nodes {
        node.wait_for_leader(SOON).await.unwrap();
    }
    nodes
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until a node has stopped because it has lost its data, and gives what it says.
async fn forgotten(node: &Node) -> String {
    let both = async { tokio::join!(node.stopped(), node.wait_for_leader(SOON)) };
    let (stopped, unled) = tokio::time::timeout(SOON, both).await.expect("it stops by itself");
    // Whoever waits for a leader is told why; one that has begun alone led itself.
    assert!(unled.as_ref().map_or_else(|e| matches!(e, Error::Corrupt { .. }), |led| *led == node.id()), "{unled:?}");
    assert!(matches!(stopped, Err(Error::Corrupt { .. })), "{stopped:?}");
    let Some(Stopped::Forgot(why)) = node.why_stopped() else { panic!("{:?}", node.why_stopped()) };
    why
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founder_that_has_lost_its_disk_does_not_vote() {
    let dir = tempfile::tempdir().unwrap();
    let configs = founders(dir.path(), 3);
    let mut nodes = started(&configs).await;
    nodes[0].store().put(&key("before"), "1").await.unwrap();
    until("all have it", || nodes.iter().all(|node| node.status().revision == 1)).await;
    // The third is away when a write is acknowledged by the other two.
    nodes.remove(2).stop().await;
    nodes[0].store().put(&key("a"), "acknowledged").await.unwrap();
    for node in nodes {
        node.stop().await;
    }
    fs::remove_dir_all(&configs[0].data_dir).unwrap();

    // It waits for those that could know better, and shows nothing meanwhile.
    let forgetful = start(&configs[0]).await;
    until("it says whom it waits for", || forgetful.waits_for().is_some_and(|waits| waits.contains("n2 (127"))).await;
    let stale = forgetful.store().get(&key("before"), ReadOptions::default().stale()).await;
    assert!(matches!(stale, Err(Error::Unavailable { .. })), "{stale:?}");
    // One that knows is enough: it was away, and has forgotten nothing.
    let third = start(&configs[2]).await;
    assert!(forgotten(&forgetful).await.contains("node 3 knows that it has run"));
    let alone = third.store().ping(ReadOptions::default().timeout(Duration::from_secs(1))).await;
    assert!(matches!(alone, Err(Error::Unavailable { .. })), "{alone:?}");
    assert_eq!(
        forgotten(&start(&configs[0]).await).await.matches("take it in anew").count(),
        1,
        "as often as it is tried"
    );

    let second = start(&configs[1]).await;
    let read = second.store().get(&key("a"), ReadOptions::default().timeout(SOON)).await.unwrap();
    assert_eq!(read.unwrap().value, "acknowledged");
    // As the words say it.
    second.remove([1], SOON).await.unwrap();
    let mut anew = configs[0].clone();
    (anew.id, anew.founders) = (4, BTreeMap::new());
    let newcomer = start(&anew).await;
    second.add_learner(4, configs[0].founders[&1].clone(), SOON).await.unwrap();
    second.promote([4], SOON).await.unwrap();
    until("it votes", || newcomer.status().voters == [2, 3, 4]).await;
    for node in [newcomer, second, third] {
        node.stop().await;
    }
}

/// It has no list of others to ask: those that count on it tell it.
#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_was_taken_in_and_has_lost_its_disk_does_not_vote() {
    let dir = tempfile::tempdir().unwrap();
    let configs = founders(dir.path(), 1);
    let first = started(&configs).await.remove(0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let config = NodeConfig::new(2, CLUSTER, dir.path().join("second"), &address).fast();
    let second = Node::start_on(config.clone(), listener).await.unwrap();
    first.add_learner(2, Member { peer_address: address, ..Member::default() }, SOON).await.unwrap();
    // It may come back before and after its first entry.
    second.stop().await;
    let second = start(&config).await;
    first.promote([2], SOON).await.unwrap();
    first.store().put(&key("a"), "1").await.unwrap();
    second.stop().await;
    let second = start(&config).await;
    second.store().get(&key("a"), ReadOptions::default().timeout(SOON)).await.unwrap().unwrap();
    second.stop().await;
    fs::remove_dir_all(&config.data_dir).unwrap();
    assert!(forgotten(&start(&config).await).await.contains("node 1 knows that it has run"));
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_kept_its_identity_and_lost_its_data_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let configs = founders(dir.path(), 1);
    let node = started(&configs).await.remove(0);
    node.store().put(&key("a"), "1").await.unwrap();
    node.stop().await;
    for part in ["log", "snapshots"] {
        fs::remove_dir_all(configs[0].data_dir.join(part)).unwrap();
    }
    let refused = Node::start(configs[0].clone()).await.unwrap_err();
    assert!(matches!(refused, Error::Corrupt { .. }) && refused.to_string().contains("are missing"), "{refused}");
}

/// As a tired operator does when a disk is full. The snapshot is old, and has no vote.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_log_was_deleted_and_whose_snapshot_was_not_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let configs = founders(dir.path(), 1);
    let data = &configs[0].data_dir;
    let node = started(&configs).await.remove(0);
    node.store().put(&key("a"), "1").await.unwrap();
    node.snapshot(SOON).await.unwrap();
    node.store().put(&key("a"), "2").await.unwrap();
    node.stop().await;
    let kept = dir.path().join("kept");
    let segments: Vec<_> = fs::read_dir(data.join("log")).unwrap().map(|file| file.unwrap().path()).collect();
    // Whatever is left of it, and as often as it is tried.
    for what in ["the files", "the newest file", "the folder"] {
        fs::create_dir(&kept).unwrap();
        let newest = segments.iter().filter(|path| path.extension().is_some_and(|end| end == "log")).max().unwrap();
        for path in segments.iter().filter(|path| what != "the newest file" || *path == newest) {
            fs::rename(path, kept.join(path.file_name().unwrap())).unwrap();
        }
        if what == "the folder" {
            fs::remove_dir(data.join("log")).unwrap();
        }
        for _ in 0..2 {
            let refused = Node::start(configs[0].clone()).await.unwrap_err();
            assert!(matches!(refused, Error::Corrupt { .. }), "{what}: {refused}");
            assert!(refused.to_string().contains("log are missing: what its node has voted"), "{what}: {refused}");
            let refused = Salvage::open(data).unwrap_err();
            assert!(refused.to_string().contains("log are missing: what its node has voted"), "{what}: {refused}");
        }
        // As the words say it.
        fs::create_dir_all(data.join("log")).unwrap();
        for file in fs::read_dir(&kept).unwrap().map(Result::unwrap) {
            fs::rename(file.path(), data.join("log").join(file.file_name())).unwrap();
        }
        fs::remove_dir(&kept).unwrap();
    }
    let node = started(&configs).await.remove(0);
    let read = node.store().get(&key("a"), ReadOptions::default()).await.unwrap();
    assert_eq!(read.unwrap().value, "2");
    node.stop().await;
}

/// Nobody is named that it could ask, so it begins at once; those that have joined since tell it.
#[tokio::test(flavor = "multi_thread")]
async fn a_sole_founder_that_is_founded_anew_beside_those_that_joined_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let file = saved(dir.path(), "one").await;
    for restored in [false, true] {
        let configs = founders(&dir.path().join(restored.to_string()), 1);
        if restored {
            restore_all(&file, &configs);
        }
        let first = started(&configs).await.remove(0);
        let mut joined = founders(&dir.path().join(format!("{restored}-joined")), 3).split_off(1);
        let mut nodes = Vec::new();
        for config in &mut joined {
            config.founders.clear();
            nodes.push(start(config).await);
            let member = Member { peer_address: config.listen.clone(), ..Member::default() };
            first.add_learner(config.id, member, SOON).await.unwrap();
            first.promote([config.id], SOON).await.unwrap();
        }
        first.store().put(&key("b"), "acknowledged").await.unwrap();
        first.stop().await;
        fs::remove_dir_all(&configs[0].data_dir).unwrap();
        if restored {
            restore_all(&file, &configs);
        }
        let anew = start(&configs[0]).await;
        if restored {
            // The older one may be what its operator has given up: it is told apart, and goes on.
            until("they refuse each other", || anew.refusals().count(Refusal::OtherOrigin) > 0).await;
        } else {
            let why = forgotten(&anew).await;
            assert!(why.contains("is of an older cluster that it was a voter of"), "{why}");
        }
        for node in &nodes {
            let read = node.store().get(&key("b"), ReadOptions::default().timeout(SOON)).await.unwrap();
            assert_eq!(read.unwrap().value, "acknowledged", "restored: {restored}");
        }
        for node in nodes.iter().chain([&anew]) {
            node.stop().await;
        }
    }
}

/// A file that a node of another cluster was saved in.
async fn saved(dir: &Path, value: &str) -> std::path::PathBuf {
    let node = started(&founders(&dir.join(value), 1)).await.remove(0);
    node.store().put(&key("a"), value.to_owned()).await.unwrap();
    let pieces = node.open_snapshot(SOON).await.unwrap().map(Result::unwrap);
    let file = dir.join(format!("{value}.snapshot"));
    fs::write(&file, pieces.flatten().collect::<Vec<u8>>()).unwrap();
    node.stop().await;
    file
}

/// Restores the directories of all these nodes from a file.
fn restore_all(file: &Path, configs: &[NodeConfig]) {
    for config in configs {
        restore(file, config, 0).unwrap();
    }
}

/// A restored directory looks the same each time it is made: that it has run before, only the others know.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_node_that_is_restored_again_does_not_vote() {
    let dir = tempfile::tempdir().unwrap();
    let file = saved(dir.path(), "one").await;
    let configs = founders(&dir.path().join("new"), 3);
    restore_all(&file, &configs);
    let mut nodes = started(&configs).await;
    // The third is away when a write is acknowledged by the other two.
    nodes.remove(2).stop().await;
    nodes[0].store().put(&key("b"), "acknowledged").await.unwrap();
    for node in nodes {
        node.stop().await;
    }
    fs::remove_dir_all(&configs[0].data_dir).unwrap();
    restore(&file, &configs[0], 0).unwrap();

    let (forgetful, third) = (start(&configs[0]).await, start(&configs[2]).await);
    assert!(forgotten(&forgetful).await.contains("node 3 knows that it has run"));
    let second = start(&configs[1]).await;
    let read = second.store().get(&key("b"), ReadOptions::default().timeout(SOON)).await.unwrap();
    assert_eq!(read.unwrap().value, "acknowledged");
    for node in [second, third] {
        node.stop().await;
    }
}

/// It would have to be known otherwise of the one that is late that it has never run.
#[tokio::test(flavor = "multi_thread")]
async fn restored_nodes_begin_when_all_of_them_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = saved(dir.path(), "one").await;
    let configs = founders(&dir.path().join("new"), 3);
    restore_all(&file, &configs);
    // As often as they are started.
    for _ in 0..2 {
        let (first, second) = (start(&configs[0]).await, start(&configs[1]).await);
        until("they say whom they wait for", || {
            [&first, &second].iter().all(|node| node.waits_for().is_some_and(|waits| waits.contains("n3 (127")))
        })
        .await;
        let shown = first.store().get(&key("a"), ReadOptions::default().stale()).await;
        assert!(matches!(shown, Err(Error::Unavailable { .. })), "{shown:?}");
        assert_eq!(first.status().leader, None);
        for node in [first, second] {
            node.stop().await;
        }
    }
    let nodes = started(&configs).await;
    for node in &nodes {
        let read = node.store().get(&key("a"), ReadOptions::default().timeout(SOON)).await.unwrap();
        assert_eq!(read.unwrap().value, "one");
    }
    for node in nodes {
        node.stop().await;
    }
    // From then on two of three are enough.
    for node in started(&configs[..2]).await {
        node.stop().await;
    }
}

/// The files end at the same index and revision: nothing else tells them apart.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_were_restored_from_different_states_refuse_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (saved(dir.path(), "one").await, saved(dir.path(), "other").await);
    for (case, files, bumps) in [("files", [&one, &other, &other], [0; 3]), ("bumps", [&one; 3], [0, 1000, 1000])] {
        let configs = founders(&dir.path().join(case), 3);
        for ((config, file), bump) in configs.iter().zip(files).zip(bumps) {
            restore(file, config, bump).unwrap();
        }
        // Two that are alike wait for the third.
        let mut nodes = vec![start(&configs[1]).await, start(&configs[2]).await];
        until("they wait for the third alone", || {
            nodes.iter().all(|node| {
                node.waits_for().is_some_and(|waits| waits.contains("n1 (127") && !waits.contains("another snapshot"))
            })
        })
        .await;
        for node in &nodes {
            assert_eq!((node.status().leader, node.status().last_log_index), (None, node.status().snapshot), "{case}");
            let options = ReadOptions::default().stale().timeout(Duration::from_millis(300));
            let shown = node.store().get(&key("a"), options).await;
            assert!(matches!(shown, Err(Error::Unavailable { .. })), "{case}: nobody has confirmed it: {shown:?}");
            assert!(node.mvcc().hash(0).await.is_err(), "{case}");
        }
        // It asks both, so that all three know.
        nodes.push(start(&configs[0]).await);
        for (node, others) in nodes.iter().zip([&[1][..], &[1], &[2, 3]]) {
            tokio::time::timeout(SOON, node.stopped()).await.expect("it stops by itself").unwrap_err();
            let Some(Stopped::Differs(why)) = node.why_stopped() else { panic!("{:?}", node.why_stopped()) };
            let says = |other| why.contains(&format!("it was restored from another snapshot than node {other}, or"));
            assert!(others.iter().any(says), "{case}: node {} says {why}", node.id());
        }
        // As the words say it.
        for (at, config) in configs.iter().enumerate() {
            fs::remove_dir_all(&config.data_dir).unwrap();
            restore(&other, config, 0).unwrap_or_else(|error| panic!("{case}, node {at}: {error}"));
        }
        for node in started(&configs).await {
            node.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_node_beside_restored_ones_does_not_begin_and_one_that_is_taken_in_does() {
    let dir = tempfile::tempdir().unwrap();
    let configs = founders(&dir.path().join("new"), 3);
    let file = saved(dir.path(), "one").await;
    restore_all(&file, &configs[..2]);
    let mut nodes = vec![start(&configs[0]).await, start(&configs[1]).await];
    let why = forgotten(&start(&configs[2]).await).await;
    assert!(why.contains("restored from a snapshot") && why.contains("from the same file"), "{why}");
    fs::remove_dir_all(&configs[2].data_dir).unwrap();
    restore(&file, &configs[2], 0).unwrap();
    nodes.push(start(&configs[2]).await);
    for node in &nodes {
        node.wait_for_leader(SOON).await.unwrap();
    }
    // Whatever was made of its disk since, an empty one is told that it has run, and not to restore it.
    nodes.remove(2).stop().await;
    fs::remove_dir_all(&configs[2].data_dir).unwrap();
    let why = forgotten(&start(&configs[2]).await).await;
    assert!(why.contains("knows that it has run"), "{why}");
    nodes[0].remove([3], SOON).await.unwrap();
    let mut anew = configs[2].clone();
    (anew.id, anew.founders) = (4, BTreeMap::new());
    let newcomer = start(&anew).await;
    nodes[0].add_learner(4, configs[2].founders[&3].clone(), SOON).await.unwrap();
    nodes[0].promote([4], SOON).await.unwrap();
    // It belongs to the restored cluster from its first entry on.
    newcomer.stop().await;
    let newcomer = start(&anew).await;
    assert_eq!(
        newcomer.store().get(&key("a"), ReadOptions::default().timeout(SOON)).await.unwrap().unwrap().value,
        "one"
    );
    for node in nodes.iter().chain([&newcomer]) {
        node.stop().await;
    }
}
