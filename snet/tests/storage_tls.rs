//! Clusters with TLS, on certificates that `snet storage certs` has made.
#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use common::{etcdctl::Etcdctl, snet, told};
use storage_testkit::{
    programs,
    server::{Cluster, ClusterOptions, Launch, NodeContext, ServerError, ServerSpec},
};

/// However busy the machine is, it is done by then.
const DEADLINE: Duration = Duration::from_secs(90);

fn text(path: PathBuf) -> String {
    path.to_str().unwrap().to_owned()
}

fn url(node: &NodeContext, port: &str) -> Result<String, ServerError> {
    Ok(format!("https://127.0.0.1:{}", node.port(port)?))
}

/// Nodes that are told of their certificates by the environment.
fn spec(engine: &'static str, certs: &Path) -> ServerSpec {
    let certs = certs.to_path_buf();
    let launch = move |node: &NodeContext| {
        let name = node.name();
        let members = node.nodes().map(|node| Ok(format!("{}={}", node.name(), url(&node, "peer")?)));
        let members = members.collect::<Result<Vec<_>, ServerError>>()?.join(",");
        let (client, peer) = (url(node, "client")?, url(node, "peer")?);
        let file = |name: String| certs.join(name).display().to_string();
        Ok(Launch::new(env!("CARGO_BIN_EXE_snet"))
            .args(["storage", "init", "--name", &name, "--token", node.token(), "--initial-cluster", &members])
            .args(["--client-url", &client, "--peer-url", &peer, "--engine", engine])
            .env("SNET_STORAGE_CERT_FILE", file(format!("{name}.crt")))
            .env("SNET_STORAGE_KEY_FILE", file(format!("{name}.key")))
            .env("SNET_STORAGE_TRUSTED_CA_FILE", file("ca.crt".to_owned()))
            .env("SNET_STORAGE_LOG_LEVEL", "warn")
            .env("ETCD_BIN", programs::find("etcd")?.display().to_string()))
    };
    ServerSpec::new("snet-init", launch).port("client").port("peer")
}

