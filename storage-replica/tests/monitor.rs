//! What operators see of three replicas: metrics, health and readiness.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use storage_core::{Key, ReadOptions, StoreExt};
use storage_etcd::{EtcdConfig, EtcdStore};
use storage_replica::{
    Replica,
    config::{Config, Format},
};
use storage_testkit::{
    hostile::{GROWTH_BYTES, Strike, resident_bytes},
    server::Reservation,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

const DEADLINE: Duration = Duration::from_secs(60);

async fn get(replica: &Replica, path: &str) -> (u16, String) {
    let exchange = async {
        let mut stream = TcpStream::connect(replica.monitor().unwrap().address()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(DEADLINE, exchange).await.expect("it is answered");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
    let sized = !head.to_ascii_lowercase().contains("transfer-encoding");
    assert!(sized, "the body is as it was sent: {head}");
    (status, body.to_owned())
}

/// A page, read as strictly as Prometheus does: the value of each series, and the type of each metric.
struct Page {
    series: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

impl Page {
    async fn of(replica: &Replica) -> Self {
        let (status, text) = get(replica, "/metrics").await;
        assert_eq!(status, 200);
        assert!(text.ends_with('\n'));
        let (mut series, mut types) = (BTreeMap::new(), BTreeMap::new());
        let (mut helped, mut current) = (String::new(), String::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(!help.is_empty(), "{line}");
                helped = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, helped, "a type comes after its help: {line}");
                assert!(["counter", "gauge", "histogram", "summary"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} comes twice");
                current = name.to_owned();
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
                let bare = name.split('{').next().unwrap();
                let suffix = bare.strip_prefix(&current).unwrap_or_else(|| panic!("`{line}` stands under {current}"));
                let possible: &[&str] = match types[&current].as_str() {
                    "histogram" => &["_bucket", "_sum", "_count"],
                    "summary" => &["_sum", "_count"],
                    _ => &[""],
                };
                assert!(possible.contains(&suffix), "{line}");
                assert!(labels_are_well_formed(&name[bare.len()..]), "{line}");
                assert!(series.insert(name.to_owned(), value).is_none(), "{name} comes twice");
            }
        }
        let page = Self { series, types };
        page.check_histograms();
        page
    }

    /// Buckets rise, and the last one has everything.
    fn check_histograms(&self) {
        for (name, count) in self.series.iter().filter(|(name, _)| name.contains("_count")) {
            let (metric, labels) = name.split_once("_count").unwrap();
            if self.types[metric] != "histogram" {
                continue;
            }
            let labels = labels.trim_start_matches('{').trim_end_matches('}');
            let prefix = format!("{metric}_bucket{{{labels}");
            let mut buckets: Vec<(f64, f64)> = Vec::new();
            for (bucket, count) in self.series.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix))
            {
                let end = bucket.split("le=\"").nth(1).unwrap().trim_end_matches("\"}");
                buckets.push((if end == "+Inf" { f64::INFINITY } else { end.parse().unwrap() }, *count));
            }
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            assert!(buckets.len() > 5 && buckets.windows(2).all(|two| two[0].1 <= two[1].1), "{name}: {buckets:?}");
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, *count)), "{name}");
        }
    }

    fn value(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("no {series} among {:#?}", self.series.keys()))
    }

    fn names(&self) -> BTreeSet<String> {
        self.types.keys().cloned().collect()
    }
}

fn labels_are_well_formed(labels: &str) -> bool {
    let Some(inner) = labels.strip_prefix('{').and_then(|labels| labels.strip_suffix('}')) else {
        return labels.is_empty();
    };
    inner.split("\",").all(|label| {
        let Some((name, value)) = label.split_once("=\"") else { return false };
        let named = name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !name.is_empty();
        named && !value.trim_end_matches('"').contains('"')
    })
}

