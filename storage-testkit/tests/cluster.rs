//! The launcher on servers that are shell scripts: nothing has to be installed for these.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use storage_testkit::server::{Cluster, ClusterOptions, Launch, Probe, ServerError, ServerSpec};

/// A server that notes each start in its data and then waits, in a process of its own, to be killed.
fn sleeper() -> ServerSpec {
    ServerSpec::new("sleeper", |node| {
        let script = "cat greeting; echo started >> data/starts; sleep 1000; echo never";
        Ok(Launch::new("/bin/sh").args(["-c", script]).file("greeting", format!("I am {}\n", node.name())))
    })
    .port("client")
    .ready_when(Probe::custom(|node| async move { node.data_dir().join("starts").exists() }))
    .client_url("test://127.0.0.1:{client}/db")
}

fn options() -> ClusterOptions {
    let mut options = ClusterOptions::default();
    options.ready_within = Duration::from_secs(20);
    options
}

/// Whether the process exists and is not a zombie that waits for its parent.
fn is_alive(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        std::thread::yield_now();
    }
}

fn starts(data: &Path) -> usize {
    fs::read_to_string(data.join("starts")).map_or(0, |text| text.lines().count())
}

#[tokio::test]
async fn a_cluster_starts_every_node_in_its_own_place() {
    let cluster = Cluster::start(sleeper(), 3, options()).await.unwrap();
    let mut urls = cluster.client_urls();
    assert!(urls.iter().all(|url| url.starts_with("test://127.0.0.1:") && url.ends_with("/db")), "{urls:?}");
    urls.sort();
    urls.dedup();
    assert_eq!(urls.len(), 3);
    for (index, node) in cluster.nodes().iter().enumerate() {
        assert!(is_alive(node.pid().unwrap()));
        assert_eq!(fs::read_to_string(node.log_path()).unwrap(), format!("I am n{index}\n"));
    }
}

#[tokio::test]
async fn a_killed_node_is_gone_with_what_it_started_and_comes_back_on_its_data_and_port() {
    let mut cluster = Cluster::start(sleeper(), 2, options()).await.unwrap();
    let (pid, url) = (cluster.node(1).unwrap().pid().unwrap(), cluster.node(1).unwrap().client_url().to_owned());
    let mut child = None;
    eventually("the script runs `sleep`", || {
        child = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            .ok()
            .and_then(|children| children.split_whitespace().next()?.parse::<u32>().ok());
        child.is_some()
    });
    cluster.kill(1).unwrap();
    assert!(!is_alive(pid));
    eventually("the server's own child dies too", || !is_alive(child.unwrap()));
    assert!(!cluster.is_running(1).unwrap());
    assert!(cluster.is_running(0).unwrap());

    cluster.restart(1).unwrap();
    let data = cluster.node(1).unwrap().data_dir();
    eventually("the second start", || starts(&data) == 2);
    assert_eq!(cluster.node(1).unwrap().client_url(), url);
    assert!(matches!(cluster.restart(1), Err(ServerError::AlreadyRunning { .. })));
}

#[tokio::test]
async fn a_paused_node_is_stopped_until_it_is_resumed() {
    let mut cluster = Cluster::start(sleeper(), 1, options()).await.unwrap();
    let pid = cluster.node(0).unwrap().pid().unwrap();
    cluster.pause(0).unwrap();
    assert_eq!(state(pid), Some('T'));
    assert!(cluster.is_running(0).unwrap());
    cluster.resume(0).unwrap();
    eventually("the process goes on", || state(pid) == Some('S'));

    cluster.pause(0).unwrap();
    cluster.kill(0).unwrap();
    assert!(!is_alive(pid), "a stopped process can be killed");
    assert!(matches!(cluster.pause(0), Err(ServerError::NotRunning { .. })));
}

