//! The last resort: a new cluster of what one survivor holds, when a majority of the voters' disks is gone for good.
//!
//! Nobody can know what was acknowledged without the survivor. So nothing here is done unless somebody says which disks are gone, and that no old node ever
//! starts again: two of them with a majority would acknowledge writes beside the new cluster.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use serde::Serialize;
use storage_core::{Error, Result};
use storage_embedded::{
    Restored, Salvage, Salvaged,
    disk::{self, Disk as _, RealDisk},
};

use crate::{
    engine::{Engine, NodeStart},
    identity::{Identity, ReplicaDir, node_dir},
    ids::{ClusterId, NodeId, ReplicaId},
    protocol::is_majority,
    replace,
    settings::Settings,
    url::NodeUrl,
};

/// A replica whose node holds data of a cluster, stopped. Its directory is locked for as long as this lives, and nothing in it is changed before
/// [`Survivor::recover`].
#[derive(Debug)]
pub struct Survivor {
    settings: Settings,
    engine: Arc<dyn Engine>,
    /// Of the lock, and of the node's lock.
    _dir: ReplicaDir,
    cluster: ClusterId,
    node: NodeId,
    salvage: Salvage,
}

/// A voter of the cluster, as the survivor knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    /// The id of its node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Where the other nodes reached it.
    pub peer_address: String,
    /// It is the survivor's.
    pub is_survivor: bool,
}

/// A node that answers: of the cluster, although it was thought lost, or of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnsweringNode {
    /// The replica at whose client URL it answers.
    pub replica: ReplicaId,
    /// That URL.
    pub client_url: NodeUrl,
    /// The node.
    pub node: NodeId,
    /// It is of another cluster, which has this id as its API shows it: somebody may have recovered at that replica already.
    pub other_cluster: Option<u64>,
    /// It votes, as far as the survivor knows.
    pub is_voter: bool,
    /// It knows a leader, so that a majority is there.
    pub has_leader: bool,
    /// The last entry of its log.
    pub log_index: u64,
    /// Its term.
    pub term: u64,
}

/// A new cluster, which the replica founds at its next start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Recovered {
    /// Its id.
    pub cluster: ClusterId,
    /// That of the one that is lost.
    pub lost_cluster: ClusterId,
    /// The directory that was there before. Nothing in it was changed.
    pub former_directory: PathBuf,
    /// How many keys it has.
    pub keys: u64,
    /// How many leases.
    pub leases: u64,
    /// Its revision, as the etcd API shows it.
    pub revision: u64,
}

impl Survivor {
    /// Takes the directory of a replica that is stopped, and reads what its node holds. It blocks.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is nothing to recover from: no data, or a replica that runs; [`Error::Corrupt`] for damaged data, with the
    /// file and offset; [`Error::Unavailable`] if it cannot be read.
    pub fn open(settings: Settings, engine: Arc<dyn Engine>) -> Result<Self> {
        let path = &settings.data_dir;
        let id = settings.replica.id;
        let Some(dir) = ReplicaDir::take(path, id)? else {
            return Err(Error::invalid_argument(format!("{} has no data of replica {id}", path.display())));
        };
        let (Some(cluster), Some(node)) = (dir.identity().cluster, dir.identity().node) else {
            return Err(Error::invalid_argument(format!(
                "replica {id} had no node, so {} has no data: recover on one that voted",
                path.display()
            )));
        };
        let salvage = Salvage::open(&dir.node_dir())?;
        let found = salvage.found();
        // Two files say whose data they are. If they differ, somebody has put a copy here.
        if (found.cluster, found.node) != (cluster.0, node.id) {
            return Err(Error::corrupt(format!(
                "{} has data of node {:x} of cluster {:032x}, and replica {id} is node {:x} of cluster {cluster}",
                dir.node_dir().display(),
                found.node,
                found.cluster,
                node.id
            )));
        }
        Ok(Self { settings, engine, _dir: dir, cluster, node: node.id, salvage })
    }

