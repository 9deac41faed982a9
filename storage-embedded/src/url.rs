//! A node behind a URL.
//!
//! - `embedded:/DIR`: the only node of a cluster of one, with its data in that directory.
//! - `embedded:/DIR?id=1&listen=127.0.0.1:7001&members=1=127.0.0.1:7001,2=127.0.0.1:7002&cluster=C0FFEE`: node 1 of a
//!   cluster that these members found. Every founding member is given the same `members` and `cluster`.
//! - The same without `members`: a node that waits until a cluster takes it in. Once a node has data, `members` is ignored.
//!
//! The nodes of a cluster need a token in common, `token_file=FILE` or that of the environment ([`ClusterToken::from_env`]), or TLS: `cert=FILE`,
//! `key=FILE` and `ca=FILE`, with `crl=FILE` if certificates may be revoked. Only those on loopback addresses may do without.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ::url::Url;
use storage_core::{Error, Result, Store};

use crate::{
    network::token::ClusterToken,
    node::{Node, NodeConfig},
    raft::Member,
    store::EmbeddedStore,
    tls::TlsFiles,
};

/// The URL schemes of this backend.
pub const SCHEMES: &[&str] = &["embedded"];

/// The names that may stand in the query of its URL.
pub const PARAMETERS: &[&str] = &[ID, LISTEN, MEMBERS, CLUSTER, TOKEN, TOKEN_FILE, CERT, KEY, CA, CRL];

const ID: &str = "id";
const LISTEN: &str = "listen";
const MEMBERS: &str = "members";
const CLUSTER: &str = "cluster";
const TOKEN: &str = "token";
const TOKEN_FILE: &str = "token_file";
const CERT: &str = "cert";
const KEY: &str = "key";
const CA: &str = "ca";
const CRL: &str = "crl";

/// The id and cluster of a node that is alone. They have to be the same at each start.
const ALONE: (u64, u128) = (1, 1);

/// How long `open` waits for a node that is alone to lead: it votes for itself within a second, and reads its log before.
const LEADS_WITHIN: Duration = Duration::from_secs(30);

/// Starts the node that a URL describes and gives its store. Closing the store, or dropping it, stops the node.
///
/// A node that is alone serves when this returns; one of several may still wait for the others.
///
/// # Errors
/// Those of [`Node::start`], and [`Error::InvalidArgument`] for a URL that describes no node.
pub async fn open(url: &Url) -> Result<Arc<dyn Store>> {
    let config = config(url)?;
    let alone = config.founders.len() == 1;
    let node = Node::start(config).await?;
    if alone {
        node.wait_for_leader(LEADS_WITHIN).await?;
    }
    Ok(Arc::new(EmbeddedStore::new(node, true)))
}

/// The configuration that a URL describes.
fn config(url: &Url) -> Result<NodeConfig> {
    let mut parameters = parameters(url)?;
    let dir = directory(url)?;
    if parameters.is_empty() {
        let (id, cluster) = ALONE;
        return Ok(NodeConfig::alone(id, cluster, dir).fast());
    }
    let mut required = |name: &'static str| {
        parameters.remove(name).ok_or_else(|| invalid(url, format!("a node of a cluster needs `{name}`")))
    };
    let id = node_id(url, &required(ID)?)?;
    let listen = required(LISTEN)?;
    let cluster = required(CLUSTER)?;
    let cluster = u128::from_str_radix(&cluster, 16)
        .map_err(|_| invalid(url, format!("`{CLUSTER}` is 1 to 32 hexadecimal digits, not `{cluster}`")))?;
    let founders = match parameters.remove(MEMBERS) {
        Some(members) => founders(url, &members)?,
        None => BTreeMap::new(),
    };
    if !founders.is_empty() && !founders.contains_key(&id) {
        return Err(invalid(url, format!("node {id} is not among its own `{MEMBERS}`")));
    }
    let (token, tls) = (token(url, &mut parameters)?, tls(url, &mut parameters)?);
    Ok(NodeConfig { founders, token, tls, ..NodeConfig::new(id, cluster, dir, listen) })
}

