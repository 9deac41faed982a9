//! Who may connect, and what they may do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::path::PathBuf;

use etcd_client::{Client, ConnectOptions, Permission, PermissionType};
use storage_core::{Error, Key, ReadOptions, Result, Store, StoreExt, WatchOptions};
use storage_etcd::server::ServerTls;
use storage_etcd::{EtcdConfig, EtcdStore, TlsConfig};
use storage_testkit::certificates::Authority;

use common::{Backend, Etcd};

/// The files with a certificate for this name, and its key.
fn identity(authority: &Authority, name: &str) -> (PathBuf, PathBuf) {
    let identity = authority.sign(name).unwrap();
    (identity.cert, identity.key)
}

fn key(text: &str) -> Key {
    Key::try_from(text).unwrap()
}

async fn ping(config: EtcdConfig) -> Result<()> {
    let store = EtcdStore::new(config).await?;
    store.ping(ReadOptions::default().timeout(std::time::Duration::from_secs(3))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_prove_who_they_are() {
    let (ours, theirs) = (Authority::new().unwrap(), Authority::new().unwrap());
    let (cert, server_key) = identity(&ours, "127.0.0.1");
    let tls = ServerTls { cert, key: server_key, client_ca: Some(ours.ca()) };
    let etcd = Etcd::start_with(1, Some(tls)).await;
    let with = |ca: &Authority, signed_by: Option<&Authority>| {
        let identity = signed_by.map(|authority| identity(authority, "replica"));
        etcd.config().with_tls(TlsConfig { ca: Some(ca.ca()), identity, server_name: None })
    };

    let store = EtcdStore::new(with(&ours, Some(&ours))).await.unwrap();
    let version = store.put(&key("a"), "1").await.unwrap();
    let entry = store.get(&key("a"), ReadOptions::default()).await.unwrap().unwrap();
    assert_eq!((entry.value.as_ref(), entry.version), (&b"1"[..], version));

    for (who, config) in [
        ("in the clear", etcd.config()),
        ("without a certificate", with(&ours, None)),
        ("with a certificate of somebody else", with(&ours, Some(&theirs))),
        ("trusting somebody else", with(&theirs, Some(&ours))),
    ] {
        let refused = ping(config).await;
        assert!(matches!(refused, Err(Error::Unavailable { .. })), "{who}: {refused:?}");
    }

    let (cert, key) = identity(&ours, "replica");
    let name =
        TlsConfig { ca: Some(ours.ca()), identity: Some((cert, key)), server_name: Some("elsewhere".to_owned()) };
    let refused = ping(etcd.config().with_tls(name)).await;
    assert!(matches!(refused, Err(Error::Unavailable { .. })), "a server with another name: {refused:?}");

    // The same by URL.
    let (cert, key) = identity(&ours, "replica");
    let endpoint = &etcd.endpoints()[0];
    let (ca, cert, key) = (ours.ca(), cert.display().to_string(), key.display().to_string());
    let url = format!("etcds://{endpoint}/mainnet/?ca={}&cert={cert}&key={key}", ca.display());
    let namespace = storage_etcd::open(&url::Url::parse(&url).unwrap()).await.unwrap();
    namespace.put(&self::key("channel"), "open").await.unwrap();
    let whole = store.get(&self::key("mainnet/channel"), ReadOptions::default()).await.unwrap();
    assert_eq!(whole.unwrap().value, "open");
}

#[tokio::test]
async fn certificates_that_are_not_there_are_told_at_once() {
    let tls = TlsConfig { ca: Some("/nonexistent/ca.pem".into()), ..TlsConfig::default() };
    let error = EtcdStore::new(EtcdConfig::new(["a:1"]).unwrap().with_tls(tls)).await.unwrap_err();
    assert!(matches!(&error, Error::InvalidArgument { reason } if reason.contains("/nonexistent/ca.pem")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_get_in_by_password_and_stay_in_their_keys() {
    let etcd = Etcd::start(1).await;
    let mut admin = etcd.client().await;
    admin.user_add("root", "secret", None).await.unwrap();
    admin.user_grant_role("root", "root").await.unwrap();
    admin.role_add("replica").await.unwrap();
    let own = Permission::new(PermissionType::Readwrite, "own/").with_prefix();
    admin.role_grant_permission("replica", own).await.unwrap();
    admin.user_add("re:pl@ica", "p/w?", None).await.unwrap();
    admin.user_grant_role("re:pl@ica", "replica").await.unwrap();
    admin.auth_enable().await.unwrap();

    let nobody = ping(etcd.config()).await;
    assert!(matches!(nobody, Err(Error::Unauthenticated { .. })), "{nobody:?}");
    let wrong = ping(etcd.config().with_credentials("root", "guess")).await;
    assert!(matches!(wrong, Err(Error::Unauthenticated { .. })), "{wrong:?}");

    let url = format!("etcd://re%3Apl%40ica:p%2Fw%3F@{}", etcd.endpoints()[0]);
    let store = EtcdStore::new(url.parse().unwrap()).await.unwrap();
    store.put(&key("own/a"), "1").await.unwrap();
    store.ping(ReadOptions::default()).await.expect("a user without a right to the first key can ping");
    store.watch(b"own/", WatchOptions::default()).await.map(|_| ()).expect("a watch of its own keys");
    let others = store.put(&key("other"), "1").await;
    assert!(matches!(others, Err(Error::PermissionDenied { .. })), "{others:?}");
    let others = store.get(&key("other"), ReadOptions::default()).await;
    assert!(matches!(others, Err(Error::PermissionDenied { .. })), "{others:?}");
    let others = store.watch(b"other", WatchOptions::default()).await.map(|_| ());
    assert!(matches!(others, Err(Error::PermissionDenied { .. })), "{others:?}");

    // A server that restarts has forgotten every token, and one of an older set of rights is not taken.
    etcd.cluster().lock().await.kill_all();
    etcd.cluster().lock().await.restart_all().await.unwrap();
    store.get(&key("own/a"), ReadOptions::default()).await.unwrap().expect("after the server forgot the token");
    let options = ConnectOptions::new().with_user("root", "secret");
    let mut admin = Client::connect(etcd.endpoints(), Some(options)).await.unwrap();
    let more = Permission::new(PermissionType::Readwrite, "more/").with_prefix();
    admin.role_grant_permission("replica", more).await.unwrap();
    store.put(&key("more/a"), "1").await.expect("with rights that were given meanwhile");
}
