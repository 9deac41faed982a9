//! A replica that takes part: it finds its cluster or founds it, tells that it lives, and has a node when the leader gives it one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use storage_core::{Error, Result, Store};
use storage_embedded::{
    Removed,
    disk::{Disk as _, RealDisk},
};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    ask,
    contents::{Contents, ReplicaRow},
    engine::{Engine, Listener, NodeStart},
    founding,
    identity::{Evidence, Identity, NodeIdentity, ReplicaDir},
    ids::{ClusterId, NodeId},
    lead::Lead,
    locate::{Search, locate},
    settings::{Bootstrap, Settings},
    shared::{OwnNode, Shared},
    switching::SwitchingStore,
    table::Table,
    table_access::{Read, TableAccess},
};

/// A replica that takes part in a cluster that grows by itself.
#[derive(Debug)]
pub struct Participant {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Participant {
    /// Takes the directory of the replica and begins. It does not wait for the cluster.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a directory of another replica or in use; [`Error::Corrupt`] if what it says cannot be read;
    /// [`Error::Unavailable`] if it cannot be written.
    pub async fn start(settings: Settings, engine: Arc<dyn Engine>) -> Result<Self> {
        let dir = ReplicaDir::open(&settings.data_dir, settings.replica.id)?;
        // Whichever way the store will go, it has the capabilities that this one has.
        let client = engine.connect(std::slice::from_ref(&settings.replica.client_url)).await?;
        let store = Arc::new(SwitchingStore::new(client.capabilities().clone()));
        let _ = client.close().await;
        let shared = Arc::new(Shared::new(settings, engine, dir, store));
        let takes_part = shared.watched(TakingPart::new(Arc::clone(&shared)).run());
        let leads = shared.watched(lead(Arc::clone(&shared)));
        Ok(Self { shared, tasks: Mutex::new(vec![takes_part, leads]) })
    }

    /// The store, by the replica's own node while it has one, and by those of others otherwise.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.shared.store) as Arc<dyn Store>
    }

    /// What it does or waits for, for people.
    pub fn state(&self) -> String {
        self.shared.state()
    }

    /// Waits until it cannot go on.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with what went wrong, unless it was stopped.
    pub async fn stopped(&self) -> Result<()> {
        let mut failed = self.shared.failed.subscribe();
        match failed.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(reason)) => Err(Error::corrupt(reason.clone())),
            _ => Ok(()),
        }
    }

    /// Stops its node and its tasks. It remains a member, and is live again when it is started.
    pub async fn stop(&self) {
        self.shared.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            let _ = task.await;
        }
        if let Some(own) = self.shared.own() {
            own.node.stop().await;
        }
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        self.shared.stop.send_replace(true);
    }
}

/// Decides and acts while the own node leads, beside the heartbeats, which a slow change must not hold up.
async fn lead(shared: Arc<Shared>) {
    let mut lead = Lead::new(shared.settings.clone());
    loop {
        tokio::select! {
            () = shared.stopping() => return,
            looked = look_after(&shared, &mut lead) => if let Err(error) = looked {
                tracing::debug!(%error, "this node cannot look after the members now");
            },
        }
        tokio::select! {
            () = shared.stopping() => return,
            () = tokio::time::sleep(shared.settings.timing.heartbeat()) => {}
        }
    }
}

async fn look_after(shared: &Shared, lead: &mut Lead) -> Result<()> {
    let (Some(own), Some(cluster)) = (shared.own(), shared.identity().cluster) else { return Ok(()) };
    let (api_cluster, _) = TableAccess::api_cluster_of_own(shared, cluster).await?;
    let table = Table::new(own.rows, api_cluster, shared.settings.token.clone(), shared.calls_within());
    lead.once(&*own.node, &table).await
}

/// The task that takes part.
struct TakingPart {
    shared: Arc<Shared>,
    listener: Option<Box<dyn Listener>>,
    access: TableAccess,
    beat: u64,
    /// Another incarnation's row, and since when its heartbeat has been the same.
    predecessor: Option<((u64, u64), Instant)>,
    ended: watch::Sender<Option<Arc<Error>>>,
}

