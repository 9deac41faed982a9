//! Replicas of a cluster that grows by itself, as processes of `snet storage serve --incremental`.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use serde_json::Value;
use storage_testkit::{
    history::{Outcome, Recorder},
    programs,
    server::{Cluster, ClusterOptions, Image, Launch, Network, NodeContext, ServerError, ServerSpec},
    workload::{self, Faults, Open, Register, RunReport, Settings},
};

use crate::common::{snet, stderr};

/// However busy the machine is, it is done by then.
pub(crate) const DEADLINE: Duration = Duration::from_secs(150);

/// Who is not heard of for so long is dead: ten heartbeats.
pub(crate) const DEAD_AFTER: Duration = Duration::from_secs(6);

/// How each replica begins, as it stands at its next start.
type Modes = Arc<Mutex<Vec<&'static str>>>;

/// Changes how a replica is started, by its number: its program, its environment.
type Start = Arc<dyn Fn(usize) -> Launch + Send + Sync>;

/// What the replicas of a test have in common.
pub(crate) struct Setting {
    pub(crate) engine: &'static str,
    pub(crate) options: ClusterOptions,
    /// Where `ca.crt`, `client.crt`, and `r1.crt` and so on are: then all URLs are `https`.
    pub(crate) certs: Option<PathBuf>,
    /// The program of a replica, with what stands before its arguments.
    pub(crate) start: Start,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            engine: "embedded",
            options: ClusterOptions::default(),
            certs: None,
            start: Arc::new(|_| Launch::new(env!("CARGO_BIN_EXE_snet"))),
        }
    }
}

/// Replicas 1 to so many, of which none runs at first. Replica r is node r - 1 of the test kit's cluster.
pub(crate) struct Replicas {
    pub(crate) cluster: Cluster,
    pub(crate) network: Option<Arc<Network>>,
    modes: Modes,
    tokens: Arc<Mutex<Vec<String>>>,
    certs: Option<PathBuf>,
}

impl Replicas {
    pub(crate) fn new(count: usize, engine: &'static str) -> Self {
        Self::with(count, Setting { engine, ..Setting::default() })
    }

    /// In namespaces of the network; `None`, with the reason printed, where they cannot be had.
    pub(crate) fn in_network(count: usize) -> Option<Self> {
        match Network::open(count) {
            Ok(network) => {
                let mut options = ClusterOptions::default();
                options.network = Some(Arc::new(network));
                Some(Self::with(count, Setting { options, ..Setting::default() }))
            }
            Err(reason) => {
                println!("skipped: {reason}");
                None
            }
        }
    }

    /// On a disk whose power can fail.
    pub(crate) fn on(image: &Image, count: usize) -> Self {
        let mut options = ClusterOptions::default();
        options.parent_dir = Some(image.path());
        Self::with(count, Setting { options, ..Setting::default() })
    }

    pub(crate) fn with(count: usize, setting: Setting) -> Self {
        let Setting { engine, options, certs, start } = setting;
        let modes: Modes = Arc::new(Mutex::new(vec!["join"; count]));
        let tokens = Arc::new(Mutex::new(vec![String::new(); count]));
        let network = options.network.clone();
        let (at_start, own, own_certs) = (Arc::clone(&modes), Arc::clone(&tokens), certs.clone());
        let launch = move |node: &NodeContext| {
            let mode = at_start.lock().unwrap()[node.index()];
            let other = own.lock().unwrap()[node.index()].clone();
            let token = if other.is_empty() { node.token().to_owned() } else { other };
            let id = (node.index() + 1).to_string();
            Ok(start(node.index() + 1)
                .file("cluster.toml", file(node, engine, &token, own_certs.as_deref())?)
                .args(["storage", "serve", "--incremental", "--config", "cluster.toml", "--replica", &id])
                .args(["--bootstrap", mode])
                .env("ETCD_BIN", programs::find("etcd").map(|path| path.display().to_string()).unwrap_or_default()))
        };
        let spec = ServerSpec::new("snet-growing", launch).port("client").port("peer").client_url("127.0.0.1:{client}");
        Self { cluster: Cluster::prepare(spec, count, options).unwrap(), network, modes, tokens, certs }
    }

