//! Whom nodes with TLS let in, and whom they refuse: each is told why, is counted, and changes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures::StreamExt as _;

use storage_core::{Error, Key, ReadOptions, Result, Store, StoreExt};
use storage_embedded::{ClusterToken, Member, Node, NodeConfig, Refusal, tls::TlsFiles};
use storage_etcd::{EtcdConfig, EtcdStore, TlsConfig};
use storage_etcd_api::{Options, Port, Server, connections, tls};
use storage_testkit::certificates::{Authority, Identity};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    time::Instant,
};
use tokio_rustls::client::TlsStream;

const DEADLINE: Duration = Duration::from_secs(30);

fn key(text: &str) -> Key {
    Key::try_from(text).unwrap()
}

fn files(identity: Identity, authority: &Authority) -> TlsFiles {
    TlsFiles { cert: identity.cert, key: identity.key, ca: Some(authority.ca()), crl: None }
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
    // The third has to be there when the cluster is founded.
    let right = || ours.sign("127.0.0.9").unwrap();
    let third_node = || {
        let mut config = config(3, &dir.path().join("right"), &founders, Some(files(right(), &ours)));
        config.listen = third.to_string();
        Node::start(config)
    };
    let member = third_node().await.unwrap();
    member.wait_for_leader(DEADLINE).await.unwrap();
    member.stop().await;
    insiders[0].wait_for_leader(DEADLINE).await.unwrap();
    let store = insiders[0].store();
    store.put(&key("a"), "1").await.unwrap();
    let count = |refusal| insiders.iter().map(|node| node.refusals().count(refusal)).sum::<u64>();

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
    connect(insiders[0].address().unwrap(), &ours).await.expect_err("nobody is let in without a certificate");
    until("refused without a certificate", || count(Refusal::NoCertificate) > before).await;

    // It was the certificates: with the right one, it is a member.
    store.put(&key("a"), "2").await.unwrap();
    let member = third_node().await.unwrap();
    until("it has all", || member.status().revision == insiders[0].status().revision).await;
    for node in insiders.iter().chain([&member]) {
        node.stop().await;
    }
}

/// A connection with TLS whose client has no certificate, until the server has said what it thinks of it.
async fn connect(address: SocketAddr, authority: &Authority) -> std::io::Result<()> {
    handshake(address, authority).await?.read_u8().await.map(|_| ())
}

