//! Users and roles by `snet storage auth`, on a node of each engine; and what other commands do without and with a user.
#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    fs,
    io::Write as _,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{stderr, stdout};
use storage_testkit::{
    programs,
    server::{Cluster, ClusterOptions, Launch, NodeContext, ServerSpec},
};

const DEADLINE: Duration = Duration::from_secs(90);

fn spec(engine: &'static str) -> ServerSpec {
    let launch = move |node: &NodeContext| {
        let (client, peer) = (node.port("client")?, node.port("peer")?);
        let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let members = format!("{}={peer}", node.name());
        Ok(Launch::new(env!("CARGO_BIN_EXE_snet"))
            .args(["storage", "init", "--name", &node.name(), "--token", node.token(), "--initial-cluster", &members])
            .args(["--client-url", &client, "--peer-url", &peer, "--engine", engine])
            .env("ETCD_BIN", programs::find("etcd")?.display().to_string()))
    };
    ServerSpec::new("snet-init", launch).port("client").port("peer")
}

struct Node {
    endpoint: String,
}

impl Node {
    fn run(&self, arguments: &[&str], user: Option<(&str, &str)>, input: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_snet"));
        command.arg("storage").args(arguments).args(["--endpoints", &self.endpoint, "--seconds", "30"]);
        if let Some((user, password)) = user {
            command.args(["--user", user]).env("SNET_STORAGE_PASSWORD", password);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It may end without having read it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    #[track_caller]
    fn told(&self, arguments: &[&str], user: Option<(&str, &str)>) -> String {
        let output = self.run(arguments, user, "");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        stdout(&output)
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], user: Option<(&str, &str)>) -> String {
        let output = self.run(arguments, user, "");
        assert!(!output.status.success(), "{arguments:?}: {output:?}");
        stderr(&output)
    }
}

async fn users_and_roles(engine: &'static str) {
    let cluster = Cluster::start(spec(engine), 1, ClusterOptions::default()).await.unwrap();
    let node = cluster.node(0).unwrap();
    let (began, mut log) = (Instant::now(), String::new());
    while !log.contains("ready: the cluster serves") {
        assert!(began.elapsed() < DEADLINE, "it is not ready: {log}");
        thread::sleep(Duration::from_millis(20));
        log = fs::read_to_string(node.log_path()).unwrap_or_default();
    }
    let node = Node { endpoint: format!("http://127.0.0.1:{}", node.port("client").unwrap()) };
    let (dir, root) = (tempfile::tempdir().unwrap(), Some(("root", "of root/@")));
    assert!(node.refused(&["auth", "enable"], None).contains("root user does not exist"));
    assert!(node.run(&["auth", "user", "add", "root"], None, "of root/@\n").status.success());
    node.told(&["auth", "user", "grant", "root", "root"], None);
    node.told(&["auth", "enable"], None);
    assert!(node.refused(&["get", "channels/1"], None).contains("user name is empty"));
    assert!(node.refused(&["auth", "user", "list"], Some(("root", "wrong"))).contains("authentication failed"));

    let file = dir.path().join("service.password");
    fs::write(&file, "of service\n").unwrap();
    let file = file.to_str().unwrap();
    node.told(&["auth", "role", "add", "channels"], root);
    node.told(&["auth", "role", "allow", "channels", "read-write", "channels/", "--prefix"], root);
    node.told(&["auth", "user", "add", "service", "--new-password-file", file], root);
    node.told(&["auth", "user", "grant", "service", "channels"], root);
    assert_eq!(node.told(&["auth", "user", "list"], root), "root\nservice\n");
    assert_eq!(node.told(&["auth", "user", "show", "service"], root), "channels\n");
    let shown = node.told(&["auth", "role", "show", "channels"], root);
    assert!(shown.contains("read-write") && shown.contains("channels/") && shown.contains("channels0"), "{shown}");
    let status = node.told(&["auth", "status", "--output", "json"], root);
    assert!(status.contains("\"enabled\": true"), "{status}");

    let service = Some(("service", "of service"));
    node.told(&["put", "channels/1", "open"], service);
    assert_eq!(node.told(&["get", "channels/1", "--value-only"], root), "open");
    assert!(node.refused(&["put", "other", "x"], service).contains("permission denied"));
    assert!(node.refused(&["auth", "user", "list"], service).contains("permission denied"));
    // Also with the file for a password.
    let output = Command::new(env!("CARGO_BIN_EXE_snet"))
        .args(["storage", "get", "channels/1", "--value-only", "--endpoints", &node.endpoint])
        .args(["--user", "service", "--password-file", file])
        .output()
        .unwrap();
    assert_eq!(stdout(&output), "open", "{output:?}");
    node.told(&["status"], service);
    node.told(&["auth", "role", "deny", "channels", "channels/", "--prefix"], root);
    assert!(node.refused(&["get", "channels/1"], service).contains("permission denied"));
    node.told(&["auth", "disable"], root);
    assert_eq!(node.told(&["get", "channels/1", "--value-only"], None), "open");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_node_has_users_and_roles() {
    users_and_roles("embedded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_has_users_and_roles() {
    users_and_roles("etcd").await;
}
