//! What a first start leaves that was cut short, and a directory that cannot be read: neither is taken for an empty one.

use std::{
    collections::BTreeSet,
    fs::{self, File, Permissions},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
};

use storage_testkit::server::Reservation;

use super::{
    Running,
    common::{snet, stderr, stdout},
    eventually, patiently,
};

/// A user that owns nothing else.
const NOBODY: u32 = 65534;

/// Nodes on this machine, in directories of their own.
struct Nodes {
    place: tempfile::TempDir,
    clients: Vec<String>,
    members: String,
    peers: Vec<String>,
    /// Their ports are theirs for as long as this lives.
    _ports: Reservation,
}

impl Nodes {
    fn new(size: usize) -> Self {
        let mut ports = Reservation::default();
        let mut urls = || (0..size).map(|_| format!("http://127.0.0.1:{}", ports.port().unwrap())).collect::<Vec<_>>();
        let (clients, peers) = (urls(), urls());
        let members: Vec<_> = peers.iter().enumerate().map(|(index, peer)| format!("n{index}={peer}")).collect();
        let place = tempfile::tempdir().unwrap();
        Self { place, clients, members: members.join(","), peers, _ports: ports }
    }

    fn log(&self, index: usize) -> PathBuf {
        self.place.path().join(format!("n{index}.log"))
    }

    fn says(&self, index: usize) -> String {
        fs::read_to_string(self.log(index)).unwrap_or_default()
    }

    /// Always with the same flags.
    fn start(&self, index: usize) -> Running {
        let log = File::create(self.log(index)).unwrap();
        let mut node = Command::new(env!("CARGO_BIN_EXE_snet"));
        node.args(["storage", "init", "--token", "t", "--initial-cluster", &self.members])
            .args(["--name", &format!("n{index}"), "--peer-url", &self.peers[index], "--client-url"])
            .arg(&self.clients[index])
            .current_dir(self.place.path())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Running(node.spawn().unwrap())
    }

    fn serves(&self, index: usize) -> bool {
        self.says(index).lines().any(|line| line.starts_with("ready: "))
    }

    fn data(&self, index: usize) -> PathBuf {
        self.place.path().join(format!("n{index}.storage"))
    }

    fn comes_up(&self, index: usize, node: &mut Running, what: &str) {
        eventually(&format!("{what}: n{index} serves"), || {
            let ended = node.0.try_wait().unwrap();
            assert!(ended.is_none(), "{what}: n{index} has ended: {}", self.says(index));
            self.serves(index).then_some(())
        });
    }
}

fn add_files(dir: &Path, seen: &mut BTreeSet<PathBuf>) {
    // What goes while it is looked at was there.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            add_files(&entry.path(), seen);
        }
        seen.insert(entry.path());
    }
}

/// It is killed as soon as it has made so many files, once for each number of them, until it serves before.
#[test]
fn a_node_that_was_killed_at_its_first_start_comes_up_at_the_next() {
    /// A first start makes about ten.
    const MOST_FILES: usize = 40;
    let nodes = Nodes::new(1);
    let mut left = BTreeSet::new();
    for files in 1..=MOST_FILES {
        let _ = fs::remove_dir_all(nodes.data(0));
        let mut seen = BTreeSet::new();
        let node = nodes.start(0);
        eventually("a file, or that it serves", || {
            add_files(&nodes.data(0), &mut seen);
            (seen.len() >= files || nodes.serves(0)).then_some(())
        });
        let served = nodes.serves(0);
        drop(node);
        let mut now = BTreeSet::new();
        add_files(&nodes.data(0), &mut now);
        left.insert(now.len());
        let what = format!("killed at {files} files, with {now:?}");
        // Every other time it is killed again, at the start that mends the first.
        if files % 2 == 0 {
            let _node = nodes.start(0);
            eventually("its first words", || (!nodes.says(0).is_empty()).then_some(()));
        }
        let mut node = nodes.start(0);
        nodes.comes_up(0, &mut node, &what);
        patiently(&["storage", "put", "k", &files.to_string(), "--endpoints", &nodes.clients[0]]);
        if served {
            salvaged_by_a_bare_name(&nodes, node);
            assert!(left.len() > 2, "it was killed at different moments: {left:?}");
            return;
        }
    }
    panic!("it makes more than {MOST_FILES} files");
}

/// What is left of a stopped node goes into a file of the current directory.
fn salvaged_by_a_bare_name(nodes: &Nodes, node: Running) {
    drop(node);
    let mut salvage = Command::new(env!("CARGO_BIN_EXE_snet"));
    salvage.args(["storage", "snapshot", "salvage", "saved", "--data-dir", "n0.storage"]);
    let salvaged = salvage.current_dir(nodes.place.path()).output().unwrap();
    assert!(salvaged.status.success(), "{salvaged:?}");
    assert!(nodes.place.path().join("saved").exists());
}

