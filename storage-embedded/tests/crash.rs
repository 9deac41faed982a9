//! Nodes are killed under load, and what they acknowledged is looked for afterwards.
//!
//! Three nodes run as processes. Clients write numbers that only grow to keys of their own, and count in one shared counter
//! by compare-and-swap, through whichever node lives. A number that was acknowledged and is gone is a lost write; one that
//! was never sent is an invented one; a counter that is less than its acknowledged increments has lost an update.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::HashMap,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use storage_core::{Error, Key, ReadOptions, Store, StoreExt};
use storage_embedded::{Node, NodeConfig};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::oneshot,
};

const NODES: usize = 3;
const CLIENTS: usize = 6;
/// Overridden by the environment variable `STORAGE_CRASH_KILLS`, for longer runs.
const KILLS: usize = 200;
/// Every so many kills, all nodes are killed at once.
const ALL_AT_ONCE: usize = 10;
/// How many acknowledgements there have to be between two kills: a cluster that does not come back fails the test.
const PROGRESS: u64 = 20;
const PROGRESS_DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_when_nodes_are_killed() {
    let kills = std::env::var("STORAGE_CRASH_KILLS").map_or(KILLS, |text| text.parse().expect("a number"));
    let seed =
        std::env::var("STORAGE_CRASH_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().expect("a number"));
    println!("{kills} kills, STORAGE_CRASH_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let cluster = Cluster::start().await;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let unknown = Arc::new(AtomicU64::new(0));
    let end = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let client = Client {
                cluster: cluster.clone(),
                random: fastrand::Rng::with_seed(random.u64(..)),
                number,
                acknowledged: acknowledged.clone(),
                unknown: unknown.clone(),
            };
            tokio::spawn(client.run(end.clone()))
        })
        .collect();

    let mut killed = 0;
    let mut rounds = 0;
    while killed < kills {
        progress(&acknowledged, killed).await;
        rounds += 1;
        let victims: Vec<usize> =
            if rounds % ALL_AT_ONCE == 0 { (0..NODES).collect() } else { vec![random.usize(..NODES)] };
        for victim in &victims {
            cluster.kill(*victim).await;
        }
        killed += victims.len();
        // One node away: the others go on, and it finds its way back. Sometimes it comes back at once.
        if victims.len() == 1 && random.bool() {
            progress(&acknowledged, killed).await;
        }
        for victim in victims {
            cluster.spawn(victim).await;
        }
    }
    progress(&acknowledged, killed).await;
    end.store(true, Ordering::Relaxed);

    let (mut counted, mut maybe_counted) = (Vec::new(), 0);
    for client in clients {
        let written = client.await.unwrap();
        for node in 0..NODES {
            written.check(cluster.read(node, &written.key).await, node);
        }
        counted.extend(written.counted);
        maybe_counted += written.maybe_counted;
    }
    counted.sort();
    for pair in counted.windows(2) {
        assert!(pair[0].0 < pair[1].0, "the counter became {} twice: {pair:?}", pair[0].0);
    }
    let least = counted.len() as u64;
    let most = least + maybe_counted;
    let counter = cluster.read(0, "counter").await.unwrap_or(0);
    assert!((least..=most).contains(&counter), "the counter is {counter}, with {least} to {most} increments");
    println!(
        "{killed} nodes killed, {} writes acknowledged, {} unknown, none lost; counter {counter} in {least}..={most}",
        acknowledged.load(Ordering::Relaxed),
        unknown.load(Ordering::Relaxed),
    );
}

