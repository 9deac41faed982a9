//! A replica that takes part: it finds its cluster or founds it, tells that it lives, and has a node when the leader gives it one.

use std::{
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use storage_core::{Error, Result, Store};
use tokio::{sync::watch, task::JoinHandle};

use super::{
    ask::Answering,
    cluster_id::ClusterId,
    founding,
    identity::{Identity, NodeIdentity, ReplicaDir},
    lead::Lead,
    locate::{Search, locate},
    reading::{Reading, node_settings, shown_by},
    switching::Switching,
    table::{Contents, ReplicaRow, Table},
};
use crate::{
    config::{Bootstrap, Engine, Growing, Member},
    node::{self, ManagedNode},
};

/// The least time that a call of the table may take.
const CALLS_WITHIN: Duration = Duration::from_secs(2);

/// A replica that takes part in a cluster that grows by itself.
#[derive(Debug)]
pub(crate) struct Participant {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// What its tasks and its handles share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) growing: Growing,
    dir: Arc<Mutex<ReplicaDir>>,
    pub(super) store: Arc<Switching>,
    own: Mutex<Option<Own>>,
    /// What it does or waits for, for people.
    state: Mutex<String>,
    stop: watch::Sender<bool>,
    /// Why it cannot go on.
    failed: watch::Sender<Option<String>>,
}

/// The node of this replica, and a store by it.
#[derive(Clone, Debug)]
pub(super) struct Own {
    node: Arc<dyn ManagedNode>,
    pub(super) store: Arc<dyn Store>,
}

impl Participant {
    /// Takes the directory of the replica and begins.
    pub(crate) async fn start(growing: Growing) -> Result<Self> {
        let dir = ReplicaDir::open(&growing.data_dir, growing.replica.id)?;
        let own = std::slice::from_ref(&growing.replica.client_url);
        let client = node::connect(own, &growing.client_tls).await?;
        let store = Arc::new(Switching::new(client.capabilities().clone()));
        let _ = client.close().await;
        let shared = Arc::new(Shared {
            growing,
            dir: Arc::new(Mutex::new(dir)),
            store,
            own: Mutex::default(),
            state: Mutex::new("looks for its cluster".to_owned()),
            stop: watch::channel(false).0,
            failed: watch::channel(None).0,
        });
        let takes_part = tokio::spawn(Taking::new(Arc::clone(&shared)).run());
        let leads = tokio::spawn(lead(Arc::clone(&shared)));
        Ok(Self { shared, tasks: Mutex::new(vec![takes_part, leads]) })
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.shared.store) as Arc<dyn Store>
    }

    pub(crate) fn node(&self) -> Option<Arc<dyn ManagedNode>> {
        self.shared.node()
    }

    /// What it does or waits for, for people.
    pub(crate) fn state(&self) -> String {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it cannot go on.
    pub(crate) async fn stopped(&self) -> Result<()> {
        let mut failed = self.shared.failed.subscribe();
        match failed.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(reason)) => Err(Error::corrupt(reason.clone())),
            _ => Ok(()),
        }
    }

    /// Stops its node and its tasks. It remains a member, and is live again when it is started.
    pub(crate) async fn stop(&self) {
        self.shared.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            let _ = task.await;
        }
        if let Some(node) = self.shared.node() {
            node.stop().await;
        }
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        self.shared.stop.send_replace(true);
    }
}

impl Shared {
    pub(super) fn node(&self) -> Option<Arc<dyn ManagedNode>> {
        self.own().map(|own| own.node)
    }

    pub(super) fn own(&self) -> Option<Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn identity(&self) -> Identity {
        self.dir.lock().unwrap_or_else(PoisonError::into_inner).identity().clone()
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Identity) -> T) -> Result<T> {
        self.dir.lock().unwrap_or_else(PoisonError::into_inner).change(change)
    }

    fn say(&self, state: &str) {
        let mut now = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *now != state {
            tracing::info!(replica = self.growing.replica.id, "{state}");
            state.clone_into(&mut now);
        }
    }

    pub(super) fn calls_within(&self) -> Duration {
        self.growing.timing.heartbeat().max(CALLS_WITHIN)
    }

    /// Ends when it is told to stop.
    async fn stopping(&self) {
        let mut stop = self.stop.subscribe();
        let _ = stop.wait_for(|stop| *stop).await;
    }
}

/// Decides and acts while the own node leads, beside the heartbeats, which a slow change must not hold up.
async fn lead(shared: Arc<Shared>) {
    let mut lead = Lead::new(shared.growing.clone());
    loop {
        tokio::select! {
            () = shared.stopping() => return,
            looked = look_after(&shared, &mut lead) => if let Err(error) = looked {
                tracing::debug!(%error, "this node cannot look after the members now");
            },
        }
        tokio::select! {
            () = shared.stopping() => return,
            () = tokio::time::sleep(shared.growing.timing.heartbeat()) => {}
        }
    }
}

async fn look_after(shared: &Shared, lead: &mut Lead) -> Result<()> {
    let (Some(own), Some(cluster)) = (shared.own(), shared.identity().cluster) else { return Ok(()) };
    let shown = shown_by(&shared.growing, cluster).await?;
    let table = Table::new(own.store, shown, shared.growing.token.clone(), shared.calls_within());
    lead.once(&*own.node, &table).await
}

/// The task that takes part.
struct Taking {
    shared: Arc<Shared>,
    answering: Option<Answering>,
    reading: Reading,
    beat: u64,
    /// Another incarnation's row, and since when its heartbeat has been the same.
    predecessor: Option<((u64, u64), Instant)>,
    ended: watch::Sender<Option<String>>,
}