#[test]
fn nodes_that_were_killed_while_they_founded_their_cluster_found_it_at_the_next_start() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..4 {
        let nodes = Nodes::new(3);
        let mut running: Vec<_> = (0..3).map(|index| Some(nodes.start(index))).collect();
        let mut victims = vec![0, 1, 2];
        random.shuffle(&mut victims);
        victims.truncate(1 + round % 3);
        let (files, mut seen) = (random.usize(1..30), BTreeSet::new());
        eventually("so many files, or that they serve", || {
            (0..3).for_each(|index| add_files(&nodes.data(index), &mut seen));
            (seen.len() >= files || nodes.serves(0)).then_some(())
        });
        for victim in &victims {
            running[*victim] = None;
        }
        for victim in &victims {
            running[*victim] = Some(nodes.start(*victim));
        }
        for (index, node) in running.iter_mut().enumerate() {
            nodes.comes_up(index, node.as_mut().unwrap(), &format!("seed {seed}, round {round}, killed {victims:?}"));
        }
        patiently(&["storage", "put", "k", "v", "--endpoints", &nodes.clients.join(",")]);
    }
}

/// It was once deleted, since it looked as if it were empty.
#[test]
fn a_directory_that_cannot_be_read_is_left_alone_and_serves_when_it_can_be_read_again() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let is_root = fs::metadata(place).unwrap().uid() == 0;
    let mut program = PathBuf::from(env!("CARGO_BIN_EXE_snet"));
    // Root reads everything.
    let unprivileged = |program: &Path| {
        let mut command = Command::new(program);
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    };
    let data = place.join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(place, Permissions::from_mode(0o755)).unwrap();
    if is_root {
        chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
        if unprivileged(&program).arg("--version").output().is_err() {
            let copy = place.join("snet");
            fs::copy(&program, &copy).unwrap();
            program = copy;
        }
    }
    let mut ports = Reservation::default();
    let (client, peer) = (ports.port().unwrap(), ports.port().unwrap());
    let url = format!("http://127.0.0.1:{client}");
    let config = format!(
        "token = \"t\"\nengine = \"embedded\"\ndata_dir = \"{}\"\n[membership]\n[[replicas]]\nid = 1\nnode_name = \"n1\"\n\
         client_url = \"{url}\"\npeer_url = \"http://127.0.0.1:{peer}\"\n",
        data.display()
    );
    fs::write(place.join("cluster.toml"), config).unwrap();
    let serve = |more: &[&str]| {
        let log = File::create(place.join("log")).unwrap();
        let mut replica = unprivileged(&program);
        replica.args(["storage", "serve", "--incremental", "--config", "cluster.toml", "--replica", "1"]).args(more);
        let replica = replica.current_dir(place).stdout(log.try_clone().unwrap()).stderr(log);
        Running(replica.spawn().unwrap())
    };
    {
        let _replica = serve(&["--bootstrap", "new"]);
        patiently(&["storage", "put", "k", "kept", "--endpoints", &url]);
    }
    // Of the replica, of its node, and of its log.
    for unreadable in ["n1", "n1/node", "n1/node/log"].map(|name| data.join(name)) {
        let files = |dir: &Path| {
            let mut files = BTreeSet::new();
            add_files(dir, &mut files);
            files
        };
        let before = files(&data);
        assert!(before.len() > 5, "{before:?}");
        let rights = fs::metadata(&unreadable).unwrap().permissions();
        fs::set_permissions(&unreadable, Permissions::from_mode(0o000)).unwrap();
        let mut replica = serve(&[]);
        let says = || fs::read_to_string(place.join("log")).unwrap();
        eventually("it says that it cannot read it", || {
            let ended = replica.0.try_wait().unwrap();
            assert!(ended.is_none_or(|status| !status.success()), "it has ended as if nothing were wrong: {}", says());
            let told = says();
            (told.contains("cannot") && told.contains(unreadable.to_str().unwrap())).then_some(())
        });
        let get = snet(&["storage", "get", "k", "--seconds", "1", "--endpoints", &url]);
        assert!(!get.status.success(), "{get:?}");
        drop(replica);
        fs::set_permissions(&unreadable, rights).unwrap();
        assert_eq!(files(&data), before, "{}: nothing was changed", unreadable.display());
        let _replica = serve(&[]);
        eventually("the key is there", || {
            let get = snet(&["storage", "get", "k", "--value-only", "--seconds", "5", "--endpoints", &url]);
            assert!(get.status.success() || get.status.code() == Some(3), "{}", stderr(&get));
            get.status.success().then(|| assert_eq!(stdout(&get).trim(), "kept"))
        });
    }
}
