//! The servers that faults strike: which run, who leads, and how all are mended.
//!
//! Faults reach servers through this alone, so that healing knows all that may be broken. A server that ended by itself
//! is reported and started again.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use storage_core::ReadOptions;

use super::NemesisError;
use crate::{
    server::{Cluster, ClusterOptions, Image, Network, NodeContext, ServerError, ServerSpec},
    workload::{Breach, Open},
};

/// A server that is asked whether it leads answers within this time, or it does not.
const LEADS_WITHIN: Duration = Duration::from_millis(700);

/// How often they are asked whether they serve.
const ASKED_EVERY: Duration = Duration::from_millis(20);

/// What has to be there before the servers start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// A network whose links can be cut.
    pub network: bool,
    /// A file system whose power can fail.
    pub image: bool,
}

/// Asks a node whether it leads.
pub type Leads = Arc<dyn Fn(NodeContext) -> BoxFuture<'static, bool> + Send + Sync>;

/// How the members of a cluster change, where they can while it works.
#[async_trait]
pub trait ChangeMembers: Send + Sync {
    /// Takes one server in and another one out, or does nothing if that is not possible now. Tells what was done; `None`: nothing.
    async fn change(&mut self, victims: &mut Victims, rng: &mut fastrand::Rng) -> Result<Option<String>, NemesisError>;

    /// Gives an operator's command, right or wrong, and sees what comes of it; what must not come is [noted](Victims::note). Tells what it was;
    /// `None`: nothing was possible.
    async fn operate(
        &mut self,
        victims: &mut Victims,
        rng: &mut fastrand::Rng,
    ) -> Result<Option<String>, NemesisError> {
        self.change(victims, rng).await
    }

    /// Brings what was begun to an end, when everything else is healed. Tells what it was; `None`: nothing was left.
    async fn settle(&mut self, victims: &mut Victims) -> Result<Option<String>, NemesisError>;
}

/// The servers that faults strike.
pub struct Victims {
    /// The processes.
    pub cluster: Cluster,
    /// The servers that have to run when nothing is struck: all, but for spare ones.
    pub members_now: BTreeSet<usize>,
    pub(super) network: Option<Arc<Network>>,
    pub(super) no_network: Option<String>,
    pub(super) image: Option<Image>,
    pub(super) no_image: Option<String>,
    pub(super) members: Option<Box<dyn ChangeMembers>>,
    pub(super) clients: Option<Open>,
    /// What the keys of the workload begin with: a hostile client leaves them alone.
    pub spared: Vec<u8>,
    breaches: Vec<Breach>,
    leads: Leads,
}

