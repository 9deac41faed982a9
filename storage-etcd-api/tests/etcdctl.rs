//! What `etcdctl` makes of three embedded nodes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use common::ApiCluster;
use storage_core::{Key, ReadOptions, Store};
use storage_embedded::{Node, NodeConfig, tls::TlsFiles};
use storage_testkit::{
    certificates::{Authority, Identity},
    programs,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Command,
    time::{Instant, timeout},
};

const DEADLINE: Duration = Duration::from_secs(30);

struct Etcdctl {
    cluster: ApiCluster,
    dir: tempfile::TempDir,
    /// Who signs the certificates of nodes and clients, if there is TLS.
    tls: Option<Authority>,
}

impl Etcdctl {
    async fn start(nodes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ApiCluster::start(dir.path(), nodes).await;
        Self { cluster, dir, tls: None }
    }

    /// With certificates on both sides of every connection.
    async fn start_with_tls(nodes: u64) -> Self {
        let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new().unwrap());
        let Identity { cert, key, .. } = authority.sign("127.0.0.1").unwrap();
        let files = TlsFiles { cert, key, ca: Some(authority.ca()), crl: None };
        let cluster = ApiCluster::start_with(dir.path(), nodes, Some(files)).await;
        Self { cluster, dir, tls: Some(authority) }
    }

    fn scheme(&self) -> &str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let endpoints: Vec<_> = self.cluster.endpoints().iter().map(|at| format!("{}://{at}", self.scheme())).collect();
        self.command_to(&endpoints.join(","), arguments)
    }

    fn command_to(&self, endpoints: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs::find("etcdctl").unwrap_or_else(|error| panic!("{error}")));
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(endpoints).args(arguments).kill_on_drop(true);
        if let Some(authority) = &self.tls {
            let Identity { cert, key, .. } = authority.sign_client("etcdctl").unwrap();
            command.arg("--cacert").arg(authority.ca()).arg("--cert").arg(cert).arg("--key").arg(key);
        }
        command
    }

    async fn output(&self, mut command: Command) -> Output {
        timeout(DEADLINE, command.output()).await.expect("etcdctl ends").unwrap()
    }

    /// What it prints, when it succeeds.
    async fn run(&self, arguments: &[&str]) -> String {
        printed(&self.output(self.command(arguments)).await)
    }

    /// What it complains of, when it fails.
    async fn fails(&self, arguments: &[&str]) -> String {
        let output = self.output(self.command(arguments)).await;
        assert!(!output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    async fn run_with_input(&self, arguments: &[&str], input: &str) -> String {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        printed(&timeout(DEADLINE, child.wait_with_output()).await.unwrap().unwrap())
    }

    async fn value(&self, key: &str) -> Option<Vec<u8>> {
        let store = self.cluster.nodes().node(0).unwrap().store();
        let entry = store.get(&Key::try_from(key).unwrap(), ReadOptions::default()).await.unwrap();
        entry.map(|entry| entry.value.to_vec())
    }
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Each of these in the clear, and with certificates on both sides.
macro_rules! with_tls_and_without {
    ($($name:ident),* $(,)?) => {
        mod in_the_clear {
            $(#[tokio::test] async fn $name() { super::$name(super::Etcdctl::start(3).await).await })*
        }
        mod with_mutual_tls {
            $(#[tokio::test] async fn $name() { super::$name(super::Etcdctl::start_with_tls(3).await).await })*
        }
    };
}

with_tls_and_without!(
    keys_are_put_got_and_deleted,
    a_transaction_takes_one_of_its_branches,
    a_watch_shows_the_past_and_what_comes,
    a_lease_lives_while_it_is_kept_and_takes_its_keys_with_it,
    members_and_endpoints_are_shown,
    the_past_is_read_until_it_is_compacted,
    a_snapshot_is_saved_whole,
    users_have_the_rights_of_their_roles,
);

async fn keys_are_put_got_and_deleted(etcdctl: Etcdctl) {
    for (key, value) in [("a/1", "one"), ("a/2", "two"), ("b", "three")] {
        assert_eq!(etcdctl.run(&["put", key, value]).await, "OK\n");
    }
    assert_eq!(etcdctl.run(&["get", "a/1"]).await, "a/1\none\n");
    assert_eq!(etcdctl.run(&["get", "--prefix", "a/"]).await, "a/1\none\na/2\ntwo\n");
    assert_eq!(etcdctl.run(&["get", "--prefix", "", "--order", "DESCEND", "--limit", "1"]).await, "b\nthree\n");
    assert_eq!(etcdctl.run(&["get", "--from-key", "a/2", "--keys-only"]).await, "a/2\n\nb\n\n");
    assert_eq!(etcdctl.value("a/2").await.unwrap(), b"two", "the store of the engine has the same keys");
    assert_eq!(etcdctl.run(&["put", "--prev-kv", "b", "four"]).await, "OK\nb\nthree\n");
    assert_eq!(etcdctl.run(&["get", "--rev", "4", "b"]).await, "b\nthree\n");
    assert_eq!(etcdctl.run(&["del", "--prefix", "a/"]).await, "2\n");
    assert_eq!(etcdctl.run(&["get", "--prefix", "a/"]).await, "");
    assert!(etcdctl.fails(&["put", &"k".repeat(513), "v"]).await.contains("key is longer than 512 bytes"));
}

async fn users_have_the_rights_of_their_roles(etcdctl: Etcdctl) {
    let run = async |arguments: &[&str]| etcdctl.run(arguments).await;
    // As with an etcd that has no users: a password is no matter.
    assert_eq!(etcdctl.run(&["--user", "root:secret", "get", "a"]).await, "");
    assert!(etcdctl.fails(&["auth", "enable"]).await.contains("root user does not exist"));
    assert_eq!(run(&["user", "add", "root:secret"]).await, "User root created\n");
    // etcdctl adds the role, grants it and asks again by itself.
    assert!(run(&["auth", "enable", "--user", "root:secret"]).await.contains("Authentication Enabled"));
    // With a certificate it is the user of that name.
    let nobody = if etcdctl.tls.is_some() { "user name not found" } else { "user name is empty" };
    assert!(etcdctl.fails(&["user", "list"]).await.contains(nobody));
    let wrong = etcdctl.fails(&["--user", "root:wrong", "user", "list"]).await;
    assert!(wrong.contains("authentication failed, invalid user ID or password"), "{wrong}");

    let root = async |arguments: &[&str]| {
        let arguments: Vec<_> = ["--user", "root:secret"].iter().chain(arguments).copied().collect();
        etcdctl.run(&arguments).await
    };
    let alice = async |arguments: &[&str]| {
        let arguments: Vec<_> = ["--user", "alice:hers"].iter().chain(arguments).copied().collect();
        let output = etcdctl.output(etcdctl.command(&arguments)).await;
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    assert_eq!(root(&["role", "add", "reader"]).await, "Role reader created\n");
    let granted = root(&["role", "grant-permission", "reader", "--prefix", "read", "a/"]).await;
    assert_eq!(granted, "Role reader updated\n");
    assert_eq!(root(&["user", "add", "alice:hers"]).await, "User alice created\n");
    assert_eq!(root(&["user", "grant-role", "alice", "reader"]).await, "Role reader is granted to user alice\n");
    assert_eq!(root(&["user", "list"]).await, "alice\nroot\n");
    assert_eq!(root(&["role", "list"]).await, "reader\nroot\n");
    assert!(root(&["role", "get", "reader"]).await.contains("[a/, a0) (prefix a/)"));
    assert_eq!(root(&["put", "a/1", "one"]).await, "OK\n");
    // Behind it comes what etcdctl thinks of its environment.
    assert!(alice(&["get", "--prefix", "a/"]).await.starts_with("a/1\none\n"));
    assert!(alice(&["user", "get", "alice"]).await.contains("Roles: reader"));
    for denied in [&["put", "a/1", "two"][..], &["get", "--prefix", ""], &["user", "get", "root"], &["compact", "2"]] {
        let said = alice(denied).await;
        assert!(said.contains("permission denied"), "{denied:?}: {said}");
    }
    assert!(alice(&["watch", "b"]).await.contains("permission denied"));
    root(&["role", "revoke-permission", "reader", "--prefix", "a/"]).await;
    assert!(alice(&["get", "a/1"]).await.contains("permission denied"));

    // With a certificate, its common name is the user.
    if etcdctl.tls.is_some() {
        assert_eq!(root(&["user", "add", "etcdctl", "--no-password"]).await, "User etcdctl created\n");
        assert!(etcdctl.fails(&["get", "c"]).await.contains("permission denied"));
        root(&["role", "grant-permission", "reader", "readwrite", "c"]).await;
        root(&["user", "grant-role", "etcdctl", "reader"]).await;
        assert_eq!(etcdctl.run(&["put", "c", "mine"]).await, "OK\n");
        assert!(etcdctl.fails(&["--user", "etcdctl:any", "get", "c"]).await.contains("no password user"));
    }
    assert!(root(&["auth", "disable"]).await.contains("Authentication Disabled"));
    assert_eq!(etcdctl.run(&["get", "a/1"]).await, "a/1\none\n");
}

async fn a_transaction_takes_one_of_its_branches(etcdctl: Etcdctl) {
    etcdctl.run(&["put", "a", "old"]).await;
    let script = "value(\"a\") = \"old\"\n\nput a new\nget a\n\nput a never\n\n";
    assert_eq!(etcdctl.run_with_input(&["txn"], script).await, "SUCCESS\n\nOK\n\na\nnew\n");
    let again = etcdctl.run_with_input(&["txn"], script).await;
    assert_eq!(again, "FAILURE\n\nOK\n");
    assert_eq!(etcdctl.value("a").await.unwrap(), b"never");
}

async fn a_watch_shows_the_past_and_what_comes(etcdctl: Etcdctl) {
    etcdctl.run(&["put", "w/a", "1"]).await;
    let mut watch = etcdctl.command(&["watch", "--prefix", "w/", "--rev", "2", "--prev-kv"]);
    let mut child = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.push(timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap());
    }
    assert_eq!(seen, ["PUT", "w/a", "1"]);
    etcdctl.run(&["put", "w/a", "2"]).await;
    etcdctl.run(&["del", "w/a"]).await;
    while seen.len() < 12 {
        seen.push(timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap());
    }
    assert_eq!(seen[3..], ["PUT", "w/a", "1", "w/a", "2", "DELETE", "w/a", "2", "w/a"]);
}

async fn a_lease_lives_while_it_is_kept_and_takes_its_keys_with_it(etcdctl: Etcdctl) {
    // Long enough for a busy machine to start a program or two.
    let granted = etcdctl.run(&["lease", "grant", "5"]).await;
    let id = granted.split(' ').nth(1).unwrap().to_owned();
    assert!(granted.ends_with("granted with TTL(5s)\n"), "{granted}");
    etcdctl.run(&["put", "--lease", &id, "leased", "v"]).await;
    let began = Instant::now();
    let mut keeping = etcdctl.command(&["lease", "keep-alive", &id]).stdout(Stdio::piped()).spawn().unwrap();
    let mut kept = BufReader::new(keeping.stdout.take().unwrap()).lines();
    while began.elapsed() < Duration::from_secs(6) {
        let line = timeout(DEADLINE, kept.next_line()).await.unwrap().unwrap().unwrap();
        assert_eq!(line, format!("lease {id} keepalived with TTL(5)"));
    }
    assert_eq!(etcdctl.value("leased").await.unwrap(), b"v", "kept longer than it lives");
    let life = etcdctl.run(&["lease", "timetolive", "--keys", &id]).await;
    assert!(life.contains("granted with TTL(5s), remaining(") && life.contains("[leased]"), "{life}");
    assert!(etcdctl.run(&["lease", "list"]).await.contains(&id));
    keeping.kill().await.unwrap();
    let deadline = Instant::now() + DEADLINE;
    while etcdctl.value("leased").await.is_some() {
        assert!(Instant::now() < deadline, "the lease never ends");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(etcdctl.run(&["lease", "timetolive", &id]).await.contains("already expired"));
    assert!(etcdctl.fails(&["put", "--lease", &id, "leased", "v"]).await.contains("requested lease not found"));
}

#[tokio::test]
async fn a_revoked_lease_is_gone_with_its_keys() {
    let etcdctl = Etcdctl::start(1).await;
    let granted = etcdctl.run(&["lease", "grant", "1000"]).await;
    let id = granted.split(' ').nth(1).unwrap();
    etcdctl.run(&["put", "--lease", id, "leased", "v"]).await;
    assert_eq!(etcdctl.run(&["lease", "revoke", id]).await, format!("lease {id} revoked\n"));
    assert_eq!(etcdctl.value("leased").await, None);
}

async fn members_and_endpoints_are_shown(etcdctl: Etcdctl) {
    let deadline = Instant::now() + DEADLINE;
    let (endpoints, scheme) = (etcdctl.cluster.endpoints(), etcdctl.scheme());
    loop {
        // A node tells the others where its clients reach it as soon as it can.
        let members = etcdctl.run(&["member", "list"]).await;
        let lines: Vec<_> = members.lines().collect();
        assert_eq!(lines.len(), 3, "{members}");
        if endpoints.iter().zip(&lines).all(|(endpoint, line)| line.contains(&format!("{scheme}://{endpoint}, false")))
        {
            assert!(lines[0].starts_with(&format!("1, started, n1, {scheme}://127.0.0.1:")), "{members}");
            break;
        }
        assert!(Instant::now() < deadline, "{members}");
    }
    let health = etcdctl.output(etcdctl.command(&["endpoint", "health"])).await;
    assert!(health.status.success());
    let status = etcdctl.run(&["endpoint", "status"]).await;
    assert_eq!(status.lines().count(), 3);
    assert_eq!(status.lines().filter(|line| line.split(", ").nth(4) == Some("true")).count(), 1, "one leads: {status}");
    let hashes = etcdctl.run(&["endpoint", "hashkv"]).await;
    let hashes: std::collections::BTreeSet<_> =
        hashes.lines().map(|line| line.split(", ").nth(1).unwrap().to_owned()).collect();
    assert_eq!(hashes.len(), 1, "all have the same");
    assert_eq!(etcdctl.run(&["alarm", "list"]).await, "");
    etcdctl.run(&["defrag"]).await;
}

#[tokio::test]
async fn members_are_added_and_removed() {
    let etcdctl = Etcdctl::start(3).await;
    let added = etcdctl.run(&["member", "add", "n4", "--learner", "--peer-urls", "http://127.0.0.1:1"]).await;
    let id = added.split_whitespace().nth(1).unwrap();
    let members = etcdctl.run(&["member", "list"]).await;
    assert!(members.contains(&format!("{id}, unstarted, , http://127.0.0.1:1, , true")), "{members}");
    let again = etcdctl.fails(&["member", "add", "n5", "--learner", "--peer-urls", "http://127.0.0.1:1"]).await;
    assert!(again.contains("Peer URLs already exists"), "{again}");
    assert!(etcdctl.run(&["member", "remove", id]).await.contains("removed from cluster"));
    assert_eq!(etcdctl.run(&["member", "list"]).await.lines().count(), 3);
    assert!(etcdctl.fails(&["member", "remove", id]).await.contains("member not found"));
    assert!(etcdctl.fails(&["member", "promote", "1"]).await.contains("can only promote a learner member"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_is_promoted_once_it_is_reached_and_has_caught_up() {
    let etcdctl = Etcdctl::start(3).await;
    etcdctl.run(&["put", "a", "1"]).await;
    // Nothing listens where it is said to be.
    let added = etcdctl.run(&["member", "add", "n4", "--learner", "--peer-urls", "http://127.0.0.1:1"]).await;
    let id = added.split_whitespace().nth(1).unwrap();
    let refused = etcdctl.fails(&["member", "promote", id]).await;
    assert!(refused.contains("can only promote a learner member which is in sync with leader"), "{refused}");
    let cluster = etcdctl.cluster.nodes().node(0).unwrap().cluster();
    let number = u64::from_str_radix(id, 16).unwrap();
    let config = NodeConfig::new(number, cluster, etcdctl.dir.path().join("n4"), "127.0.0.1:0").fast();
    let node = Node::start(config).await.unwrap();
    let url = format!("http://{}", node.address().unwrap());
    let taken = etcdctl.cluster.nodes().node(1).unwrap().address().unwrap();
    let refused = etcdctl.fails(&["member", "update", id, "--peer-urls", &format!("http://{taken}")]).await;
    assert!(refused.contains("Peer URLs already exists"), "{refused}");
    etcdctl.run(&["member", "update", id, "--peer-urls", &url]).await;
    assert!(etcdctl.run(&["member", "list"]).await.contains(&url));
    let deadline = Instant::now() + DEADLINE;
    loop {
        let output = etcdctl.output(etcdctl.command(&["member", "promote", id])).await;
        if output.status.success() {
            break;
        }
        let refused = String::from_utf8(output.stderr).unwrap();
        assert!(refused.contains("in sync with leader") && Instant::now() < deadline, "{refused}");
    }
    while node.status().revision < etcdctl.cluster.nodes().node(0).unwrap().status().revision {
        assert!(Instant::now() < deadline, "it does not follow");
        tokio::task::yield_now().await;
    }
    assert!(etcdctl.fails(&["member", "promote", id]).await.contains("can only promote a learner member"));
    assert!(etcdctl.fails(&["member", "update", "7", "--peer-urls", &url]).await.contains("member not found"));
    node.stop().await;
}

#[tokio::test]
async fn leadership_is_moved() {
    let etcdctl = Etcdctl::start(3).await;
    let leader = etcdctl.cluster.leader().unwrap();
    let to = (leader + 1) % 3;
    let target = etcdctl.cluster.nodes().node(to).unwrap().id();
    let moved = etcdctl.run(&["move-leader", &format!("{target:x}")]).await;
    assert!(moved.contains("Leadership transferred"), "{moved}");
    assert_eq!(etcdctl.cluster.leader(), Some(to));
}

async fn the_past_is_read_until_it_is_compacted(etcdctl: Etcdctl) {
    for value in ["1", "2", "3"] {
        etcdctl.run(&["put", "a", value]).await;
    }
    assert_eq!(etcdctl.run(&["get", "--rev", "2", "a"]).await, "a\n1\n");
    assert_eq!(etcdctl.run(&["compact", "3"]).await, "compacted revision 3\n");
    assert!(etcdctl.fails(&["get", "--rev", "2", "a"]).await.contains("required revision has been compacted"));
    assert_eq!(etcdctl.run(&["get", "--rev", "3", "a"]).await, "a\n2\n");
    assert!(etcdctl.fails(&["compact", "9"]).await.contains("required revision is a future revision"));
    assert!(etcdctl.fails(&["compact", "3"]).await.contains("required revision has been compacted"));
}

async fn a_snapshot_is_saved_whole(etcdctl: Etcdctl) {
    etcdctl.run(&["put", "a", &"v".repeat(1000)]).await;
    let file = etcdctl.dir.path().join("saved");
    let endpoint = format!("{}://{}", etcdctl.scheme(), etcdctl.cluster.endpoints()[0]);
    // It refuses one without a checksum behind it.
    let saved = etcdctl.command_to(&endpoint, &["snapshot", "save", path(&file)]);
    printed(&etcdctl.output(saved).await);
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!(bytes.len() % 512, 32);
    assert!(bytes.starts_with(b"snetsnap") && bytes.windows(100).any(|bytes| bytes == [b'v'; 100]));
}

/// The small load is 50 clients with 150 writes a second for a minute. How fast they are is not looked at here, since that is the machine's:
/// `docs/operations.md` says how to look at it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_perf_runs_through_and_all_its_writes_are_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start_calm(dir.path(), 3).await;
    let etcdctl = Etcdctl { cluster, dir, tls: None };
    etcdctl.run(&["put", "a", "beside"]).await;
    let revision = || etcdctl.cluster.nodes().running().map(|node| node.status().revision).max().unwrap();
    let before = revision();
    let arguments = ["check", "perf", "--load", "s", "--auto-compact", "--auto-defrag"];
    let output = timeout(6 * DEADLINE, etcdctl.command(&arguments).output()).await.expect("etcdctl ends").unwrap();
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{printed}");
    for verdict in ["Throughput", "Slowest request", "Stddev", "Compacted with revision", "Defragmented"] {
        assert!(printed.contains(verdict), "{verdict} is missing: {printed}");
    }
    // What is too slow fails as well, with other words. Each write that was not acknowledged is told as an error.
    let errors = ["FAIL: ERROR", "FAIL: too many errors", "Error"];
    let error = printed.split(['\r', '\n']).find(|line| errors.iter().any(|error| line.starts_with(error)));
    assert_eq!(error, None, "{printed}");
    assert!(revision() > before + 100, "{} writes: {printed}", revision() - before);
    assert_eq!(etcdctl.run(&["get", "--prefix", "", "--keys-only"]).await, "a\n\n", "its keys are gone");
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