impl Taking {
    fn new(shared: Arc<Shared>) -> Self {
        let ended = watch::channel(None).0;
        let reading = Reading::new(Arc::clone(&shared));
        Self { shared, answering: None, reading, beat: 0, predecessor: None, ended }
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
                () = tokio::time::sleep(shared.growing.timing.heartbeat()) => {}
            }
        }
        if let Some(answering) = self.answering.take() {
            answering.stop().await;
        }
    }

    async fn once(&mut self) -> Result<()> {
        self.look_after_node().await?;
        let identity = self.shared.identity();
        let Some(cluster) = identity.cluster else { return self.seek().await };
        let (table, contents) = self.reading.read(cluster).await?;
        if let Some(node) = identity.node
            && contents.nodes.get(&node.id).is_some_and(|row| row.is_gone)
        {
            return self.give_up_node().await;
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
            // An etcd ends when its cluster has removed it.
            let identity = self.shared.identity();
            if let (Some(node), Some(cluster), Engine::Etcd) =
                (identity.node, identity.cluster, self.shared.growing.engine)
            {
                self.reading.forget();
                let gone = match self.reading.read_by_others(cluster).await {
                    Ok((_, contents)) => contents.nodes.get(&node.id).is_some_and(|row| row.is_gone),
                    Err(_) => false,
                };
                if gone {
                    self.give_up_node().await?;
                    return Ok(());
                }
            }
            return Err(Error::corrupt(format!("the node has stopped: {reason}")));
        }
        if self.shared.identity().node.is_some() && self.shared.node().is_none() {
            self.start_node().await?;
        }
        Ok(())
    }

    /// Looks for a cluster, and founds one if that is what this replica was told to do.
    async fn seek(&mut self) -> Result<()> {
        let growing = &self.shared.growing;
        let others = match locate(growing, None, self.shared.calls_within()).await? {
            Search::Found(located) => {
                self.shared.change(|identity| identity.cluster = Some(located.cluster))?;
                self.shared.say(&format!("has found cluster {}", located.cluster));
                self.reading.go_by(located);
                if let Some(answering) = self.answering.take() {
                    answering.stop().await;
                }
                return Ok(());
            }
            Search::Nothing(others) if others.is_empty() => String::new(),
            Search::Nothing(others) => format!("; {}", others.join("; ")),
        };
        match growing.bootstrap {
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
                if self.answering.is_none() {
                    let (own, token) = (&growing.replica, growing.token.clone());
                    self.answering = Some(Answering::start(own, token, Arc::clone(&self.shared.dir)).await?);
                }
                if let Some(waits) = founding::try_quorum(growing, &self.shared.dir).await? {
                    self.shared.say(&format!("waits for its cluster: {waits}{others}"));
                    return Ok(());
                }
                if let Some(answering) = self.answering.take() {
                    answering.stop().await;
                }
                self.start_node().await
            }
        }
    }

    /// Writes the heartbeat.
    async fn tell(&mut self, table: &Table, contents: &Contents) -> Result<()> {
        let Identity { replica, incarnation, .. } = self.shared.identity();
        if let Some(row) = contents.replicas.get(&replica) {
            if row.incarnation == incarnation {
                self.beat = self.beat.max(row.beat);
            } else if !self.has_ended(row) {
                return Ok(());
            }
        }
        self.beat += 1;
        let runs_node = self.shared.node().is_some();
        let row = ReplicaRow::of(&self.shared.growing.replica, incarnation, self.beat, runs_node);
        if !table.beat(replica, row, contents).await? {
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
                now.duration_since(*since) >= self.shared.growing.timing.heartbeat() * 3
            }
            before => {
                if before.is_some() {
                    self.shared
                        .say(&format!("waits: another process runs as replica {}", self.shared.growing.replica.id));
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
        let growing = &shared.growing;
        let mut members =
            vec![Member { name: growing.replica.name.clone(), peer_url: growing.replica.peer_url.clone() }];
        if growing.engine == Engine::Etcd && !own.founds && !own.has_run {
            members.extend(self.reading.other_members(cluster).await?);
        }
        let data_dir = self.shared.dir.lock().unwrap_or_else(PoisonError::into_inner).node_dir();
        let settings = node_settings(growing, cluster, own, members, data_dir.clone())?;
        fs::create_dir_all(&data_dir).map_err(Error::unavailable)?;
        let node = node::start(settings).await?;
        self.shared.change(|identity| identity.node = Some(NodeIdentity { has_run: true, ..own }))?;
        tracing::info!(replica = identity.replica, node = format!("{:x}", own.id), %cluster, "this replica has a node");
        self.ended = watch::channel(None).0;
        let (ended, watched) = (self.ended.clone(), Arc::clone(&node));
        tokio::spawn(async move {
            if let Err(error) = watched.stopped().await {
                ended.send_replace(Some(error.to_string()));
            }
        });
        let store = self.reading.store_by(&*node).await?;
        self.shared.store.switch(Some(Arc::clone(&store)));
        *self.shared.own.lock().unwrap_or_else(PoisonError::into_inner) = Some(Own { node, store });
        Ok(())
    }

    /// The node is a member no more. Its data are of no use, and its id is never used again.
    async fn give_up_node(&mut self) -> Result<()> {
        self.shared.store.switch(None);
        let own = self.shared.own.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(own) = own {
            own.node.stop().await;
        }
        self.ended = watch::channel(None).0;
        self.reading.forget();
        let was = self.shared.identity().node.map_or(0, |node| node.id);
        tracing::info!(
            replica = self.shared.growing.replica.id,
            node = format!("{was:x}"),
            "the cluster has removed this node"
        );
        self.shared.dir.lock().unwrap_or_else(PoisonError::into_inner).give_up_node()
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
