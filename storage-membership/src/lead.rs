//! What the leader does for the members, again and again: it looks, decides, says what it thinks, and makes one change.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use storage_core::{Error, Result};

use crate::{
    contents::Contents,
    decide::{Action, Changes, Decision, Liveness, ReplicaView, Unclaimed, View, decide},
    engine::{MemberChange, Members, Node},
    ids::NodeId,
    leader_report::{LeaderReport, ReplicaLiveness},
    liveness::LivenessTracker,
    settings::Settings,
    table::Table,
};

/// What one replica remembers of its leading.
#[derive(Debug)]
pub(crate) struct Lead {
    settings: Settings,
    tracker: LivenessTracker,
    /// Since when everybody has been well after the last change.
    well_since: Option<Instant>,
    /// The rows that were named as not proved.
    unproved: BTreeSet<String>,
}

impl Lead {
    pub(crate) fn new(settings: Settings) -> Self {
        let tracker = LivenessTracker::new(settings.timing, Instant::now());
        Self { settings, tracker, well_since: None, unproved: BTreeSet::new() }
    }

    /// One look, and at most one change. Does nothing if the node does not lead.
    pub(crate) async fn once(&mut self, node: &dyn Node, table: &Table) -> Result<()> {
        if node.members().await?.is_none() {
            return Ok(());
        }
        // The table first: what is in it has happened before, and so is known of the members that are looked at then.
        let contents = table.read().await?;
        let Some(members) = node.members().await? else { return Ok(()) };
        self.name_unproved(&contents);
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
            Decision::Act(action) if self.settings.is_dry_run => format!("{action} (a dry run: nothing is done)"),
            Decision::Act(action) if rests => {
                format!("{action}, when all have been well for {:?}", self.settings.timing.rest)
            }
            decision => decision.to_string(),
        };
        let report = LeaderReport {
            leader: members.leader,
            term: members.term,
            voters: members.voters().into_iter().collect(),
            learners: members.learners.iter().copied().collect(),
            replicas: heard,
            intends,
            is_dry_run: self.settings.is_dry_run,
        };
        if contents.report.as_ref() != Some(&report) {
            table.report(&report, &contents).await?;
        }
        if rests || self.settings.is_dry_run {
            decision = Decision::Settled;
        }
        match decision {
            Decision::Act(action) => self.carry_out(action, node, table, &contents, &members).await,
            Decision::Wait(_) | Decision::Settled => Ok(()),
        }
    }

    /// Says once which rows are not looked at.
    fn name_unproved(&mut self, contents: &Contents) {
        if self.unproved != contents.unproved {
            self.unproved.clone_from(&contents.unproved);
            let (count, first) = (self.unproved.len(), self.unproved.first());
            if let Some(first) = first {
                tracing::warn!(
                    count,
                    first,
                    "rows of the cluster's table are not proved by its token: nothing is done on their account"
                );
            }
        }
    }

    fn listen(&mut self, contents: &Contents, members: &Members, now: Instant) {
        self.tracker.leads(members.term, now);
        for (id, row) in &contents.replicas {
            self.tracker.beat(*id, (row.incarnation, row.beat), now);
        }
        self.tracker.acknowledge(&members.acknowledged, &members.matched, members.last_index, now);
    }

    fn view(&self, contents: &Contents, members: &Members, now: Instant) -> (View, BTreeMap<u64, ReplicaLiveness>) {
        let (mut replicas, mut heard) = (BTreeMap::new(), BTreeMap::new());
        let all = members.all();
        for id in contents.replicas.keys() {
            let node = contents.node_of(*id);
            let member = node.filter(|node| all.contains(node));
            let (mut liveness, mut silent) = self.tracker.of(*id, member, now);
            if node == Some(members.leader) {
                (liveness, silent) = (Liveness::Live, std::time::Duration::ZERO);
            }
            heard.insert(*id, ReplicaLiveness::new(liveness, silent.as_secs()));
            replicas.insert(*id, ReplicaView { liveness, node, is_leaving: contents.leaving.contains(id) });
        }
        let caught_up = all.into_iter().filter(|node| *node == members.leader || self.tracker.has_caught_up(*node));
        let mut view = View {
            replicas,
            voter_sets: members.voter_sets.clone(),
            learners: members.learners.clone(),
            caught_up: caught_up.collect(),
            is_committed: members.is_committed,
            leader: members.leader,
            changes: members.changes,
        };
        view.include_unclaimed(|node| self.unclaimed(node, contents, now));
        (view, heard)
    }

    /// What is known of a member that no replica in the table claims.
    fn unclaimed(&self, node: NodeId, contents: &Contents, now: Instant) -> Unclaimed {
        let given_to = contents.nodes.get(&node);
        let replica = given_to.map(|row| row.replica);
        let other_disk =
            given_to.and_then(|row| Some(contents.replicas.get(&row.replica)?.incarnation != row.incarnation));
        Unclaimed {
            replica,
            liveness: self.tracker.of_member(node, now),
            is_leaving: replica.is_some_and(|replica| contents.leaving.contains(&replica)),
            has_lost_disk: other_disk.unwrap_or_default(),
        }
    }

    /// Whether nothing may be changed yet although it could be: an etcd refuses changes while its members have not been connected for a while.
    fn rests(&mut self, view: &View, now: Instant) -> bool {
        if view.changes == Changes::Joint {
            return false;
        }
        let since = *self.well_since.get_or_insert(now);
        now.duration_since(since) < self.settings.timing.rest
    }

    async fn carry_out(
        &mut self,
        action: Action,
        node: &dyn Node,
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
        // Also if the change fails below: it may have been made all the same.
        self.well_since = None;
        let (change, replica) = match action {
            Action::FinishJoint(voters) | Action::SetVoters(voters) => (MemberChange::SetVoters(voters), None),
            Action::RemoveLearners(nodes) => (MemberChange::RemoveLearners(nodes), None),
            Action::HandOver(to) => (MemberChange::HandOver(to), None),
            Action::AddLearner(id) => {
                let row = contents.replicas.get(&id).ok_or_else(|| Error::corrupt("a replica without a row"))?;
                let peer_url = row.peer_url.parse().map_err(Error::invalid_argument)?;
                (MemberChange::AddLearner { name: row.name.clone(), peer_url }, Some((id, row.incarnation)))
            }
        };
        let changed = node.change(members, change).await.inspect_err(|error| {
            tracing::warn!(%error, "the change was not made: {what}");
        })?;
        if let (Some(id), Some((replica, incarnation))) = (changed, replica)
            && !table.assign(id, replica, incarnation, contents).await?
        {
            tracing::warn!("node {id:x} was used before: it is removed again");
        }
        Ok(())
    }
}

/// The nodes that are members no more.
fn removed(contents: &Contents, members: &Members) -> Vec<NodeId> {
    // A change that is not committed may vanish, and with it the removal: a row that says so could not be taken back.
    if !members.is_committed {
        return Vec::new();
    }
    let all = members.all();
    let there = contents.nodes.iter().filter(|(_, row)| !row.is_gone).map(|(id, _)| *id);
    there.filter(|id| !all.contains(id)).collect()
}
