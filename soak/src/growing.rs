//! A cluster that grows by itself, with what an operator does to it, right and wrong.

use std::{
    fmt::Write as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bench::{Error, Result};
use futures::FutureExt;
use storage_replica::{
    Replica,
    admin::{Admin, NodeInfo},
    config::{Bootstrap, Config, NodeUrl, parse_bootstrap},
};
use storage_testkit::{
    nemesis::{ChangeMembers, Leads, NemesisError, Victims},
    server::{Launch, NodeContext, ServerError, ServerSpec},
    workload::Open,
};

use crate::wanted::{Started, Wanted};

/// Who is not heard of for so long is dead: soon, so that disks that are lost are replaced within a round.
const DEAD_AFTER: Duration = Duration::from_secs(6);

/// How long a node takes at the most to answer an operator.
const ANSWERS: Duration = Duration::from_secs(3);

/// A node that was killed is silent for its leader after this time.
const SILENT: Duration = Duration::from_secs(3);

/// A replica that is dead is replaced, and a cluster grows as far as it should, within this time on a busy machine.
const GROWS_WITHIN: Duration = Duration::from_secs(150);

/// How often it is looked at again.
const PAUSE: Duration = Duration::from_millis(200);

/// The arguments of a replica.
#[derive(Debug, clap::Parser)]
#[command(name = "soak replica")]
pub struct ReplicaArguments {
    /// The file that lists all replicas.
    #[arg(long)]
    config: PathBuf,
    /// The id of the replica.
    #[arg(long)]
    replica: u64,
    /// What it does without data.
    #[arg(long, value_parser = parse_bootstrap)]
    bootstrap: Bootstrap,
}

/// Runs a replica until it stops by itself, which is always a failure, or is killed.
///
/// # Errors
/// Why the replica cannot start or go on.
pub async fn replica(arguments: ReplicaArguments) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let (config, _) = Config::load(&arguments.config)?;
    let growing = config.growing(arguments.replica, arguments.bootstrap)?;
    Replica::grow(growing).await?.stopped().await?;
    Err("the replica has stopped".into())
}

/// Starts replicas, the first of which founds the cluster, and waits until as many vote as are to.
pub(super) async fn start(wanted: Wanted<'_>) -> Result<Started> {
    // One more than vote takes the place of the one that is lost.
    let (voters, count) = (wanted.nodes, wanted.nodes + 1);
    let (program, has_founded) = (wanted.program, AtomicBool::new(false));
    let spec = ServerSpec::new("growing", move |node: &NodeContext| {
        // Once: started anew on an emptied disk, even the first has to join the cluster that there is.
        let founds = node.index() == 0 && !has_founded.swap(true, Relaxed);
        Ok(Launch::new(&program)
            .file("cluster.toml", file(node)?)
            .args(["replica", "--config", "cluster.toml", "--replica", &(node.index() + 1).to_string()])
            .args(["--bootstrap", if founds { "new" } else { "join" }]))
    });
    let spec = spec.port("client").port("peer");
    let leads: Leads = Arc::new(|node| {
        async move {
            let Ok(admin) = admin([&node]) else { return false };
            let said = admin.status().await.into_iter().find_map(|(_, said)| said.ok());
            said.is_some_and(|NodeInfo { id, leader, .. }| leader == Some(id))
        }
        .boxed()
    });
    let victims = Victims::start(spec, count, wanted.directory, wanted.needs, leads).await?;
    let url = format!("etcd://{}", victims.cluster.client_urls().join(","));
    let open: Open = Arc::new(move |_| {
        let url = url.clone();
        async move { storage::open(&url).await }.boxed()
    });
    let mut victims = victims.called_by(Arc::clone(&open));
    let members = Grown { voters };
    members.grown(&victims).await.map_err(|error| Error::Usage(error.to_string()))?;
    if wanted.changing {
        victims = victims.changing(members);
    }
    Ok(Started { victims, open })
}

/// A file that lists all replicas.
fn file(node: &NodeContext) -> std::result::Result<String, ServerError> {
    let (token, dead_after) = (node.token(), DEAD_AFTER.as_millis());
    let mut text = format!("token = \"{token}\"\ndata_dir = \"data\"\n[membership]\ndead_after = \"{dead_after}ms\"\n");
    for other in node.nodes() {
        let (id, client, peer) = (other.index() + 1, other.port("client")?, other.port("peer")?);
        let _ = write!(
            text,
            "[[replicas]]\nid = {id}\nnode_name = \"r{id}\"\nclient_url = \"http://127.0.0.1:{client}\"\n\
             peer_url = \"http://127.0.0.1:{peer}\"\n"
        );
    }
    Ok(text)
}

fn admin<'a>(nodes: impl IntoIterator<Item = &'a NodeContext>) -> std::result::Result<Admin, NemesisError> {
    let urls = nodes.into_iter().map(|node| {
        let url = format!("http://{}:{}", node.host(), node.port("client")?);
        url.parse::<NodeUrl>().map_err(|error| NemesisError::Members(error.to_string()))
    });
    let urls = urls.collect::<std::result::Result<Vec<_>, NemesisError>>()?;
    Admin::new(&urls, ANSWERS).map_err(|error| NemesisError::Members(error.to_string()))
}

