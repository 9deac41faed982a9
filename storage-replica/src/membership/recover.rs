//! The last resort: a new cluster of what one survivor holds, when a majority of the voters' disks is gone for good.
//!
//! Nobody can know what was acknowledged without the survivor. So nothing here is done unless somebody says which disks are gone, and that no old node ever
//! starts again: two of them with a majority would acknowledge writes beside the new cluster.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use futures::future::join_all;
use serde::Serialize;
use storage_core::{Error, Result};
use storage_embedded::{Salvage, Salvaged};

use super::{
    bootstrap::is_majority,
    cluster_id::ClusterId,
    decide::{NodeId, ReplicaId},
    identity::{Identity, ReplicaDir, node_dir},
    moved,
    reading::node_settings,
    table::PREFIX,
};
use crate::{
    admin::Admin,
    config::{Engine, Growing, GrowingReplica, Member, NodeUrl},
    node::{self, shown_cluster},
};

/// A replica whose node holds data of a cluster, stopped. Its directory is locked for as long as this lives, and nothing in it is changed before
/// [`Survivor::recover`].
#[derive(Debug)]
pub struct Survivor {
    growing: Growing,
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

/// A node of the cluster that answers although it was thought lost.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnsweringNode {
    /// The replica at whose client URL it answers.
    pub replica: ReplicaId,
    /// That URL.
    pub client_url: NodeUrl,
    /// The node.
    pub node: NodeId,
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
    /// [`Error::InvalidArgument`] if there is nothing to recover from: no data, a replica that runs, an etcd; [`Error::Corrupt`] for damaged data, with the
    /// file and offset; [`Error::Unavailable`] if it cannot be read.
    pub fn open(growing: Growing) -> Result<Self> {
        let path = &growing.data_dir;
        let id = growing.replica.id;
        if growing.engine == Engine::Etcd {
            return Err(Error::invalid_argument(by_etcd(&growing.replica, path)));
        }
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
        if (found.cluster, found.node) != (cluster.0, node.id) {
            return Err(Error::corrupt(format!(
                "{} has data of node {:x} of cluster {:032x}, and replica {id} is node {:x} of cluster {cluster}",
                dir.node_dir().display(),
                found.node,
                found.cluster,
                node.id
            )));
        }
        Ok(Self { growing, _dir: dir, cluster, node: node.id, salvage })
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

    /// Asks all other replicas whether a node of this cluster runs there. That none answers says little: it may be cut off.
    pub async fn answering(&self, timeout: Duration) -> Vec<AnsweringNode> {
        let voters: BTreeSet<_> = self.voters().into_iter().map(|voter| voter.node).collect();
        let others = self.growing.replicas.iter().filter(|replica| replica.id != self.growing.replica.id);
        let asked = others.map(|replica| async {
            let url = std::slice::from_ref(&replica.client_url);
            let admin = Admin::with_tls(url, timeout, &self.growing.client_tls).ok()?;
            let info = admin.status().await.pop()?.1.ok()?;
            (info.cluster == shown_cluster(self.cluster.0)).then(|| AnsweringNode {
                replica: replica.id,
                client_url: replica.client_url.clone(),
                node: info.id,
                is_voter: voters.contains(&info.id),
                has_leader: info.leader.is_some(),
                log_index: info.log_index,
                term: info.term,
            })
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Whether these nodes and the survivor's could be a majority, so that the cluster is not lost.
    pub fn could_be_majority(&self, answering: &[AnsweringNode]) -> bool {
        let live: BTreeSet<_> = answering.iter().map(|other| other.node).chain([self.node]).collect();
        answering.iter().any(|other| other.has_leader)
            || self.found().voter_sets.iter().all(|set| is_majority(set.intersection(&live).count(), set.len()))
    }

    /// Makes the replica the founder of a new cluster with what its node holds, all but the old cluster's table of members. The old directory stays beside the new one. If the power fails,
    /// the replica has the old or the new one. It blocks.
    ///
    /// `bump_revision` is added to the revision, as in [`snapshot::restore`](crate::snapshot::restore).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a revision out of range, or if an earlier recovery from this cluster has left its directory; [`Error::Unavailable`] if it cannot be
    /// written. The old directory is in its place then.
    pub fn recover(self, bump_revision: u64) -> Result<Recovered> {
        let Self { growing, cluster: former, salvage, .. } = &self;
        let dir = &growing.data_dir;
        let (made, lost) = (moved::making(dir, *former), moved::lost(dir, *former));
        if lost.exists() {
            return Err(Error::invalid_argument(format!(
                "{} is there already, from an earlier recovery of this cluster: move it away first",
                lost.display()
            )));
        }
        remove(&made)?;
        let identity = Identity::founder(growing.replica.id, ClusterId::mint()?)?;
        match make(growing, salvage, &identity, &made, bump_revision) {
            Ok(restored) => {
                moved::publish(dir, *former)?;
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
}

/// Makes the directory of a founder. Who it is is written last.
fn make(
    growing: &Growing,
    salvage: &Salvage,
    identity: &Identity,
    made: &Path,
    bump_revision: u64,
) -> Result<storage_embedded::Restored> {
    let unavailable = |error| Error::unavailable(format!("cannot write {}: {error}", made.display()));
    let (Some(cluster), Some(node)) = (identity.cluster, identity.node) else {
        return Err(Error::invalid_argument("a founder without a cluster"));
    };
    fs::create_dir_all(made).map_err(unavailable)?;
    let own = Member { name: growing.replica.name.clone(), peer_url: growing.replica.peer_url.clone() };
    let settings = node_settings(growing, cluster, node, vec![own], node_dir(made))?;
    let restored = node::restore_salvaged(salvage, &settings, bump_revision, PREFIX.as_bytes())?;
    // Files beside the engine's, which it has synced itself.
    for entry in fs::read_dir(&settings.data_dir).map_err(unavailable)?.flatten().filter(|entry| entry.path().is_file())
    {
        File::open(entry.path()).and_then(|file| file.sync_all()).map_err(unavailable)?;
    }
    moved::sync(&settings.data_dir)?;
    identity.keep(made)?;
    Ok(restored)
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::unavailable(format!("cannot remove {}: {error}", dir.display())))
        }
        _ => Ok(()),
    }
}

/// What there is to do with an etcd's data.
fn by_etcd(replica: &GrowingReplica, dir: &Path) -> String {
    let node = node_dir(dir);
    let (name, peer, data) = (&replica.name, &replica.peer_url, node.display());
    format!(
        "replica {id} has an etcd, and of its data etcd's own programs make a new cluster: \n\
         etcdutl snapshot restore {data}/member/snap/db --skip-hash-check --bump-revision 1000000 --mark-compacted --data-dir NEW \
         --name {name} --initial-cluster {name}={peer} --initial-advertise-peer-urls {peer} --initial-cluster-token TOKEN\n\
         then `etcd --data-dir NEW --name {name} ...` serves it, and `snet storage copy` brings it into a new cluster that grows by itself. \
         `etcd --force-new-cluster --data-dir {data} ...` keeps the id of the old cluster: no other old member may ever start again then",
        id = replica.id
    )
}

#[cfg(test)]
mod tests {
    use storage_core::{Key, ReadOptions, Store as _, StoreExt as _};
    use storage_embedded::{LocalCluster, NodeConfig};

    use super::*;
    use crate::{
        config::{Bootstrap, Config},
        membership::identity::NodeIdentity,
    };

    const OLD: ClusterId = ClusterId(0x10ca1);

    /// Replica 3 of three, whose directory is below `place`.
    fn growing(place: &Path, engine: &str) -> Growing {
        let mut text =
            format!("token = \"t\"\nengine = \"{engine}\"\ndata_dir = \"{}\"\n[membership]\n", place.display());
        for id in 1..=3 {
            // Nobody listens on these.
            text += &format!(
                "[[replicas]]\nid = {id}\nnode_name = \"n{id}\"\nclient_url = \"http://127.0.0.1:{id}\"\npeer_url = \"http://127.0.0.1:1{id}\"\n"
            );
        }
        let file = place.join("cluster.toml");
        fs::write(&file, text).unwrap();
        Config::load(&file).unwrap().0.growing(3, Bootstrap::Join).unwrap()
    }

    /// What a voter of three has left, as the directory of replica 3.
    async fn survivor(place: &Path) -> Growing {
        let growing = growing(place, "embedded");
        let mut cluster = LocalCluster::start(place.join("nodes"), 3, NodeConfig::fast).await.unwrap();
        let store = cluster.store().unwrap();
        for key in ["channel/1", "channel/2", "snet/membership/0/cluster", "snet/other"] {
            store.put(&Key::new(key).unwrap(), key).await.unwrap();
        }
        // Read on the third, so that it has all of it.
        let third = cluster.node(2).unwrap().store();
        let found = third.get(&Key::new("snet/other").unwrap(), ReadOptions::default()).await.unwrap();
        assert!(found.is_some());
        cluster.stop_all().await;
        let dir = &growing.data_dir;
        fs::create_dir_all(dir).unwrap();
        fs::rename(place.join("nodes/n3"), node_dir(dir)).unwrap();
        let node = Some(NodeIdentity { id: 3, founds: false, has_run: true });
        Identity { cluster: Some(OLD), node, ..Identity::founder(3, OLD).unwrap() }.keep(dir).unwrap();
        growing
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_survivor_founds_a_cluster_with_what_it_holds_and_the_old_directory_stays() {
        let place = tempfile::tempdir().unwrap();
        let growing = survivor(place.path()).await;
        let found = Survivor::open(growing.clone()).unwrap();
        assert!(Survivor::open(growing.clone()).unwrap_err().to_string().contains("another process uses"));
        assert_eq!((found.cluster(), found.found().keys), (OLD, 4));
        let voters: Vec<_> = found.voters().iter().map(|voter| (voter.node, voter.is_survivor)).collect();
        assert_eq!(voters, [(1, false), (2, false), (3, true)]);
        assert!(!found.is_majority_lost(&[1].into()) && found.is_majority_lost(&[1, 2].into()));
        let answers = |node, has_leader| AnsweringNode {
            replica: node,
            client_url: growing.replica.client_url.clone(),
            node,
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

        let revision = found.found().revision;
        assert!(found.recover(u64::MAX).unwrap_err().to_string().contains("cannot be raised"));
        let found = Survivor::open(growing.clone()).unwrap();
        assert_eq!(found.cluster(), OLD, "what was refused has changed nothing");
        // What an attempt has left that was cut short.
        fs::create_dir_all(moved::making(&growing.data_dir, OLD).join("node")).unwrap();
        let recovered = found.recover(1_000_000).unwrap();
        assert_ne!(recovered.cluster, OLD);
        assert_eq!((recovered.lost_cluster, recovered.keys, recovered.revision), (OLD, 3, revision + 1_000_000));
        let mut names: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        let lost = format!("n3.lost-{OLD}");
        assert_eq!(names, ["cluster.toml", "n3", &*lost, "nodes"]);
        assert_eq!(recovered.former_directory, place.path().join(&lost));

        // It is alone, with another id, and knows that it founds.
        let dir = ReplicaDir::open(&growing.data_dir, 3).unwrap();
        let identity = dir.identity().clone();
        assert_eq!(identity.cluster, Some(recovered.cluster));
        assert!(identity.node.is_some_and(|node| node.founds && node.has_run && node.id != 3), "{identity:?}");
        drop(dir);
        let found = Survivor::open(growing.clone()).unwrap();
        assert_eq!((found.cluster(), found.voters().len()), (recovered.cluster, 1));
        assert!(found.could_be_majority(&[]), "it can be started");
        drop(found);
        // The old one is as it was: a second recovery of it does not write over the first.
        fs::rename(&growing.data_dir, place.path().join("aside")).unwrap();
        fs::create_dir_all(&growing.data_dir).unwrap();
        fs::rename(place.path().join(&lost).join("node"), node_dir(&growing.data_dir)).unwrap();
        fs::copy(place.path().join(&lost).join("replica.json"), growing.data_dir.join("replica.json")).unwrap();
        let again = Survivor::open(growing).unwrap();
        assert_eq!(again.found().keys, 4);
        assert!(again.recover(1).unwrap_err().to_string().contains("from an earlier recovery"));
    }

    #[test]
    fn without_data_there_is_nothing_to_recover_from() {
        let place = tempfile::tempdir().unwrap();
        let refused = |growing: Growing| Survivor::open(growing).unwrap_err().to_string();
        let told = refused(growing(place.path(), "etcd"));
        assert!(told.contains("etcdutl snapshot restore") && told.contains("n3/node/member/snap/db"), "{told}");
        let growing = growing(place.path(), "embedded");
        assert!(refused(growing.clone()).contains("has no data of replica 3"));
        assert!(!growing.data_dir.exists(), "nothing is made");
        drop(ReplicaDir::open(&growing.data_dir, 3).unwrap());
        assert!(refused(growing.clone()).contains("had no node"));
        let node = Some(NodeIdentity { id: 3, founds: false, has_run: true });
        let identity = Identity { cluster: Some(OLD), node, ..Identity::founder(3, OLD).unwrap() };
        identity.keep(&growing.data_dir).unwrap();
        assert!(refused(growing).contains("has no data of a node"));
    }
}