    /// Starts a replica, which begins like this if it has no data.
    pub(crate) fn start(&mut self, replica: usize, mode: &'static str) {
        self.modes.lock().unwrap()[replica - 1] = mode;
        self.cluster.restart(replica - 1).unwrap();
    }

    pub(crate) fn token(&self, replica: usize, token: &str) {
        token.clone_into(&mut self.tokens.lock().unwrap()[replica - 1]);
    }

    pub(crate) fn kill(&mut self, replica: usize) {
        self.cluster.kill(replica - 1).unwrap();
    }

    pub(crate) fn wipe(&mut self, replica: usize) {
        self.cluster.wipe(replica - 1).unwrap();
    }

    /// Cuts replicas off from all others, in both directions.
    pub(crate) fn cut_off(&self, replicas: &[usize]) {
        let network = self.network.as_ref().unwrap();
        for one in replicas {
            for other in (1..=self.cluster.len()).filter(|other| !replicas.contains(other)) {
                network.cut(one - 1, other - 1).unwrap();
                network.cut(other - 1, one - 1).unwrap();
            }
        }
    }

    pub(crate) fn heal(&self) {
        self.network.as_ref().unwrap().heal().unwrap();
    }

    /// The file of a replica that was started once.
    pub(crate) fn config(&self, replica: usize) -> PathBuf {
        self.cluster.node(replica - 1).unwrap().context().dir().join("cluster.toml")
    }

    /// The directory of a replica: who it is, and its node's data.
    pub(crate) fn dir(&self, replica: usize) -> PathBuf {
        self.cluster.node(replica - 1).unwrap().data_dir().join(format!("r{replica}"))
    }