/// A signal is sent long before threads that wait for a processor have seen it. In its second role, as a process of its own,
/// this test is a server of many threads, each of which notes all the time that it runs.
#[test]
fn nothing_runs_any_more_when_a_pause_has_returned() {
    const SERVER: &str = "STORAGE_TESTKIT_BUSY_SERVER";
    const THREADS: u64 = 8;
    const ROUNDS: usize = 10;
    /// Long enough for each thread to have its turn, were it not stopped.
    const TURNS: Duration = Duration::from_millis(20);
    if env::var_os(SERVER).is_some() {
        let notes = fs::File::create("data/notes").unwrap();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let notes = &notes;
                scope.spawn(move || {
                    for round in 0_u64.. {
                        notes.write_all_at(&round.to_le_bytes(), thread * 8).unwrap();
                    }
                });
            }
        });
    }
    let spec = ServerSpec::new("busy", |_| {
        let role = ["--exact", "nothing_runs_any_more_when_a_pause_has_returned", "--nocapture"];
        Ok(Launch::new(env::current_exe().unwrap()).args(role).env(SERVER, "1"))
    });
    let spec = spec.ready_when(Probe::custom(|node| async move {
        fs::metadata(node.data_dir().join("notes")).is_ok_and(|notes| notes.len() == THREADS * 8)
    }));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut cluster = runtime.block_on(Cluster::start(spec, 1, options())).unwrap();
    let notes = cluster.node(0).unwrap().data_dir().join("notes");
    for round in 0..ROUNDS {
        cluster.pause(0).unwrap();
        let then = fs::read(&notes).unwrap();
        std::thread::sleep(TURNS);
        assert!(fs::read(&notes).unwrap() == then, "a thread ran on after pause {round} had returned");
        cluster.resume(0).unwrap();
        eventually("the threads run again", || fs::read(&notes).unwrap() != then);
    }
}

#[tokio::test]
async fn a_terminated_node_ends_by_itself() {
    let mut cluster = Cluster::start(sleeper(), 1, options()).await.unwrap();
    cluster.terminate(0).unwrap();
    eventually("the end of the process", || !cluster.is_running(0).unwrap());
}

#[tokio::test]
async fn a_wiped_node_has_lost_its_data_and_the_others_have_not() {
    let mut cluster = Cluster::start(sleeper(), 2, options()).await.unwrap();
    cluster.wipe(0).unwrap();
    assert_eq!(starts(&cluster.node(0).unwrap().data_dir()), 0);
    cluster.restart_all().await.unwrap();
    assert_eq!(starts(&cluster.node(0).unwrap().data_dir()), 1);
    assert_eq!(starts(&cluster.node(1).unwrap().data_dir()), 1);
}

#[tokio::test]
async fn a_dropped_cluster_leaves_neither_processes_nor_files() {
    let cluster = Cluster::start(sleeper(), 3, options()).await.unwrap();
    let dir = cluster.dir().unwrap().to_owned();
    let pids: Vec<u32> = cluster.nodes().iter().map(|node| node.pid().unwrap()).collect();
    drop(cluster);
    assert!(!dir.exists());
    assert!(pids.into_iter().all(|pid| !is_alive(pid)));
}

