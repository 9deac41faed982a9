//! Replicas of one service in this process: some with nodes, some without, as the configuration says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{path::Path, time::Duration};

use storage_core::{Error, Key, Observed, ReadOptions, StoreExt};
use storage_replica::{
    Replica,
    config::{Config, Format},
};
use storage_testkit::{programs, server::Reservation};

/// A table of replicas with and without nodes, whose data lie in `dir`.
fn table(dir: &Path, engine: &str, nodes: &[bool], ports: &mut Reservation) -> Config {
    let mut text = format!("token = \"a-token\"\nengine = \"{engine}\"\ndata_dir = {:?}\nlog_level = \"error\"\n", dir);
    if engine == "etcd" {
        text += &format!("etcd_program = {:?}\n", programs::find("etcd").unwrap());
    }
    for (id, starts) in (1..).zip(nodes) {
        text += &format!("[[replicas]]\nid = {id}\nstart_node = {starts}\n");
        if *starts {
            let (client, peer) = (ports.port().unwrap(), ports.port().unwrap());
            text += &format!("node_name = \"n{id}\"\nclient_url = \"http://127.0.0.1:{client}\"\n");
            text += &format!("peer_url = \"http://127.0.0.1:{peer}\"\n");
        }
    }
    Config::parse(&text, Format::Toml, |_| None).unwrap().0
}

async fn start_all(config: &Config) -> Vec<Replica> {
    let starts = config.replicas().iter().map(|row| Replica::start(config, row.id));
    futures::future::join_all(starts).await.into_iter().map(Result::unwrap).collect()
}

async fn every_replica_reads_what_any_has_written(engine: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut ports = Reservation::default();
    let config = table(dir.path(), engine, &[true, true, false, true, false], &mut ports);
    let replicas = start_all(&config).await;
    for (writer, written) in replicas.iter().enumerate() {
        let key = Key::new(format!("of/{writer}")).unwrap();
        let version = written.store().put(&key, format!("value {writer}")).await.unwrap();
        for (reader, read) in replicas.iter().enumerate() {
            let entry = read.store().get(&key, ReadOptions::default()).await.unwrap().unwrap();
            let expected = (version, format!("value {writer}"));
            assert_eq!((entry.version, entry.value), (expected.0, expected.1.into()), "{writer} -> {reader}");
        }
        // A version means the same write to every replica: one that is told of it swaps, and nobody swaps twice.
        let swapper = &replicas[(writer + 1) % replicas.len()];
        let swapped = swapper.store().compare_and_swap(&key, version, format!("value {writer}")).await.unwrap();
        let stale = written.store().compare_and_swap(&key, version, "stale").await.unwrap();
        let Observed::Present(current) = stale.unwrap_err().current else { panic!("these stores tell what is there") };
        assert_eq!(swapped.unwrap(), current.version);
    }
    for replica in &replicas {
        replica.stop().await;
    }
    // Everything is free again, and everything is there.
    let replicas = start_all(&config).await;
    let entry = replicas[2].store().get(&Key::new("of/4").unwrap(), ReadOptions::default()).await.unwrap();
    assert_eq!(entry.unwrap().value, "value 4");
    for replica in &replicas {
        replica.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_with_embedded_nodes_and_without_nodes_share_a_store() {
    every_replica_reads_what_any_has_written("embedded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_with_etcds_of_their_own_and_without_nodes_share_a_store() {
    every_replica_reads_what_any_has_written("etcd").await;
}

/// Nobody to vote with: the start ends in time, says whom it has waited for, and leaves nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_alone_of_three_says_whom_it_waits_for() {
    for engine in ["embedded", "etcd"] {
        let dir = tempfile::tempdir().unwrap();
        let mut ports = Reservation::default();
        let config = table(dir.path(), engine, &[true, true, true], &mut ports);
        let replica = Replica::launch(config.settings(Some(2)).unwrap()).await.unwrap();
        let missing: Vec<_> = replica.missing().await.into_iter().map(|member| member.name).collect();
        assert_eq!(missing, ["n1", "n3"]);
        let error = replica.ready(Duration::from_millis(300)).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert!(error.to_string().contains("without n1, n3"), "{error}");
        replica.stop().await;
        let client_url = &config.replicas()[1].node.as_ref().unwrap().client_url;
        std::net::TcpListener::bind(client_url.authority()).expect("its port is free");
    }
}

/// What an operator can mix up is told in words, before anything is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_cluster_node_or_engine_is_refused() {
    for engine in ["embedded", "etcd"] {
        let dir = tempfile::tempdir().unwrap();
        let mut ports = Reservation::default();
        let config = table(dir.path(), engine, &[true], &mut ports);
        let settings = config.settings(Some(1)).unwrap();
        let replica = Replica::start(&config, 1).await.unwrap();

        // While it runs, its ports are taken.
        let mut elsewhere = settings.clone();
        elsewhere.node.as_mut().unwrap().data_dir = dir.path().join("elsewhere");
        let error = Replica::launch(elsewhere).await.unwrap_err();
        assert!(error.to_string().contains("another program uses this port"), "{error}");
        replica.stop().await;

        let other = if engine == "etcd" { "embedded" } else { "etcd" };
        let peer_port = ports.port().unwrap();
        let changed = |change: &dyn Fn(&mut storage_replica::config::NodeSettings)| {
            let mut settings = settings.clone();
            let node = settings.node.as_mut().unwrap();
            node.etcd_program = programs::find("etcd").ok();
            change(node);
            settings
        };
        let cases = [
            (changed(&|node| node.token = "another".parse().unwrap()), "has data of another cluster"),
            (changed(&|node| node.engine = other.parse().unwrap()), "another engine"),
            (
                changed(&|node| {
                    node.peer_url = format!("http://127.0.0.1:{peer_port}").parse().unwrap();
                    node.cluster = format!("n1={}", node.peer_url).parse().unwrap();
                }),
                "has data of another",
            ),
            (changed(&|node| node.name = "n2".to_owned()), "no node `n2`, only n1"),
        ];
        for (settings, expected) in cases {
            let error = Replica::launch(settings).await.unwrap_err();
            assert!(matches!(error, Error::InvalidArgument { .. }), "{error:?}");
            assert!(error.to_string().contains(expected), "{error}");
        }
        Replica::start(&config, 1).await.unwrap().stop().await;
    }
}

/// A program that ends a while after its first start, and at once after each further one, with a word on why.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_dies_again_and_again_is_given_up_with_its_last_words() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("etcd");
    let started = dir.path().join("started");
    let script = format!(
        "#!/bin/sh\n[ -e {0:?} ] || {{ : > {0:?}; sleep 3; }}\necho the disk is on fire >&2\nexit 7\n",
        started
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut ports = Reservation::default();
    let config = table(dir.path(), "etcd", &[true], &mut ports);
    let mut settings = config.settings(Some(1)).unwrap();
    settings.node.as_mut().unwrap().etcd_program = Some(program);

    let replica = Replica::launch(settings.clone()).await.unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(60), replica.stopped()).await.expect("it is given up");
    let reason = stopped.unwrap_err().to_string();
    for expected in ["died 6 times", "exit code 7", "the disk is on fire"] {
        assert!(reason.contains(expected), "{expected} is missing: {reason}");
    }
    // One that ends at once at its first start is not started again.
    let error = Replica::launch(settings).await.unwrap_err();
    assert!(error.to_string().contains("etcd ended at once: exit code 7"), "{error}");
}