    /// What the file of who the replica is says.
    pub(crate) fn identity(&self, replica: usize) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.dir(replica).join("replica.json")).ok()?).ok()
    }

    pub(crate) fn log(&self, replica: usize) -> String {
        fs::read_to_string(self.cluster.node(replica - 1).unwrap().log_path()).unwrap_or_default()
    }

    /// What `cluster show` says, if there is a cluster that answers.
    pub(crate) fn show(&self) -> Option<Value> {
        let file = (1..=self.cluster.len()).map(|replica| self.config(replica)).find(|file| file.exists())?;
        let shown = snet(&["storage", "cluster", "show", "--output", "json", "--config", file.to_str()?]);
        if !shown.status.success() {
            // Two clusters are never what is waited for.
            assert!(!stderr(&shown).contains("two clusters"), "{}", stderr(&shown));
            return None;
        }
        serde_json::from_slice(&shown.stdout).ok()
    }

    /// Waits until `cluster show` says what is wanted, and returns it.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let (began, mut last) = (Instant::now(), None);
        loop {
            let shown = self.show();
            if let Some(shown) = shown {
                if wanted(&shown) {
                    return shown;
                }
                last = Some(shown);
            }
            if began.elapsed() > DEADLINE {
                panic!("{what} has not come in time: {last:#?}\n{}", self.cluster.logs());
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until these replicas vote, and nothing is left to do.
    #[track_caller]
    pub(crate) fn until_voters(&self, voters: &[usize]) -> Value {
        self.until(&format!("voters {voters:?}"), |shown| {
            roles(shown, "voter") == voters && shown["lost_voters"] == Value::Array(Vec::new()) && settled(shown)
        })
    }

    /// Waits until so many replicas vote, and nothing is left to do.
    #[track_caller]
    pub(crate) fn until_count(&self, replicas: usize, voters: usize) -> Value {
        self.until(&format!("{voters} voters of {replicas} replicas"), |shown| {
            shown["replicas"].as_array().unwrap().len() == replicas
                && roles(shown, "voter").len() == voters
                && settled(shown)
        })
    }

    /// The replica that leads.
    pub(crate) fn leader(&self) -> usize {
        let shown = self.until("a leader", |shown| leader_of(shown).is_some());
        leader_of(&shown).unwrap()
    }

    /// All client URLs, whoever runs.
    pub(crate) fn url(&self) -> String {
        let urls = self.cluster.client_urls().join(",");
        match &self.certs {
            None => format!("etcd://{urls}"),
            Some(certs) => {
                let file = |name: &str| certs.join(name).display().to_string();
                let (ca, cert, key) = (file("ca.crt"), file("client.crt"), file("client.key"));
                format!("etcds://{urls}/?ca={ca}&cert={cert}&key={key}")
            }
        }
    }

    /// Lets clients work while something happens, and judges what they were told.
    pub(crate) async fn under_load(&mut self, what: impl AsyncFnOnce(&mut Self, &Recorder)) -> RunReport {
        let url = self.url();
        let open: Open = Arc::new(move |_| {
            let url = url.clone();
            async move { storage::open(&url).await }.boxed()
        });
        let mut settings = Settings::default().clients(4);
        settings.timeout = Duration::from_secs(5);
        settings.recovers_within = DEADLINE;
        let report = workload::run(Arc::new(Register::default()), &open, &settings, async |recorder| {
            what(self, &recorder).await;
            Faults::default()
        });
        let report = report.await.unwrap();
        assert!(report.is_passed(), "{report}\n{}", self.cluster.logs());
        println!("{} done, {} failed, {} unknown", report.succeeded, report.failed, report.unknown);
        report
    }
}

/// The replicas with this role.
pub(crate) fn roles(shown: &Value, role: &str) -> Vec<usize> {
    let replicas = shown["replicas"].as_array().unwrap().iter();
    replicas.filter(|replica| replica["role"] == role).map(id).collect()
}

fn id(replica: &Value) -> usize {
    usize::try_from(replica["id"].as_u64().unwrap()).unwrap()
}

pub(crate) fn replica(shown: &Value, id: usize) -> &Value {
    shown["replicas"].as_array().unwrap().iter().find(|replica| replica["id"] == id).unwrap_or(&Value::Null)
}

pub(crate) fn settled(shown: &Value) -> bool {
    shown["intends"].as_str().is_some_and(|intends| intends.starts_with("nothing"))
}

pub(crate) fn leader_of(shown: &Value) -> Option<usize> {
    let mut replicas = shown["replicas"].as_array().unwrap().iter();
    let leads = |replica: &&Value| !replica["node"].is_null() && replica["node"] == shown["leader"];
    replicas.find(leads).map(id)
}

/// How many changes there were.
pub(crate) fn changes(shown: &Value) -> u64 {
    shown["last_change"]["number"].as_u64().unwrap_or_default()
}

/// The 99th percentile of the answers in a time, in milliseconds, and how many there were.
pub(crate) fn p99(report: &RunReport, from: u64, to: u64) -> (f64, usize) {
    let answered = report.history.operations().iter().filter(|operation| {
        operation.start >= from
            && operation.start < to
            && !matches!(operation.outcome, Outcome::Failed | Outcome::Unknown)
    });
    let mut took: Vec<u64> = answered.filter_map(|operation| Some(operation.end? - operation.start)).collect();
    took.sort_unstable();
    let at = took.len().saturating_sub(1) * 99 / 100;
    (took.get(at).map_or(0.0, |nanos| *nanos as f64 / 1e6), took.len())
}

/// A file that lists all replicas.
fn file(node: &NodeContext, engine: &str, token: &str, certs: Option<&Path>) -> Result<String, ServerError> {
    let scheme = if certs.is_some() { "https" } else { "http" };
    let mut text = format!(
        "token = \"{token}\"\nengine = \"{engine}\"\ndata_dir = \"data\"\n[membership]\ndead_after = \"{}ms\"\n",
        DEAD_AFTER.as_millis()
    );
    for other in node.nodes() {
        let (id, client, peer) = (other.index() + 1, other.port("client")?, other.port("peer")?);
        let _ = write!(
            text,
            "[[replicas]]\nid = {id}\nnode_name = \"r{id}\"\nclient_url = \"{scheme}://127.0.0.1:{client}\"\npeer_url = \"{scheme}://127.0.0.1:{peer}\"\n"
        );
        if let Some(certs) = certs.map(Path::display) {
            let _ = write!(
                text,
                "cert_file = \"{certs}/r{id}.crt\"\nkey_file = \"{certs}/r{id}.key\"\ntrusted_ca_file = \"{certs}/ca.crt\"\n"
            );
        }
    }
    Ok(text)
}