impl Victims {
    /// Starts servers in `parent`, on a network and a disk that can be struck as far as they are needed and can be had;
    /// the first `members` of them are waited for, the others stay down.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn start(
        spec: ServerSpec,
        nodes: usize,
        parent: &Path,
        needs: Needs,
        leads: Leads,
    ) -> Result<Self, ServerError> {
        let (mut network, mut no_network) = (None, None);
        if needs.network {
            match Network::open(nodes) {
                Ok(opened) => network = Some(Arc::new(opened)),
                Err(reason) => no_network = Some(reason.to_string()),
            }
        }
        let (mut image, mut no_image) = (None, None);
        if needs.image {
            match Image::create(parent) {
                Ok(created) => image = Some(created),
                Err(reason) => no_image = Some(reason.to_string()),
            }
        }
        let options = ClusterOptions {
            parent_dir: Some(image.as_ref().map_or_else(|| parent.to_owned(), Image::path)),
            network: network.clone(),
            ..ClusterOptions::default()
        };
        let cluster = Cluster::start(spec, nodes, options).await?;
        if let Some(image) = &image {
            // The folders of the servers are the kit's own, and not what is tested.
            image.sync().map_err(|error| ServerError::io("sync the servers' disk")(std::io::Error::other(error)))?;
        }
        let members_now = (0..nodes).collect();
        Ok(Self {
            cluster,
            members_now,
            network,
            no_network,
            image,
            no_image,
            members: None,
            clients: None,
            spared: Vec::new(),
            breaches: Vec::new(),
            leads,
        })
    }

    /// These, whose members can change.
    #[must_use]
    pub fn changing(self, members: impl ChangeMembers + 'static) -> Self {
        Self { members: Some(Box::new(members)), ..self }
    }

    /// These, with a way to call them: for hostile clients, and to see that they serve.
    #[must_use]
    pub fn called_by(self, clients: Open) -> Self {
        Self { clients: Some(clients), ..self }
    }

    /// Notes what must not be, for the report of the run.
    pub fn note(&mut self, invariant: &'static str, what: String) {
        self.breaches.push(Breach::new(invariant, what));
    }

    /// What was noted since this was asked last.
    pub(super) fn noted(&mut self) -> Vec<Breach> {
        std::mem::take(&mut self.breaches)
    }

    /// Waits until a majority serves a client, but not longer than this; says after how long.
    pub(super) async fn served(&self, within: Duration) -> Option<Duration> {
        let (open, began) = (self.clients.as_ref()?, Instant::now());
        let served = async {
            loop {
                if let Ok(store) = open(0).await {
                    let serves = store.ping(ReadOptions::default().timeout(LEADS_WITHIN)).await;
                    let _ = store.close().await;
                    if serves.is_ok() {
                        return;
                    }
                }
                tokio::time::sleep(ASKED_EVERY).await;
            }
        };
        tokio::time::timeout(within, served).await.ok().map(|()| began.elapsed())
    }

    /// What was asked for and cannot be had on this machine, with the reasons.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let network = self.no_network.iter().map(|reason| format!("partition: {reason}"));
        network.chain(self.no_image.iter().map(|reason| format!("power: {reason}"))).collect()
    }

    /// The server that leads, if one says so.
    pub async fn leader(&self) -> Option<usize> {
        for place in &self.members_now {
            let Ok(node) = self.cluster.node(*place) else { continue };
            if node.pid().is_none() {
                continue;
            }
            if tokio::time::timeout(LEADS_WITHIN, (self.leads)(node.context().clone())).await.unwrap_or(false) {
                return Some(*place);
            }
        }
        None
    }

    /// One of the members: half of the time the one that leads. With a word for people.
    pub(super) async fn choose(&self, rng: &mut fastrand::Rng) -> (usize, String) {
        if rng.bool()
            && let Some(leader) = self.leader().await
        {
            return (leader, format!("n{leader}, which led"));
        }
        let place = rng.choice(self.members_now.iter().copied()).unwrap_or(0);
        (place, format!("n{place}"))
    }

    /// Members that do not run although nobody stopped them, with their logs' ends. They are started again.
    pub(super) fn ended_by_themselves(&mut self, killed: &BTreeSet<usize>) -> Result<Vec<String>, NemesisError> {
        let mut ended = Vec::new();
        for place in self.members_now.clone() {
            if !killed.contains(&place) && !self.cluster.is_running(place)? {
                ended.push(format!("n{place} ended by itself\n{}", self.cluster.logs()));
                self.cluster.restart(place)?;
            }
        }
        Ok(ended)
    }

    /// Mends everything, and waits until all members are ready. Tells of a change of members that was brought to its end.
    pub(super) async fn heal(&mut self) -> Result<Option<String>, NemesisError> {
        if let Some(network) = &self.network {
            // The network first, so that servers that are started find each other.
            network.heal()?;
        }
        for place in self.members_now.clone() {
            if self.cluster.is_running(place)? {
                self.cluster.resume(place)?;
            } else {
                self.cluster.restart(place)?;
            }
        }
        for place in self.members_now.clone() {
            self.cluster.ready(place).await?;
        }
        if let Some(mut members) = self.members.take() {
            let settled = members.settle(self).await;
            self.members = Some(members);
            return settled;
        }
        Ok(None)
    }

    /// The processes of the members that run, for a look at their memory and files.
    pub fn processes(&self) -> Vec<(usize, u32)> {
        let members =
            self.members_now.iter().filter_map(|place| Some((*place, self.cluster.node(*place).ok()?.pid()?)));
        members.collect()
    }

    /// The folder of the servers.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.cluster.dir().unwrap_or(Path::new("")).to_owned()
    }
}

impl std::fmt::Debug for Victims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Victims").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}
