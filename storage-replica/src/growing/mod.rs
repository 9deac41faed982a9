//! How a replica takes part in a cluster that grows by itself: `engine` is what its nodes are, for the rules in [`storage_membership`], and `founding`
//! carries the questions of replicas that have no node yet.

mod engine;
mod founding;

use std::{sync::Arc, time::Duration};

use storage_core::{Error, Result};
use storage_membership::{Overview, Participant, Survivor, Table};

use self::engine::ReplicaEngine;
use crate::config::{Engine, Growing};

/// Takes part. It does not wait for the cluster.
pub(crate) async fn take_part(growing: Growing) -> Result<Participant> {
    Participant::start(growing.membership.clone(), Arc::new(ReplicaEngine::new(growing))).await
}

/// The table of the cluster of these replicas.
///
/// # Errors
/// Those of [`storage_membership::open_table`].
pub async fn open_table(growing: &Growing, timeout: Duration) -> Result<Table> {
    storage_membership::open_table(&growing.membership, &ReplicaEngine::new(growing.clone()), timeout).await
}

/// Asks a cluster how it is.
///
/// # Errors
/// Those of [`storage_membership::overview`].
pub async fn overview(growing: &Growing, timeout: Duration) -> Result<Overview> {
    storage_membership::overview(&growing.membership, &ReplicaEngine::new(growing.clone()), timeout).await
}

/// Takes the directory of a replica that is stopped, to make a new cluster of what it holds. It blocks.
///
/// # Errors
/// Those of [`Survivor::open`]; [`Error::InvalidArgument`] for an etcd, with what there is to do.
pub fn survivor(growing: Growing) -> Result<Survivor> {
    if growing.engine == Engine::Etcd {
        return Err(Error::invalid_argument(by_etcd(&growing)));
    }
    let settings = growing.membership.clone();
    Survivor::open(settings, Arc::new(ReplicaEngine::new(growing)))
}

/// What there is to do with an etcd's data.
fn by_etcd(growing: &Growing) -> String {
    let (replica, node) = (&growing.membership.replica, storage_membership::node_dir(&growing.membership.data_dir));
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
    use super::*;
    use crate::config::{Bootstrap, Config, Format};

    #[test]
    fn of_an_etcd_it_is_told_how_its_own_programs_do_it() {
        let text = "token = \"t\"\nengine = \"etcd\"\ndata_dir = \"data\"\n[membership]\n[[replicas]]\nid = 3\nnode_name = \"n3\"\n\
                    client_url = \"http://127.0.0.1:3\"\npeer_url = \"http://127.0.0.1:13\"\n";
        let (config, _) = Config::parse(text, Format::Toml, |_| None).unwrap();
        let told = survivor(config.growing(3, Bootstrap::Join).unwrap()).unwrap_err().to_string();
        assert!(told.contains("etcdutl snapshot restore data/n3/node/member/snap/db"), "{told}");
    }
}
