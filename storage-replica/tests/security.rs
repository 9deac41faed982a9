//! Whom nodes with TLS let in, and whom they refuse: each is told why, is counted, and changes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    time::Duration,
};

use storage_core::{Error, Key, ReadOptions, Result, Store, StoreExt};
use storage_embedded::{ClusterToken, Member, Node, NodeConfig, Refusal, tls::TlsFiles};
use storage_etcd::{EtcdConfig, EtcdStore, TlsConfig};
use storage_replica::etcd_api::{Options, Server};
use storage_testkit::certificates::{Authority, Identity};
use tokio::time::Instant;

const DEADLINE: Duration = Duration::from_secs(30);

fn key(text: &str) -> Key {
    Key::try_from(text).unwrap()
}

fn files(identity: Identity, authority: &Authority) -> TlsFiles {
    TlsFiles { cert: identity.cert, key: identity.key, ca: Some(authority.ca()) }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn address(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().unwrap()
}

/// The members of a cluster, with ids from 1.
fn founders(addresses: &[SocketAddr]) -> BTreeMap<u64, Member> {
    let member = |address: &SocketAddr| Member { peer_address: address.to_string(), ..Member::default() };
    (1..).zip(addresses.iter().map(member)).collect()
}

fn config(id: u64, dir: &Path, founders: &BTreeMap<u64, Member>, tls: Option<TlsFiles>) -> NodeConfig {
    let mut config = NodeConfig::new(id, 7, dir.join(id.to_string()), "127.0.0.1:0").fast();
    config.founders.clone_from(founders);
    config.token = ClusterToken::new("token");
    config.tls = tls;
    config
}

/// Two nodes live, and somebody comes who says to be the third, which the cluster knows to be at another address. The two reach nobody
/// there, so it is they who are called.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_a_member_without_its_certificate_and_the_token() {
    let (dir, ours, theirs) = (tempfile::tempdir().unwrap(), Authority::new().unwrap(), Authority::new().unwrap());
    let listeners: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let third = address(&TcpListener::bind("127.0.0.9:0").unwrap());
    let founders = founders(&[address(&listeners[0]), address(&listeners[1]), third]);
    let mut insiders = Vec::new();
    for (id, listener) in (1..).zip(listeners) {
        let tls = files(ours.sign("127.0.0.1").unwrap(), &ours);
        insiders.push(Node::start_on(config(id, dir.path(), &founders, Some(tls)), listener).await.unwrap());
    }
    insiders[0].wait_for_leader(DEADLINE).await.unwrap();
    let store = insiders[0].store();
    store.put(&key("a"), "1").await.unwrap();
    let count = |refusal| insiders.iter().map(|node| node.refusals().count(refusal)).sum::<u64>();

    let right = || ours.sign("127.0.0.9").unwrap();
    let cases = [
        ("in the clear", None, "token", Refusal::Protocol),
        (
            "by another authority",
            Some(files(theirs.sign("127.0.0.9").unwrap(), &ours)),
            "token",
            Refusal::UntrustedCertificate,
        ),
        ("expired", Some(files(ours.sign_expired("127.0.0.9").unwrap(), &ours)), "token", Refusal::ExpiredCertificate),
        ("another's name", Some(files(ours.sign("127.0.0.1").unwrap(), &ours)), "token", Refusal::WrongName),
        ("a client", Some(files(ours.sign_client("127.0.0.9").unwrap(), &ours)), "token", Refusal::WrongPurpose),
        ("another token", Some(files(right(), &ours)), "guess", Refusal::WrongToken),
        ("trusts others", Some(files(right(), &theirs)), "token", Refusal::ByOther),
    ];
    for (who, tls, token, refusal) in cases {
        let (before, revision) = (count(refusal), insiders[0].status().revision);
        let mut config = config(3, &dir.path().join(who), &founders, tls);
        config.token = ClusterToken::new(token);
        let outsider = Node::start(config).await.unwrap();
        let status = || (outsider.status().leader, outsider.status().revision);
        if refusal == Refusal::ByOther {
            // It is not refused: it refuses.
            until(who, || outsider.refusals().count(Refusal::UntrustedCertificate) > 0).await;
        } else {
            until(who, || count(refusal) > before).await;
        }
        assert_eq!(status(), (None, 0), "{who}: it has heard something");
        outsider.stop().await;
        assert_eq!(insiders[0].status().revision, revision, "{who}");
    }

    // With no certificate at all.
    let before = count(Refusal::NoCertificate);
    connect(insiders[0].address(), &ours).await.expect_err("nobody is let in without a certificate");
    until("refused without a certificate", || count(Refusal::NoCertificate) > before).await;

    // It was the certificates: with the right one, it is a member.
    store.put(&key("a"), "2").await.unwrap();
    let tls = files(right(), &ours);
    let mut config = config(3, &dir.path().join("right"), &founders, Some(tls));
    config.listen = third.to_string();
    let member = Node::start(config).await.unwrap();
    until("it has all", || member.status().revision == insiders[0].status().revision).await;
    for node in insiders.iter().chain([&member]) {
        node.stop().await;
    }
}

