//! The last resort: a new cluster of what one replica holds.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::Value;
use storage::{Key, ReadOptions, Store, StoreExt as _};

use super::{
    common::{json, snet, stderr, stdout, told},
    eventually, first_of,
    growing::{DEAD_AFTER, Replicas, leader_of, replica, roles},
    stays, three_of,
};

/// `snet storage cluster recover` on the machine of a replica, with nobody at the keyboard.
fn recover(replicas: &Replicas, replica: usize, more: &[&str]) -> Output {
    let file = replicas.config(replica);
    Command::new(env!("CARGO_BIN_EXE_snet"))
        .current_dir(file.parent().unwrap())
        .args(["storage", "cluster", "recover", "--config", "cluster.toml", "--replica", &replica.to_string()])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

const KNOWN: &str = "--i-know-that-acknowledged-writes-may-be-lost";

/// It was refused, with this exit code and for this reason, and nothing was changed.
#[track_caller]
fn refused(output: &Output, code: i32, why: &str) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(stderr(output).contains(why), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_cluster_that_is_not_lost_is_not_recovered_and_what_it_holds_can_be_saved() {
    let mut replicas = first_of(2);
    let url = format!("http://{}", replicas.cluster.node(0).unwrap().client_url());
    told(&["storage", "put", "channel/1", "open", "--endpoints", &url]);
    replicas.start(2, "join");
    replicas.until_count(2, 1);
    let cluster = text(&replicas.identity(1).unwrap(), "cluster").to_owned();
    refused(&recover(&replicas, 1, &[KNOWN, &cluster]), 2, "another process uses");
    replicas.kill(2);
    refused(&recover(&replicas, 2, &[KNOWN, &cluster]), 2, "had no node");
    replicas.kill(1);
    refused(&recover(&replicas, 1, &[KNOWN, &cluster]), 4, "is a majority of its voters by itself");
    refused(&recover(&replicas, 1, &[KNOWN, "yes"]), 2, "no id of a cluster");
    assert_eq!(replicas.identity(1).unwrap()["cluster"], *cluster);

    // What the stopped node holds, from its own directory and from that of the replica.
    let (dir, place) = (replicas.dir(1), tempfile::tempdir().unwrap());
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let salvage = |name: &str, dir: &Path| {
        let found = json(&["storage", "snapshot", "salvage", &path(name), "--data-dir", dir.to_str().unwrap()]);
        assert!(told(&["storage", "snapshot", "status", &path(name)]).contains("embedded"));
        found
    };
    let (one, other) = (salvage("one", &dir), salvage("other", &dir.join("node")));
    assert_eq!(text(&one, "cluster"), cluster);
    for what in ["keys", "revision", "last_index", "last_term", "committed_index"] {
        assert!(one[what].is_u64() && one[what] == other[what], "{what}: {one} {other}");
    }
    let again = ["storage", "snapshot", "salvage", &path("one"), "--data-dir", dir.to_str().unwrap()];
    refused(&snet(&again), 2, "is there already");
    refused(&snet(&["storage", "snapshot", "salvage", "x", "--data-dir", &path(".")]), 2, "has no data of a node");
    let restore =
        ["storage", "snapshot", "restore", &path("one"), "--name", "a", "--token", "t", "--data-dir", &path("a")];
    let restored = json(&[&restore[..], &["--initial-cluster", "a=http://127.0.0.1:1"]].concat());
    assert_eq!(restored["keys"], one["keys"]);

    // It goes on as if nothing had been.
    replicas.start(1, "join");
    replicas.until_voters(&[1]);
    assert_eq!(told(&["storage", "get", "channel/1", "--value-only", "--endpoints", &url]), "open");
    replicas.wipe(2);
    refused(&recover(&replicas, 2, &[KNOWN, &cluster]), 2, "has no data");
}

#[test]
fn of_an_etcd_it_is_said_which_programs_do_it() {
    let mut replicas = Replicas::new(1, "etcd");
    // It founds nothing: the file is what matters.
    replicas.start(1, "join");
    replicas.kill(1);
    refused(&recover(&replicas, 1, &[KNOWN, "1"]), 2, "etcdutl snapshot restore");
}

/// Writes until it is stopped, and remembers what was acknowledged.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    acknowledged: Mutex<BTreeMap<String, String>>,
}

impl Load {
    fn start(url: &str) -> (Arc<Self>, Vec<tokio::task::JoinHandle<()>>) {
        let load = Arc::new(Self::default());
        let clients = (0..4).map(|client| {
            let (load, url) = (Arc::clone(&load), url.to_owned());
            tokio::spawn(async move {
                let store = storage::open(&url).await.unwrap();
                for number in 0_u64.. {
                    if load.stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let (key, value) = (format!("load/{client}/{}", number % 300), number.to_string());
                    if store.put(&Key::new(key.clone()).unwrap(), value.clone()).await.is_ok() {
                        load.acknowledged.lock().unwrap().insert(key, value);
                    }
                }
                let _ = store.close().await;
            })
        });
        let clients = clients.collect();
        (load, clients)
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// All that was acknowledged is there.
    async fn check(&self, url: &str) {
        let store = storage::open(url).await.unwrap();
        let acknowledged = self.acknowledged.lock().unwrap().clone();
        for (key, value) in &acknowledged {
            let found = store.get(&Key::new(key.clone()).unwrap(), ReadOptions::default()).await.unwrap();
            let found = found.unwrap_or_else(|| panic!("{key} is lost"));
            assert_eq!(found.value, value.as_bytes(), "{key}");
        }
        let _ = store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: cargo test -p snet --features etcd --test storage_growing -- --ignored --test-threads 1 --nocapture"]
async fn two_of_three_voters_are_lost_with_their_disks_and_every_acknowledged_write_is_there() {
    let mut replicas = three_of(3);
    let before = replicas.show().unwrap();
    let cluster = text(&before, "cluster").to_owned();
    let (load, clients) = Load::start(&replicas.url());
    eventually("some load", || (load.count() >= 800).then_some(()));
    load.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let leader = leader_of(&before).unwrap();
    let survivor = (1..=3).rev().find(|id| *id != leader).unwrap();
    let others: Vec<_> = (1..=3).filter(|id| *id != survivor).collect();
    let url = |replicas: &Replicas, replica: usize| {
        format!("http://{}", replicas.cluster.node(replica - 1).unwrap().client_url())
    };
    let status = |replicas: &Replicas, replica: usize, what: &str| {
        let told = json(&["storage", "status", "--endpoints", &url(replicas, replica)]);
        let found = told.to_string();
        let at = found.find(&format!("\"{what}\":")).unwrap_or_else(|| panic!("no {what} in {found}")) + what.len() + 3;
        found[at..].chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u64>().unwrap()
    };
    // A write that was acknowledged was applied where the leader was.
    let goal = status(&replicas, leader, "applied_index");
    eventually("the survivor has all of it", || (status(&replicas, survivor, "applied_index") >= goal).then_some(()));

    refused(&recover(&replicas, survivor, &[KNOWN, &cluster]), 2, "another process uses");
    replicas.kill(survivor);
    refused(&recover(&replicas, survivor, &[KNOWN, &cluster]), 4, "is not lost");
    replicas.kill(others[0]);
    refused(&recover(&replicas, survivor, &[KNOWN, &cluster]), 4, "is not lost");
    replicas.kill(others[1]);
    let old = tempfile::tempdir().unwrap();
    copy(&replicas.dir(others[0]), old.path());
    for other in &others {
        replicas.wipe(*other);
    }
    refused(&recover(&replicas, survivor, &[]), 2, "nobody is there to answer");
    refused(&recover(&replicas, others[0], &[KNOWN, &cluster]), 2, "has no data");
    let other_id = if cluster.starts_with('0') { "1" } else { "0" }.to_owned() + &cluster[1..];
    refused(&recover(&replicas, survivor, &[KNOWN, &other_id]), 2, &format!("is of cluster {cluster}, not of"));
    assert_eq!(replicas.identity(survivor).unwrap()["cluster"], *cluster);
    let recovered = recover(&replicas, survivor, &[KNOWN, &cluster]);
    assert!(recovered.status.success(), "{recovered:?}");
    println!("{}{}", stderr(&recovered), stdout(&recovered));
    for said in ["LAST RESORT", "WHAT MAY BE LOST", "MUST NEVER HAPPEN", "r1", "r2", "r3"] {
        assert!(stderr(&recovered).contains(said), "{recovered:?}");
    }
    let kept = replicas.dir(survivor).with_file_name(format!("r{survivor}.lost-{cluster}"));
    assert!(kept.join("node/identity").exists());
    refused(&recover(&replicas, survivor, &[KNOWN, &cluster]), 4, "is a majority of its voters by itself");

    replicas.start(survivor, "join");
    let shown = replicas.until_voters(&[survivor]);
    let new = text(&shown, "cluster").to_owned();
    assert_ne!(new, cluster);
    load.check(&format!("etcd://{}", url(&replicas, survivor).replace("http://", ""))).await;
    // Nothing of a table is among the keys, and in that of the new cluster is the survivor alone.
    let found = json(&["storage", "scan", "snet/", "--endpoints", &url(&replicas, survivor)]);
    assert_eq!(found["entries"].as_array().map(Vec::len), Some(0), "{found}");
    assert_eq!(shown["replicas"].as_array().map(Vec::len), Some(1), "{shown:#}");

    // A lost voter that is started with a copy of its old disk neither gets in nor serves.
    let back = others[0];
    copy(old.path(), &replicas.dir(back));
    // Two recoveries would be two clusters with one token.
    refused(&recover(&replicas, back, &[KNOWN, &cluster]), 4, "another cluster answers: replica");
    replicas.start(back, "join");
    eventually("its node runs without a leader", || {
        let status = snet(&["storage", "status", "--endpoints", &url(&replicas, back)]);
        stderr(&status).contains("knows no leader").then_some(())
    });
    eventually("the survivor's node refuses it", || replicas.log(survivor).contains("other_cluster").then_some(()));
    eventually("it says why", || replicas.log(back).contains(&format!("is of another cluster, {new}")).then_some(()));
    stays("the old voter is not in the new cluster and serves nothing", DEAD_AFTER * 2, || {
        let get = snet(&["storage", "get", "load/0/1", "--seconds", "1", "--endpoints", &url(&replicas, back)]);
        let put = snet(&["storage", "put", "load/0/1", "no", "--seconds", "1", "--endpoints", &url(&replicas, back)]);
        replicas.identity(back).unwrap()["cluster"] == *cluster && !get.status.success() && !put.status.success()
    });
    let shown = replicas.until("the new cluster", |shown| leader_of(shown) == Some(survivor));
    assert_eq!((text(&shown, "cluster"), roles(&shown, "voter")), (&*new, vec![survivor]));
    assert_eq!(replica(&shown, back), &Value::Null, "{shown:#}");

    for other in &others {
        replicas.wipe(*other);
        replicas.start(*other, "join");
    }
    let shown = replicas.until_voters(&[1, 2, 3]);
    assert_eq!(text(&shown, "cluster"), new);
    load.check(&replicas.url()).await;
}
