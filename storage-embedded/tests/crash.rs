//! What a node finds in its directory when it starts again. Nodes that are killed under load are in soak/tests/soak.rs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

use storage_core::{Error, Key, ReadOptions, Store, StoreExt};
use storage_embedded::{Node, NodeConfig};

/// A node that has written to its log and was stopped; the directory stays.
async fn a_written_directory(dir: &Path, writes: u32) {
    let node = Node::start(single(dir)).await.unwrap();
    let store = node.store();
    for number in 0..writes {
        store.put(&key(number), number.to_string()).await.unwrap();
    }
    node.stop().await;
}

fn single(dir: &Path) -> NodeConfig {
    let mut config = NodeConfig::new(1, 7, dir, "127.0.0.1:0").fast();
    config.founders.insert(1, storage_embedded::Member { name: "n1".into(), ..Default::default() });
    config
}

fn key(number: u32) -> Key {
    Key::new(format!("key-{number}")).unwrap()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut rooms = vec![dir.to_path_buf()];
    while let Some(room) = rooms.pop() {
        for entry in std::fs::read_dir(room).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                rooms.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_flipped_bit_in_synced_data_is_reported_with_file_and_offset_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    a_written_directory(dir.path(), 5).await;
    let file = segments(dir.path()).pop().expect("a segment");
    let mut bytes = std::fs::read(&file).unwrap();
    let needle = b"key-2";
    let place = bytes.windows(needle.len()).position(|window| window == needle).expect("the key stands in the log");
    bytes[place] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let error = Node::start(single(dir.path())).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(text.contains(file.file_name().unwrap().to_str().unwrap()), "names the file: {text}");
    assert!(text.contains("offset"), "names the offset: {text}");
    assert_eq!(std::fs::read(&file).unwrap(), bytes, "the damaged file is left for an operator to look at");
}

#[tokio::test]
async fn a_stopped_node_has_everything_when_it_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    a_written_directory(dir.path(), 100).await;
    let node = Node::start(single(dir.path())).await.unwrap();
    let store = node.store();
    for number in 0..100 {
        let entry = store.get(&key(number), ReadOptions::default()).await.unwrap().expect("a key");
        assert_eq!(entry.value, number.to_string());
    }
    node.stop().await;
}