/// A connection with TLS whose client has no certificate, until the server has said what it thinks of it.
async fn connect(address: SocketAddr, authority: &Authority) -> std::io::Result<()> {
    use tokio::io::AsyncReadExt as _;
    use tokio_rustls::rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.ca()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(storage_embedded::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await?;
    stream.read_u8().await.map(|_| ())
}

/// A node calls another whose certificate names another host: it refuses, whatever else is right.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_called_has_to_be_the_one_that_is_meant() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new().unwrap());
    let listeners: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let founders = founders(&listeners.iter().map(address).collect::<Vec<_>>());
    let mut nodes = Vec::new();
    for ((id, listener), name) in (1..).zip(listeners).zip(["127.0.0.1", "127.0.0.2"]) {
        let tls = files(authority.sign(name).unwrap(), &authority);
        nodes.push(Node::start_on(config(id, dir.path(), &founders, Some(tls)), listener).await.unwrap());
    }
    until("refused", || nodes[0].refusals().count(Refusal::WrongName) > 0).await;
    until("told", || nodes[1].refusals().count(Refusal::ByOther) > 0).await;
    assert!(nodes.iter().all(|node| node.status().leader.is_none()));
    for node in nodes {
        node.stop().await;
    }
}

/// Certificates are read again when their files change, on both sides of a connection, and bad ones leave what there was.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_take_up_new_certificates_while_they_run() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new().unwrap());
    let listeners: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let founders = founders(&listeners.iter().map(address).collect::<Vec<_>>());
    let expired = files(authority.sign_expired("127.0.0.1").unwrap(), &authority);
    let mut nodes = Vec::new();
    for (id, listener) in (1..).zip(listeners) {
        nodes.push(Node::start_on(config(id, dir.path(), &founders, Some(expired.clone())), listener).await.unwrap());
    }
    until("refused", || nodes[0].refusals().count(Refusal::ExpiredCertificate) > 0).await;
    assert!(nodes.iter().all(|node| node.status().leader.is_none()));
    renew(&expired, authority.sign("127.0.0.1").unwrap());
    nodes[0].wait_for_leader(DEADLINE).await.expect("the new certificate is good");
    nodes[0].store().put(&key("a"), "1").await.unwrap();
    for node in nodes {
        node.stop().await;
    }
}

/// Puts these in the place of those that were there.
fn renew(files: &TlsFiles, identity: Identity) {
    fs::rename(identity.key, &files.key).unwrap();
    fs::rename(identity.cert, &files.cert).unwrap();
}

/// A node alone with a server for clients.
async fn server(dir: &Path, tls: &TlsFiles) -> (Node, Server) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let founders = founders(&[address(&listener)]);
    let node = Node::start_on(config(1, dir, &founders, None), listener).await.unwrap();
    node.wait_for_leader(DEADLINE).await.unwrap();
    let mut options = Options::default();
    options.tls = Some(tls.clone());
    let server = Server::start(node.clone(), "127.0.0.1:0", options).await.unwrap();
    (node, server)
}

