//! Stores with one defect each, and a harness that can break everything around them.

use std::{
    fmt::Debug,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use storage_core::{
    Capabilities, Entry, FaultGuard, FaultInjecting, Key, MemoryStore, Outcome, Page, ReadOptions, Result, ScanOptions,
    Store, Txn, WatchOptions, WatchStream, WriteOptions,
    conformance::{FaultResult, Faults, Harness, Namespace, Servers},
};

/// What is wrong with a store: overrides the calls that go wrong. One defect serves all handles of one namespace.
#[async_trait]
pub(crate) trait Defect: Debug + Send + Sync + 'static {
    fn declare(&self, _: &mut Capabilities) {}

    async fn get(&self, sound: &Sound, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        sound.get(key, options).await
    }
    async fn get_many(&self, sound: &Sound, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        sound.get_many(keys, options).await
    }
    async fn scan(&self, sound: &Sound, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        sound.scan(prefix, options).await
    }
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        sound.commit(txn, options).await
    }
    async fn watch(&self, sound: &Sound, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        sound.watch(prefix, options).await
    }
    async fn ping(&self, sound: &Sound, options: ReadOptions) -> Result<()> {
        sound.ping(options).await
    }
    async fn close(&self, sound: &Sound) -> Result<()> {
        sound.close().await
    }

    /// What the data is after it was closed and opened, or all servers were killed, or the leader was.
    async fn survive(&self, _: &MemoryStore, _: Accident) {}
    /// Whether an isolated minority keeps its hands off, as it has to.
    fn minority_refuses(&self) -> bool {
        true
    }
    /// The data of a new namespace.
    fn data(&self) -> MemoryStore {
        MemoryStore::new()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Accident {
    Reopen,
    Restart,
    LeaderKill,
}

/// The store without the defect, as one handle sees it.
#[derive(Debug)]
pub(crate) struct Sound {
    pub(crate) store: FaultInjecting<Arc<MemoryStore>>,
    /// A number for each handle.
    pub(crate) handle: usize,
    /// Another handle on the same data, without faults, that nobody closes.
    pub(crate) data: MemoryStore,
}

impl std::ops::Deref for Sound {
    type Target = FaultInjecting<Arc<MemoryStore>>;
    fn deref(&self) -> &Self::Target {
        &self.store
    }
}

#[derive(Debug)]
struct Mutant {
    sound: Sound,
    defect: Arc<dyn Defect>,
    capabilities: Capabilities,
}

#[async_trait]
impl Store for Mutant {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }
    async fn get(&self, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        self.defect.get(&self.sound, key, options).await
    }
    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        self.defect.get_many(&self.sound, keys, options).await
    }
    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        self.defect.scan(&self.sound, prefix, options).await
    }
    async fn commit(&self, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        self.defect.commit(&self.sound, txn, options).await
    }
    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        self.defect.watch(&self.sound, prefix, options).await
    }
    async fn ping(&self, options: ReadOptions) -> Result<()> {
        self.defect.ping(&self.sound, options).await
    }
    async fn close(&self) -> Result<()> {
        self.defect.close(&self.sound).await
    }
}

/// A harness whose namespaces have a defect.
pub(crate) struct Defective {
    pub(crate) name: &'static str,
    pub(crate) make: fn() -> Arc<dyn Defect>,
}

#[async_trait]
impl Harness for Defective {
    fn name(&self) -> &str {
        self.name
    }
    fn servers(&self) -> Servers {
        Servers::Own
    }
    async fn namespace(&self) -> Result<Box<dyn Namespace>> {
        let defect = (self.make)();
        let data = defect.data();
        Ok(Box::new(Space {
            data,
            defect,
            opened: AtomicUsize::new(0),
            handles: Mutex::default(),
            cut: Mutex::default(),
        }))
    }
}

struct Space {
    data: MemoryStore,
    defect: Arc<dyn Defect>,
    opened: AtomicUsize,
    handles: Mutex<Vec<FaultInjecting<Arc<MemoryStore>>>>,
    cut: Mutex<Vec<FaultGuard>>,
}

impl Space {
    fn handle(&self) -> (FaultInjecting<Arc<MemoryStore>>, Arc<dyn Store>) {
        let store = FaultInjecting::new(Arc::new(self.data.handle()));
        let mut capabilities = store.capabilities().clone();
        capabilities.durable = true;
        self.defect.declare(&mut capabilities);
        let handle = self.opened.fetch_add(1, Ordering::SeqCst);
        let sound = Sound { store: store.clone(), handle, data: self.data.handle() };
        (store, Arc::new(Mutant { sound, defect: Arc::clone(&self.defect), capabilities }))
    }
}

#[async_trait]
impl Namespace for Space {
    async fn open(&self) -> Result<Arc<dyn Store>> {
        let (faults, store) = self.handle();
        self.handles.lock().unwrap().push(faults);
        Ok(store)
    }
    async fn reopen(&self) -> Result<Arc<dyn Store>> {
        self.defect.survive(&self.data, Accident::Reopen).await;
        self.open().await
    }
    fn faults(&self) -> Option<&dyn Faults> {
        Some(self)
    }
}

/// A memory store survives whatever happens to servers, so those faults do nothing but tell the defect.
#[async_trait]
impl Faults for Space {
    async fn heal(&self) -> Result<()> {
        self.cut.lock().unwrap().clear();
        Ok(())
    }
    async fn kill_leader(&self) -> FaultResult {
        self.defect.survive(&self.data, Accident::LeaderKill).await;
        Ok(())
    }
    async fn restart_all(&self) -> FaultResult {
        self.defect.survive(&self.data, Accident::Restart).await;
        Ok(())
    }
    async fn isolate_minority(&self) -> FaultResult<Arc<dyn Store>> {
        let (faults, store) = self.handle();
        if self.defect.minority_refuses() {
            self.cut.lock().unwrap().push(faults.partition());
        }
        Ok(store)
    }
    async fn outage(&self) -> FaultResult {
        let cut: Vec<_> = self.handles.lock().unwrap().iter().map(FaultInjecting::partition).collect();
        self.cut.lock().unwrap().extend(cut);
        Ok(())
    }
    async fn open_losing_reply(&self) -> FaultResult<Arc<dyn Store>> {
        let (faults, store) = self.handle();
        faults.lose_replies(1);
        Ok(store)
    }
    async fn forget_history(&self) -> FaultResult {
        self.data.compact();
        Ok(())
    }
}
