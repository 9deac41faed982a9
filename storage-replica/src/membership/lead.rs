//! What the leader does for the members, again and again: it looks, decides, says what it thinks, and makes one change.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use storage_core::{Error, Result};

use super::{
    decide::{Action, Changes, Decision, Liveness, NodeId, ReplicaView, View, decide},
    liveness::Listening,
    report::{Heard, Report},
    table::{Contents, Table},
};
use crate::{
    config::Growing,
    node::{Change, ManagedNode, Members},
};

/// What one replica remembers of its leading.
#[derive(Debug)]
pub(super) struct Lead {
    growing: Growing,
    listening: Listening,
    /// Since when everybody has been well after the last change.
    well_since: Option<Instant>,
}

impl Lead {
    pub(super) fn new(growing: Growing) -> Self {
        let listening = Listening::new(growing.timing, Instant::now());
        Self { growing, listening, well_since: None }
    }

    /// One look, and at most one change. Does nothing if the node does not lead.
    pub(super) async fn once(&mut self, node: &dyn ManagedNode, table: &Table) -> Result<()> {
        if node.members().await?.is_none() {
            return Ok(());
        }
        // The table first: what is in it has happened before, and so is known of the members that are looked at then.
        let contents = table.read().await?;
        let Some(members) = node.members().await? else { return Ok(()) };
        let now = Instant::now();
        self.listen(&contents, &members, now);
        let (view, heard) = self.view(&contents, &members, now);
        let mut decision = decide(&view);
        let gone = removed(&contents, &members);
        if !gone.is_empty() && !table.announce(members.leader, None, &gone, &contents).await? {
            return Ok(());
        }
        let rests = self.rests(&view, now);
        let intends = match &decision {
            Decision::Act(action) if self.growing.is_dry_run => format!("{action} (a dry run: nothing is done)"),
            Decision::Act(action) if rests => {
                format!("{action}, when all have been well for {:?}", self.growing.timing.rest)
            }
            decision => decision.to_string(),
        };
        let report = Report {
            leader: members.leader,
            term: members.term,
            voters: members.voters().into_iter().collect(),
            learners: members.learners.iter().copied().collect(),
            replicas: heard,
            intends,
            is_dry_run: self.growing.is_dry_run,
        };
        if contents.report.as_ref() != Some(&report) {
            table.report(&report).await?;
        }
        if rests || self.growing.is_dry_run {
            decision = Decision::Settled;
        }
        match decision {
            Decision::Act(action) => self.carry_out(action, node, table, &contents, &members).await,
            Decision::Wait(_) | Decision::Settled => Ok(()),
        }
    }

    fn listen(&mut self, contents: &Contents, members: &Members, now: Instant) {
        self.listening.leads(members.term, now);
        for (id, row) in &contents.replicas {
            self.listening.beat(*id, (row.incarnation, row.beat), now);
        }
        self.listening.acknowledge(&members.acknowledged, &members.matched, members.last_index, now);
    }

    fn view(&self, contents: &Contents, members: &Members, now: Instant) -> (View, BTreeMap<u64, Heard>) {
        let (mut replicas, mut heard) = (BTreeMap::new(), BTreeMap::new());
        let all: BTreeSet<NodeId> = members.voters().union(&members.learners).copied().collect();
        for id in contents.replicas.keys() {
            let node = contents.node_of(*id);
            let member = node.filter(|node| all.contains(node));
            let (mut liveness, mut silent) = self.listening.of(*id, member, now);
            if node == Some(members.leader) {
                (liveness, silent) = (Liveness::Live, std::time::Duration::ZERO);
            }
            heard.insert(*id, Heard::new(liveness, silent.as_secs()));
            replicas.insert(*id, ReplicaView { liveness, node, is_leaving: contents.leaving.contains(id) });
        }
        let caught_up = all.into_iter().filter(|node| *node == members.leader || self.listening.has_caught_up(*node));
        let view = View {
            replicas,
            voter_sets: members.voter_sets.clone(),
            learners: members.learners.clone(),
            caught_up: caught_up.collect(),
            is_committed: members.is_committed,
            leader: members.leader,
            changes: members.changes,
        };
        (view, heard)
    }

    /// Whether nothing may be changed yet although it could be: an etcd refuses changes while its members have not been connected for a while.
    fn rests(&mut self, view: &View, now: Instant) -> bool {
        if view.changes == Changes::Joint {
            return false;
        }
        let since = *self.well_since.get_or_insert(now);
        now.duration_since(since) < self.growing.timing.rest
    }

    async fn carry_out(
        &mut self,
        action: Action,
        node: &dyn ManagedNode,
        table: &Table,
        contents: &Contents,
        members: &Members,
    ) -> Result<()> {
        let what = action.to_string();
        if !table.announce(members.leader, Some(what.clone()), &[], contents).await? {
            // Another leader has decided since.
            return Ok(());
        }
        tracing::info!(leader = format!("{:x}", members.leader), term = members.term, "{what}");
        self.well_since = None;
        let (change, replica) = match action {
            Action::FinishJoint(voters) | Action::SetVoters(voters) => (Change::SetVoters(voters), None),
            Action::RemoveLearners(nodes) => (Change::RemoveLearners(nodes), None),
            Action::HandOver(to) => (Change::HandOver(to), None),
            Action::AddLearner(id) => {
                let row = contents.replicas.get(&id).ok_or_else(|| Error::corrupt("a replica without a row"))?;
                let peer_url = row.peer_url.parse().map_err(Error::invalid_argument)?;
                (Change::AddLearner { name: row.name.clone(), peer_url }, Some((id, row.incarnation)))
            }
        };
        let changed = node.change(members, change).await.inspect_err(|error| {
            tracing::warn!(%error, "the change was not made: {what}");
        })?;
        if let (Some(id), Some((replica, incarnation))) = (changed, replica)
            && !table.assign(id, replica, incarnation).await?
        {
            tracing::warn!("node {id:x} was used before: it is removed again");
        }
        Ok(())
    }
}

/// The nodes that are members no more.
fn removed(contents: &Contents, members: &Members) -> Vec<NodeId> {
    if !members.is_committed {
        return Vec::new();
    }
    let all: BTreeSet<NodeId> = members.voters().union(&members.learners).copied().collect();
    let there = contents.nodes.iter().filter(|(_, row)| !row.is_gone).map(|(id, _)| *id);
    there.filter(|id| !all.contains(id)).collect()
}
