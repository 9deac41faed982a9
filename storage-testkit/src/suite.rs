//! Real servers under the conformance suite: what every backend's harness has in common.

#![expect(clippy::panic, reason = "servers that cannot be had fail the test")]

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use storage_core::conformance::{FaultError, FaultResult, Faults, Harness, Injected, Namespace, Servers};
use storage_core::{Key, Prefixed, ReadOptions, Result, Store};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::server::{Cluster, ClusterOptions, ServerSpec};

/// How long servers may take to come back after a fault.
pub const RECOVERY: Duration = Duration::from_secs(30);

/// A server that is asked about itself answers within this time, or is asked again: one that hangs never does.
const TELLS_WITHIN: Duration = Duration::from_millis(500);

/// Where the links between servers run that a test can cut: they outlive the runtime of the test that happened to open them.
pub static LINKS: LazyLock<Runtime> = LazyLock::new(|| {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.unwrap_or_else(|error| panic!("{error}"))
});

/// The processes of some servers, and where clients reach them.
#[derive(Debug)]
pub struct Processes {
    cluster: Mutex<Cluster>,
    endpoints: Vec<String>,
}

impl Processes {
    /// Starts so many servers, or fails the test with what is missing.
    pub async fn start(spec: ServerSpec, nodes: usize) -> Self {
        let cluster = Cluster::start(spec, nodes, ClusterOptions::default()).await;
        let cluster = cluster.unwrap_or_else(|error| panic!("{error}"));
        Self { endpoints: cluster.client_urls(), cluster: Mutex::new(cluster) }
    }
}

/// What a server says of itself. `None`: nothing, or not in time.
pub async fn told<T>(asked: impl Future<Output = Option<T>>) -> Option<T> {
    tokio::time::timeout(TELLS_WITHIN, asked).await.ok().flatten()
}

/// Real servers of one backend, and what only that backend knows of them.
#[async_trait]
pub trait Backend: Send + Sync + Sized + 'static {
    /// The backend's name in reports.
    const NAME: &'static str;

    /// Starts so many servers, or fails the test with what is missing.
    async fn start(nodes: usize) -> Arc<Self>;

    /// What runs.
    fn processes(&self) -> &Processes;

    /// Their processes, to be killed and paused.
    fn cluster(&self) -> &Mutex<Cluster> {
        &self.processes().cluster
    }

    /// Where clients reach them, in the order of their places.
    fn endpoints(&self) -> &[String] {
        &self.processes().endpoints
    }

    /// How many there are.
    fn nodes(&self) -> usize {
        self.endpoints().len()
    }

    /// The place of the one that leads, if one does now.
    async fn leads(&self) -> Option<usize>;

    /// Cuts one off from the others.
    async fn cut_off(&self, place: usize);

    /// Whether one that was cut off knows it, so that it does not serve any more.
    async fn has_noticed(&self, place: usize) -> bool;

    /// Mends what [`Backend::cut_off`] has cut.
    fn rejoin(&self);

    /// A handle that knows these servers.
    async fn open_at(&self, endpoints: &[String]) -> Result<Arc<dyn Store>>;

    /// A handle of one case, whose keys nobody else sees: on all servers, or on one alone. Cases are told apart by the beginning of
    /// their keys if nothing else is said.
    async fn open_case(&self, case: usize, on: Option<usize>) -> Result<Arc<dyn Store>> {
        let store = self.open_at(among(self.endpoints(), on)).await?;
        Ok(Arc::new(Prefixed::new(store, case_prefix(case)?)))
    }

    /// Deletes what a case has left.
    async fn remove_case(&self, _case: usize) -> Result<()> {
        Ok(())
    }

    /// How many bytes of each key tell the case.
    fn case_bytes(&self, case: usize) -> usize {
        case_prefix(case).map_or(0, |prefix| prefix.as_bytes().len())
    }

    /// Makes the servers forget their history: [`Faults::forget_history`].
    async fn forget_history(&self) -> FaultResult {
        Err(FaultError::Impossible("these servers keep no history that could be asked for".to_owned()))
    }

    /// Waits for one that leads, and returns its place.
    async fn leader(&self) -> usize {
        let patience = Patience::new();
        loop {
            if let Some(place) = self.leads().await {
                return place;
            }
            patience.check("a leader");
        }
    }

    /// Waits until each of them serves. One that was cut off or stood still may bring an election with it when it comes back, and
    /// serves when that is over.
    async fn serves(&self) {
        let patience = Patience::new();
        while let Err(error) = ping_each(self).await {
            patience.check(&format!("each server serves, but: {error}"));
        }
    }

    /// Cuts one off from the others, and returns when it knows. Until then a handle that is connected to it would wait for an
    /// answer that never comes, and rightly say that it does not know.
    async fn isolate(&self, place: usize) {
        self.cut_off(place).await;
        let patience = Patience::new();
        while !self.has_noticed(place).await {
            patience.check("a server notices that it is cut off");
        }
    }

    /// Stops all servers, so that they hold their connections and answer nothing.
    async fn pause_all(&self) {
        let mut cluster = self.cluster().lock().await;
        for place in 0..self.nodes() {
            cluster.pause(place).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// Kills all servers and starts them again.
    async fn restart_all(&self) {
        let mut cluster = self.cluster().lock().await;
        cluster.kill_all();
        cluster.restart_all().await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Mends everything, and returns when they serve.
    async fn heal(&self) {
        self.rejoin();
        {
            let mut cluster = self.cluster().lock().await;
            let resumed = (0..self.nodes()).try_for_each(|place| match cluster.is_running(place)? {
                true => cluster.resume(place),
                false => Ok(()),
            });
            resumed.unwrap_or_else(|error| panic!("{error}"));
            cluster.restart_all().await.unwrap_or_else(|error| panic!("{error}"));
        }
        self.serves().await;
    }

    /// Cuts a server that does not lead off, and returns its place.
    async fn isolate_follower(&self) -> usize {
        let place = follower(self).await;
        self.isolate(place).await;
        place
    }
}

/// The endpoint at this place alone, or all of them.
pub fn among(endpoints: &[String], on: Option<usize>) -> &[String] {
    on.map_or(endpoints, |place| endpoints.get(place..=place).unwrap_or_default())
}

/// The prefix of a case's keys, for backends that part cases by keys.
///
/// # Errors
/// None: such a key is one.
pub fn case_prefix(case: usize) -> Result<Key> {
    Key::new(format!("case-{case}/"))
}

/// Until when something that is waited for has to be there.
struct Patience {
    deadline: Instant,
}

impl Patience {
    fn new() -> Self {
        Self { deadline: Instant::now() + RECOVERY }
    }

    fn check(&self, what: &str) {
        assert!(Instant::now() < self.deadline, "not within {RECOVERY:?}: {what}");
    }
}

/// The case of those who only ask.
const NOBODY: usize = usize::MAX;

async fn ping_each(servers: &impl Backend) -> Result<()> {
    for place in 0..servers.nodes() {
        let store = servers.open_case(NOBODY, Some(place)).await?;
        store.ping(ReadOptions::default()).await?;
        store.close().await?;
    }
    Ok(())
}

/// The place of one that does not lead.
pub(crate) async fn follower(servers: &impl Backend) -> usize {
    (servers.leader().await + 1).checked_rem(servers.nodes()).unwrap_or_default()
}

/// The harness of the conformance suite on so many servers, which the cases of one test program share.
pub async fn harness<B: Backend>(nodes: usize) -> Injected<impl Harness> {
    Injected::new(Shared { servers: shared::<B>(nodes).await })
}

/// The servers that the tests of this program share while one of them uses them.
async fn shared<B: Backend>(nodes: usize) -> Arc<B> {
    type All = BTreeMap<(TypeId, usize), Weak<dyn Any + Send + Sync>>;
    static SHARED: LazyLock<Mutex<All>> = LazyLock::new(Mutex::default);
    let mut shared = SHARED.lock().await;
    let place = (TypeId::of::<B>(), nodes);
    if let Some(servers) = shared.get(&place).and_then(Weak::upgrade).and_then(|servers| servers.downcast().ok()) {
        return servers;
    }
    let servers = B::start(nodes).await;
    let any: Arc<dyn Any + Send + Sync> = Arc::clone(&servers) as _;
    // Held weakly: servers end with the last test that uses them, since nothing runs at the end of a test program.
    shared.insert(place, Arc::downgrade(&any));
    servers
}

struct Shared<B> {
    servers: Arc<B>,
}

#[async_trait]
impl<B: Backend> Harness for Shared<B> {
    fn name(&self) -> &str {
        B::NAME
    }
    fn nodes(&self) -> usize {
        self.servers.nodes()
    }
    fn servers(&self) -> Servers {
        Servers::Shared
    }
    async fn namespace(&self) -> Result<Box<dyn Namespace>> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let case = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Space { servers: Arc::clone(&self.servers), case }))
    }
}