fn three(dir: &std::path::Path, ports: &mut Reservation) -> Config {
    let mut text = format!("token = \"a-token\"\ndata_dir = {dir:?}\n");
    for id in 1..=3 {
        let mut url = || format!("\"http://127.0.0.1:{}\"", ports.port().unwrap());
        text += &format!("[[replicas]]\nid = {id}\nstart_node = true\nnode_name = \"n{id}\"\n");
        text += &format!("client_url = {}\npeer_url = {}\nadmin_url = {}\n", url(), url(), url());
    }
    Config::parse(&text, Format::Toml, |_| None).unwrap().0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_show_their_state_and_what_they_have_done() {
    let dir = tempfile::tempdir().unwrap();
    let mut ports = Reservation::default();
    let config = three(dir.path(), &mut ports);
    let starts = config.replicas().iter().map(|row| Replica::start(&config, row.id));
    let replicas: Vec<_> = futures::future::join_all(starts).await.into_iter().map(Result::unwrap).collect();
    let client = config.replicas()[0].node.as_ref().unwrap().client_url.authority();
    let through_api = EtcdStore::new(EtcdConfig::new([client]).unwrap()).await.unwrap();
    let key = Key::new("a").unwrap();
    through_api.put(&key, "0").await.unwrap();
    replicas[0].store().put(&key, "1").await.unwrap();

    // A read waits until this replica has applied what was acknowledged to it.
    let applied = async || drop(replicas[0].store().get(&key, ReadOptions::default()).await.unwrap());
    applied().await;
    let before = Page::of(&replicas[0]).await;
    for number in 0..20 {
        through_api.put(&key, number.to_string()).await.unwrap();
        let version = replicas[0].store().put(&key, "1").await.unwrap();
        assert!(replicas[0].store().compare_and_swap(&key, version, "2").await.unwrap().is_ok());
        assert!(replicas[0].store().compare_and_swap(&key, version, "3").await.unwrap().is_err());
    }
    let too_long =
        storage_replica::admin::Admin::new(&[config.replicas()[0].node.as_ref().unwrap().client_url.clone()], DEADLINE);
    assert!(too_long.unwrap().remove(12345).await.is_err(), "no such member");
    applied().await;
    let after = Page::of(&replicas[0]).await;
    let rise = |series: &str| after.value(series) - before.series.get(series).copied().unwrap_or_default();
    for (series, expected) in [
        ("storage_etcd_api_requests_total{method=\"KV/Put\",code=\"OK\"}", 20.0),
        ("storage_etcd_api_request_duration_seconds_count{method=\"KV/Put\"}", 20.0),
        ("storage_etcd_api_requests_total{method=\"Cluster/MemberRemove\",code=\"NOT_FOUND\"}", 1.0),
        ("storage_requests_total{operation=\"commit\",outcome=\"applied\"}", 40.0),
        ("storage_requests_total{operation=\"commit\",outcome=\"conflict\"}", 20.0),
        ("storage_request_duration_seconds_count{operation=\"commit\"}", 60.0),
        ("storage_revision", 60.0),
    ] {
        assert_eq!(rise(series), expected, "{series}");
    }
    for (series, least) in [
        ("storage_log_entries_total", 80.0),
        ("storage_log_written_bytes_total", 1000.0),
        ("storage_log_fsync_duration_seconds_count", 60.0),
        ("storage_raft_applied_index", 80.0),
        ("storage_raft_committed_index", 80.0),
        ("storage_raft_last_log_index", 80.0),
    ] {
        assert!(rise(series) >= least, "{series}: {}", rise(series));
    }
    assert!(rise("storage_log_fsync_duration_seconds_sum") > 0.0);
    assert!(rise("storage_etcd_api_request_duration_seconds_sum{method=\"KV/Put\"}") > 0.0);
    assert!(after.value("storage_etcd_api_connections") >= 1.0);
    assert!(after.value("process_resident_memory_bytes") > 1e6);
    assert!(after.value("process_open_fds") > 5.0 && after.value("process_max_fds") >= after.value("process_open_fds"));
    assert!(after.value("process_cpu_seconds_total") > 0.0 && after.value("process_start_time_seconds") > 1.6e9);

    // One leads, the others follow it, and the leader tells how far they have come.
    let mut pages = Vec::new();
    for replica in &replicas {
        pages.push(Page::of(replica).await);
    }
    let count = |role: &str| {
        let series = format!("storage_raft_role{{role=\"{role}\"}}");
        pages.iter().map(|page| page.value(&series)).sum::<f64>()
    };
    assert_eq!((count("leader"), count("follower"), count("candidate"), count("learner")), (1.0, 2.0, 0.0, 0.0));
    for page in &pages {
        assert_eq!(page.value("storage_raft_members{kind=\"voter\"}"), 3.0);
        assert_eq!(page.value("storage_raft_has_leader"), 1.0);
        let matched: Vec<_> =
            page.series.iter().filter(|(name, _)| name.starts_with("storage_raft_matched_index{")).collect();
        let leads = page.value("storage_raft_role{role=\"leader\"}") == 1.0;
        assert_eq!(matched.len(), if leads { 2 } else { 0 });
        assert!(matched.iter().all(|(name, index)| name.contains("member=\"n") && **index >= 80.0), "{matched:?}");
    }

    // A snapshot is counted.
    let admin = |place: usize| {
        let url = config.replicas()[place].node.as_ref().unwrap().client_url.clone();
        storage_replica::admin::Admin::new(&[url], DEADLINE).unwrap()
    };
    let bytes = admin(0).snapshot(|_| Ok(())).await.unwrap();
    let page = Page::of(&replicas[0]).await;
    assert_eq!(page.value("storage_snapshot_write_duration_seconds_count"), 1.0);
    assert!(page.value("storage_snapshot_bytes") > 0.0 && page.value("storage_snapshot_bytes") < bytes as f64);
    assert!(page.value("storage_raft_snapshot_index") >= 80.0);

    let manual = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md")).unwrap();
    let manual = manual.split("## Monitoring").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = manual.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let rows = rows.flat_map(|names| names.split(',')).map(|name| name.trim().trim_matches('`').to_owned());
    let documented: BTreeSet<_> = rows.filter(|name| !name.starts_with('/')).collect();
    assert_eq!(documented, page.names(), "docs/operations.md lists the metrics that there are");

    // All are healthy and ready; one that is left alone is healthy, and says why it is not ready.
    for replica in &replicas {
        assert_eq!(get(replica, "/health").await, (200, "{\"healthy\":true}".to_owned()));
        assert_eq!(get(replica, "/ready").await, (200, "{\"ready\":true}".to_owned()));
        assert_eq!(get(replica, "/nowhere").await.0, 404);
    }
    replicas[1].stop().await;
    replicas[2].stop().await;
    let deadline = Instant::now() + DEADLINE;
    loop {
        let (status, body) = get(&replicas[0], "/ready").await;
        if status == 503 && body.contains("\"waiting_for\":[\"n2 (http://127.0.0.1:") && body.contains("\"n3 (http") {
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(body["ready"], false);
            assert!(!body["reason"].as_str().unwrap().is_empty());
            break;
        }
        assert!(Instant::now() < deadline, "{status} {body}");
    }
    assert_eq!(get(&replicas[0], "/health").await.0, 200);
    // The node alone has stopped: the process should be started again.
    replicas[0].node().unwrap().stop().await;
    let (status, body) = get(&replicas[0], "/health").await;
    assert_eq!(
        (status, body.as_str()),
        (503, "{\"healthy\":false,\"reason\":\"the node has stopped\",\"waiting_for\":[]}")
    );
    let port = replicas[0].monitor().unwrap().address();
    replicas[0].stop().await;
    assert!(std::net::TcpListener::bind(port).is_ok(), "its port is free");
}

/// Frames of HTTP/2 and requests of HTTP/1.1 that nobody should send. `FRAMES=1000000` in the environment sends so many of each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_frames_of_operators_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let mut ports = Reservation::default();
    let config = three(dir.path(), &mut ports);
    let starts = config.replicas().iter().map(|row| Replica::start(&config, row.id));
    let replicas: Vec<_> = futures::future::join_all(starts).await.into_iter().map(Result::unwrap).collect();
    let key = Key::new("a").unwrap();
    replicas[0].store().put(&key, "1").await.unwrap();
    assert_eq!(get(&replicas[0], "/metrics").await.0, 200);
    let before = resident_bytes();
    let address = replicas[0].monitor().unwrap().address();
    // The preface of HTTP/2, then settings, the headers of a GET, a ping and a window.
    let opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let frames = [
        &b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\xff\xff"[..],
        b"\0\0\x0c\x01\x05\0\0\0\x01\x82\x86\x04\x07/health\x41",
        b"\0\0\x08\x06\0\0\0\0\0\x07\x07\x07\x07\x07\x07\x07\x07",
        b"\0\0\x04\x08\0\0\0\0\0\0\0\xff\xff",
    ]
    .map(<[u8]>::to_vec);
    let mut sent = Strike { address, opening, frames_of_one: 16, frames: &frames, mend: |_| {} }.run(2500).await;
    let plain = ["GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n", "GET /health HTTP/1.0\r\n\r\n"];
    let plain = plain.map(|request| request.as_bytes().to_vec());
    sent += Strike { address, opening: b"", frames_of_one: 2, frames: &plain, mend: |_| {} }.run(2500).await;
    assert_eq!(get(&replicas[0], "/metrics").await.0, 200);
    replicas[0].store().put(&key, "2").await.unwrap();
    let grown = resident_bytes().saturating_sub(before);
    println!("{sent} frames, {} KiB more memory", grown >> 10);
    assert!(grown < GROWTH_BYTES, "{grown} bytes more than before {sent} frames");
    futures::future::join_all(replicas.iter().map(Replica::stop)).await;
}
