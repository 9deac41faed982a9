//! A node behind a URL.
//!
//! - `embedded:/DIR`: the only node of a cluster of one, with its data in that directory.
//! - `embedded:/DIR?id=1&listen=127.0.0.1:7001&members=1=127.0.0.1:7001,2=127.0.0.1:7002&cluster=C0FFEE`: node 1 of a
//!   cluster that these members found. Every founding member is given the same `members` and `cluster`.
//! - The same without `members`: a node that waits until a cluster takes it in. Once a node has data, `members` is ignored.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use ::url::Url;
use storage_core::{Error, Result, Store};

use crate::{
    node::{Node, NodeConfig},
    raft::Member,
    store::EmbeddedStore,
};

/// The URL schemes of this backend.
pub const SCHEMES: &[&str] = &["embedded"];

/// The names that may stand in the query of its URL.
pub const PARAMETERS: &[&str] = &[ID, LISTEN, MEMBERS, CLUSTER];

const ID: &str = "id";
const LISTEN: &str = "listen";
const MEMBERS: &str = "members";
const CLUSTER: &str = "cluster";

/// The id and cluster of a node that is alone. They have to be the same at each start.
const ALONE: (u64, u128) = (1, 1);

/// Where a node that is alone listens: a port of the system's choice, which nobody is told.
const ALONE_LISTEN: &str = "127.0.0.1:0";

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
        let member = Member { name: name(id), peer_address: ALONE_LISTEN.to_owned(), ..Member::default() };
        let config = NodeConfig::new(id, cluster, dir, ALONE_LISTEN).fast();
        return Ok(NodeConfig { founders: BTreeMap::from([(id, member)]), ..config });
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
    Ok(NodeConfig { founders, ..NodeConfig::new(id, cluster, dir, listen) })
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

fn invalid(url: &Url, what: String) -> Error {
    Error::invalid_argument(format!("{url}: {what}"))
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
        assert_eq!(config.founders.keys().copied().collect::<Vec<_>>(), [1]);
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
        ];
        for (url, expected) in cases {
            let Err(Error::InvalidArgument { reason }) = parse(url) else { panic!("{url} has to be refused") };
            assert!(reason.contains(expected), "{url}: {reason}");
        }
    }
}
