//! Snapshots of clusters, and clusters of snapshots.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use futures::StreamExt as _;
use storage::{Key, Revision, ScanOptions, Store as _, StoreExt as _, WatchOptions};
use storage_testkit::{programs, server::Reservation};

use super::{
    DEADLINE, Running,
    common::{json, snet, stderr, stdout, told},
    endpoint, eventually, init, says, start,
};

/// Saved under load, restored twice: into a new cluster that has everything, and not into the directory that is there then.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_was_saved_under_load_becomes_a_new_cluster() {
    let cluster = start(init("embedded"), 3).await;
    for index in 0..3 {
        says(&cluster, index, "ready: the cluster serves");
    }
    let all = (0..3).map(|index| endpoint(&cluster, index)).collect::<Vec<_>>().join(",");
    let url = format!("etcd://{}", all.replace("http://", ""));
    let store = storage::open(&url).await.unwrap();
    for number in 0..200 {
        store.put(&Key::new(format!("channel/{number:03}")).unwrap(), format!("value {number}")).await.unwrap();
    }
    store.delete(&Key::new("channel/000").unwrap()).await.unwrap();
    let before: Vec<_> = store.scan(b"channel/", ScanOptions::default()).await.unwrap().entries;
    let loading = {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0_u64.. {
                let key = Key::new(format!("load/{}", number % 7)).unwrap();
                // It goes on until the store is closed.
                if store.put(&key, number.to_string()).await.is_err() {
                    return;
                }
            }
        })
    };
    let file = cluster.dir().unwrap().join("saved");
    let file = file.to_str().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut ports = Reservation::default();
    let ports: Vec<_> = (0..6).map(|_| format!("http://127.0.0.1:{}", ports.port().unwrap())).collect();
    let members: Vec<_> = (0..3).map(|index| format!("n{index}={}", ports[index])).collect();
    let data = |index: usize| dir.path().join(format!("data/n{index}"));
    let restore = |index: usize, file: &str, more: &[&str]| {
        let (name, data) = (format!("n{index}"), data(index));
        let place = ["--name", &name, "--data-dir", data.to_str().unwrap(), "--initial-cluster", &members.join(",")];
        snet(
            &[&["storage", "snapshot", "restore", file, "--token", "new", "--output", "json"], &place[..], more]
                .concat(),
        )
    };
    tokio::task::block_in_place(|| {
        told(&["storage", "snapshot", "save", file, "--seconds", "60", "--endpoints", &all])
    });
    store.close().await.unwrap();
    loading.await.unwrap();

    // Cut or changed anywhere, it is refused, and there is nothing then.
    let whole = fs::read(file).unwrap();
    let bad = dir.path().join("bad");
    let bad = bad.to_str().unwrap();
    let offsets = [0, 9, 12, 20, whole.len() / 3, whole.len() / 2, whole.len() - 33, whole.len() - 1];
    for offset in offsets {
        let mut flipped = whole.clone();
        flipped[offset] ^= 0x10;
        for damaged in [&flipped[..], &whole[..offset]] {
            fs::write(bad, damaged).unwrap();
            let refused = restore(0, bad, &[]);
            assert_eq!(refused.status.code(), Some(1), "{offset}: {refused:?}");
            assert!(stderr(&refused).contains("damaged or not whole"), "{refused:?}");
            assert!(!dir.path().join("data").exists(), "{offset}");
        }
    }

    let mut revisions = Vec::new();
    for index in 0..3 {
        let restored = restore(index, file, &["--bump-revision", "1000000"]);
        assert!(restored.status.success(), "{restored:?}");
        let restored: serde_json::Value = serde_json::from_str(&stdout(&restored)).unwrap();
        revisions.push(restored["revision"].as_u64().unwrap());
        assert!(restored["keys"].as_u64().unwrap() >= 199, "{restored}");
    }
    assert!(revisions[0] > 1_000_200 && revisions.iter().all(|revision| *revision == revisions[0]), "{revisions:?}");
    let again = restore(0, file, &[]);
    assert!(again.status.code() == Some(2) && stderr(&again).contains("has something in it"), "{again:?}");
    let nobody = restore(7, file, &[]);
    assert!(nobody.status.code() == Some(2) && stderr(&nobody).contains("no node `n7`, only n0, n1, n2"), "{nobody:?}");
    let left: Vec<_> = fs::read_dir(dir.path().join("data")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");

    let nodes: Vec<_> = (0..3)
        .map(|index| {
            let mut node = Command::new(env!("CARGO_BIN_EXE_snet"));
            node.args([
                "storage",
                "init",
                "--token",
                "new",
                "--log-level",
                "error",
                "--initial-cluster",
                &members.join(","),
            ])
            .args(["--name", &format!("n{index}"), "--peer-url", &ports[index], "--client-url", &ports[3 + index]])
            .arg("--data-dir")
            .arg(data(index))
            .stdout(Stdio::null());
            Running(node.spawn().unwrap())
        })
        .collect();
    let url = format!("etcd://{}", ports[3..].join(",").replace("http://", ""));
    let store = storage::open(&url).await.unwrap();
    let deadline = Instant::now() + DEADLINE;
    while store.ping(storage::ReadOptions::default()).await.is_err() {
        assert!(Instant::now() < deadline, "the new cluster does not serve");
    }
    let after: Vec<_> = store.scan(b"channel/", ScanOptions::default()).await.unwrap().entries;
    assert_eq!(before, after, "keys, values and versions");
    let written = store.put(&Key::new("new").unwrap(), "x").await.unwrap();
    assert!(written.to_u64().unwrap() > revisions[0], "{written:?}");
    let stale = WatchOptions::default().after(Revision(100));
    let missed = match store.watch(b"", stale).await {
        Ok(mut events) => events.next().await.unwrap().unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(missed, storage::Error::Compacted { .. }), "{missed:?}");
    // Each node has it, not only the one that leads.
    for url in &ports[3..] {
        let value = told(&["storage", "get", "channel/199", "--value-only", "--endpoints", url]);
        assert_eq!(value, "value 199");
    }
    drop(nodes);
}

