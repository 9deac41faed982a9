//! Clusters as people run them: processes of `snet storage init` and `snet storage serve`, on loopback.
#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;
#[path = "storage_cluster/etcdctl.rs"]
mod etcdctl;
#[path = "storage_cluster/first_start.rs"]
mod first_start;
#[path = "storage_cluster/removed.rs"]
mod removed;
#[path = "storage_cluster/snapshots.rs"]
mod snapshots;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{json, snet, stderr, stdout, told};
use storage_testkit::{
    programs,
    server::{Cluster, ClusterOptions, Launch, NodeContext, Reservation, ServerError, ServerSpec},
};

/// However busy the machine is, it is done by then.
const DEADLINE: Duration = Duration::from_secs(90);

/// Of nodes that are on other machines; nobody listens here.
const ADMIN: &str = "http://127.0.0.1:2381";

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < DEADLINE, "{what} has not come in time");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until a node has said this since its last start.
fn says(cluster: &Cluster, index: usize, text: &str) -> String {
    let node = cluster.node(index).unwrap();
    eventually(&format!("`{text}` of {}", node.name()), || {
        let log = fs::read_to_string(node.log_path()).unwrap_or_default();
        let since = log.rfind("listens on").or_else(|| log.rfind("no node here"))?;
        let found = log[since..].lines().find(|line| line.contains(text))?;
        Some(found.to_owned())
    })
}

/// Starts a process again, and waits for its first words, so that those of its former life are not taken for them.
fn restart(cluster: &mut Cluster, index: usize) {
    let log = cluster.node(index).unwrap().log_path();
    let lives = || {
        let log = fs::read_to_string(&log).unwrap_or_default();
        log.matches("listens on").count() + log.matches("no node here").count()
    };
    let before = lives();
    cluster.restart(index).unwrap();
    eventually("its first words", || (lives() > before).then_some(()));
}

fn client_url(node: &NodeContext) -> Result<String, ServerError> {
    Ok(format!("http://127.0.0.1:{}", node.port("client")?))
}

fn peer_url(node: &NodeContext) -> Result<String, ServerError> {
    Ok(format!("http://127.0.0.1:{}", node.port("peer")?))
}

fn endpoint(cluster: &Cluster, index: usize) -> String {
    format!("http://127.0.0.1:{}", cluster.node(index).unwrap().port("client").unwrap())
}

/// The source's command line, word for word; its data lie in the current directory.
fn init(engine: &'static str) -> ServerSpec {
    init_with(engine, &[])
}

