//! The nodes that found a cluster, as they are written and checked.
//!
//! Every founding node is given the same list, so what is wrong with it is found before a node starts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use super::NodeUrl;

/// A node that founds a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name, which no other has.
    pub name: String,
    /// Where the other nodes reach it.
    pub peer_url: NodeUrl,
}

/// The nodes that found a cluster, each of which is given the same: `n1=http://10.0.1.1:2380,n2=http://10.0.1.2:2380`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialCluster {
    members: Vec<Member>,
}

impl InitialCluster {
    /// These members; their order does not matter.
    ///
    /// # Errors
    /// Why they cannot be the members of a cluster: there are none, or two have a name or peer URL in common.
    pub fn new(members: impl IntoIterator<Item = Member>) -> Result<Self, String> {
        let members: Vec<_> = members.into_iter().collect();
        if members.is_empty() {
            return Err("it has no members".to_owned());
        }
        let (mut names, mut urls) = (BTreeSet::new(), BTreeMap::new());
        for member in &members {
            if !names.insert(&member.name) {
                return Err(format!("`{}` is the name of two members", member.name));
            }
            if let Some(other) = urls.insert(member.peer_url.authority(), &member.name) {
                return Err(format!("`{other}` and `{}` have the same peer URL {}", member.name, member.peer_url));
            }
        }
        if let Some(other) = members.windows(2).find(|two| {
            two.first().map(|member| member.peer_url.is_tls()) != two.last().map(|member| member.peer_url.is_tls())
        }) {
            let urls: Vec<_> = other.iter().map(|member| member.peer_url.to_string()).collect();
            return Err(format!("nodes talk with TLS or without, all of them: {}", urls.join(" and ")));
        }
        Ok(Self { members })
    }

    /// All members.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The names of all members, for people.
    pub fn names(&self) -> String {
        self.members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The member of this name.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }
}

impl fmt::Display for InitialCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Member { name, peer_url }) in self.members.iter().enumerate() {
            write!(f, "{}{name}={peer_url}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for InitialCluster {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let members = text.split(',').map(str::trim).filter(|member| !member.is_empty()).map(|member| {
            let (name, url) = member
                .split_once('=')
                .ok_or_else(|| format!("`{member}` is no member: it is written NAME=http://HOST:PORT"))?;
            check_name(name)?;
            Ok(Member { name: name.to_owned(), peer_url: url.parse()? })
        });
        Self::new(members.collect::<Result<Vec<_>, String>>()?)
    }
}

/// Whether a node can have this name: it stands in lists of members, and is a folder.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let possible = |c: char| c.is_alphanumeric() || "-_. ".contains(c);
    if name.is_empty() || name.trim() != name || name.starts_with('.') || !name.chars().all(possible) {
        return Err(format!("`{name}` is no name of a node: it has letters, digits, `-`, `_` and `.`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_and_written_as_etcd_does() {
        let text = "n1=http://10.0.1.1:2380,n2=http://10.0.1.2:2380";
        let cluster: InitialCluster = text.parse().unwrap();
        assert_eq!(cluster.to_string(), text);
        assert_eq!(cluster.member("n2").unwrap().peer_url.port(), 2380);
        assert!(cluster.member("n3").is_none());
    }

    #[test]
    fn what_is_no_cluster_is_refused_with_the_reason() {
        for (text, expected) in [
            ("", "no members"),
            ("n1", "it is written NAME=http://HOST:PORT"),
            ("=http://a:1", "no name of a node"),
            ("../n1=http://a:1", "no name of a node"),
            ("n1=a:1", "is no URL"),
            ("n1=http://a:1,n1=http://b:1", "`n1` is the name of two members"),
            ("n1=http://a:1,n2=http://a:1", "`n1` and `n2` have the same peer URL"),
            ("n1=http://a:1,n2=https://b:1", "http://a:1 and https://b:1"),
        ] {
            let reason = text.parse::<InitialCluster>().unwrap_err();
            assert!(reason.contains(expected), "{text}: {reason}");
        }
    }
}