async fn a_cluster_with_certificates_on_both_sides(engine: &'static str) {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    let out = text(certs.clone());
    let nodes = ["--node", "n0=127.0.0.1", "--node", "n1=127.0.0.1", "--node", "n2=127.0.0.1"];
    told(&[&["storage", "certs", "--out", &out][..], &nodes].concat());
    let cluster = Cluster::start(spec(engine, &certs), 3, ClusterOptions::default()).await.unwrap();
    for node in (0..3).map(|index| cluster.node(index).unwrap()) {
        let (began, mut log) = (Instant::now(), String::new());
        while !log.contains("ready: the cluster serves") {
            assert!(began.elapsed() < DEADLINE, "{} is not ready: {log}", node.name());
            thread::sleep(Duration::from_millis(20));
            log = fs::read_to_string(node.log_path()).unwrap_or_default();
        }
    }
    let endpoints: Vec<_> = (0..3)
        .map(|index| format!("https://127.0.0.1:{}", cluster.node(index).unwrap().port("client").unwrap()))
        .collect();
    let all = endpoints.join(",");
    let (ca, cert, key) = (certs.join("ca.crt"), certs.join("client.crt"), certs.join("client.key"));
    let (ca, cert, key) = (text(ca), text(cert), text(key));
    let tls = ["--cacert", &ca, "--cert", &cert, "--key", &key];
    let flags = tls.map(str::to_owned).to_vec();
    Etcdctl { endpoints: endpoints.clone(), tls: flags }.walk(dir.path());
    let with = |command: &[&str]| told(&[&["storage"], command, &tls[..]].concat());
    with(&["put", "channel/7", "open", "--endpoints", &endpoints[0]]);
    assert_eq!(with(&["get", "channel/7", "--value-only", "--endpoints", &endpoints[2]]), "open");
    let status = with(&["status", "--endpoints", &all]);
    assert_eq!((status.matches("leader").count(), status.matches("follower").count()), (1, 2), "{status}");
    let members = with(&["member", "list", "--endpoints", &all]);
    assert_eq!(members.matches("https://127.0.0.1:").count(), 6, "{members}");
    let saved = text(dir.path().join("saved"));
    with(&["snapshot", "save", &saved, "--endpoints", &endpoints[1]]);
    told(&["storage", "snapshot", "status", &saved]);

    // Nobody else gets in.
    let one = &endpoints[0];
    let plain = one.replace("https:", "http:");
    for (arguments, code) in [
        (vec!["--endpoints", one], 2),
        (vec!["--endpoints", one, "--cacert", &ca], 3),
        (vec!["--endpoints", one, "--cacert", &cert, "--cert", &cert, "--key", &key], 3),
        (vec!["--endpoints", &plain], 3),
    ] {
        let get = snet(&[&["storage", "get", "channel/7", "--seconds", "2"][..], &arguments].concat());
        assert_eq!(get.status.code(), Some(code), "{arguments:?}: {get:?}");
        assert!(get.stdout.is_empty(), "{get:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_nodes_run_with_certificates_on_both_sides() {
    a_cluster_with_certificates_on_both_sides("embedded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcds_run_with_certificates_on_both_sides() {
    a_cluster_with_certificates_on_both_sides("etcd").await;
}

#[test]
fn certificates_are_made_once_and_their_keys_are_for_the_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let out = text(dir.path().join("certs"));
    let make = ["storage", "certs", "--out", &out, "--node", "n1=10.0.1.1,node-1.example", "--node", "n2=::1"];
    let said = told(&make);
    assert!(said.contains(&format!("--cert-file {out}/n1.crt --key-file {out}/n1.key --trusted-ca-file {out}/ca.crt")));
    let mut files: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["ca.crt", "ca.key", "client.crt", "client.key", "n1.crt", "n1.key", "n2.crt", "n2.key"]);
    #[cfg(unix)]
    for file in files.iter().filter(|file| file.to_str().unwrap().ends_with(".key")) {
        use std::os::unix::fs::PermissionsExt as _;
        let rights = fs::metadata(Path::new(&out).join(file)).unwrap().permissions().mode();
        assert_eq!(rights & 0o777, 0o600, "{file:?}");
    }
    let read = || fs::read(Path::new(&out).join("ca.key")).unwrap();
    let before = read();
    let again = snet(&make);
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    assert!(String::from_utf8_lossy(&again.stderr).contains("--force"), "{again:?}");
    assert_eq!(read(), before);
    told(&[&make[..], &["--force"]].concat());
    assert_ne!(read(), before);
    for wrong in ["n1", "=a", "n1=", "../n1=a", "ca=a", "n1=not a host"] {
        let refused = snet(&["storage", "certs", "--out", &out, "--force", "--node", wrong]);
        assert!(!refused.status.success(), "{wrong}");
    }
}

/// By the nodes of a file, which is then right on this machine, and wrong without its certificates.
#[test]
fn the_certificates_of_a_file_are_made_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join("cluster.toml"), dir.path().join("certs"));
    let tls = format!(
        "[tls]\ncert_file = {:?}\nkey_file = {:?}\ntrusted_ca_file = {:?}\n",
        out.join("n1.crt"),
        out.join("n1.key"),
        out.join("ca.crt")
    );
    let rows = "[[replicas]]\nid = 1\nstart_node = true\nnode_name = \"n1\"\nclient_url = \"https://127.0.0.1:1\"\n\
                peer_url = \"https://127.0.0.1:2\"\n";
    fs::write(&file, format!("token = \"t\"\n{tls}{rows}")).unwrap();
    let (file, out) = (text(file), text(out));
    let check = ["storage", "config", "check", &file, "--replica", "1"];
    let missing = snet(&check);
    assert_eq!(missing.status.code(), Some(2), "{missing:?}");
    assert!(String::from_utf8_lossy(&missing.stderr).contains("n1.crt"), "{missing:?}");
    let elsewhere = snet(&check[..4]);
    assert!(elsewhere.status.success(), "another machine has them: {elsewhere:?}");
    assert!(String::from_utf8_lossy(&elsewhere.stderr).contains("warning"), "{elsewhere:?}");
    told(&["storage", "certs", "--out", &out, "--config", &file]);
    told(&check);
    fs::copy(format!("{out}/client.key"), format!("{out}/n1.key")).unwrap();
    let mixed = snet(&check);
    assert_eq!(mixed.status.code(), Some(2), "{mixed:?}");
    assert!(String::from_utf8_lossy(&mixed.stderr).contains("cannot be used together"), "{mixed:?}");
}
