//! What an operator does, right and wrong: changes of members, also those that would leave no majority; disks that are emptied under a node
//! with the same flags; disks that cannot be read; states that are damaged. And what has to come of each.

use std::{path::PathBuf, rc::Rc};

use storage_embedded::{
    Role,
    simulated::{Flaw, SimDisk},
};
use turmoil::Sim;

use super::{Nemesis, Planted, Undo};
use crate::{
    plan::Operator,
    shared::name,
    site::{Order, Site},
};

/// Where a node is for the cluster, as far as the operator has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Membership {
    /// It may be taken in.
    Spare,
    Learner,
    Voter,
    /// It was a member, and its id is never used again.
    Gone,
}

/// After so many ticks a node that is down is silent for its leader too, whatever was still under way to it.
pub(super) const SILENT: u64 = 3000;

/// How many ticks a node is down, at the least, that is to be silent while something is asked for.
const DOWN: std::ops::Range<u64> = 4000..7000;

/// After how many ticks a leader that has handed over is to lead again: less than the second after which its time begins anew anyway.
const AWAY: std::ops::Range<u64> = 50..800;

impl Nemesis {
    /// The next step with some node: in, up, or out. Sometimes one that has to be refused.
    pub(super) fn change_members(&mut self, site: &Rc<Site>) -> Option<&'static str> {
        self.follow_members();
        let wiped =
            self.sites.iter().find(|site| site.wiped.get() && self.members.get(&site.id) == Some(&Membership::Voter));
        if let Some(wiped) = wiped
            && self.rng.bool()
        {
            // As the message of the node that has lost its disk says.
            Self::order(site, Order::Remove(vec![wiped.id]));
            return Some("removal of a node that lost its disk");
        }
        let (id, state) = self.rng.choice(self.members.clone())?;
        match state {
            Membership::Spare => {
                Self::order(site, Order::AddLearner(id));
                Some("learner added")
            }
            Membership::Learner => {
                Self::order(site, Order::Promote(id));
                Some("learner promoted")
            }
            Membership::Voter if self.may_leave(id) => {
                self.told_to_leave.insert(id);
                Self::order(site, Order::Remove(vec![id]));
                Some("member removed")
            }
            Membership::Voter | Membership::Gone => None,
        }
    }

    /// Those that were taken in may go again. Where disks are emptied, all founders stay that have theirs, or the operator, and not the
    /// engine, could leave the cluster without a majority.
    fn may_leave(&self, id: u64) -> bool {
        id > self.shared.plan.founders || self.shared.plan.operator == Operator::Removes && self.leaves_a_founder(id)
    }

    /// The clients outside know the founders and nobody else: one stays.
    fn leaves_a_founder(&self, id: u64) -> bool {
        let told = self.told_to_leave.iter().filter(|told| **told != id && **told <= self.shared.plan.founders).count();
        id > self.shared.plan.founders || (told as u64) + 1 < self.shared.plan.founders
    }

    /// A command that is wrong more often than not.
    pub(super) fn order_anything(&mut self, site: &Rc<Site>) -> Option<&'static str> {
        self.follow_members();
        let all = self.shared.plan.founders + self.shared.plan.spares + 1;
        let id = self.rng.u64(1..=all);
        Some(match self.rng.u8(..4) {
            0 => {
                Self::order(site, Order::Transfer(id));
                "transfer to anybody"
            }
            1 => {
                Self::order(site, Order::Promote(id));
                "promotion of anybody"
            }
            // Everybody: a cluster keeps a voter. Where that is not so, the founders are gone.
            2 => {
                Self::order(site, Order::Remove((1..=all).collect()));
                "removal of everybody"
            }
            _ => {
                Self::order(site, Order::Transfer(site.id));
                "transfer to itself"
            }
        })
    }

    /// The leader hands over, and leads again before anybody could miss it: what it has remembered of its first time is old.
    pub(super) fn lead_and_lead_again(&mut self, tick: u64) -> Option<&'static str> {
        self.follow_members();
        let leader = self.leader()?;
        let others: Vec<_> = self.voters().into_iter().filter(|id| *id != leader.id).collect();
        let other = self.rng.choice(others)?;
        let other = self.site(other)?;
        Self::order(&leader, Order::Transfer(other.id));
        self.undo.push((tick + self.rng.u64(AWAY), Undo::Order(other, Order::Transfer(leader.id))));
        Some("leadership that comes back")
    }

    /// As many voters are down as may be, and stay so; then another one is to be removed.
    pub(super) fn remove_a_live_voter(&mut self, sim: &mut Sim<'_>, tick: u64) -> Option<&'static str> {
        self.follow_members();
        if self.shared.plan.operator == Operator::Wipes {
            return None;
        }
        let voters = self.voters();
        let down = voters.len().saturating_sub(1) / 2;
        let mut chosen = self.rng.choose_multiple(voters, down + 2).into_iter();
        let (asked, removed) = (chosen.next()?, chosen.next()?);
        if down == 0 || !self.leaves_a_founder(removed) {
            return None;
        }
        let until = tick + self.rng.u64(DOWN);
        for id in chosen {
            let site = self.site(id)?;
            self.crash(sim, &site, until, true);
        }
        self.told_to_leave.insert(removed);
        let order = Undo::Order(self.site(asked)?, Order::Remove(vec![removed]));
        self.undo.push((tick + SILENT + self.rng.u64(..500), order));
        Some("removal of a live voter while others are down")
    }

    /// A voter that has taken part starts with the same flags and an empty disk.
    pub(super) fn wipe(&mut self, sim: &mut Sim<'_>, tick: u64, until: u64) -> Option<&'static str> {
        self.follow_members();
        let wiped = self.sites.iter().filter(|site| site.wiped.get()).count() as u64;
        // A minority of the founders, ever: what was acknowledged is on the others.
        if self.shared.plan.operator != Operator::Wipes || wiped >= (self.shared.plan.founders - 1) / 2 {
            return None;
        }
        let candidates = self.sites.iter().filter(|site| {
            let has_run = site.node.borrow().as_ref().is_some_and(|node| node.probe().committed.is_some());
            has_run && !site.wiped.get() && self.members.get(&site.id) == Some(&Membership::Voter)
        });
        let site = self.rng.choice(candidates.cloned().collect::<Vec<_>>())?;
        self.crash(sim, &site, until, true);
        site.machine.replace_disk(SimDisk::new(self.rng.u64(..)));
        site.wiped.set(true);
        self.shared.event_log.record(format_args!("n{} has an empty disk from tick {tick} on", site.id));
        Some("disk emptied")
    }

    /// The directory of a node, or a part of it, cannot be read when it starts.
    pub(super) fn deny(&mut self, sim: &mut Sim<'_>, site: &Rc<Site>, tick: u64, until: u64) -> &'static str {
        let path = self.rng.choice(["/node", "/node/identity", "/node/log", "/node/snapshots"]).unwrap_or("/node");
        let starts = tick + self.rng.u64(1..=(until - tick).max(1));
        self.crash(sim, site, starts, false);
        site.machine.disk().deny(Some(PathBuf::from(path)));
        self.undo.push((until, Undo::Readable(Rc::clone(site))));
        "unreadable directory"
    }

    /// Only with the flaw that leaves it unnoticed: what a node with another state tells its clients in the meantime is lost otherwise.
    pub(super) fn damage(&mut self) {
        if self.flaw != Some(Planted::Engine(Flaw::Uncompared)) {
            return;
        }
        let follows = |site: &&Rc<Site>| {
            let node = site.node.borrow();
            node.as_ref().is_some_and(|node| node.probe().role == Role::Follower && !site.damaged.get())
        };
        if let Some(site) = self.sites.iter().find(follows) {
            site.damaged.set(true);
            site.node.borrow().iter().for_each(storage_embedded::Node::damage_state);
        }
    }

    /// What became of the orders, as the member with the longest log knows it.
    pub(crate) fn follow_members(&mut self) {
        let probes =
            self.sites.iter().filter_map(|site| site.node.borrow().as_ref().map(storage_embedded::Node::probe));
        let Some(best) = probes.max_by_key(|probe| probe.committed) else { return };
        // One that was away, while those that know more are down, would bring back who was removed.
        if best.committed.is_none() || best.committed < self.members_by {
            return;
        }
        self.members_by = best.committed;
        for (id, state) in &mut self.members {
            *state = match best.members.iter().find(|(member, _)| member == id) {
                None if *state == Membership::Spare => Membership::Spare,
                None => Membership::Gone,
                Some((_, true)) => Membership::Voter,
                Some((_, false)) => Membership::Learner,
            };
        }
        for site in &self.sites {
            site.removed.set(self.members.get(&site.id) == Some(&Membership::Gone));
        }
    }

    /// Nodes that have been down, or without their data, for so long that every leader knows.
    pub(crate) fn silent(&mut self, sim: &mut Sim<'_>, tick: u64) -> Vec<u64> {
        for site in &self.sites {
            if sim.is_host_running(name(site.id)) && !site.wiped.get() {
                self.down_since.remove(&site.id);
            } else {
                self.down_since.entry(site.id).or_insert(tick);
            }
        }
        self.down_since.iter().filter(|(_, since)| tick - **since >= SILENT).map(|(id, _)| *id).collect()
    }

    /// What does not hold of nodes that were struck by an operator.
    pub(crate) fn judge(&self) -> Option<String> {
        self.sites.iter().find_map(|site| {
            let node = site.node.borrow();
            let serves = site.wiped.get() && node.as_ref()?.probe().applied.is_some();
            serves.then(|| format!("node {} has lost its disk, and takes part again", site.id))
        })
    }

    fn site(&self, id: u64) -> Option<Rc<Site>> {
        self.sites.iter().find(|site| site.id == id).cloned()
    }
}
