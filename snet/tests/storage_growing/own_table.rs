//! The cluster's own table is nobody else's: a client that deletes everything and writes everywhere changes nothing of the cluster.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use serde_json::Value;
use storage::{Entry, Key, ScanOptions, Store, StoreExt as _};

use super::{
    common::{json, snet, stdout},
    eventually, first_of,
    growing::{DEAD_AFTER, Replicas, changes, leader_of, replica, roles, settled},
    stays, three_of, three_started,
};

async fn open(replicas: &Replicas) -> Arc<dyn Store> {
    storage::open(&replicas.url()).await.unwrap()
}

async fn everything(store: &dyn Store) -> Vec<Entry> {
    let (mut entries, mut options) = (Vec::new(), ScanOptions::default());
    loop {
        let page = store.scan(b"", options.clone()).await.unwrap();
        entries.extend(page.entries);
        match page.next {
            Some(next) => options = options.after(next),
            None => return entries,
        }
    }
}

/// The nodes of replicas, by what their disks say, and what lies beside their data.
fn disks(replicas: &Replicas, count: usize) -> Vec<(Value, Vec<PathBuf>)> {
    let disk = |replica| {
        let dir = replicas.dir(replica);
        let names = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
        let mut names: Vec<_> =
            names.filter(|name| name.file_name().unwrap().to_str().unwrap().starts_with("node")).collect();
        names.sort();
        (replicas.identity(replica).unwrap()["node"]["id"].clone(), names)
    };
    (1..=count).map(disk).collect()
}

/// Ten heartbeats of each replica go by, and no disk changes.
#[track_caller]
fn nobody_is_wiped(replicas: &Replicas, before: &[(Value, Vec<PathBuf>)]) {
    stays("a node was given up", DEAD_AFTER, || disks(replicas, before.len()) == before);
}

