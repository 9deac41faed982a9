//! How a real ZooKeeper server is started on this machine, as plain data: for tests, benches and `snet`.

use std::path::PathBuf;

/// The name of the kind of server.
pub const NAME: &str = "zookeeper";

/// The environment variable with the class path of the server's Java archives, and the word after `cargo xtask setup` that
/// provides it.
pub const CLASSPATH: (&str, &str) = ("ZOOKEEPER_CLASSPATH", "zk");

/// The program that runs them.
pub const PROGRAM: &str = "java";

/// The ports that each server needs: for clients, for its peers, and for elections.
pub const PORTS: [&str; 3] = ["client", "peer", "election"];

/// A word to send to the client port, and what is in the answer of a server that serves.
pub const READY: (&str, &str) = ("srvr", "Mode:");

/// What a server that leads says to the same word.
pub const LEADS: &str = "Mode: leader";

/// The configuration file, in the server's folder.
pub const CONFIG_FILE: &str = "zoo.cfg";

/// One server of an ensemble on loopback.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The port for clients.
    pub client: u16,
    /// The port for peers.
    pub peer: u16,
    /// The port for elections.
    pub election: u16,
}

/// What a server needs to serve clients with TLS on a port of its own, in PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// The server's own certificate and its key, in one file.
    pub identity: PathBuf,
    /// The certificates that sign those of clients, if clients have to have one.
    pub client_ca: Option<PathBuf>,
}

impl ServerTls {
    /// What to add to [`CONFIG_FILE`] for a server that serves TLS on this port, and in the clear as before.
    ///
    /// It needs Netty's archives in the class path: ZooKeeper's own network layer knows no TLS.
    #[must_use]
    pub fn settings(&self, port: u16) -> String {
        let identity = self.identity.display();
        let mut settings = format!(
            "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
             secureClientPort={port}\nsecureClientPortAddress=127.0.0.1\n\
             ssl.keyStore.location={identity}\nssl.keyStore.type=PEM\n"
        );
        settings += &match &self.client_ca {
            Some(ca) => {
                format!("ssl.trustStore.location={}\nssl.trustStore.type=PEM\nssl.clientAuth=need\n", ca.display())
            }
            None => "ssl.clientAuth=none\n".to_owned(),
        };
        settings
    }
}

/// The arguments of [`PROGRAM`], which is started in the folder that has [`CONFIG_FILE`].
#[must_use]
pub fn arguments(classpath: &str) -> Vec<String> {
    let fixed = ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-Dzookeeper.admin.enableServer=false"];
    let main = ["-cp", classpath, "org.apache.zookeeper.server.quorum.QuorumPeerMain", CONFIG_FILE];
    fixed.iter().chain(&main).map(|&argument| argument.to_owned()).collect()
}

/// The files of server `index`: path in its folder, and text. Its data goes to `data` there.
#[must_use]
pub fn files(index: usize, peers: &[Peer]) -> Vec<(&'static str, String)> {
    let client = peers.get(index).map_or(0, |peer| peer.client);
    // A tick of 500 ms: a leader without a majority steps down after 5 s, and a session may be as short as 1 s.
    let mut config = format!(
        "tickTime=500\ninitLimit=20\nsyncLimit=10\ndataDir=data\nclientPort={client}\nclientPortAddress=127.0.0.1\n\
         admin.enableServer=false\nmaxClientCnxns=0\n4lw.commands.whitelist=ruok,srvr,mntr\n\
         minSessionTimeout=1000\nmaxSessionTimeout=60000\n"
    );
    if peers.len() > 1 {
        for (number, peer) in peers.iter().enumerate() {
            config += &format!("server.{}=127.0.0.1:{}:{}\n", number + 1, peer.peer, peer.election);
        }
    }
    vec![(CONFIG_FILE, config), ("data/myid", format!("{}\n", index + 1))]
}
