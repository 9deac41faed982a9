//! The same with certificates on both sides of every connection.

use std::path::Path;

use super::{
    common::{snet, told},
    growing::{Replicas, Setting, roles},
};

fn with_certificates(place: &Path, count: usize, engine: &'static str) -> Replicas {
    let certs = place.join("certs");
    let nodes: Vec<_> = (1..=count).map(|replica| format!("r{replica}=127.0.0.1")).collect();
    let nodes: Vec<_> = nodes.iter().flat_map(|node| ["--node", node]).collect();
    told(&[&["storage", "certs", "--out", certs.to_str().unwrap()][..], &nodes].concat());
    Replicas::with(count, Setting { engine, certs: Some(certs), ..Setting::default() })
}

async fn grow(replicas: &mut Replicas) {
    replicas.start(1, "new");
    replicas.until_voters(&[1]);
    let report = replicas
        .under_load(async |replicas, _| {
            replicas.start(2, "join");
            replicas.start(3, "join");
            replicas.until_voters(&[1, 2, 3]);
        })
        .await;
    assert_eq!(report.failed, 0, "no call fails while the cluster grows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_certificates_on_both_sides_grows_from_1_to_3() {
    let place = tempfile::tempdir().unwrap();
    let mut replicas = with_certificates(place.path(), 3, "embedded");
    grow(&mut replicas).await;
    let (certs, one) = (place.path().join("certs"), replicas.cluster.node(1).unwrap().client_url().to_owned());
    let file = |name: &str| certs.join(name).display().to_string();
    let (ca, cert, key) = (file("ca.crt"), file("client.crt"), file("client.key"));
    let get = |url: &str, tls: &[&str]| {
        snet(&[&["storage", "scan", "snet/", "--limit", "1", "--seconds", "2", "--endpoints", url], tls].concat())
    };
    let allowed = get(&format!("https://{one}"), &["--cacert", &ca, "--cert", &cert, "--key", &key]);
    assert!(allowed.status.success(), "{allowed:?}");
    // Nobody else gets in.
    assert_eq!(get(&format!("https://{one}"), &["--cacert", &ca]).status.code(), Some(3));
    assert_eq!(get(&format!("http://{one}"), &[]).status.code(), Some(3));
}

#[test]
#[ignore = "slow: cargo test -p snet --features etcd --test storage_growing -- --ignored --test-threads 1 --nocapture"]
fn replicas_with_certificates_agree_on_a_founder() {
    let place = tempfile::tempdir().unwrap();
    let mut replicas = with_certificates(place.path(), 3, "embedded");
    for replica in 1..=3 {
        replicas.start(replica, "quorum");
    }
    let shown = replicas.until_count(3, 3);
    assert_eq!(roles(&shown, "voter"), [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: cargo test -p snet --features etcd --test storage_growing -- --ignored --test-threads 1 --nocapture"]
async fn etcds_with_certificates_on_both_sides_grow_from_1_to_3() {
    let place = tempfile::tempdir().unwrap();
    let mut replicas = with_certificates(place.path(), 3, "etcd");
    grow(&mut replicas).await;
}
