//! How each kind of server is started: what its backend says, put together for the test kit.

use std::net::Ipv4Addr;

use storage_testkit::{
    programs,
    server::{Launch, Probe, ServerError, ServerSpec},
};

pub(crate) fn etcd() -> ServerSpec {
    use storage_etcd::server::{HEALTH_PATH, Member, PROGRAM, is_healthy};
    ServerSpec::new(PROGRAM, |node| {
        let member = |node: storage_testkit::server::NodeContext| {
            Ok::<_, ServerError>(Member {
                name: node.name(),
                data_dir: node.data_dir().join("member"),
                client_port: node.port("client")?,
                peer_port: node.port("peer")?,
                tls: None,
            })
        };
        let members = node.nodes().map(member).collect::<Result<Vec<_>, _>>()?;
        Ok(Launch::new(programs::find(PROGRAM)?).args(members[node.index()].arguments(&members, node.token())))
    })
    .port("client")
    .port("peer")
    .ready_when(Probe::http("client", HEALTH_PATH, |answer, _| is_healthy(&answer.body)))
}

pub(crate) fn consul() -> ServerSpec {
    use storage_consul::server::{Agent, LEADER_PATH, PROGRAM, has_leader};
    ServerSpec::new(PROGRAM, |node| {
        let agent = |node: storage_testkit::server::NodeContext| {
            Ok::<_, ServerError>(Agent {
                name: node.name(),
                data_dir: node.data_dir().join("agent"),
                bind: Ipv4Addr::LOCALHOST,
                advertise: Ipv4Addr::LOCALHOST,
                http_port: node.port("client")?,
                server_port: node.port("server")?,
                serf_port: node.port("serf")?,
                hcl: String::new(),
            })
        };
        let agents = node.nodes().map(agent).collect::<Result<Vec<_>, _>>()?;
        Ok(Launch::new(programs::find(PROGRAM)?).args(agents[node.index()].arguments(&agents)))
    })
    .port("client")
    .port("server")
    .port("serf")
    .ready_when(Probe::http("client", LEADER_PATH, |answer, _| has_leader(&answer.body)))
}

pub(crate) fn zookeeper() -> ServerSpec {
    use storage_zk::server::{CLASSPATH, NAME, PORTS, PROGRAM, Peer, READY, arguments, files};
    let spec = ServerSpec::new(NAME, |node| {
        let peer = |node: storage_testkit::server::NodeContext| {
            let [client, peer, election] = PORTS.map(|port| node.port(port));
            Ok::<_, ServerError>(Peer { client: client?, peer: peer?, election: election? })
        };
        let peers = node.nodes().map(peer).collect::<Result<Vec<_>, _>>()?;
        let classpath = programs::variable(CLASSPATH.0, CLASSPATH.1)?;
        let launch = Launch::new(programs::find(PROGRAM)?).args(arguments(&classpath));
        Ok(files(node.index(), &peers).into_iter().fold(launch, |launch, (path, text)| launch.file(path, text)))
    });
    let spec = PORTS.iter().fold(spec, |spec, port| spec.port(*port));
    spec.ready_when(Probe::tcp("client", READY.0, |text, _| text.contains(READY.1)))
}