/// What the nodes prove to each other: as the URL says, or else the environment.
fn token(url: &Url, parameters: &mut BTreeMap<String, String>) -> Result<ClusterToken> {
    match (parameters.remove(TOKEN), parameters.remove(TOKEN_FILE)) {
        (None, None) => Ok(ClusterToken::from_env()?.unwrap_or_default()),
        (Some(token), None) => Ok(ClusterToken::new(token)),
        (None, Some(file)) => ClusterToken::from_file(file),
        (Some(_), Some(_)) => Err(invalid(url, format!("there is one token, in `{TOKEN}` or in `{TOKEN_FILE}`"))),
    }
}

/// The certificates, all of them or none.
fn tls(url: &Url, parameters: &mut BTreeMap<String, String>) -> Result<Option<TlsFiles>> {
    let mut file = |name| parameters.remove(name).map(PathBuf::from);
    match (file(CERT), file(KEY), file(CA), file(CRL)) {
        (None, None, None, None) => Ok(None),
        (Some(cert), Some(key), Some(ca), crl) => Ok(Some(TlsFiles { cert, key, ca: Some(ca), crl })),
        _ => Err(invalid(url, format!("TLS between nodes needs `{CERT}`, `{KEY}` and `{CA}`"))),
    }
}

fn parameters(url: &Url) -> Result<BTreeMap<String, String>> {
    let mut parameters = BTreeMap::new();
    for (name, value) in url.query_pairs() {
        if !PARAMETERS.contains(&name.as_ref()) {
            return Err(invalid(url, format!("there is no parameter `{name}`, only {}", PARAMETERS.join(", "))));
        }
        if parameters.insert(name.clone().into_owned(), value.into_owned()).is_some() {
            return Err(invalid(url, format!("`{name}` stands there twice")));
        }
    }
    Ok(parameters)
}

fn directory(url: &Url) -> Result<PathBuf> {
    let rooted = url.path().starts_with('/') && url.path() != "/";
    if url.has_host() || !rooted || url.fragment().is_some() {
        let what = "it names a directory by an absolute path, as in embedded:/var/lib/channels";
        return Err(invalid(url, what.to_owned()));
    }
    url.to_file_path().map_err(|()| invalid(url, "its path is no path of this system".to_owned()))
}

/// `1=host:port,2=host:port`
fn founders(url: &Url, members: &str) -> Result<BTreeMap<u64, Member>> {
    let mut founders = BTreeMap::new();
    for member in members.split(',') {
        let wrong = || invalid(url, format!("`{MEMBERS}` is a list of id=host:port, of which `{member}` is none"));
        let (id, address) = member.split_once('=').ok_or_else(wrong)?;
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        if host.is_empty() || port.parse::<u16>().map_or(true, |port| port == 0) {
            return Err(wrong());
        }
        let id = node_id(url, id)?;
        let member = Member { name: name(id), peer_address: address.to_owned(), ..Member::default() };
        if founders.insert(id, member).is_some() {
            return Err(invalid(url, format!("node {id} stands twice among the `{MEMBERS}`")));
        }
    }
    Ok(founders)
}

fn node_id(url: &Url, text: &str) -> Result<u64> {
    let id = text.parse().ok().filter(|id| *id > 0);
    id.ok_or_else(|| invalid(url, format!("a node id is a number from 1, not `{text}`")))
}

fn name(id: u64) -> String {
    format!("node-{id}")
}