/// By etcd's own program, which `snet` runs; of a snapshot of the embedded engine that program makes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_an_etcd_becomes_a_new_etcd() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (of_etcd, of_embedded) = (path("etcd.snapshot"), path("embedded.snapshot"));
    let (etcd, embedded) = (start(init("etcd"), 1).await, start(init("embedded"), 1).await);
    for (cluster, file, engine) in [(&etcd, &of_etcd, "etcd"), (&embedded, &of_embedded, "embedded")] {
        says(cluster, 0, "ready: the cluster serves");
        let url = endpoint(cluster, 0);
        told(&["storage", "put", "channel/7", "open", "--endpoints", &url]);
        told(&["storage", "snapshot", "save", file, "--endpoints", &url]);
        let status = json(&["storage", "snapshot", "status", file]);
        assert_eq!(
            (&status["engine"], status["bytes"].as_u64()),
            (&engine.into(), Some(fs::metadata(file).unwrap().len()))
        );
    }

    let mut ports = Reservation::default();
    let [client, peer] = [(); 2].map(|()| format!("http://127.0.0.1:{}", ports.port().unwrap()));
    let etcdutl = programs::find("etcdutl").unwrap_or_else(|error| panic!("{error}"));
    let restore = |file: &str, data: &str, etcdutl: &Path, engine: &str| {
        let mut restore = Command::new(env!("CARGO_BIN_EXE_snet"));
        restore.args(["storage", "snapshot", "restore", file, "--name", "n0", "--token", "new", "--output", "json"]);
        restore.args(["--data-dir", data, "--bump-revision", "1000000", "--initial-cluster", &format!("n0={peer}")]);
        restore.env("ETCDUTL_BIN", etcdutl).env("SNET_STORAGE_ENGINE", engine).output().unwrap()
    };
    let data = path("data");
    for (file, program, engine, code, expected) in [
        (&of_embedded, etcdutl.as_path(), "etcd", 2, "is the snapshot of an embedded node"),
        (&of_etcd, etcdutl.as_path(), "embedded", 2, "for that of an etcd, say `--engine etcd`"),
        (&of_etcd, Path::new("/no/such/etcdutl"), "etcd", 3, "etcdutl snapshot restore"),
    ] {
        let refused = restore(file, &data, program, engine);
        assert!(refused.status.code() == Some(code) && stderr(&refused).contains(expected), "{expected}: {refused:?}");
        assert!(!Path::new(&data).exists(), "{expected}");
    }
    let status = |file: &str| Command::new(&etcdutl).args(["snapshot", "status", file]).output().unwrap();
    assert!(status(&of_etcd).status.success());
    let foreign = status(&of_embedded);
    assert!(!foreign.status.success() && stderr(&foreign).contains("invalid database"), "{foreign:?}");

    let restored = restore(&of_etcd, &data, &etcdutl, "etcd");
    assert!(restored.status.success(), "{restored:?}");
    let told_of: serde_json::Value = serde_json::from_str(&stdout(&restored)).unwrap();
    assert_eq!(told_of["data_dir"], data.as_str());
    let mut node = Command::new(env!("CARGO_BIN_EXE_snet"));
    node.args(["storage", "init", "--name", "n0", "--token", "new", "--engine", "etcd", "--data-dir", &data]);
    node.args(["--client-url", &client, "--peer-url", &peer, "--initial-cluster", &format!("n0={peer}")]);
    node.args(["--log-level", "error"]).env("ETCD_BIN", programs::find("etcd").unwrap()).stdout(Stdio::null());
    let _node = Running(node.spawn().unwrap());
    let entry = eventually("the new cluster", || {
        let read = snet(&["storage", "get", "channel/7", "--endpoints", &client, "--output", "json"]);
        read.status.success().then(|| serde_json::from_slice::<serde_json::Value>(&read.stdout).unwrap())
    });
    assert_eq!(entry["value"], "open");
    let next = json(&["storage", "put", "channel/8", "open", "--endpoints", &client]);
    assert!(next["revision"].as_u64().is_none_or(|revision| revision > 1_000_000), "{next}");
}
