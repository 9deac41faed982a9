//! How a replica without a cluster comes to found one, or lets another do it: one attempt of the [`protocol`](crate::protocol), with its messages.
//!
//! Attempts are made again and again until there is a cluster, by this replica or by several at once. None of them can be wrong, only in vain: what keeps
//! two clusters from being founded is in the protocol, and in what is on the disk before a message is sent.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use storage_core::Result;

use crate::{
    ask::{answer, ask},
    engine::Engine,
    identity::{NodeIdentity, ReplicaDir, mint_node},
    ids::{ClusterId, ReplicaId},
    protocol::{Founding, Question, Reply, is_decided, is_majority, should_try, to_propose},
    settings::Settings,
};

/// How long another replica may take to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// Makes this replica the founder of a cluster with this id. It is on stable storage when this returns.
pub(crate) fn become_founder(dir: &Mutex<ReplicaDir>, cluster: ClusterId) -> Result<()> {
    let id = mint_node()?;
    let mut dir = dir.lock().unwrap_or_else(PoisonError::into_inner);
    dir.change(|identity| {
        identity.cluster = Some(cluster);
        identity.node = Some(NodeIdentity { id, founds: true, has_run: false });
    })
}

/// One attempt to agree with a majority of all replicas on who founds the cluster. Says what it waits for, if this replica does not found it now.
pub(crate) async fn try_quorum(
    settings: &Settings,
    engine: &dyn Engine,
    dir: &Mutex<ReplicaDir>,
) -> Result<Option<String>> {
    let (own, replicas) = (settings.replica.id, settings.replicas.len());
    let greeted = everybody(settings, engine, dir, Question::Hello).await?;
    if let Some(cluster) = existing(&greeted) {
        return Ok(Some(format!("cluster {cluster} is there: its nodes do not serve yet")));
    }
    let others = greeted.keys().copied().filter(|id| *id != own);
    if !is_majority(greeted.len(), replicas) {
        return Ok(Some(format!("a majority of the {replicas} replicas has to be there, and {} are", greeted.len())));
    }
    let proposed = identity(dir, |dir| dir.identity().proposed);
    if !should_try(own, proposed.is_some(), others) {
        return Ok(Some("another replica with a lower id founds the cluster".to_owned()));
    }
    let cluster = match proposed {
        Some(cluster) => cluster,
        None => {
            let cluster = ClusterId::mint()?;
            // Remembered before anybody is asked to accept it.
            identity(dir, |dir| dir.change(|identity| identity.proposed = Some(cluster)))?;
            cluster
        }
    };
    // Higher than any ballot that this replica has promised, so that its own promise is among those that are asked for.
    let ballot = identity(dir, |dir| dir.identity().promises.next_ballot(own));
    let promises = everybody(settings, engine, dir, Question::Prepare(ballot)).await?;
    if let Some(cluster) = existing(&promises) {
        return Ok(Some(format!("cluster {cluster} is there: its nodes do not serve yet")));
    }
    let Some(founding) = to_propose(&promises, replicas, Founding { cluster, founder: own }) else {
        return Ok(Some("a majority has not promised: another replica tries as well".to_owned()));
    };
    let accepted = everybody(settings, engine, dir, Question::Accept(ballot, founding)).await?;
    if !is_decided(&accepted, replicas) {
        return Ok(Some("a majority has not accepted: another replica tries as well".to_owned()));
    }
    // What was accepted may be the proposal of another, or one of this replica's former data directory. It founds only the cluster that it remembers to
    // have proposed: the disk that remembered another one is lost, perhaps with that very cluster on it.
    if founding == (Founding { cluster, founder: own }) {
        become_founder(dir, cluster)?;
        return Ok(None);
    }
    Ok(Some(format!("replica {} founds the cluster, as was agreed: it has to be there", founding.founder)))
}

/// Asks all replicas, this one among them. Those that do not answer are not in it.
async fn everybody(
    settings: &Settings,
    engine: &dyn Engine,
    dir: &Mutex<ReplicaDir>,
    question: Question,
) -> Result<BTreeMap<ReplicaId, Reply>> {
    let own = settings.replica.id;
    let others = settings.replicas.iter().filter(|replica| replica.id != own).map(|replica| async move {
        let asked = ask(engine, own, replica, question, &settings.token, ANSWERS_WITHIN).await;
        match asked {
            Ok(answer) => Some((replica.id, answer)),
            Err(error) => {
                tracing::debug!(replica = replica.id, %error, "a replica does not answer");
                None
            }
        }
    });
    let mut answers: BTreeMap<_, _> = join_all(others).await.into_iter().flatten().collect();
    answers.insert(own, answer(dir, question)?);
    Ok(answers)
}

fn existing(answers: &BTreeMap<ReplicaId, Reply>) -> Option<ClusterId> {
    answers.values().find_map(|answer| match answer {
        Reply::Exists(cluster) => Some(*cluster),
        _ => None,
    })
}

fn identity<T>(dir: &Mutex<ReplicaDir>, look: impl FnOnce(&mut ReplicaDir) -> T) -> T {
    look(&mut dir.lock().unwrap_or_else(PoisonError::into_inner))
}