/// A client of the server that trusts this authority.
async fn ping(server: &Server, tls: Option<TlsConfig>) -> Result<()> {
    let config = EtcdConfig::new([server.address().to_string()])?;
    let store = EtcdStore::new(match tls {
        Some(tls) => config.with_tls(tls),
        None => config,
    })
    .await?;
    let pinged = store.ping(ReadOptions::default().timeout(Duration::from_secs(3))).await;
    store.close().await?;
    pinged
}

fn client(trusted: &Authority, identity: Option<Identity>) -> TlsConfig {
    let identity = identity.map(|identity| (identity.cert, identity.key));
    TlsConfig { ca: Some(trusted.ca()), identity, server_name: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_is_let_in_without_a_certificate_that_is_good() {
    let (dir, ours, theirs) = (tempfile::tempdir().unwrap(), Authority::new().unwrap(), Authority::new().unwrap());
    let (node, server) = server(dir.path(), &files(ours.sign("127.0.0.1").unwrap(), &ours)).await;
    ping(&server, Some(client(&ours, Some(ours.sign_client("replica").unwrap())))).await.unwrap();
    until("the server has told its address", || node.status().last_applied.is_some()).await;
    let elsewhere =
        TlsConfig { server_name: Some("elsewhere".to_owned()), ..client(&ours, Some(ours.sign("a").unwrap())) };
    let cases = [
        ("in the clear", None, Refusal::Protocol),
        ("without a certificate", Some(client(&ours, None)), Refusal::NoCertificate),
        (
            "by another authority",
            Some(client(&ours, Some(theirs.sign("replica").unwrap()))),
            Refusal::UntrustedCertificate,
        ),
        ("expired", Some(client(&ours, Some(ours.sign_expired("replica").unwrap()))), Refusal::ExpiredCertificate),
        ("who means another server", Some(elsewhere), Refusal::ByOther),
        ("who trusts others", Some(client(&theirs, Some(ours.sign("replica").unwrap()))), Refusal::ByOther),
    ];
    for (who, tls, refusal) in cases {
        let (before, revision) = (server.refusals().count(refusal), node.status().revision);
        let refused = ping(&server, tls).await;
        assert!(matches!(refused, Err(Error::Unavailable { .. })), "{who}: {refused:?}");
        until(who, || server.refusals().count(refusal) > before).await;
        assert_eq!(node.status().revision, revision, "{who}");
    }
    server.stop().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_takes_up_new_certificates_and_keeps_the_old_if_they_are_bad() {
    let (dir, ours, theirs) = (tempfile::tempdir().unwrap(), Authority::new().unwrap(), Authority::new().unwrap());
    let tls = TlsFiles { ca: None, ..files(theirs.sign("127.0.0.1").unwrap(), &theirs) };
    let (node, server) = server(dir.path(), &tls).await;
    ping(&server, Some(client(&theirs, None))).await.unwrap();
    ping(&server, Some(client(&ours, None))).await.expect_err("not ours yet");
    renew(&tls, ours.sign("127.0.0.1").unwrap());
    eventually("the new certificate", async || ping(&server, Some(client(&ours, None))).await.is_ok()).await;
    // A certificate that is none, and later a key of another: what was good stays.
    fs::write(&tls.cert, "no certificate").unwrap();
    assert_stays(&server, &ours).await;
    let (one, other) = (theirs.sign("127.0.0.1").unwrap(), theirs.sign("127.0.0.1").unwrap());
    renew(&tls, Identity { key: other.key, ..one });
    assert_stays(&server, &ours).await;
    renew(&tls, theirs.sign("127.0.0.1").unwrap());
    eventually("the next certificate", async || ping(&server, Some(client(&theirs, None))).await.is_ok()).await;
    server.stop().await;
    node.stop().await;
}

/// For long enough that the files are looked at.
async fn assert_stays(server: &Server, authority: &Authority) {
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        ping(server, Some(client(authority, None))).await.expect("the good certificate stays");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