#[tokio::test]
async fn a_failing_test_keeps_the_logs() {
    let cluster = Cluster::start(sleeper(), 1, options()).await.unwrap();
    let dir = cluster.dir().unwrap().to_owned();
    let log = cluster.node(0).unwrap().log_path();
    let failing = std::thread::spawn(move || {
        let _cluster = cluster;
        panic!("on purpose: a cluster is dropped while its test fails");
    });
    assert!(failing.join().is_err());
    assert!(fs::read_to_string(log).unwrap().contains("I am n0"));
    fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_server_that_ends_at_once_fails_the_start_with_its_log() {
    let spec = ServerSpec::new("broken", |_| {
        Ok(Launch::new("/bin/sh").args(["-c", "echo the disk is upside down >&2; exit 3"]))
    })
    .ready_when(Probe::custom(|_| async { false }));
    let error = Cluster::start(spec, 2, options()).await.unwrap_err();
    assert!(error.to_string().contains("the disk is upside down"), "{error}");
    let ServerError::Exited { dir, .. } = error else { panic!("{error}") };
    assert!(dir.join("n1/server.log").exists());
    fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_server_that_is_never_ready_fails_the_start_at_the_deadline() {
    let spec = sleeper().ready_when(Probe::custom(|_| async { false }));
    let mut options = options();
    options.ready_within = Duration::from_millis(100);
    let error = Cluster::start(spec, 1, options).await.unwrap_err();
    assert!(error.to_string().contains("I am n0"), "{error}");
    let ServerError::NotReady { dir, .. } = error else { panic!("{error}") };
    fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_lost_race_for_a_port_is_tried_again_on_other_ports() {
    let seen = tempfile::NamedTempFile::new().unwrap();
    let path = seen.path().to_owned();
    let spec = ServerSpec::new("racer", move |node| {
        let script = format!(
            "echo {} >> {path}; [ $(wc -l < {path}) -gt 1 ] || {{ echo bind: Address already in use; exit 1; }}; sleep 1000",
            node.port("client")?,
            path = path.display()
        );
        Ok(Launch::new("/bin/sh").args(["-c", script.as_str()]))
    })
    .port("client");
    let second = spec.clone().ready_when(Probe::custom({
        let path = seen.path().to_owned();
        move |_| {
            let starts = fs::read_to_string(&path).unwrap_or_default().lines().count();
            async move { starts > 1 }
        }
    }));
    let cluster = Cluster::start(second, 1, options()).await.unwrap();
    let ports = fs::read_to_string(seen.path()).unwrap();
    let ports: Vec<&str> = ports.lines().collect();
    assert_eq!(ports.len(), 2);
    assert_eq!(ports[1], cluster.node(0).unwrap().port("client").unwrap().to_string());
}

#[tokio::test]
async fn questions_about_what_is_not_there_are_errors() {
    for nodes in [0, 12] {
        let error = Cluster::start(sleeper(), nodes, options()).await.unwrap_err();
        assert!(matches!(error, ServerError::ClusterSize { .. }), "{error}");
    }
    let mut cluster = Cluster::start(sleeper(), 1, options()).await.unwrap();
    assert!(matches!(cluster.kill(1), Err(ServerError::NoSuchNode { index: 1, count: 1 })));
    assert!(matches!(cluster.node(0).unwrap().port("peer"), Err(ServerError::UnknownPort { .. })));
}

/// In its second role, as a process of its own, this test is the victim: it starts a cluster and waits to be killed.
#[test]
fn servers_die_with_a_test_process_that_is_killed() {
    const VICTIM: &str = "STORAGE_TESTKIT_VICTIM";
    const MARK: &str = "victim holds ";
    if env::var_os(VICTIM).is_some() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let cluster = runtime.block_on(Cluster::start(sleeper(), 2, options())).unwrap();
        let pids: Vec<String> = cluster.nodes().iter().map(|node| node.pid().unwrap().to_string()).collect();
        println!("\n{MARK}{} {}", cluster.dir().unwrap().display(), pids.join(" "));
        loop {
            std::thread::park();
        }
    }
    let mut victim = Command::new(env::current_exe().unwrap())
        .args(["--exact", "servers_die_with_a_test_process_that_is_killed", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let holds = lines.map(Result::unwrap).find_map(|line| Some(line.strip_prefix(MARK)?.to_owned())).unwrap();
    let (dir, pids) = holds.split_once(' ').unwrap();
    let pids: Vec<u32> = pids.split(' ').map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.len() == 2 && pids.iter().all(|pid| is_alive(*pid)));

    victim.kill().unwrap();
    victim.wait().unwrap();
    eventually("the servers die", || !pids.iter().any(|pid| is_alive(*pid)));
    fs::remove_dir_all(dir).unwrap();
}
