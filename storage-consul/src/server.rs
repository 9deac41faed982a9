//! How a local server of Consul is started, as plain data: for tests, benches and whoever manages servers of their own.

use std::{net::Ipv4Addr, path::PathBuf};

/// The program, and the word after `cargo xtask setup` that provides it.
pub const PROGRAM: &str = "consul";

/// The path on an HTTP port that tells who leads; [`has_leader`] reads the answer.
pub const LEADER_PATH: &str = "/v1/status/leader";

/// One server agent of a cluster on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// The name, which no other server of the cluster has.
    pub name: String,
    /// Where the data lie. The folder above has to exist.
    pub data_dir: PathBuf,
    /// The loopback address of its ports for other servers; usually [`Ipv4Addr::LOCALHOST`].
    pub bind: Ipv4Addr,
    /// The address that it tells the others, which has to lead to the former; usually the same.
    pub advertise: Ipv4Addr,
    /// The loopback port for clients.
    pub http_port: u16,
    /// The loopback port on which servers call each other.
    pub server_port: u16,
    /// The loopback port, TCP and UDP, of the gossip between them.
    pub serf_port: u16,
    /// More configuration, in Consul's language: access control, TLS.
    pub hcl: String,
}

/// A short timing for elections, no calls home, and more connections than a client has by default: tests have
/// many handles. A server that was away is not removed from the cluster, so that a majority stays what it was.
const SETTINGS: &str = "
    performance { raft_multiplier = 1 }
    disable_update_check = true
    limits { http_max_conns_per_client = 2000 }
    autopilot { cleanup_dead_servers = false }
";

impl Agent {
    /// The arguments that start this server of the cluster of `agents`, on its old data if it has some.
    pub fn arguments(&self, agents: &[Agent]) -> Vec<String> {
        let settings = [SETTINGS, &self.hcl].concat();
        let arguments = [
            ("-node", self.name.clone()),
            ("-datacenter", "dc1".to_owned()),
            ("-data-dir", self.data_dir.display().to_string()),
            ("-bind", self.bind.to_string()),
            ("-advertise", self.advertise.to_string()),
            ("-client", Ipv4Addr::LOCALHOST.to_string()),
            ("-bootstrap-expect", agents.len().to_string()),
            ("-http-port", self.http_port.to_string()),
            ("-server-port", self.server_port.to_string()),
            ("-serf-lan-port", self.serf_port.to_string()),
            ("-serf-wan-port", "-1".to_owned()),
            ("-dns-port", "-1".to_owned()),
            ("-grpc-port", "-1".to_owned()),
            ("-log-level", "err".to_owned()),
            ("-retry-interval", "1s".to_owned()),
            ("-hcl", settings),
        ];
        let peers = agents.iter().filter(|agent| agent.name != self.name);
        let peers = peers.map(|peer| ("-retry-join", format!("{}:{}", peer.advertise, peer.serf_port)));
        let pairs = arguments.into_iter().chain(peers);
        let command = ["agent".to_owned(), "-server".to_owned()];
        command.into_iter().chain(pairs.flat_map(|(name, value)| [name.to_owned(), value])).collect()
    }

    /// `127.0.0.1:port`, as [`ConsulConfig::new`](crate::ConsulConfig::new) takes it.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.http_port)
    }
}

/// Whether the body of an answer from [`LEADER_PATH`] says that the server knows a leader.
pub fn has_leader(body: &str) -> bool {
    body.trim().len() > r#""""#.len() && body.trim().starts_with('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_knows_the_others() {
        let agent = |name: &str, port| Agent {
            name: name.to_owned(),
            data_dir: format!("/data/{name}").into(),
            bind: Ipv4Addr::LOCALHOST,
            advertise: Ipv4Addr::LOCALHOST,
            http_port: port,
            server_port: port + 1,
            serf_port: port + 2,
            hcl: "acl { enabled = true }".to_owned(),
        };
        let agents = [agent("a", 10), agent("b", 20), agent("c", 30)];
        let arguments = agents[1].arguments(&agents).join(" ");
        assert!(arguments.contains("-retry-join 127.0.0.1:12 -retry-join 127.0.0.1:32"), "{arguments}");
        assert!(arguments.contains("-bootstrap-expect 3 -http-port 20"), "{arguments}");
        assert!(arguments.contains("acl { enabled"), "{arguments}");
    }

    #[test]
    fn a_server_without_a_leader_is_told() {
        assert!(has_leader("\"127.0.0.1:8300\"\n"));
        assert!(!has_leader("\"\""));
        assert!(!has_leader("No cluster leader"));
    }
}