/// What the rows of an earlier release looked like that a node took for its end.
fn forged(api_cluster: &str, nodes: &[Value]) -> BTreeMap<String, String> {
    let mut rows = BTreeMap::from([("mine".to_owned(), "1".to_owned())]);
    for (node, id) in nodes.iter().zip(1..) {
        let node = node.as_u64().unwrap();
        for prefix in ["snet/membership/", "membership/", "etcd_api/", ""] {
            let row = format!(r#"{{"replica":{id},"incarnation":{id},"is_gone":true}}"#);
            rows.insert(format!("{prefix}{api_cluster}/node/{node:016x}"), row.clone());
            rows.insert(format!("{prefix}{api_cluster}/leaving/{id}"), "true".to_owned());
            rows.insert(format!("{prefix}{api_cluster}/replica/{id}"), row);
            rows.insert(format!("{prefix}{api_cluster}/cluster"), r#"{"id":"0","proof":""}"#.to_owned());
            rows.insert(format!("{prefix}{api_cluster}/change"), "{}".to_owned());
        }
    }
    rows
}

/// The id of the cluster, as clients of etcd see it.
fn api_cluster(replicas: &Replicas) -> String {
    let url = format!("http://{}", replicas.cluster.node(0).unwrap().client_url());
    let told = json(&["storage", "status", "--endpoints", &url]).to_string();
    let at = told.find("\"cluster\":").unwrap() + "\"cluster\":".len();
    let id: String = told[at..].trim_start_matches('"').chars().take_while(char::is_ascii_alphanumeric).collect();
    // A number, or hexadecimal digits.
    id.parse::<u64>().map_or_else(|_| format!("{id:0>16}"), |number| format!("{number:016x}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_neither_sees_the_table_nor_wipes_anybody_by_deleting_and_writing_everything() {
    let mut replicas = three_of(3);
    let store = open(&replicas).await;
    let kept = Key::new("channel/7").unwrap();
    store.put(&kept, "open").await.unwrap();
    assert_eq!(everything(&*store).await.len(), 1, "nothing of the table is listed");
    let (before, disks_before) = (replicas.show().unwrap(), disks(&replicas, 3));
    let nodes: Vec<_> = disks_before.iter().map(|(node, _)| node.clone()).collect();
    let forged = forged(&api_cluster(&replicas), &nodes);
    for (name, row) in &forged {
        store.put(&Key::new(name.clone()).unwrap(), row.clone()).await.unwrap();
    }
    assert_eq!(everything(&*store).await.len(), forged.len() + 1, "they are keys like any other");
    nobody_is_wiped(&replicas, &disks_before);
    for entry in everything(&*store).await {
        store.delete(&entry.key).await.unwrap();
    }
    store.put(&kept, "open again").await.unwrap();
    nobody_is_wiped(&replicas, &disks_before);
    let after = replicas.until_voters(&[1, 2, 3]);
    assert_eq!((after["cluster"].clone(), changes(&after)), (before["cluster"].clone(), changes(&before)), "{after:#}");
    assert_eq!(after["unproved_rows"], Value::Array(Vec::new()));
    assert_eq!(disks(&replicas, 3), disks_before);

    // A copy has the client's key alone, and so has another cluster after it.
    let mut other = first_of(1);
    let copied = snet(&["storage", "copy", "--from", &replicas.url(), "--to", &other.url(), "--output", "json"]);
    assert!(copied.status.success(), "{copied:?}");
    assert_eq!(serde_json::from_str::<Value>(&stdout(&copied)).unwrap()["keys"], 1);
    other.until_voters(&[1]);
    other.kill(1);

    // Membership goes on.
    let victim = (1..=3).find(|id| Some(*id) != leader_of(&after)).unwrap();
    replicas.wipe(victim);
    replicas.start(victim, "join");
    replicas.until("the one that has lost its disk votes with another node", |shown| {
        roles(shown, "voter") == [1, 2, 3]
            && replica(shown, victim)["node"] != replica(&after, victim)["node"]
            && settled(shown)
    });
    assert_eq!(store.get(&kept, Default::default()).await.unwrap().unwrap().value, "open again");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: cargo test -p snet --features etcd --test storage_growing -- --ignored --test-threads 1 --nocapture"]
async fn of_an_etcd_the_rows_are_deleted_and_forged_and_its_members_stay() {
    let mut replicas = three_started(Replicas::new(3, "etcd"));
    let store = open(&replicas).await;
    let kept = Key::new("channel/7").unwrap();
    let (before, disks_before) = (replicas.show().unwrap(), disks(&replicas, 3));
    let nodes: Vec<_> = disks_before.iter().map(|(node, _)| node.clone()).collect();
    let forged = forged(&api_cluster(&replicas), &nodes);
    let proved = everything(&*store).await;
    assert!(proved.iter().any(|entry| entry.key.starts_with(b"snet/membership/")), "an etcd has nothing but keys");
    for (name, row) in &forged {
        store.put(&Key::new(name.clone()).unwrap(), row.clone()).await.unwrap();
    }
    eventually("the leader names what is not proved", || {
        (1..=3).any(|replica| replicas.log(replica).contains("not proved by its token")).then_some(())
    });
    replicas.until("rows that nobody writes over are named, and the others are right again", |shown| {
        shown["unproved_rows"].as_array().unwrap().contains(&Value::from("leaving/1"))
            && roles(shown, "voter") == [1, 2, 3]
    });
    nobody_is_wiped(&replicas, &disks_before);
    for _ in 0..3 {
        for entry in everything(&*store).await {
            store.delete(&entry.key).await.unwrap();
        }
        nobody_is_wiped(&replicas, &disks_before);
    }
    // Rows that were right once.
    for entry in &proved {
        store.put(&entry.key, entry.value.clone()).await.unwrap();
    }
    store.put(&kept, "open").await.unwrap();
    nobody_is_wiped(&replicas, &disks_before);
    let after = replicas.until_voters(&[1, 2, 3]);
    assert_eq!(after["cluster"], before["cluster"]);
    assert_eq!(disks(&replicas, 3), disks_before, "{after:#}");
    for id in 1..=3 {
        assert_eq!(replica(&after, id)["node"], replica(&before, id)["node"], "{after:#}");
    }
    let victim = (1..=3).find(|id| Some(*id) != leader_of(&after)).unwrap();
    replicas.wipe(victim);
    replicas.start(victim, "join");
    replicas.until("the one that has lost its disk votes with another node", |shown| {
        roles(shown, "voter") == [1, 2, 3]
            && replica(shown, victim)["node"] != replica(&after, victim)["node"]
            && settled(shown)
    });
}