    /// The cluster that is lost.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// What the survivor holds.
    pub fn found(&self) -> Salvaged {
        self.salvage.found()
    }

    /// The voters, as the survivor knows them. During a joint change those of both sets.
    pub fn voters(&self) -> Vec<Voter> {
        let Salvaged { members, voter_sets, .. } = self.found();
        let ids: BTreeSet<_> = voter_sets.iter().flatten().copied().collect();
        let voters = ids.into_iter().map(|node| {
            let member = members.get(&node).cloned().unwrap_or_default();
            Voter { node, name: member.name, peer_address: member.peer_address, is_survivor: node == self.node }
        });
        voters.collect()
    }

    /// Whether there can be no majority without these nodes.
    pub fn is_majority_lost(&self, lost: &BTreeSet<NodeId>) -> bool {
        self.found().voter_sets.iter().any(|set| !is_majority(set.difference(lost).count(), set.len()))
    }

    /// Asks all other replicas whether a node runs there, of this cluster or of another one. That none answers says little: it may be cut off.
    pub async fn answering(&self, timeout: Duration) -> Vec<AnsweringNode> {
        let voters: BTreeSet<_> = self.voters().into_iter().map(|voter| voter.node).collect();
        let api_cluster = self.engine.api_cluster(self.cluster);
        let others = self.settings.replicas.iter().filter(|replica| replica.id != self.settings.replica.id);
        let asked = others.map(|replica| async {
            let status = self.engine.status(&replica.client_url, timeout).await.ok()?;
            let other_cluster = Some(status.cluster).filter(|cluster| Some(*cluster) != api_cluster);
            Some(AnsweringNode {
                replica: replica.id,
                client_url: replica.client_url.clone(),
                node: status.node,
                other_cluster,
                is_voter: other_cluster.is_none() && voters.contains(&status.node),
                has_leader: status.leader.is_some(),
                log_index: status.log_index,
                term: status.term,
            })
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Whether those of these nodes that are of the cluster, and the survivor's, could be a majority, so that the cluster is not lost.
    pub fn could_be_majority(&self, answering: &[AnsweringNode]) -> bool {
        let of_cluster = || answering.iter().filter(|other| other.other_cluster.is_none());
        let live: BTreeSet<_> = of_cluster().map(|other| other.node).chain([self.node]).collect();
        of_cluster().any(|other| other.has_leader)
            || self.found().voter_sets.iter().all(|set| is_majority(set.intersection(&live).count(), set.len()))
    }

    /// Makes the replica the founder of a new cluster with what its node holds, all but the old cluster's own table. The old directory stays beside the new one. If the power fails,
    /// the replica has the old or the new one. It blocks.
    ///
    /// `bump_revision` is added to the revision, as in [`storage_embedded::restore`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a revision out of range, or if an earlier recovery from this cluster has left its directory; [`Error::Unavailable`] if it cannot be
    /// written. The old directory is in its place then.
    pub fn recover(self, bump_revision: u64) -> Result<Recovered> {
        let former = &self.cluster;
        let dir = &self.settings.data_dir;
        let (made, lost) = (replace::making(dir, *former), replace::lost(dir, *former));
        let is_absent = disk::is_absent(&lost);
        if !is_absent.map_err(|error| Error::unavailable(format!("cannot read {}: {error}", lost.display())))? {
            return Err(Error::invalid_argument(format!(
                "{} is there already, from an earlier recovery of this cluster: move it away first",
                lost.display()
            )));
        }
        // What an earlier attempt has left was never put in its place: it is made anew.
        remove(&made)?;
        let identity = Identity::founder(self.settings.replica.id, ClusterId::mint()?)?;
        match self.make(&identity, &made, bump_revision) {
            Ok(restored) => {
                replace::publish(dir, *former)?;
                Ok(Recovered {
                    cluster: identity.cluster.unwrap_or(*former),
                    lost_cluster: *former,
                    former_directory: lost,
                    keys: restored.keys,
                    leases: restored.leases,
                    revision: restored.revision,
                })
            }
            Err(error) => {
                // Whatever keeps it from being removed, the next attempt removes it first.
                let _ = remove(&made);
                Err(error)
            }
        }
    }

    /// Makes the directory of a founder. Who it is is written last.
    fn make(&self, identity: &Identity, made: &Path, bump_revision: u64) -> Result<Restored> {
        let unavailable = |error| Error::unavailable(format!("cannot write {}: {error}", made.display()));
        let (Some(cluster), Some(node)) = (identity.cluster, identity.node) else {
            return Err(Error::invalid_argument("a founder without a cluster"));
        };
        RealDisk.create_dir(made).map_err(unavailable)?;
        let data_dir = node_dir(made);
        let start = NodeStart { cluster, node: node.id, founds: node.founds, data_dir, others: Vec::new() };
        let restored = self.engine.restore(&self.salvage, &start, bump_revision)?;
        // Last: a directory without it was never whole, and is removed by the next attempt.
        identity.keep(made)?;
        Ok(restored)
    }
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::unavailable(format!("cannot remove {}: {error}", dir.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use async_trait::async_trait;
    use storage_core::{Key, ReadOptions, Store, StoreExt as _};
    use storage_embedded::{LocalCluster, Member, NodeConfig};

    use super::*;
    use crate::{
        engine::{AnswerQuestion, Listener, MemberIds, Node, NodeStatus, Proved},
        identity::NodeIdentity,
        rows::Rows,
        settings::{Bootstrap, Replica, Timing},
    };

    const OWN_ROW: &str = "membership/0/cluster";
    const OLD: ClusterId = ClusterId(0x10ca1);

    /// Embedded nodes, none of which runs but the one that says this of itself.
    #[derive(Debug, Default)]
    struct Stopped {
        but: Option<NodeStatus>,
    }

    #[async_trait]
    impl Engine for Stopped {
        async fn start(&self, _: NodeStart) -> Result<Arc<dyn Node>> {
            panic!("recovery starts no node")
        }
        fn joins_by_others(&self) -> bool {
            false
        }
        fn rows(&self, _: &Arc<dyn Store>, _: &[NodeUrl]) -> Result<Arc<dyn Rows>> {
            panic!("recovery reads the disk")
        }
        fn keeps_rows_apart(&self) -> bool {
            true
        }
        fn api_cluster(&self, _: ClusterId) -> Option<u64> {
            Some(1)
        }
        async fn connect(&self, _: &[NodeUrl]) -> Result<Arc<dyn Store>> {
            panic!("recovery reads the disk")
        }
        async fn status(&self, _: &NodeUrl, _: Duration) -> Result<NodeStatus> {
            self.but.ok_or_else(|| Error::unavailable("nobody listens there"))
        }
        async fn members(&self, _: &[NodeUrl], _: Duration) -> Result<MemberIds> {
            panic!("recovery asks no cluster")
        }
        async fn ask(&self, _: &Replica, _: Proved, _: Duration) -> Result<Proved> {
            panic!("recovery founds by itself")
        }
        async fn listen(&self, _: AnswerQuestion) -> Result<Box<dyn Listener>> {
            panic!("recovery founds by itself")
        }
        fn restore(&self, salvage: &Salvage, start: &NodeStart, bump: u64) -> Result<Restored> {
            let NodeStart { cluster, node, data_dir, .. } = start.clone();
            let mut config = NodeConfig::new(node, cluster.0, data_dir, "127.0.0.1:13");
            let (name, peer_address) = ("n3".to_owned(), config.listen.clone());
            config.founders = [(node, Member { name, peer_address, client_url: String::new() })].into();
            salvage.restore(&config, bump)
        }
    }

    fn open(settings: Settings) -> Result<Survivor> {
        Survivor::open(settings, Arc::new(Stopped::default()))
    }

    /// Replica 3 of three, whose directory is in `place`.
    fn settings(place: &Path) -> Settings {
        let replica = |id: u64| Replica {
            id,
            name: format!("n{id}"),
            client_url: NodeUrl::new("127.0.0.1", 1),
            peer_url: NodeUrl::new("127.0.0.1", 13),
        };
        Settings {
            replica: replica(3),
            replicas: (1..=3).map(replica).collect(),
            token: "t".parse().unwrap(),
            data_dir: place.join("n3"),
            bootstrap: Bootstrap::Join,
            timing: Timing::default(),
            is_dry_run: false,
        }
    }

    /// What a voter of three has left, as the directory of replica 3.
    async fn survivor(place: &Path) -> Settings {
        let settings = settings(place);
        let mut cluster = LocalCluster::start(place.join("nodes"), 3, NodeConfig::fast).await.unwrap();
        let store = cluster.store().unwrap();
        for key in ["channel/1", "channel/2", "snet/membership/mine", "snet/other"] {
            store.put(&Key::new(key).unwrap(), key).await.unwrap();
        }
        let first = cluster.node(0).unwrap();
        first.put_row(OWN_ROW, "of the old cluster", Duration::from_secs(30)).await.unwrap();
        // Read on the third, so that it has all of it.
        let third = cluster.node(2).unwrap().store();
        let found = third.get(&Key::new("snet/other").unwrap(), ReadOptions::default()).await.unwrap();
        assert!(found.is_some());
        cluster.stop_all().await;
        let dir = &settings.data_dir;
        fs::create_dir_all(dir).unwrap();
        fs::rename(place.join("nodes/n3"), node_dir(dir)).unwrap();
        let node = Some(NodeIdentity { id: 3, founds: false, has_run: true });
        Identity { cluster: Some(OLD), node, ..Identity::founder(3, OLD).unwrap() }.keep(dir).unwrap();
        settings
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_survivor_founds_a_cluster_with_what_it_holds_and_the_old_directory_stays() {
        let place = tempfile::tempdir().unwrap();
        let settings = survivor(place.path()).await;
        let found = open(settings.clone()).unwrap();
        assert!(open(settings.clone()).unwrap_err().to_string().contains("another process uses"));
        assert_eq!((found.cluster(), found.found().keys), (OLD, 4));
        let voters: Vec<_> = found.voters().iter().map(|voter| (voter.node, voter.is_survivor)).collect();
        assert_eq!(voters, [(1, false), (2, false), (3, true)]);
        assert!(!found.is_majority_lost(&[1].into()) && found.is_majority_lost(&[1, 2].into()));
        let answers = |node, has_leader| AnsweringNode {
            replica: node,
            client_url: settings.replica.client_url.clone(),
            node,
            other_cluster: None,
            is_voter: true,
            has_leader,
            log_index: 1,
            term: 1,
        };
        assert!(!found.could_be_majority(&[]));
        assert!(found.could_be_majority(&[answers(1, false)]), "it and the survivor are two of three");
        assert!(!found.could_be_majority(&[answers(9, false)]), "no voter");
        assert!(found.could_be_majority(&[answers(9, true)]), "there are others that it does not know of");
        assert_eq!(found.answering(Duration::from_millis(200)).await, []);
        let other = |node| AnsweringNode { other_cluster: Some(2), ..answers(node, true) };
        assert!(
            !found.could_be_majority(&[other(1), other(2)]),
            "those of another cluster make no majority of this one"
        );
        drop(found);
        // The old cluster has the id 1 here: an answer of it, and one of a cluster that somebody has recovered at another replica.
        for (cluster, other_cluster) in [(1, None), (2, Some(2))] {
            let says = NodeStatus { node: 1, cluster, leader: None, term: 1, log_index: 1 };
            let found = Survivor::open(settings.clone(), Arc::new(Stopped { but: Some(says) })).unwrap();
            let answering = found.answering(Duration::from_millis(200)).await;
            let who: Vec<_> =
                answering.iter().map(|other| (other.replica, other.other_cluster, other.is_voter)).collect();
            assert_eq!(who, [1, 2].map(|replica| (replica, other_cluster, other_cluster.is_none())));
        }
        let found = open(settings.clone()).unwrap();

        let revision = found.found().revision;
        assert!(found.recover(u64::MAX).unwrap_err().to_string().contains("cannot be raised"));
        let found = open(settings.clone()).unwrap();
        assert_eq!(found.cluster(), OLD, "what was refused has changed nothing");
        // What an attempt has left that was cut short.
        fs::create_dir_all(replace::making(&settings.data_dir, OLD).join("node")).unwrap();
        let recovered = found.recover(1_000_000).unwrap();
        assert_ne!(recovered.cluster, OLD);
        assert_eq!((recovered.lost_cluster, recovered.keys, recovered.revision), (OLD, 4, revision + 1_000_000));
        let mut names: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        let lost = format!("n3.lost-{OLD}");
        assert_eq!(names, ["n3", &*lost, "nodes"]);
        assert_eq!(recovered.former_directory, place.path().join(&lost));

        // It is alone, with another id, and knows that it founds.
        let dir = ReplicaDir::open(&settings.data_dir, 3).unwrap();
        let identity = dir.identity().clone();
        assert_eq!(identity.cluster, Some(recovered.cluster));
        assert!(identity.node.is_some_and(|node| node.founds && node.has_run && node.id != 3), "{identity:?}");
        drop(dir);
        let found = open(settings.clone()).unwrap();
        assert_eq!((found.cluster(), found.voters().len()), (recovered.cluster, 1));
        assert!(found.could_be_majority(&[]), "it can be started");
        drop(found);
        // Started, it has the keys, and no row of the old cluster's table, whose replicas are none of its own.
        let node = identity.node.unwrap();
        let mut config =
            NodeConfig::new(node.id, recovered.cluster.0, node_dir(&settings.data_dir), "127.0.0.1:0").fast();
        config.founders = [(node.id, Member::default())].into();
        let started = storage_embedded::Node::start(config).await.unwrap();
        assert_eq!(started.rows(b"", Duration::from_secs(30)).await.unwrap(), BTreeMap::new());
        let mine = started.store().get(&Key::new("snet/membership/mine").unwrap(), ReadOptions::default()).await;
        assert_eq!(mine.unwrap().unwrap().value, "snet/membership/mine", "a client's key");
        started.stop().await;
        // The old one is as it was: a second recovery of it does not write over the first.
        fs::rename(&settings.data_dir, place.path().join("aside")).unwrap();
        fs::create_dir_all(&settings.data_dir).unwrap();
        fs::rename(place.path().join(&lost).join("node"), node_dir(&settings.data_dir)).unwrap();
        fs::copy(place.path().join(&lost).join("replica.json"), settings.data_dir.join("replica.json")).unwrap();
        let again = open(settings).unwrap();
        assert_eq!(again.found().keys, 4);
        assert!(again.recover(1).unwrap_err().to_string().contains("from an earlier recovery"));
    }

    #[test]
    fn without_data_there_is_nothing_to_recover_from() {
        let place = tempfile::tempdir().unwrap();
        let settings = settings(place.path());
        let refused = |settings: &Settings| open(settings.clone()).unwrap_err().to_string();
        assert!(refused(&settings).contains("has no data of replica 3"));
        assert!(!settings.data_dir.exists(), "nothing is made");
        drop(ReplicaDir::open(&settings.data_dir, 3).unwrap());
        assert!(refused(&settings).contains("had no node"));
        let node = Some(NodeIdentity { id: 3, founds: false, has_run: true });
        let identity = Identity { cluster: Some(OLD), node, ..Identity::founder(3, OLD).unwrap() };
        identity.keep(&settings.data_dir).unwrap();
        assert!(refused(&settings).contains("has no data of a node"));
    }
}
