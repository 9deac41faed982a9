//! Who may connect, and what they may do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::path::PathBuf;
use std::time::Duration;

use storage_core::{Error, Key, ReadOptions, Result, Store, StoreExt};
use storage_testkit::certificates::{Authority, Identity};
use storage_zk::server::ServerTls;
use storage_zk::{TlsConfig, ZkConfig, ZkStore};
use tokio::net::TcpStream;

use common::{Backend, SECURE, ZooKeeper};

fn key(text: &str) -> Key {
    Key::try_from(text).unwrap()
}

async fn ping(config: ZkConfig) -> Result<()> {
    let store = ZkStore::open(&config).await?;
    let pinged = store.ping(ReadOptions::default().timeout(Duration::from_secs(3))).await;
    store.close().await?;
    pinged
}

fn files(identity: Identity) -> (PathBuf, PathBuf) {
    (identity.cert, identity.key)
}

/// Where a server has TLS.
async fn endpoint(servers: &ZooKeeper) -> String {
    format!("127.0.0.1:{}", servers.cluster().lock().await.node(0).unwrap().port(SECURE).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_prove_who_they_are() {
    let (ours, theirs) = (Authority::new().unwrap(), Authority::new().unwrap());
    let tls = ServerTls { identity: ours.sign("127.0.0.1").unwrap().both, client_ca: Some(ours.ca()) };
    let servers = ZooKeeper::start_with(1, Some(tls)).await;
    let endpoint = endpoint(&servers).await;
    let in_the_clear = || ZkConfig::new([&endpoint]).unwrap();
    let with = |ca: &Authority, signed_by: Option<&Authority>| {
        let identity = signed_by.map(|authority| files(authority.sign("replica").unwrap()));
        in_the_clear().with_tls(TlsConfig { ca: ca.ca(), identity })
    };

    let store = ZkStore::open(&with(&ours, Some(&ours))).await.unwrap();
    let version = store.put(&key("a"), "1").await.unwrap();
    let entry = store.get(&key("a"), ReadOptions::default()).await.unwrap().unwrap();
    assert_eq!((entry.value.as_ref(), entry.version), (&b"1"[..], version));

    let port = endpoint.rsplit_once(':').unwrap().1;
    let elsewhere = format!("localhost:{port}");
    TcpStream::connect(&elsewhere).await.expect("the same server, but for its name");
    let elsewhere = ZkConfig::new([elsewhere]).unwrap();
    let identity = Some(files(ours.sign("replica").unwrap()));
    for (who, config) in [
        ("in the clear", in_the_clear()),
        ("without a certificate", with(&ours, None)),
        ("with a certificate of somebody else", with(&ours, Some(&theirs))),
        ("trusting somebody else", with(&theirs, Some(&ours))),
        ("a server with another name", elsewhere.with_tls(TlsConfig { ca: ours.ca(), identity })),
    ] {
        let refused = ping(config).await;
        assert!(matches!(refused, Err(Error::Unavailable { .. })), "{who}: {refused:?}");
    }

    // The same by URL.
    let Identity { cert, key, .. } = ours.sign("replica").unwrap();
    let (ca, cert, key) = (ours.ca(), cert.display(), key.display());
    let url = format!("zks://{endpoint}/storage?ca={}&cert={cert}&key={key}", ca.display());
    let same = storage_zk::open(&url::Url::parse(&url).unwrap()).await.unwrap();
    assert_eq!(same.get(&self::key("a"), ReadOptions::default()).await.unwrap().unwrap().version, version);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_with_tls_recovers_when_its_server_is_back() {
    let ours = Authority::new().unwrap();
    let tls = ServerTls { identity: ours.sign("127.0.0.1").unwrap().both, client_ca: None };
    let servers = ZooKeeper::start_with(1, Some(tls)).await;
    let config = ZkConfig::new([endpoint(&servers).await]).unwrap();
    let store = ZkStore::open(&config.with_tls(TlsConfig { ca: ours.ca(), identity: None })).await.unwrap();
    let version = store.put(&key("a"), "1").await.unwrap();
    servers.restart_all().await;
    let options = ReadOptions::default().timeout(Duration::from_secs(10));
    assert_eq!(store.get(&key("a"), options).await.unwrap().unwrap().version, version);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_has_written_is_for_this_user_alone() {
    let ours = Authority::new().unwrap();
    let tls = ServerTls { identity: ours.sign("127.0.0.1").unwrap().both, client_ca: None };
    let servers = ZooKeeper::start_with(1, Some(tls)).await;
    let secure = endpoint(&servers).await;
    for (root, endpoint, tls) in [("/clear", &servers.endpoints()[0], ""), ("/secure", &secure, "s")] {
        let ca = if tls.is_empty() { String::new() } else { format!("?ca={}", ours.ca().display()) };
        let with = |user: &str| format!("zk{tls}://{user}{endpoint}{root}{ca}").parse::<ZkConfig>().unwrap();
        let alice = ZkStore::open(&with("al%3Aice:p%2Fw%40@")).await.unwrap();
        let version = alice.put(&key("a"), "1").await.unwrap();
        let again = ZkStore::open(&with("al%3Aice:p%2Fw%40@")).await.unwrap();
        assert_eq!(again.get(&key("a"), ReadOptions::default()).await.unwrap().unwrap().version, version);
        for (who, user) in [("nobody", ""), ("bob", "bob:p%2Fw%40@"), ("another password", "al%3Aice:guess@")] {
            let read = async {
                let store = ZkStore::open(&with(user)).await?;
                store.get(&key("a"), ReadOptions::default()).await
            };
            let read = read.await;
            assert!(matches!(read, Err(Error::PermissionDenied { .. })), "{root}, {who}: {read:?}");
        }
    }
}

#[tokio::test]
async fn certificates_and_names_that_cannot_be_used_are_told_at_once() {
    let ours = Authority::new().unwrap();
    for (endpoint, ca, reason) in
        [("a:1", PathBuf::from("/nonexistent/ca.pem"), "/nonexistent/ca.pem"), ("-a-:1", ours.ca(), "-a-")]
    {
        let config = ZkConfig::new([endpoint]).unwrap().with_tls(TlsConfig { ca, identity: None });
        let error = ZkStore::open(&config).await.unwrap_err();
        assert!(matches!(&error, Error::InvalidArgument { reason: told } if told.contains(reason)), "{error}");
    }
}
