//! A node that is removed while its process runs.

use super::*;

/// What a supervisor sees: the process ends by itself, with a code of its own, each time that it is started.
#[tokio::test(flavor = "multi_thread")]
async fn the_process_of_a_removed_node_ends_with_a_code_of_its_own() {
    let mut cluster = start(init("embedded"), 3).await;
    for index in 0..3 {
        says(&cluster, index, "ready: the cluster serves");
    }
    let [all, rest] = [3, 2].map(|nodes| (0..nodes).map(|at| endpoint(&cluster, at)).collect::<Vec<_>>().join(","));
    let members = patiently(&["storage", "member", "list", "--output", "json", "--endpoints", &rest]);
    let members: serde_json::Value = serde_json::from_str(&members).unwrap();
    let member = members["members"].as_array().unwrap().iter().find(|member| member["name"] == "n2").unwrap();
    patiently(&["storage", "member", "remove", member["id"].as_str().unwrap(), "--endpoints", &rest]);
    says(&cluster, 2, "it was removed from its cluster");
    eventually("the end of its process", || (!cluster.is_running(2).unwrap()).then_some(()));

    let node = cluster.node(2).unwrap();
    let context = node.context();
    let urls: Vec<_> = (0..3).map(|index| peer_url(cluster.node(index).unwrap().context()).unwrap()).collect();
    let initial = format!("n0={},n1={},n2={}", urls[0], urls[1], urls[2]);
    for _ in 0..2 {
        let again = Command::new(env!("CARGO_BIN_EXE_snet"))
            .args([
                "storage",
                "init",
                "--name",
                "n2",
                "--token",
                context.token(),
                "--client-url",
                &endpoint(&cluster, 2),
            ])
            .args(["--peer-url", &urls[2], "--initial-cluster", &initial, "--data-dir"])
            .arg(context.dir().join("n2.storage"))
            .output()
            .unwrap();
        assert_eq!(again.status.code(), Some(6), "{again:?}");
        let told = stderr(&again);
        assert!(told.contains("the node of this directory was removed from its cluster"), "{told}");
        assert!(told.contains(&format!("member add --peer-url {}", urls[2])), "{told}");
    }

    // Clients that still have its URL among theirs are served, and so are their watches.
    patiently(&["storage", "put", "channel/7", "open", "--endpoints", &all]);
    let store = storage::open(&format!("etcd://{}", all.replace("http://", ""))).await.unwrap();
    for _ in 0..20 {
        let options = storage::WatchOptions { timeout: DEADLINE, ..Default::default() };
        let watch = storage::Store::watch(&*store, b"channel/", options).await.unwrap();
        drop(watch);
    }
    store.close().await.unwrap();
}