fn init_with(engine: &'static str, more: &'static [&'static str]) -> ServerSpec {
    let launch = move |node: &NodeContext| {
        let members = node.nodes().map(|node| Ok(format!("{}={}", node.name(), peer_url(&node)?)));
        let members = members.collect::<Result<Vec<_>, ServerError>>()?.join(",");
        let (name, token, client, peer) = (node.name(), node.token(), client_url(node)?, peer_url(node)?);
        Ok(Launch::new(env!("CARGO_BIN_EXE_snet"))
            .args(["storage", "init", "--name", &name, "--token", token])
            .args(["--client-url", &client, "--peer-url", &peer, "--initial-cluster", &members])
            .args(more.iter().copied())
            .env("SNET_STORAGE_ENGINE", engine)
            .env("SNET_STORAGE_LOG_LEVEL", "warn")
            .env("ETCD_BIN", programs::find("etcd")?.display().to_string()))
    };
    ServerSpec::new("snet-init", launch).port("client").port("peer")
}

async fn start(spec: ServerSpec, nodes: usize) -> Cluster {
    Cluster::start(spec, nodes, ClusterOptions::default()).await.unwrap()
}

/// What a command on a cluster says that has to succeed, however busy the machine is.
#[track_caller]
fn patiently(arguments: &[&str]) -> String {
    told(&[arguments, &["--seconds", "60"]].concat())
}

async fn a_cluster_of_three_command_lines(engine: &'static str) {
    let mut cluster = start(init(engine), 3).await;
    for index in 0..3 {
        says(&cluster, index, "ready: the cluster serves");
    }
    let endpoints: Vec<_> = (0..3).map(|index| endpoint(&cluster, index)).collect();
    let all = endpoints.join(",");

    patiently(&["storage", "put", "channel/7", "open", "--endpoints", &endpoints[0]]);
    assert_eq!(patiently(&["storage", "get", "channel/7", "--value-only", "--endpoints", &endpoints[2]]), "open");
    let swap = ["storage", "cas", "channel/7", "claimed", "--value", "open", "--endpoints"];
    patiently(&[&swap[..], &[&endpoints[1]]].concat());
    let conflict = snet(&[&swap[..], &[&endpoints[0]]].concat());
    assert_eq!(conflict.status.code(), Some(4), "{conflict:?}");
    assert!(stderr(&conflict).contains("nothing was written") && stderr(&conflict).contains("claimed"), "{conflict:?}");

    let status = patiently(&["storage", "status", "--endpoints", &all]);
    assert_eq!((status.matches("leader").count(), status.matches("follower").count()), (1, 2), "{status}");
    patiently(&["storage", "ping", "--endpoints", &all]);
    let checked = json(&["storage", "check", "--only", "cas", "--endpoints", &all]);
    assert!(checked["failed"] == 0 && checked["passed"].as_u64() > Some(5), "{checked}");
    let members = patiently(&["storage", "member", "list", "--endpoints", &all]);
    assert!((0..3).all(|index| members.contains(&format!("n{index}"))), "{members}");
    for command in ["list", "disarm"] {
        let alarms = json(&["storage", "alarm", command, "--endpoints", &all]);
        assert!(alarms["alarms"].as_array().is_some_and(Vec::is_empty), "{alarms}");
    }

    // One of three is lost: the others go on, and it catches up when it is back.
    cluster.kill(1).unwrap();
    // If it led, a write on its way to it may have an unknown outcome.
    eventually("a write without it", || {
        let put = snet(&["storage", "put", "channel/8", "open", "--seconds", "30", "--endpoints", &all]);
        put.status.success().then_some(())
    });
    restart(&mut cluster, 1);
    says(&cluster, 1, "ready: the cluster serves");
    assert_eq!(patiently(&["storage", "get", "channel/8", "--value-only", "--endpoints", &endpoints[1]]), "open");

    // A snapshot is whole, and a damaged one is not.
    let file = cluster.dir().unwrap().join("saved");
    let file = file.to_str().unwrap();
    told(&["storage", "snapshot", "save", file, "--seconds", "30", "--endpoints", &all]);
    told(&["storage", "snapshot", "status", file]);
    let mut bytes = fs::read(file).unwrap();
    bytes[100] ^= 1;
    fs::write(file, bytes).unwrap();
    assert_eq!(snet(&["storage", "snapshot", "status", file]).status.code(), Some(1));

    // All are killed at once and come back with everything.
    cluster.kill_all();
    restart(&mut cluster, 2);
    let waiting = says(&cluster, 2, "nobody answers at n0 (http");
    assert!(waiting.contains("waiting for ") && waiting.contains("n1 (http"), "{waiting}");
    restart(&mut cluster, 0);
    restart(&mut cluster, 1);
    for index in 0..3 {
        says(&cluster, index, "ready: the cluster serves");
    }
    let found = patiently(&["storage", "scan", "channel/", "--output", "json", "--endpoints", &endpoints[2]]);
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let values: Vec<_> = found["entries"].as_array().unwrap().iter().map(|entry| &entry["value"]).collect();
    assert_eq!(values, ["claimed", "open"]);

    for index in 0..3 {
        cluster.terminate(index).unwrap();
        says(&cluster, index, "stopped");
        eventually("the end of the process", || (!cluster.is_running(index).unwrap()).then_some(()));
        let port = cluster.node(index).unwrap().port("client").unwrap();
        assert!(std::net::TcpListener::bind(("127.0.0.1", port)).is_ok(), "its port is free");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_command_lines_make_a_cluster_of_embedded_nodes() {
    a_cluster_of_three_command_lines("embedded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_command_lines_make_a_cluster_of_etcds() {
    a_cluster_of_three_command_lines("etcd").await;
}

/// The cluster is lost and comes back while a node runs: it tells whom it waits for, in lines for programs and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_loses_its_quorum_says_whom_it_waits_for() {
    let mut cluster = start(init_with("embedded", &["--log-format", "json", "--log-level", "info"]), 3).await;
    says(&cluster, 2, "ready: the cluster serves");
    cluster.kill(0).unwrap();
    cluster.kill(1).unwrap();
    let waiting = says(&cluster, 2, "nobody answers at n0 (http");
    assert!(waiting.contains("waiting for ") && waiting.contains("n1 (http"), "{waiting}");
    restart(&mut cluster, 0);
    says(&cluster, 2, "ready: the cluster serves again");
    let log = fs::read_to_string(cluster.node(2).unwrap().log_path()).unwrap();
    for line in log.lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(
            object["timestamp"].is_string() && object["level"].is_string() && object["message"].is_string(),
            "{line}"
        );
    }
    let level = |text: &str| {
        let line = log.lines().find(|line| line.contains(text)).unwrap();
        serde_json::from_str::<serde_json::Value>(line).unwrap()["level"].as_str().unwrap().to_owned()
    };
    assert_eq!((level("waiting for").as_str(), level("serves again").as_str()), ("WARN", "INFO"));
}

/// A process that is killed if the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn a_member_that_is_added_joins_and_votes(engine: &'static str) {
    let cluster = start(init(engine), 1).await;
    says(&cluster, 0, "ready: the cluster serves");
    let (old, node) = (endpoint(&cluster, 0), cluster.node(0).unwrap());
    let token = cluster.dir().unwrap().file_name().unwrap().to_str().unwrap();
    let mut ports = Reservation::default();
    let [client, peer] = [(); 2].map(|()| format!("http://127.0.0.1:{}", ports.port().unwrap()));
    let data = cluster.dir().unwrap().join("joined");
    let members = format!("n0=http://127.0.0.1:{},n9={peer}", node.port("peer").unwrap());
    let join = || {
        let mut join = Command::new(env!("CARGO_BIN_EXE_snet"));
        join.args(["storage", "init", "--name", "n9", "--token", token, "--client-url", &client, "--peer-url", &peer])
            .args(["--initial-cluster", &members, "--initial-cluster-state", "existing", "--endpoints", &old])
            .args(["--engine", engine, "--log-level", "error", "--startup-seconds", "90", "--data-dir"])
            .arg(&data)
            .env("ETCD_BIN", programs::find("etcd").unwrap())
            .stdout(Stdio::piped());
        join
    };
    let ready = |running: &mut Running| {
        let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines().map(Result::unwrap);
        lines.find(|line| line == "ready: the cluster serves").expect("it serves");
    };
    if engine == "embedded" {
        let unknown = join().output().unwrap();
        assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    }
    patiently(&["storage", "put", "k", "acknowledged", "--endpoints", &old]);
    let added = patiently(&["storage", "member", "add", "--peer-url", &peer, "--output", "json", "--endpoints", &old]);
    let added: serde_json::Value = serde_json::from_str(&added).unwrap();
    let id = added["members"][0]["id"].as_str().unwrap();
    assert_eq!(added["members"][0]["votes"], false);

    let mut joined = Running(join().spawn().unwrap());
    if engine == "embedded" {
        ready(&mut joined);
        eventually("its client URL and name among the members", || {
            let members = patiently(&["storage", "member", "list", "--endpoints", &old]);
            (members.contains(&client) && members.contains("n9")).then_some(())
        });
        drop(joined);
        // Without its data it has forgotten what it has promised.
        let aside = data.with_extension("aside");
        fs::rename(&data, &aside).unwrap();
        let wiped = join().output().unwrap();
        assert!(wiped.status.code() == Some(2) && stderr(&wiped).contains("has run before"), "{wiped:?}");
        fs::rename(&aside, &data).unwrap();
        joined = Running(join().spawn().unwrap());
    }
    let promoted = eventually("its promotion", || {
        let promoted = snet(&["storage", "member", "promote", id, "--output", "json", "--endpoints", &old]);
        promoted.status.success().then(|| stdout(&promoted))
    });
    let promoted: serde_json::Value = serde_json::from_str(&promoted).unwrap();
    let votes = promoted["members"].as_array().unwrap().iter().filter(|member| member["votes"] == true).count();
    assert_eq!(votes, 2, "{promoted}");
    ready(&mut joined);
    assert_eq!(patiently(&["storage", "get", "k", "--value-only", "--endpoints", &client]), "acknowledged");

    // It comes back with the same flags.
    drop(joined);
    let mut joined = Running(join().spawn().unwrap());
    ready(&mut joined);
    assert_eq!(patiently(&["storage", "get", "k", "--value-only", "--endpoints", &client]), "acknowledged");
    // An etcd refuses for some seconds after a member has come back.
    let left = eventually("its removal", || {
        let removed = snet(&["storage", "member", "remove", id, "--endpoints", &old]);
        removed.status.success().then(|| stdout(&removed))
    });
    assert!(!left.contains(&peer), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_node_that_is_added_joins_and_votes() {
    a_member_that_is_added_joins_and_votes("embedded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_is_added_joins_and_votes() {
    a_member_that_is_added_joins_and_votes("etcd").await;
}

/// The processes of an etcd with this token.
fn etcds(token: &str) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = words.split(|byte| *byte == 0);
        words.next().is_some_and(|program| program.ends_with(b"/etcd")) && words.any(|word| word == token.as_bytes())
    })
    .collect()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_is_started_again_when_it_dies_and_dies_with_its_parent() {
    let mut cluster = start(init("etcd"), 1).await;
    says(&cluster, 0, "ready: the cluster serves");
    let token = cluster.dir().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let url = endpoint(&cluster, 0);
    patiently(&["storage", "put", "k", "acknowledged", "--endpoints", &url]);
    let first = etcds(&token);
    assert_eq!(first.len(), 1, "{first:?}");
    assert!(Command::new("kill").args(["-KILL", &first[0].to_string()]).status().unwrap().success());
    eventually("another etcd", || etcds(&token).first().filter(|pid| **pid != first[0]).copied());
    let read = eventually("its answer", || {
        let read = snet(&["storage", "get", "k", "--value-only", "--endpoints", &url]);
        read.status.success().then(|| stdout(&read))
    });
    assert_eq!(read, "acknowledged");

    cluster.kill(0).unwrap();
    eventually("the end of the etcd", || etcds(&token).is_empty().then_some(()));
}

/// The source's table: five replicas, of which 1, 2 and 4 start nodes.
fn serve(engine: &'static str) -> ServerSpec {
    let launch = move |node: &NodeContext| {
        let mut table = format!("token = \"t\"\nengine = \"{engine}\"\ndata_dir = \"data\"\nlog_level = \"warn\"\n");
        for (id, row) in (1..).zip(node.nodes()) {
            table += &format!("[[replicas]]\nid = {id}\n");
            if has_node(row.index()) {
                let (name, client, peer) = (row.name(), client_url(&row)?, peer_url(&row)?);
                table += &format!("start_node = \"yes\"\nnode_name = \"{name}\"\n");
                table += &format!("client_url = \"{client}\"\npeer_url = \"{peer}\"\n");
            } else {
                table += "start_node = \"no\"\n";
            }
        }
        let id = (node.index() + 1).to_string();
        Ok(Launch::new(env!("CARGO_BIN_EXE_snet"))
            .args(["storage", "serve", "--config", "cluster.toml", "--replica", &id])
            .env("ETCD_BIN", programs::find("etcd")?.display().to_string())
            .file("cluster.toml", table))
    };
    ServerSpec::new("snet-serve", launch).port("client").port("peer")
}

fn has_node(index: usize) -> bool {
    [0, 1, 3].contains(&index)
}

/// What a replica says of the store, with its own configuration.
fn ask(cluster: &Cluster, index: usize, arguments: &[&str]) -> Output {
    let config = cluster.dir().unwrap().join(format!("n{index}/cluster.toml"));
    let id = (index + 1).to_string();
    let place = ["--config", config.to_str().unwrap(), "--replica", &id];
    snet(&[&["storage"], arguments, &place[..]].concat())
}

async fn a_table_of_five_replicas(engine: &'static str) {
    let mut cluster = start(serve(engine), 5).await;
    for index in 0..5 {
        says(&cluster, index, "ready: the cluster serves");
    }
    for writer in 0..5 {
        let key = format!("of/{writer}");
        let written = ask(&cluster, writer, &["put", &key, "acknowledged", "--seconds", "60"]);
        assert!(written.status.success(), "{written:?}");
        let read = ask(&cluster, (writer + 1) % 5, &["get", &key, "--value-only", "--seconds", "60"]);
        assert_eq!(stdout(&read), "acknowledged", "{read:?}");
    }

    // Two of three nodes are lost: no write is acknowledged, and none is waited for beyond its deadline.
    cluster.kill(0).unwrap();
    cluster.kill(3).unwrap();
    for index in [1, 2, 4] {
        let began = Instant::now();
        let refused = ask(&cluster, index, &["put", &format!("refused/{index}"), "x", "--seconds", "2"]);
        let code = refused.status.code().unwrap();
        assert!([3, 5].contains(&code), "{refused:?}");
        assert!(began.elapsed() < Duration::from_secs(12), "{:?}: {refused:?}", began.elapsed());
        let unread = ask(&cluster, index, &["get", "of/0", "--seconds", "2"]);
        assert_eq!(unread.status.code(), Some(3), "a linearizable read needs a majority: {unread:?}");
    }

    restart(&mut cluster, 0);
    restart(&mut cluster, 3);
    for index in [0, 3] {
        says(&cluster, index, "ready: the cluster serves");
    }
    for reader in 0..5 {
        for writer in 0..5 {
            let read = ask(&cluster, reader, &["get", &format!("of/{writer}"), "--value-only", "--seconds", "60"]);
            assert_eq!(stdout(&read), "acknowledged", "{read:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_replicas_of_a_table_share_three_embedded_nodes() {
    a_table_of_five_replicas("embedded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_replicas_of_a_table_share_three_etcds() {
    a_table_of_five_replicas("etcd").await;
}

/// A command that cannot start says why, and how to mend it, with the exit code of its kind.
#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_node_from_starting_is_told() {
    let mut cluster = start(init("embedded"), 1).await;
    says(&cluster, 0, "ready: the cluster serves");
    let (client, node) = (endpoint(&cluster, 0), cluster.dir().unwrap().join("n0"));
    let peer = format!("http://127.0.0.1:{}", cluster.node(0).unwrap().port("peer").unwrap());
    let mut ports = Reservation::default();
    let (free, other) = (ports.port().unwrap(), ports.port().unwrap());
    let (free, other) = (format!("http://127.0.0.1:{free}"), format!("http://127.0.0.1:{other}"));
    let data = node.join("n0.storage");
    let start = |name: &str, token: &str, client: &str, peer: &str, members: &str, data: &Path, engine: &str| {
        Command::new(env!("CARGO_BIN_EXE_snet"))
            .args(["storage", "init", "--name", name, "--token", token, "--client-url", client, "--peer-url", peer])
            .args(["--initial-cluster", members, "--engine", engine, "--data-dir"])
            .arg(data)
            .env("ETCD_BIN", programs::find("etcd").unwrap())
            .output()
            .unwrap()
    };
    let (elsewhere, plain_file) = (node.join("elsewhere"), node.join("file"));
    fs::write(&plain_file, "x").unwrap();
    let one = |name: &str, url: &str| format!("{name}={url}");
    let token = node.parent().unwrap().file_name().unwrap().to_str().unwrap();
    let in_use = start("n0", token, &client, &free, &one("n0", &free), &elsewhere, "embedded");
    let in_use_etcd = start("n0", token, &free, &peer, &one("n0", &peer), &elsewhere, "etcd");
    let running = start("n0", token, &free, &other, &one("n0", &other), &data, "embedded");
    cluster.kill(0).unwrap();
    let cases = [
        (in_use, 3, "another program uses this port"),
        (in_use_etcd, 3, "another program uses this port"),
        (running, 2, "has data of another"),
        (start("n0", "other", &client, &peer, &one("n0", &peer), &data, "embedded"), 2, "has data of another cluster"),
        (start("n0", token, &client, &peer, &one("n0", &peer), &data, "etcd"), 2, "has data of another engine"),
        (start("n9", token, &client, &peer, &one("n0", &peer), &elsewhere, "embedded"), 2, "no node `n9`, only n0"),
        (start("n0", token, &client, &peer, &one("n0", &free), &elsewhere, "embedded"), 2, "have to be the same"),
        (start("n0", "", &client, &peer, &one("n0", &peer), &elsewhere, "embedded"), 2, "at least one character"),
        (start("n0", token, &client, "10.0.0.1", &one("n0", &peer), &elsewhere, "embedded"), 2, "http://HOST:PORT"),
        (start("n0", token, &client, &peer, &one("n0", &peer), &plain_file, "embedded"), 2, "is no directory"),
        (
            start("n0", token, "http://192.0.2.1:2379", &peer, &one("n0", &peer), &elsewhere, "embedded"),
            3,
            "an address of this machine",
        ),
    ];
    for (output, code, expected) in cases {
        assert_eq!(output.status.code(), Some(code), "{expected}: {output:?}");
        assert!(stderr(&output).contains(expected), "{expected}: {output:?}");
    }
}

/// Whoever waits for a cluster that does not come gives up in time, and says whom it has waited for.
#[test]
fn a_cluster_that_does_not_come_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut ports = Reservation::default();
    let urls: Vec<_> = (0..5).map(|_| format!("http://127.0.0.1:{}", ports.port().unwrap())).collect();
    let config = dir.path().join("cluster.toml");
    let mut table = "token = 't'\nstartup_timeout = '4s'\ndata_dir = 'data'\n".to_owned();
    // Each machine has this address for itself alone.
    table += &format!("[[replicas]]\nid = 3\nstart_node = false\nadmin_url = '{}'\n", urls[4]);
    for (id, urls) in (1..).zip(urls[..4].chunks(2)) {
        table += &format!("[[replicas]]\nid = {id}\nstart_node = true\nnode_name = 'n{id}'\n");
        table += &format!("client_url = '{}'\npeer_url = '{}'\nadmin_url = '{}'\n", urls[0], urls[1], ADMIN);
    }
    fs::write(&config, table).unwrap();
    let members = format!("n1={},n2={}", urls[1], urls[3]);
    let alone = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_snet"));
        command.current_dir(dir.path()).arg("storage").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let init = ["init", "--name", "n1", "--token", "t", "--client-url", &urls[0], "--peer-url", &urls[1]];
    let init = alone(&[&init[..], &["--initial-cluster", &members, "--startup-seconds", "4"]].concat());
    let no_node = alone(&["serve", "--config", "cluster.toml", "--replica", "3"]);
    let here = format!("nobody answers at n2 ({})", urls[3]);
    for (child, expected) in [(init, here.as_str()), (no_node, "the nodes of the other replicas do not serve yet")] {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let told = stderr(&output);
        assert!(told.contains("gave up after waiting for 4 s") && told.contains(expected), "{told}");
    }
    // A file that was cut while it was written, at any place, starts nothing.
    let whole = fs::read(&config).unwrap();
    for cut in [1, 10, 40, 60, 100, whole.len() / 2, whole.len() - 3] {
        fs::write(&config, &whole[..cut]).unwrap();
        let output = alone(&["serve", "--config", "cluster.toml", "--replica", "1"]).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{cut}: {output:?}");
        assert!(stderr(&output).contains("line "), "{cut}: {output:?}");
    }
}

/// From an embedded store to an etcd and back, with an interruption that is resumed.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_goes_from_any_store_to_any_other_and_is_resumed() {
    let cluster = start(init("etcd"), 1).await;
    says(&cluster, 0, "ready: the cluster serves");
    let etcd = format!("etcd://127.0.0.1:{}", cluster.node(0).unwrap().port("client").unwrap());
    let dir = tempfile::tempdir().unwrap();
    let embedded = |name: &str| format!("embedded:{}/{name}", dir.path().display());
    let (first, second) = (embedded("first"), embedded("second"));
    {
        use storage::{Key, Store as _, StoreExt as _};
        let store = storage::open(&first).await.unwrap();
        for number in 0..500 {
            let key = Key::new(format!("channel/{number}")).unwrap();
            store.put(&key, vec![0xff, u8::try_from(number % 256).unwrap(), 0]).await.unwrap();
        }
        store.close().await.unwrap();
        // What an interrupted copy leaves: a part of the keys.
        let store = storage::open(&etcd).await.unwrap();
        for number in 0..120 {
            let key = Key::new(format!("channel/{number}")).unwrap();
            store.put(&key, vec![0xff, u8::try_from(number % 256).unwrap(), 0]).await.unwrap();
        }
        store.close().await.unwrap();
    }
    let report = |from: &str, to: &str| -> serde_json::Value {
        serde_json::from_str(&told(&["storage", "copy", "--from", from, "--to", to, "--output", "json"])).unwrap()
    };
    let there = report(&first, &etcd);
    assert_eq!(
        (there["copied"].as_u64(), there["unchanged"].as_u64(), there["keys"].as_u64()),
        (Some(380), Some(120), Some(500))
    );
    let back = report(&etcd, &second);
    assert_eq!((back["copied"].as_u64(), &back["sha256"]), (Some(500), &there["sha256"]));
    assert_eq!(report(&first, &second)["unchanged"], 500);
    told(&["storage", "put", "channel/3", "other", "--store", &second]);
    let differs = snet(&["storage", "copy", "--from", &first, "--to", &second]);
    assert_eq!(differs.status.code(), Some(4), "{differs:?}");
    assert!(stderr(&differs).contains("channel/3 has another value"), "{differs:?}");
    // A store among the keys of the other: page by page, copies would have been copied, and copied again.
    let into_itself = snet(&["storage", "copy", "--from", &etcd, "--to", &format!("{etcd}/copy/")]);
    assert_eq!(into_itself.status.code(), Some(2), "{into_itself:?}");
    assert!(stderr(&into_itself).contains("lies in the store to read"), "{into_itself:?}");
    assert_eq!(report(&etcd, &embedded("third"))["keys"], 500, "it has left nothing there");
}
