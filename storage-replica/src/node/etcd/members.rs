//! The members of a cluster as an etcd that leads sees and changes them, by its member API.

use std::{collections::BTreeMap, time::Duration};

use storage_core::Result;
use storage_membership::{MemberChange, Members, decide::Changes};

use crate::{
    admin::{Admin, MemberInfo},
    config::{NodeSettings, NodeUrl},
};

/// How long a member may take to answer how it is.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// How long a change of members may take.
const CHANGES_WITHIN: Duration = Duration::from_secs(10);

/// The members of an etcd, if this one leads.
pub(super) async fn seen_by(settings: &NodeSettings) -> Result<Option<Members>> {
    let tls = settings.tls.client();
    let own = Admin::with_tls(std::slice::from_ref(&settings.client_url), ANSWERS_WITHIN, &tls)?;
    let (_, status) = own.status().await.remove(0);
    let status = status?;
    if status.leader != Some(status.id) {
        return Ok(None);
    }
    let members = own.members().await?;
    let asked = members.iter().filter(|member| member.id != status.id).map(|member| async {
        let url: NodeUrl = member.client_urls.first()?.parse().ok()?;
        let admin = Admin::with_tls(&[url], ANSWERS_WITHIN, &tls).ok()?;
        let (_, answer) = admin.status().await.pop()?;
        let answer = answer.ok()?;
        // One that follows another leader, or none, has not heard of this one.
        let follows = answer.id == member.id && answer.cluster == status.cluster && answer.leader == Some(status.id);
        follows.then_some((member.id, answer.log_index))
    });
    let matched: BTreeMap<_, _> = futures::future::join_all(asked).await.into_iter().flatten().collect();
    let (learners, voters): (Vec<&MemberInfo>, Vec<_>) = members.iter().partition(|member| member.is_learner);
    Ok(Some(Members {
        leader: status.id,
        term: status.term,
        voter_sets: vec![voters.into_iter().map(|member| member.id).collect()],
        learners: learners.into_iter().map(|member| member.id).collect(),
        is_committed: true,
        last_index: status.log_index,
        acknowledged: matched.keys().map(|id| (*id, Duration::ZERO)).collect(),
        matched,
        changes: Changes::Single,
        observed: None,
    }))
}

pub(super) async fn change(settings: &NodeSettings, seen: &Members, change: MemberChange) -> Result<Option<u64>> {
    let admin = Admin::with_tls(std::slice::from_ref(&settings.client_url), CHANGES_WITHIN, &settings.tls.client())?;
    match change {
        MemberChange::AddLearner { peer_url, .. } => admin.add(&peer_url).await.map(|member| Some(member.id)),
        MemberChange::RemoveLearners(ids) => {
            for id in ids {
                admin.remove(id).await?;
            }
            Ok(None)
        }
        MemberChange::SetVoters(voters) => {
            let before = seen.voters();
            for id in voters.difference(&before) {
                admin.promote(*id).await?;
            }
            for id in before.difference(&voters) {
                admin.remove(*id).await?;
            }
            Ok(None)
        }
        MemberChange::HandOver(to) => admin.move_leader(to).await.map(|()| None),
    }
}
