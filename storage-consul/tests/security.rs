//! Who may connect, and what they may do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::path::PathBuf;
use std::time::Duration;

use storage_consul::{ConsulConfig, ConsulStore, TlsConfig};
use storage_core::{Error, Expected, Key, ReadOptions, Result, Store, StoreExt, Txn, WatchOptions, WriteOptions};
use storage_testkit::certificates::Authority;
use storage_testkit::{server::http_send, suite};
use tokio::time::Instant;

use common::{Backend, Consul};

/// The files with a certificate for this name, and its key.
fn identity(authority: &Authority, name: &str) -> (PathBuf, PathBuf) {
    let identity = authority.sign(name).unwrap();
    (identity.cert, identity.key)
}

fn key(text: &str) -> Key {
    Key::try_from(text).unwrap()
}

async fn ping(config: ConsulConfig) -> Result<()> {
    let store = ConsulStore::new(config).await?;
    store.ping(ReadOptions::default().timeout(Duration::from_secs(3))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_prove_who_they_are() {
    let (ours, theirs) = (Authority::new().unwrap(), Authority::new().unwrap());
    let (cert, server_key) = identity(&ours, "127.0.0.1");
    let files = format!(
        "ca_file = {:?}\ncert_file = {cert:?}\nkey_file = {server_key:?}\nverify_incoming_https = true",
        ours.ca()
    );
    let consul =
        Consul::start_with(1, move |node| format!("{files}\nports {{ https = {} }}", node.port("tls").unwrap()));
    let consul = consul.await;
    let endpoint = format!("127.0.0.1:{}", consul.cluster().lock().await.node(0).unwrap().port("tls").unwrap());
    let in_the_clear = || ConsulConfig::new([&endpoint]).unwrap();
    let with = |ca: &Authority, signed_by: Option<&Authority>| {
        let identity = signed_by.map(|authority| identity(authority, "replica"));
        in_the_clear().with_tls(TlsConfig { ca: ca.ca(), identity })
    };

    let store = ConsulStore::new(with(&ours, Some(&ours))).await.unwrap();
    let version = store.put(&key("a"), "1").await.unwrap();
    let entry = store.get(&key("a"), ReadOptions::default()).await.unwrap().unwrap();
    assert_eq!((entry.value.as_ref(), entry.version), (&b"1"[..], version));

    for (who, config) in [
        ("without a certificate", with(&ours, None)),
        ("with a certificate of somebody else", with(&ours, Some(&theirs))),
    ] {
        let refused = ping(config).await;
        assert!(matches!(refused, Err(Error::Unavailable { .. })), "{who}: {refused:?}");
    }
    // The server cannot prove who it is: another try would end as the first.
    let named = |name: &str| with(&ours, Some(&ours)).with_server_name(name);
    for (what, config) in
        [("invalid peer certificate", with(&theirs, Some(&ours))), ("`server_name`", named("server.dc1.consul"))]
    {
        let refused = ping(config).await;
        let told = matches!(&refused, Err(Error::Unauthenticated { source }) if source.to_string().contains(what));
        assert!(told, "{what}: {refused:?}");
    }
    ping(named("127.0.0.1")).await.unwrap();
    assert!(ping(in_the_clear()).await.is_err(), "in the clear");

    // The same by URL.
    let (cert, key) = identity(&ours, "replica");
    let (ca, cert, key) = (ours.ca(), cert.display().to_string(), key.display().to_string());
    let url = format!("consuls://{endpoint}/mainnet/?ca={}&cert={cert}&key={key}", ca.display());
    let namespace = storage_consul::open(&url::Url::parse(&url).unwrap()).await.unwrap();
    namespace.put(&self::key("channel"), "open").await.unwrap();
    let whole = store.get(&self::key("mainnet/channel"), ReadOptions::default()).await.unwrap();
    assert_eq!(whole.unwrap().value, "open");
}

#[tokio::test]
async fn certificates_that_are_not_there_are_told_at_once() {
    let tls = TlsConfig { ca: "/nonexistent/ca.pem".into(), identity: None };
    let error = ConsulStore::new(ConsulConfig::new(["a:1"]).unwrap().with_tls(tls)).await.unwrap_err();
    assert!(matches!(&error, Error::InvalidArgument { reason } if reason.contains("/nonexistent/ca.pem")), "{error}");
}

/// The token of the cluster's own administrator.
const MASTER: &str = "b1a2c3d4-0000-4000-8000-000000000001";

/// Calls Consul as its administrator, and returns the identifier in its answer.
async fn administer(endpoint: &str, path: &str, body: String) -> String {
    let port = endpoint.rsplit_once(':').unwrap().1.parse().unwrap();
    let deadline = Instant::now() + suite::RECOVERY;
    loop {
        let answer =
            http_send(port, "PUT", &format!("/v1/acl/{path}"), &[("X-Consul-Token", MASTER)], &body).await.unwrap();
        if answer.status == 200 {
            let answer: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
            let id = answer.get("SecretID").or(answer.get("ID")).unwrap();
            return id.as_str().unwrap().to_owned();
        }
        // The administrator's own token comes to be a moment after the leader.
        assert!(Instant::now() < deadline, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_open_their_folder_and_no_other() {
    let acl = format!(
        "acl {{ enabled = true default_policy = \"deny\" tokens {{ master = \"{MASTER}\" agent = \"{MASTER}\" }} }}"
    );
    let consul = Consul::start_with(1, move |_| acl.clone()).await;
    let endpoint = &consul.endpoints()[0];
    let rules = r#"key_prefix \"pay/\" { policy = \"write\" }"#;
    administer(endpoint, "policy", format!(r#"{{"Name": "replica", "Rules": "{rules}"}}"#)).await;
    let token = administer(endpoint, "token", r#"{"Policies": [{"Name": "replica"}]}"#.to_owned()).await;

    let anonymous = ping(consul.config()).await;
    assert!(matches!(anonymous, Err(Error::PermissionDenied { .. })), "{anonymous:?}");
    let wrong = ping(consul.config().with_token("b1a2c3d4-0000-4000-8000-00000000dead").unwrap()).await;
    assert!(matches!(wrong, Err(Error::Unauthenticated { .. })), "{wrong:?}");

    let store = ConsulStore::new(format!("consul://{token}@{endpoint}?folder=pay").parse().unwrap()).await.unwrap();
    let version = store.put(&key("a"), "1").await.unwrap();
    store.ping(ReadOptions::default()).await.unwrap();
    assert_eq!(store.get(&key("a"), ReadOptions::default()).await.unwrap().unwrap().version, version);
    assert_eq!(store.scan(b"", Default::default()).await.unwrap().entries.len(), 1);
    store.watch(b"", WatchOptions::default()).await.map(|_| ()).expect("a watch of its own keys");

    let other = ConsulStore::new(consul.config().with_token(token).unwrap()).await.unwrap();
    let denied = |what: &str, error: Option<Error>| {
        assert!(matches!(error, Some(Error::PermissionDenied { .. })), "{what}: {error:?}");
    };
    denied("ping", ping(consul.config()).await.err());
    denied("get", other.get(&key("a"), ReadOptions::default()).await.err());
    denied("put", other.put(&key("a"), "1").await.err());
    denied("delete", other.delete(&key("a")).await.err());
    let guarded = Txn::new().guard(key("a"), Expected::Absent).put(key("a"), "1");
    denied("a guarded put", other.commit(guarded, WriteOptions::default()).await.err());
    denied("a guard", other.commit(Txn::new().guard(key("a"), Expected::Absent), WriteOptions::default()).await.err());
}