/// A connection with TLS whose client has no certificate.
async fn handshake(address: SocketAddr, authority: &Authority) -> std::io::Result<TlsStream<TcpStream>> {
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
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Port scanners and probes of load balancers connect and go. Two of them at a time left the next client without an answer, until another came.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_go_in_the_middle_of_their_handshake_hold_up_nobody() {
    let authority = Authority::new().unwrap();
    let tls = TlsFiles { ca: None, ..files(authority.sign("127.0.0.1").unwrap(), &authority) };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (through, mut is_through) = mpsc::unbounded_channel();
    let connections = connections(listener, Some(tls::load(tls).unwrap()), Port::new("client", 100));
    let serving = tokio::spawn(connections.for_each(move |connection| {
        through.send(connection).unwrap();
        async {}
    }));
    for going in [2, 5] {
        let mut probes = Vec::new();
        for _ in 0..going {
            probes.push(TcpStream::connect(address).await.unwrap());
        }
        // They are at their handshakes when one is through that came after them.
        for after in ["while they are there", "when they have gone"] {
            let client = handshake(address, &authority).await.unwrap();
            let served = tokio::time::timeout(DEADLINE, is_through.recv()).await;
            served.unwrap_or_else(|_| panic!("{going} others, {after}: a client is not served")).unwrap().unwrap();
            drop(client);
            probes.clear();
        }
    }
    serving.abort();
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

/// A cluster with a list of revoked certificates, which is empty at first. Each member's certificate can be revoked: the others hear of it
/// without anybody opening a connection, and end those that there are.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_certificate_is_revoked_is_cut_off_from_the_others() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new().unwrap());
    let crl = dir.path().join("crl.pem");
    authority.revoke(&[], &crl).unwrap();
    let listeners: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let founders = founders(&listeners.iter().map(address).collect::<Vec<_>>());
    let (mut nodes, mut serials) = (Vec::new(), Vec::new());
    for (id, listener) in (1..).zip(listeners) {
        let identity = authority.sign("127.0.0.1").unwrap();
        serials.push(identity.serial);
        let tls = TlsFiles { crl: Some(crl.clone()), ..files(identity, &authority) };
        nodes.push(Node::start_on(config(id, dir.path(), &founders, Some(tls)), listener).await.unwrap());
    }
    for node in &nodes {
        node.wait_for_leader(DEADLINE).await.unwrap();
    }
    nodes[0].store().put(&key("a"), "1").await.unwrap();
    let revoked = || nodes.iter().map(|node| node.refusals().count(Refusal::RevokedCertificate)).sum::<u64>();
    // The list is read again, and nobody in it is harmed.
    authority.revoke(&[serials.iter().max().unwrap() + 100], &crl).unwrap();
    nodes[1].store().put(&key("a"), "2").await.unwrap();
    assert_eq!(revoked(), 0);
    let leads = nodes.iter().position(|node| node.status().leader == Some(node.id())).unwrap();
    let (cut_off, others) = (leads, [0, 1, 2].into_iter().filter(|place| *place != leads).collect::<Vec<_>>());
    authority.revoke(&[serials[cut_off]], &crl).unwrap();
    until("the others let it in no more", || {
        others.iter().all(|place| nodes[*place].refusals().count(Refusal::RevokedCertificate) > 0)
    })
    .await;
    // It led, on connections that were open before. Another leads now, and it hears nothing.
    until("another leads", || {
        let leader = nodes[others[0]].status().leader;
        leader.is_some() && leader != Some(nodes[cut_off].id())
    })
    .await;
    let before = nodes[cut_off].status().revision;
    nodes[others[0]].store().put(&key("a"), "3").await.unwrap();
    assert_eq!(nodes[cut_off].status().revision, before);
    // The mistake is taken back.
    authority.revoke(&[], &crl).unwrap();
    until("it has all", || nodes[cut_off].status().revision == nodes[others[0]].status().revision).await;
    for node in nodes {
        node.stop().await;
    }
}

/// One that watches, and so has a connection on which nothing needs to come: it ends when its certificate is revoked, and when its authority is
/// withdrawn. Those of others go on.
#[tokio::test(flavor = "multi_thread")]
async fn open_connections_of_clients_end_with_their_certificate_or_its_authority() {
    let (dir, authority, next) = (tempfile::tempdir().unwrap(), Authority::new().unwrap(), Authority::new().unwrap());
    let (crl, ca) = (dir.path().join("crl.pem"), dir.path().join("ca.pem"));
    authority.revoke(&[], &crl).unwrap();
    fs::copy(authority.ca(), &ca).unwrap();
    let own = authority.sign("127.0.0.1").unwrap();
    let tls = TlsFiles { ca: Some(ca.clone()), crl: Some(crl.clone()), cert: own.cert, key: own.key };
    let (node, server) = server(dir.path(), &tls).await;
    let connected = async |identity: &Identity| {
        let socket = TcpStream::connect(server.address()).await.unwrap();
        let mut stream = connect_as(socket, &authority, identity).await;
        // The server's settings, so that it is known to have let this client in.
        let mut frame = [0; 9];
        stream.read_exact(&mut frame).await.unwrap();
        stream
    };
    let (one, other) = (authority.sign_client("one").unwrap(), authority.sign_client("other").unwrap());
    let (mut first, mut second) = (connected(&one).await, connected(&other).await);
    authority.revoke(&[one.serial], &crl).unwrap();
    ends(&mut first).await;
    assert!(server.refusals().count(Refusal::RevokedCertificate) > 0);
    ping(&server, Some(client(&authority, Some(one)))).await.expect_err("nor does it get in again");
    ping(&server, Some(client(&authority, Some(other.clone())))).await.expect("the other does");
    // The authority of all of them is withdrawn.
    authority.revoke(&[], &crl).unwrap();
    fs::copy(next.ca(), dir.path().join("ca.new")).unwrap();
    fs::rename(dir.path().join("ca.new"), &ca).unwrap();
    ends(&mut second).await;
    ping(&server, Some(client(&authority, Some(other)))).await.expect_err("nobody trusts it any more");
    server.stop().await;
    node.stop().await;
}

/// Reads what still comes, to the end.
async fn ends(stream: &mut TlsStream<TcpStream>) {
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "it goes on");
}

/// A connection of a client with a certificate, with the beginning of HTTP/2.
async fn connect_as(socket: TcpStream, trusted: &Authority, identity: &Identity) -> TlsStream<TcpStream> {
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    let mut roots = tokio_rustls::rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trusted.ca()).unwrap()).unwrap();
    let mut config = tokio_rustls::rustls::ClientConfig::builder_with_provider(storage_embedded::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_file(&identity.cert).unwrap()],
            PrivateKeyDer::from_pem_file(&identity.key).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = "127.0.0.1".to_owned().try_into().unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    stream.flush().await.unwrap();
    stream
}