/// What an operator can do.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Leadership goes to any member, the one that leads too.
    Transfer,
    /// A voter that is alive is removed while another is down.
    RemoveLive,
    /// A member that there is not is promoted.
    PromoteStranger,
    /// A disk is emptied, and its replica starts with the same flags.
    Wipe,
}

impl Act {
    const ALL: [Self; 4] = [Self::Transfer, Self::RemoveLive, Self::PromoteStranger, Self::Wipe];
}

/// Replicas of which so many vote when all is well.
struct Grown {
    voters: usize,
}

impl Grown {
    /// Waits until as many vote as are to, all of which answer.
    async fn grown(&self, victims: &Victims) -> std::result::Result<(), NemesisError> {
        let (until, mut last) = (Instant::now() + GROWS_WITHIN, String::new());
        while Instant::now() < until {
            let admin = admin(victims.cluster.nodes().iter().map(|node| node.context()))?;
            let answered: Vec<u64> =
                admin.status().await.into_iter().filter_map(|(_, said)| said.ok().map(|info| info.id)).collect();
            match admin.members().await {
                Ok(members) => {
                    let voters: Vec<u64> =
                        members.iter().filter(|member| !member.is_learner).map(|member| member.id).collect();
                    last = format!("the voters are {voters:?}, and {answered:?} answer");
                    if voters.len() == self.voters && voters.iter().all(|voter| answered.contains(voter)) {
                        return Ok(());
                    }
                }
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(PAUSE).await;
        }
        let logs = victims.cluster.logs();
        Err(NemesisError::Members(format!(
            "{} voters are not there within {GROWS_WITHIN:?}: {last}\n{logs}",
            self.voters
        )))
    }

    /// A replica with a voter that does not lead, and the id of its node.
    async fn follower(&self, victims: &Victims, rng: &mut fastrand::Rng) -> Option<(usize, u64)> {
        let mut followers = Vec::new();
        for (place, node) in victims.cluster.nodes().iter().enumerate() {
            let said = admin([node.context()]).ok()?.status().await;
            if let Some(info) = said.into_iter().find_map(|(_, said)| said.ok())
                && !info.is_learner
                && info.leader.is_some_and(|leader| leader != info.id)
            {
                followers.push((place, info.id));
            }
        }
        rng.choice(followers)
    }
}

#[async_trait]
impl ChangeMembers for Grown {
    /// They change by themselves: a disk is emptied.
    async fn change(
        &mut self,
        victims: &mut Victims,
        rng: &mut fastrand::Rng,
    ) -> std::result::Result<Option<String>, NemesisError> {
        self.grown(victims).await?;
        let Some((place, id)) = self.follower(victims, rng).await else { return Ok(None) };
        victims.cluster.wipe(place)?;
        victims.cluster.restart(place)?;
        self.grown(victims).await?;
        let members = admin(victims.cluster.nodes().iter().map(|node| node.context()))?.members().await;
        if members.is_ok_and(|members| members.iter().any(|member| member.id == id)) {
            victims.note("a node that lost its disk takes no part", format!("n{place} is back as {id:x}"));
        }
        Ok(Some(format!("n{place} lost its disk, and another node took its place")))
    }

    async fn operate(
        &mut self,
        victims: &mut Victims,
        rng: &mut fastrand::Rng,
    ) -> std::result::Result<Option<String>, NemesisError> {
        let asked = admin(victims.cluster.nodes().iter().map(|node| node.context()))?;
        match rng.choice(Act::ALL).unwrap_or(Act::Transfer) {
            Act::Transfer => {
                let Some(leader) = victims.leader().await else { return Ok(None) };
                let own = admin([victims.cluster.node(leader)?.context()])?;
                let members = own.members().await.unwrap_or_default();
                let Some(to) = rng.choice(members) else { return Ok(None) };
                Ok(Some(format!(
                    "transfer to {:x}: {:?}",
                    to.id,
                    own.move_leader(to.id).await.map_err(|error| error.kind())
                )))
            }
            Act::RemoveLive => {
                self.grown(victims).await?;
                let Some((down, _)) = self.follower(victims, rng).await else { return Ok(None) };
                victims.cluster.kill(down)?;
                tokio::time::sleep(SILENT).await;
                let Some((place, id)) = self.follower(victims, rng).await else {
                    victims.cluster.restart(down)?;
                    return Ok(None);
                };
                let said = asked.remove(id).await;
                // Of three with one down, the other two are the last majority. Of five there is one more to lose.
                if said.is_ok() && self.voters == 3 {
                    victims.note("what would lose the cluster is refused", format!("{id:x} was removed"));
                }
                victims.cluster.restart(down)?;
                let said = said.map_err(|error| error.kind());
                Ok(Some(format!("removal of n{place} while n{down} is down: {said:?}")))
            }
            Act::PromoteStranger => {
                let said = asked.promote(rng.u64(1..)).await.map_err(|error| error.kind());
                if said.is_ok() {
                    victims.note("what would lose the cluster is refused", "a stranger was promoted".to_owned());
                }
                Ok(Some(format!("promotion of a stranger: {said:?}")))
            }
            Act::Wipe => self.change(victims, rng).await,
        }
    }

    /// The cluster comes to be what it is to be.
    async fn settle(&mut self, victims: &mut Victims) -> std::result::Result<Option<String>, NemesisError> {
        self.grown(victims).await.map(|()| None)
    }
}