/// Without the parameters, which may have a token in them.
fn invalid(url: &Url, what: String) -> Error {
    let dir = Path::new(url.path()).display();
    Error::invalid_argument(format!("{}:{dir}: {what}", url.scheme()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(url: &str) -> Result<NodeConfig> {
        config(&Url::parse(url).unwrap())
    }

    #[test]
    fn a_path_alone_is_a_node_alone() {
        let config = parse("embedded:/var/lib/my%20channels").unwrap();
        assert_eq!(config.data_dir, Path::new("/var/lib/my channels"));
        assert_eq!((config.id, config.cluster), ALONE);
        assert_eq!((config.founders.keys().copied().collect::<Vec<_>>(), config.listen.as_str()), (vec![1], ""));
    }

    #[test]
    fn a_founding_member_knows_the_others() {
        let config =
            parse("embedded:/d?id=2&listen=0.0.0.0:7002&members=1=10.0.0.1:7001,2=10.0.0.2:7002&cluster=C0ffee")
                .unwrap();
        assert_eq!((config.id, config.cluster, config.listen.as_str()), (2, 0xc0_ffee, "0.0.0.0:7002"));
        let addresses: Vec<_> = config.founders.values().map(|member| member.peer_address.as_str()).collect();
        assert_eq!(addresses, ["10.0.0.1:7001", "10.0.0.2:7002"]);
    }

    #[test]
    fn a_node_without_members_waits_to_be_taken_in() {
        let config = parse("embedded:/d?id=4&listen=127.0.0.1:7004&cluster=1").unwrap();
        assert!(config.founders.is_empty());
    }

    #[test]
    fn a_url_that_describes_no_node_is_refused_with_the_reason() {
        let cases = [
            ("embedded:data", "absolute path"),
            ("embedded:", "absolute path"),
            ("embedded:/", "absolute path"),
            ("embedded://host/d", "absolute path"),
            ("embedded:/d?id=1", "needs `listen`"),
            ("embedded:/d?id=1&listen=a:1", "needs `cluster`"),
            ("embedded:/d?id=0&listen=a:1&cluster=1", "a number from 1, not `0`"),
            ("embedded:/d?id=1&listen=a:1&cluster=xyz", "hexadecimal"),
            ("embedded:/d?id=1&id=2&listen=a:1&cluster=1", "twice"),
            ("embedded:/d?id=3&listen=a:1&cluster=1&members=1=a:1", "not among its own"),
            ("embedded:/d?id=1&listen=a:1&cluster=1&members=1=a:1,1=b:2", "stands twice"),
            ("embedded:/d?id=1&listen=a:1&cluster=1&members=1=a:1,2", "of which `2` is none"),
            ("embedded:/d?id=1&listen=a:1&cluster=1&members=1=a:0", "of which `1=a:0` is none"),
            ("embedded:/d?timeout=1", "no parameter `timeout`"),
            ("embedded:/d?id=1&listen=a:1&cluster=1&token=s3cret&token_file=t", "one token"),
            ("embedded:/d?id=1&listen=a:1&cluster=1&token_file=/no/such/file", "cannot read /no/such/file"),
            ("embedded:/d?id=1&listen=a:1&cluster=1&cert=c&key=k", "needs `cert`, `key` and `ca`"),
        ];
        for (url, expected) in cases {
            let Err(Error::InvalidArgument { reason }) = parse(url) else { panic!("{url} has to be refused") };
            assert!(reason.contains(expected) && !reason.contains("s3cret"), "{url}: {reason}");
        }
    }

    /// What the URL says of the token and of TLS decides whether such a node may be started.
    #[test]
    fn a_node_that_others_reach_needs_a_token_or_tls() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
        let (good, tls) = (format!("&token_file={}", file.display()), "&cert=c&key=k&ca=a");
        let near = "embedded:/d?id=1&cluster=1&listen=127.0.0.1:1&members=1=127.0.0.1:1,2=[::1]:2,3=localhost:3";
        let far = "embedded:/d?id=1&cluster=1&listen=10.0.0.1:1&members=1=10.0.0.1:1,2=10.0.0.2:1";
        let waits = "embedded:/d?id=4&cluster=1&listen=0.0.0.0:4";
        let mixed = "embedded:/d?id=1&cluster=1&listen=127.0.0.1:1&members=1=127.0.0.1:1,2=10.0.0.2:1";
        for (url, expected) in [
            ("embedded:/d".to_owned(), None),
            (near.to_owned(), None),
            (format!("{near}&token=t"), None),
            (far.to_owned(), Some("there is no token, and others can reach 10.0.0.1:1: draw one")),
            (waits.to_owned(), Some("others can reach 0.0.0.0:4")),
            (mixed.to_owned(), Some("others can reach 10.0.0.2:1")),
            (format!("{far}&token=t"), Some("the token has 1 bytes")),
            (format!("{far}&token=unique-token"), Some("an example that stands in documents")),
            (format!("{far}{tls}&token=unique-token"), Some("an example that stands in documents")),
            (format!("{far}{good}"), None),
            (format!("{waits}{good}"), None),
            (format!("{far}{tls}"), None),
        ] {
            let refused = parse(&url).unwrap().check_secret().err().map(|error| error.to_string());
            assert_eq!(refused.is_some(), expected.is_some(), "{url}: {refused:?}");
            assert!(refused.unwrap_or_default().contains(expected.unwrap_or_default()), "{url}");
        }
    }
}