async fn progress(acknowledged: &AtomicU64, killed: usize) {
    let goal = acknowledged.load(Ordering::Relaxed) + PROGRESS;
    let deadline = Instant::now() + PROGRESS_DEADLINE;
    while acknowledged.load(Ordering::Relaxed) < goal {
        assert!(Instant::now() < deadline, "no progress for {PROGRESS_DEADLINE:?} after {killed} kills");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct Client {
    cluster: Arc<Cluster>,
    random: fastrand::Rng,
    number: usize,
    acknowledged: Arc<AtomicU64>,
    unknown: Arc<AtomicU64>,
}

/// What a client wrote to its own key, and counted in the shared counter.
#[derive(Default)]
struct Written {
    key: String,
    /// The greatest number that was acknowledged.
    acknowledged: u64,
    /// Greater numbers whose outcome is unknown.
    unknown: Vec<u64>,
    /// What the counter became by each acknowledged increment, and the version it got.
    counted: Vec<(u64, String)>,
    maybe_counted: u64,
}

impl Written {
    fn check(&self, found: Option<u64>, node: usize) {
        let found = found.unwrap_or(0);
        let explained = found == self.acknowledged || self.unknown.contains(&found);
        assert!(
            explained,
            "node {node} has {found} at {}, acknowledged was {}, unknown {:?}",
            self.key, self.acknowledged, self.unknown
        );
    }
}

impl Client {
    async fn run(mut self, end: Arc<AtomicBool>) -> Written {
        let mut written = Written { key: format!("client-{}", self.number), ..Written::default() };
        let mut next = 0;
        while !end.load(Ordering::Relaxed) {
            let node = self.random.usize(..NODES);
            if self.random.u8(..4) == 0 {
                self.count(node, &mut written).await;
                continue;
            }
            next += 1;
            match self.cluster.ask(node, &format!("put {} {next}", written.key)).await {
                Answer::Ok(_) => {
                    written.acknowledged = next;
                    written.unknown.clear();
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Answer::Unknown => {
                    written.unknown.push(next);
                    self.unknown.fetch_add(1, Ordering::Relaxed);
                }
                Answer::NotApplied | Answer::Conflict => {}
            }
        }
        written
    }

    async fn count(&self, node: usize, written: &mut Written) {
        let Answer::Ok(current) = self.cluster.ask(node, "get counter").await else { return };
        let (version, value) = match current.split_once(' ') {
            Some((version, value)) => (version, value.parse::<u64>().unwrap()),
            None => ("-", 0),
        };
        match self.cluster.ask(node, &format!("cas counter {version} {}", value + 1)).await {
            Answer::Ok(version) => {
                written.counted.push((value + 1, version));
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Answer::Unknown => {
                written.maybe_counted += 1;
                self.unknown.fetch_add(1, Ordering::Relaxed);
            }
            Answer::Conflict | Answer::NotApplied => {}
        }
    }
}

enum Answer {
    Ok(String),
    Conflict,
    NotApplied,
    Unknown,
}

struct Cluster {
    dir: tempfile::TempDir,
    ports: Vec<u16>,
    nodes: Vec<Mutex<Option<Arc<Process>>>>,
}

/// Who waits for the answer to which command; nobody any more when the node is dead.
type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<String>>>>>;

struct Process {
    input: tokio::sync::Mutex<(Child, ChildStdin)>,
    next: AtomicU64,
    waiting: Waiting,
}

impl Cluster {
    async fn start() -> Arc<Self> {
        let listeners: Vec<_> = (0..NODES).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        drop(listeners);
        let dir = tempfile::tempdir().unwrap();
        let cluster = Arc::new(Self { dir, ports, nodes: (0..NODES).map(|_| Mutex::new(None)).collect() });
        for node in 0..NODES {
            cluster.spawn(node).await;
        }
        cluster
    }

    async fn spawn(&self, node: usize) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_storage-embedded-node"));
        command.arg("--id").arg((node + 1).to_string());
        command.arg("--data-dir").arg(self.dir.path().join(format!("n{node}")));
        command.arg("--listen").arg(format!("127.0.0.1:{}", self.ports[node]));
        // Snapshots and purges all the time, so that kills hit them too.
        command.args(["--fast", "--snapshot-every", "500"]);
        for (place, port) in self.ports.iter().enumerate() {
            command.arg("--member").arg(format!("{}=127.0.0.1:{port}", place + 1));
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let mut lines = BufReader::new(stdout).lines();
        let ready = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await.expect("ready in time");
        assert!(ready.unwrap().is_some(), "node {node} did not start");
        let replies = waiting.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let (number, answer) = line.split_once(' ').unwrap();
                let waiter = replies.lock().as_mut().and_then(|replies| replies.remove(&number.parse().unwrap()));
                if let Some(waiter) = waiter {
                    let _ = waiter.send(answer.to_owned());
                }
            }
            *replies.lock() = None;
        });
        let process = Process { input: tokio::sync::Mutex::new((child, stdin)), next: AtomicU64::new(1), waiting };
        *self.nodes[node].lock() = Some(Arc::new(process));
    }

    async fn kill(&self, node: usize) {
        let process = self.nodes[node].lock().take().unwrap();
        let mut input = process.input.lock().await;
        input.0.kill().await.unwrap();
    }

    async fn ask(&self, node: usize, command: &str) -> Answer {
        let process = self.nodes[node].lock().clone();
        let Some(process) = process else {
            tokio::time::sleep(Duration::from_millis(2)).await;
            return Answer::NotApplied;
        };
        let (sender, receiver) = oneshot::channel();
        let number = process.next.fetch_add(1, Ordering::Relaxed);
        match process.waiting.lock().as_mut() {
            Some(waiting) => waiting.insert(number, sender),
            None => return Answer::NotApplied,
        };
        let sent = process.input.lock().await.1.write_all(format!("{number} {command}\n").as_bytes()).await;
        if sent.is_err() {
            return Answer::Unknown;
        }
        let Ok(answer) = receiver.await else { return Answer::Unknown };
        let (kind, rest) = answer.split_once(' ').unwrap_or((&answer, ""));
        match kind {
            "ok" => Answer::Ok(rest.to_owned()),
            "absent" => Answer::Ok(String::new()),
            "conflict" => Answer::Conflict,
            _ if rest.starts_with("unknown_outcome") => Answer::Unknown,
            _ if rest.starts_with("unavailable") || rest.starts_with("closed") => Answer::NotApplied,
            _ => panic!("node {node} answered {answer} to {command}"),
        }
    }

    /// The number at a key, read through this node as soon as it can.
    async fn read(&self, node: usize, key: &str) -> Option<u64> {
        let deadline = Instant::now() + PROGRESS_DEADLINE;
        loop {
            if let Answer::Ok(entry) = self.ask(node, &format!("get {key}")).await {
                return entry.split_once(' ').map(|(_, value)| value.parse().unwrap());
            }
            assert!(Instant::now() < deadline, "node {node} does not answer");
        }
    }
}

/// A node that has written to its log and was stopped; the directory stays.
async fn a_written_directory(dir: &Path, writes: u32) {
    let node = Node::start(single(dir)).await.unwrap();
    let store = node.store();
    for number in 0..writes {
        store.put(&key(number), number.to_string()).await.unwrap();
    }
    node.stop().await;
}

fn single(dir: &Path) -> NodeConfig {
    let mut config = NodeConfig::new(1, 7, dir, "127.0.0.1:0").fast();
    config.founders.insert(1, storage_embedded::Member { name: "n1".into(), ..Default::default() });
    config
}

fn key(number: u32) -> Key {
    Key::new(format!("key-{number}")).unwrap()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut rooms = vec![dir.to_path_buf()];
    while let Some(room) = rooms.pop() {
        for entry in std::fs::read_dir(room).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                rooms.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_flipped_bit_in_synced_data_is_reported_with_file_and_offset_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    a_written_directory(dir.path(), 5).await;
    let file = segments(dir.path()).pop().expect("a segment");
    let mut bytes = std::fs::read(&file).unwrap();
    let needle = b"key-2";
    let place = bytes.windows(needle.len()).position(|window| window == needle).expect("the key stands in the log");
    bytes[place] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let error = Node::start(single(dir.path())).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(text.contains(file.file_name().unwrap().to_str().unwrap()), "names the file: {text}");
    assert!(text.contains("offset"), "names the offset: {text}");
    assert_eq!(std::fs::read(&file).unwrap(), bytes, "the damaged file is left for an operator to look at");
}

#[tokio::test]
async fn a_stopped_node_has_everything_when_it_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    a_written_directory(dir.path(), 100).await;
    let node = Node::start(single(dir.path())).await.unwrap();
    let store = node.store();
    for number in 0..100 {
        let entry = store.get(&key(number), ReadOptions::default()).await.unwrap().expect("a key");
        assert_eq!(entry.value, number.to_string());
    }
    node.stop().await;
}
