//! A process that writes is killed again and again: what it was told to be committed is there, and nothing else is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use file_backend::FileStore;
use storage_core::{Key, ReadOptions, Store, StoreExt};

/// Names the directory for the process that is to be killed.
const DIRECTORY: &str = "FILE_BACKEND_CRASH_DIRECTORY";
/// How often the process is killed.
const ROUNDS: usize = 8;

#[tokio::test]
async fn killed_at_any_moment_a_store_has_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "write_until_killed", "--ignored", "--nocapture"])
            .env(DIRECTORY, &dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut numbers = lines.filter_map(|line| line.strip_prefix("committed ").map(|n| n.parse::<u64>().unwrap()));
        acknowledged = numbers.nth(3 + round).expect("the process writes");
        child.kill().unwrap();
        // What it said before it was dead.
        acknowledged = numbers.last().unwrap_or(acknowledged);
        child.wait().unwrap();
        let found = last(&dir).await;
        assert!((acknowledged..=acknowledged + 1).contains(&found), "{acknowledged} acknowledged, {found} found");
    }
    assert!(acknowledged > ROUNDS as u64);
}

#[tokio::test]
#[ignore = "runs in the process that the other test kills"]
async fn write_until_killed() {
    let dir = env::var_os(DIRECTORY).expect("started by the other test");
    let (mut number, dir) = (last(Path::new(&dir)).await, Path::new(&dir));
    let store = FileStore::open(dir).await.unwrap();
    loop {
        number += 1;
        store.put(&key(), number.to_string()).await.unwrap();
        println!("committed {number}");
    }
}

/// The last number that was written, 0 if there is none.
async fn last(dir: &Path) -> u64 {
    let store = FileStore::open(dir).await.unwrap();
    let entry = store.get(&key(), ReadOptions::default()).await.unwrap();
    store.close().await.unwrap();
    entry.map_or(0, |entry| std::str::from_utf8(&entry.value).unwrap().parse().unwrap())
}

fn key() -> Key {
    Key::try_from("number").unwrap()
}
