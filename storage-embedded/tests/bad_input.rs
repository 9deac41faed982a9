//! What a node does with directories, addresses and bytes that are not what they should be: it says so, and nothing changes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use storage_core::{Error, Key, StoreExt};
use storage_embedded::{Member, Node, NodeConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn single(dir: &Path) -> NodeConfig {
    let mut config = NodeConfig::new(1, 7, dir, "127.0.0.1:0").fast();
    config.founders.insert(1, Member { name: "n1".into(), ..Member::default() });
    config
}

async fn founded(dir: &Path) -> Node {
    let node = Node::start(single(dir)).await.unwrap();
    node.wait_for_leader(Duration::from_secs(20)).await.unwrap();
    node.store().put(&Key::try_from("a").unwrap(), "1").await.unwrap();
    node
}

/// Every file below a directory with its content.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

async fn refused(config: NodeConfig, says: &[&str]) {
    let dir = config.data_dir.clone();
    let before = contents(&dir);
    let error = Node::start(config).await.unwrap_err();
    for text in says {
        assert!(error.to_string().contains(text), "{error} does not say {text:?}");
    }
    assert!(contents(&dir) == before, "the directory has changed after {error}");
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = founded(dir.path()).await;
    let error = Node::start(single(dir.path())).await.unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
    assert!(error.to_string().contains("another node uses"), "{error}");
    node.stop().await;
    founded(dir.path()).await.stop().await;
}

#[tokio::test]
async fn the_directory_of_another_node_or_cluster_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    founded(dir.path()).await.stop().await;
    let mut other_node = single(dir.path());
    other_node.id = 2;
    refused(other_node, &["belongs to node 1", "check the configured directory"]).await;
    let mut other_cluster = single(dir.path());
    other_cluster.cluster = 8;
    refused(other_cluster, &["belongs to node 1 of cluster", "check the configured directory"]).await;
    founded(dir.path()).await.stop().await;
}

#[tokio::test]
async fn a_damaged_snapshot_is_refused_with_file_and_offset() {
    let dir = tempfile::tempdir().unwrap();
    let node = founded(dir.path()).await;
    node.snapshot(Duration::from_secs(20)).await.unwrap();
    node.stop().await;
    let snapshots = contents(&dir.path().join("snapshots"));
    let (file, bytes) = snapshots.iter().next().expect("a snapshot");
    let mut damaged = bytes.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 4;
    fs::write(file, damaged).unwrap();
    refused(single(dir.path()), &[file.file_name().unwrap().to_str().unwrap(), "offset"]).await;
    fs::write(file, bytes).unwrap();
    founded(dir.path()).await.stop().await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_and_an_address_in_use_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    refused_without_directory(single(&file.join("below"))).await;
    let node = founded(&dir.path().join("one")).await;
    let mut second = single(&dir.path().join("two"));
    second.listen = node.address().unwrap().to_string();
    let error = Node::start(second).await.unwrap_err();
    assert!(error.to_string().contains("cannot listen on"), "{error}");
    assert!(!dir.path().join("two").exists(), "nothing was made");
}

async fn refused_without_directory(config: NodeConfig) {
    let error = Node::start(config).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn timing_that_cannot_work_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = single(dir.path());
    config.heartbeat = Duration::from_secs(60);
    let error = Node::start(config).await.unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
    let mut config = single(dir.path());
    config.id = 0;
    assert!(matches!(Node::start(config).await, Err(Error::InvalidArgument { .. })));
}

/// Whatever is said on the peer port, the node lives, answers its users, and ends the connection in bounded time.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_peer_port_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let node = founded(dir.path()).await;
    let mut random = fastrand::Rng::with_seed(1);
    let mut oversized = vec![0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0];
    oversized.extend_from_slice(&[7; 4096]);
    let mut sayings = vec![Vec::new(), b"GET / HTTP/1.1\r\n\r\n".to_vec(), oversized, vec![0; 100_000]];
    for length in [1, 7, 8, 9, 45, 53, 1000, 100_000] {
        sayings.push(std::iter::repeat_with(|| random.u8(..)).take(length).collect());
    }
    let mut connections = Vec::new();
    for saying in &sayings {
        let mut connection = TcpStream::connect(node.address().unwrap()).await.unwrap();
        // It may be refused half-way.
        let _ = connection.write_all(saying).await;
        connections.push(connection);
    }
    node.store().put(&Key::try_from("b").unwrap(), "2").await.unwrap();
    for (mut connection, saying) in connections.into_iter().zip(&sayings) {
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(60), connection.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "still open after {} bytes of garbage", saying.len());
        assert!(answer.len() < 1024, "{} bytes of answer to garbage", answer.len());
    }
}

/// Connections that are opened and say nothing are let go, and a node has room for its peers again.
#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_are_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let node = founded(dir.path()).await;
    let mut silent = Vec::new();
    for _ in 0..600 {
        silent.push(TcpStream::connect(node.address().unwrap()).await.unwrap());
    }
    for mut connection in silent {
        let mut byte = [0];
        let ended = tokio::time::timeout(Duration::from_secs(60), connection.read(&mut byte)).await;
        assert!(ended.is_ok(), "a silent connection is still open");
    }
}