struct Space<B> {
    servers: Arc<B>,
    case: usize,
}

#[async_trait]
impl<B: Backend> Namespace for Space<B> {
    async fn open(&self) -> Result<Arc<dyn Store>> {
        self.servers.open_case(self.case, None).await
    }
    /// Servers that are not at once as they were before a fault are asked again: removing twice is the same as once.
    async fn remove(&self) -> Result<()> {
        let patience = Patience::new();
        while let Err(error) = self.servers.remove_case(self.case).await {
            patience.check(&format!("what a case has left is removed, but: {error}"));
        }
        Ok(())
    }
    fn max_key_bytes(&self) -> usize {
        Key::MAX_BYTES.saturating_sub(self.servers.case_bytes(self.case))
    }
    fn faults(&self) -> Option<&dyn Faults> {
        Some(self)
    }
}

#[async_trait]
impl<B: Backend> Faults for Space<B> {
    async fn heal(&self) -> Result<()> {
        self.servers.heal().await;
        Ok(())
    }

    async fn kill_leader(&self) -> FaultResult {
        if self.servers.nodes() < 3 {
            return Err(FaultError::Impossible("without its leader, a cluster of one has no server".to_owned()));
        }
        let leader = self.servers.leader().await;
        self.servers.cluster().lock().await.kill(leader).map_err(|error| FaultError::Failed(error.into()))
    }

    async fn restart_all(&self) -> FaultResult {
        self.servers.restart_all().await;
        self.servers.serves().await;
        Ok(())
    }

    /// A follower: a leader would cost the others an election besides. The handle is opened before, as some have to meet
    /// their server once.
    async fn isolate_minority(&self) -> FaultResult<Arc<dyn Store>> {
        if self.servers.nodes() < 3 {
            return Err(FaultError::Impossible("a cluster of one has no minority".to_owned()));
        }
        let place = follower(&*self.servers).await;
        let store = self.servers.open_case(self.case, Some(place)).await?;
        self.servers.isolate(place).await;
        Ok(store)
    }

    /// Hung, which is harder than dead: connections stay, and nothing answers.
    async fn outage(&self) -> FaultResult {
        self.servers.pause_all().await;
        Ok(())
    }

    async fn forget_history(&self) -> FaultResult {
        self.servers.forget_history().await
    }
}
