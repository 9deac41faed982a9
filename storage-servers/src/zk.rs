//! How servers of ZooKeeper are started on this machine, and asked about themselves.

use std::io;

use futures::FutureExt;
use storage::zk::server::{CLASSPATH, LEADS, NAME, PORTS, PROGRAM, Peer, READY, arguments, files};
use storage_testkit::{
    programs,
    server::{Launch, NodeContext, Probe, ServerError, ServerSpec},
};

use crate::{Servers, Told};

/// What a server that has no others says of itself, beside [`LEADS`].
const STANDALONE: &str = "Mode: standalone";

/// Servers of ZooKeeper.
pub fn zk() -> Servers {
    let spec = ServerSpec::new(NAME, |node| {
        let peers = node.nodes().map(|node| peer(&node)).collect::<Result<Vec<_>, _>>()?;
        Ok(files(node.index(), &peers).into_iter().fold(program()?, |launch, (path, text)| launch.file(path, text)))
    });
    let spec = PORTS.iter().fold(spec, |spec, port| spec.port(*port));
    let spec = spec.ready_when(Probe::tcp("client", READY.0, |text, _| text.contains(READY.1)));
    Servers { scheme: "zk", spec, installed: || program().map(drop), ask: |node| ask(node).boxed() }
}

fn program() -> Result<Launch, ServerError> {
    let classpath = programs::variable(CLASSPATH.0, CLASSPATH.1)?;
    Ok(Launch::new(programs::find(PROGRAM)?).args(arguments(&classpath)))
}

fn peer(node: &NodeContext) -> Result<Peer, ServerError> {
    Ok(Peer { client: node.port("client")?, peer: node.port("peer")?, election: node.port("election")? })
}

async fn ask(node: &NodeContext) -> io::Result<Told> {
    let text = node.tcp_word("client", READY.0).await?;
    Ok(Told { version: version(&text), leads: text.contains(LEADS) || text.contains(STANDALONE) })
}

/// The number in `Zookeeper version: 3.9.3-c26634f34490bb0ea7a09cc51e05ede3b4e320ee, built on 2024-10-17 23:21 UTC`.
fn version(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("version: ")?;
    let number = rest.split(|byte: char| byte != '.' && !byte.is_ascii_digit()).next()?;
    (!number.is_empty()).then(|| number.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_number_alone() {
        for (text, expected) in [
            ("Zookeeper version: 3.9.3-c26634f3, built on 2024-10-17 23:21 UTC\nMode: leader\n", Some("3.9.3")),
            ("Zookeeper version: 3.9.3, built on 2026-03-08 16:19 UTC", Some("3.9.3")),
            ("This ZooKeeper instance is not currently serving requests", None),
            ("Zookeeper version: ${version}", None),
        ] {
            assert_eq!(version(text).as_deref(), expected, "{text}");
        }
    }
}