impl TakingPart {
    fn new(shared: Arc<Shared>) -> Self {
        let ended = watch::channel(None).0;
        let access = TableAccess::new(Arc::clone(&shared));
        Self { shared, listener: None, access, beat: 0, predecessor: None, ended }
    }

    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            let done = tokio::select! {
                () = shared.stopping() => break,
                done = self.once() => done,
            };
            match done {
                Ok(()) => {}
                // What passes is tried again.
                Err(error) if error.is_retryable() || error.may_be_applied() => shared.say(&format!("waits: {error}")),
                Err(error) => drop(shared.failed.send_replace(Some(error.to_string()))),
            }
            tokio::select! {
                () = shared.stopping() => break,
                () = tokio::time::sleep(shared.settings.timing.heartbeat()) => {}
            }
        }
        self.stop_listening().await;
    }

    /// Others ask no more: there is a cluster, or this replica founds it.
    async fn stop_listening(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.stop().await;
        }
    }

    async fn once(&mut self) -> Result<()> {
        self.look_after_node().await?;
        let identity = self.shared.identity();
        let Some(cluster) = identity.cluster else { return self.seek().await };
        let Read { table, contents, by_own } = self.access.read(cluster).await?;
        // The founder of an etcd has learned its id just now.
        let identity = Identity { node: self.shared.identity().node, ..identity };
        if let Some(node) = identity.node {
            // A row is a reason to ask, and so is that none is there, or that the own node hears no majority. None of it is an answer.
            let is_in_doubt = !by_own || !contents.has_node(node.id);
            if is_in_doubt && let Some(members) = self.access.members_without(node.id, cluster).await? {
                return self.give_up_node(Evidence::Committed(&members)).await;
            }
            if !contents.has_node(node.id) {
                claim(&identity, node.id, &table, &contents).await?;
            }
        }
        self.tell(&table, &contents).await?;
        if identity.node.is_none()
            && let Some(id) = contents.node_of_incarnation(identity.replica, identity.incarnation)
        {
            // On stable storage before the first message of the node.
            self.shared.change(|identity| {
                identity.node = Some(NodeIdentity { id, founds: false, has_run: false });
            })?;
            self.start_node().await?;
        }
        self.say_what_it_is(&contents);
        Ok(())
    }

    /// Starts the node that there is to be, and sees to one that has ended.
    async fn look_after_node(&mut self) -> Result<()> {
        let ended = self.ended.borrow().clone();
        if let Some(reason) = ended {
            // The members have said so themselves, whether the table does already or not.
            if Removed::caused(&reason) {
                return self.give_up_node(Evidence::Node).await;
            }
            let identity = self.shared.identity();
            if let (Some(node), Some(cluster)) = (identity.node, identity.cluster) {
                self.access.forget();
                // One that is removed may end by itself, as an etcd does.
                if let Ok(Some(members)) = self.access.members_without(node.id, cluster).await {
                    return self.give_up_node(Evidence::Committed(&members)).await;
                }
            }
            return Err(Error::corrupt(format!("the node has stopped: {reason}")));
        }
        if self.shared.identity().node.is_some() && self.shared.own().is_none() {
            self.start_node().await?;
        }
        Ok(())
    }

    /// Looks for a cluster, and founds one if that is what this replica was told to do.
    async fn seek(&mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let settings = &shared.settings;
        let others = match locate(settings, &*shared.engine, None, self.shared.calls_within()).await? {
            Search::Found(located) => {
                self.shared.change(|identity| identity.cluster = Some(located.cluster))?;
                self.shared.say(&format!("has found cluster {}", located.cluster));
                self.access.go_by(located);
                self.stop_listening().await;
                return Ok(());
            }
            Search::Nothing(others) if others.is_empty() => String::new(),
            Search::Nothing(others) => format!("; {}", others.join("; ")),
        };
        match settings.bootstrap {
            Bootstrap::Join => {
                self.shared.say(&format!("waits for its cluster: no node of it answers{others}"));
                Ok(())
            }
            Bootstrap::New if others.is_empty() => {
                founding::become_founder(&self.shared.dir, ClusterId::mint()?)?;
                self.start_node().await
            }
            Bootstrap::New => Err(Error::invalid_argument(format!("there are nodes already{others}"))),
            Bootstrap::Quorum => {
                if self.listener.is_none() {
                    let answers = ask::answers(settings.replica.id, settings.token.clone(), Arc::clone(&shared.dir));
                    self.listener = Some(shared.engine.listen(answers).await?);
                }
                if let Some(waits) = founding::try_quorum(settings, &*shared.engine, &shared.dir).await? {
                    self.shared.say(&format!("waits for its cluster: {waits}{others}"));
                    return Ok(());
                }
                self.stop_listening().await;
                self.start_node().await
            }
        }
    }

    /// Writes the heartbeat.
    async fn tell(&mut self, table: &Table, contents: &Contents) -> Result<()> {
        let Identity { replica, incarnation, node, .. } = self.shared.identity();
        if let Some(row) = contents.replicas.get(&replica) {
            if row.incarnation == incarnation {
                self.beat = self.beat.max(row.beat);
            } else if !self.has_ended(row) {
                return Ok(());
            }
        }
        self.beat += 1;
        let runs_node = self.shared.own().is_some();
        let node = node.map(|node| node.id);
        let row = ReplicaRow::of(&self.shared.settings.replica, incarnation, self.beat, runs_node, node);
        if !table.beat(replica, &row, contents).await? {
            tracing::debug!(replica, "another has written the row of this replica");
        }
        Ok(())
    }

    /// Whether the process of an earlier data directory of this replica is gone: its heartbeat stands still. Two processes with one id would
    /// take each other's place for ever.
    fn has_ended(&mut self, row: &ReplicaRow) -> bool {
        let seen = (row.incarnation, row.beat);
        let now = Instant::now();
        match &self.predecessor {
            Some((before, since)) if *before == seen => {
                now.duration_since(*since) >= self.shared.settings.timing.heartbeat() * 3
            }
            before => {
                if before.is_some() {
                    self.shared
                        .say(&format!("waits: another process runs as replica {}", self.shared.settings.replica.id));
                }
                self.predecessor = Some((seen, now));
                false
            }
        }
    }

    async fn start_node(&mut self) -> Result<()> {
        let identity = self.shared.identity();
        let (Some(own), Some(cluster)) = (identity.node, identity.cluster) else { return Ok(()) };
        let shared = Arc::clone(&self.shared);
        let is_first = !own.founds && !own.has_run;
        let others = if is_first && shared.engine.joins_by_others() {
            self.access.endpoints_of_others(cluster).await?
        } else {
            Vec::new()
        };
        let data_dir = shared.dir.lock().unwrap_or_else(PoisonError::into_inner).node_dir();
        RealDisk.create_dir(&data_dir).map_err(Error::unavailable)?;
        let start = NodeStart { cluster, node: own.id, founds: own.founds, data_dir, others };
        let node = match shared.engine.start(start).await {
            // It learnt so before this process began.
            Err(error) if Removed::caused(&error) => return self.give_up_node(Evidence::Node).await,
            node => node?,
        };
        self.shared.change(|identity| identity.node = Some(NodeIdentity { has_run: true, ..own }))?;
        tracing::info!(replica = identity.replica, node = format!("{:x}", own.id), %cluster, "this replica has a node");
        self.ended = watch::channel(None).0;
        let (ended, watched) = (self.ended.clone(), Arc::clone(&node));
        tokio::spawn(async move {
            if let Err(error) = watched.stopped().await {
                ended.send_replace(Some(Arc::new(error)));
            }
        });
        let store = node.store(&self.access.known_others()).await?;
        self.shared.store.switch(Some(Arc::clone(&store)));
        let rows = node.rows(&store);
        self.shared.set_own(Some(OwnNode { node, store, rows }));
        Ok(())
    }

    /// The node is a member no more. Its data are of no use, and its id is never used again.
    async fn give_up_node(&mut self, evidence: Evidence<'_>) -> Result<()> {
        self.shared.store.switch(None);
        if let Some(own) = self.shared.set_own(None) {
            own.node.stop().await;
        }
        self.ended = watch::channel(None).0;
        self.access.forget();
        let was = self.shared.identity().node.map_or(0, |node| node.id);
        tracing::info!(
            replica = self.shared.settings.replica.id,
            node = format!("{was:x}"),
            "the cluster has removed this node: its data are moved aside"
        );
        self.shared.dir.lock().unwrap_or_else(PoisonError::into_inner).give_up_node(evidence)
    }

    fn say_what_it_is(&self, contents: &Contents) {
        let identity = self.shared.identity();
        self.shared.say(&match identity.node {
            Some(node) => format!("takes part with node {:x}", node.id),
            None if contents.leaving.contains(&identity.replica) => "has left its cluster".to_owned(),
            None => "takes part without a node: it is a spare".to_owned(),
        });
    }
}

/// Writes the row of a replica's own node, a member, which was lost or says that the node is gone.
async fn claim(identity: &Identity, node: NodeId, table: &Table, contents: &Contents) -> Result<()> {
    let Identity { replica, incarnation, .. } = *identity;
    if !table.assign(node, replica, incarnation, contents).await? {
        tracing::warn!(replica, node = format!("{node:x}"), "the row of this replica's node is that of another");
    }
    Ok(())
}
