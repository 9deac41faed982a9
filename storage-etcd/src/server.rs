//! How a local server of etcd is started, as plain data: for tests, benches and whoever manages servers of their own.

use std::path::PathBuf;

/// The program, and the word after `cargo xtask setup` that provides it.
pub const PROGRAM: &str = "etcd";

/// The path on a client port that tells whether a member serves; [`is_healthy`] reads the answer.
pub const HEALTH_PATH: &str = "/health";

/// One member of a cluster on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The name, which no other member of the cluster has.
    pub name: String,
    /// Where the data lie. The folder above has to exist.
    pub data_dir: PathBuf,
    /// The loopback port for clients.
    pub client_port: u16,
    /// The loopback port for the other members.
    pub peer_port: u16,
    /// With TLS for clients, these files.
    pub tls: Option<ServerTls>,
}

/// What a member needs to serve its clients with TLS, in PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// The member's own certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The certificates that sign those of clients, if clients have to have one.
    pub client_ca: Option<PathBuf>,
}

impl Member {
    /// The arguments that start this member of the cluster of `members`, on its old data if it has some.
    /// `token` is a word that no other cluster has.
    pub fn arguments(&self, members: &[Member], token: &str) -> Vec<String> {
        let cluster: Vec<_> = members.iter().map(|member| format!("{}={}", member.name, member.peer_url())).collect();
        let (client, peer, data) = (self.client_url(), self.peer_url(), self.data_dir.display().to_string());
        let mut arguments = vec![
            ("--name", self.name.clone()),
            ("--data-dir", data),
            ("--listen-client-urls", client.clone()),
            ("--advertise-client-urls", client),
            ("--listen-peer-urls", peer.clone()),
            ("--initial-advertise-peer-urls", peer),
            ("--initial-cluster", cluster.join(",")),
            ("--initial-cluster-state", "new".to_owned()),
            ("--initial-cluster-token", token.to_owned()),
            ("--log-level", "error".to_owned()),
        ];
        if let Some(tls) = &self.tls {
            arguments.push(("--cert-file", tls.cert.display().to_string()));
            arguments.push(("--key-file", tls.key.display().to_string()));
            if let Some(ca) = &tls.client_ca {
                arguments.push(("--trusted-ca-file", ca.display().to_string()));
            }
        }
        let mut arguments: Vec<_> = arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        if self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()) {
            arguments.push("--client-cert-auth".to_owned());
        }
        arguments
    }

    /// `127.0.0.1:port`, as [`EtcdConfig::new`](crate::EtcdConfig::new) takes it.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    fn client_url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.endpoint())
    }

    fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }
}

/// Whether the body of an answer from [`HEALTH_PATH`] says that the member serves, which it does once the cluster has a leader.
pub fn is_healthy(body: &str) -> bool {
    body.contains(r#""health":"true""#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_knows_the_others() {
        let member = |name: &str, port| Member {
            name: name.to_owned(),
            data_dir: format!("/data/{name}").into(),
            client_port: port,
            peer_port: port + 1,
            tls: None,
        };
        let members = [member("a", 10), member("b", 20)];
        let arguments = members[1].arguments(&members, "t").join(" ");
        assert!(arguments.contains("--initial-cluster a=http://127.0.0.1:11,b=http://127.0.0.1:21"), "{arguments}");
        assert!(arguments.contains("--listen-client-urls http://127.0.0.1:20"), "{arguments}");
        assert!(!arguments.contains("file"), "{arguments}");
    }

    #[test]
    fn a_member_without_a_leader_is_not_healthy() {
        assert!(is_healthy(r#"{"health":"true","reason":""}"#));
        assert!(!is_healthy(r#"{"health":"false","reason":"RAFT NO LEADER"}"#));
    }
}
