//! Replicas with disks, links between them, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use storage_membership::{
    ClusterId,
    decide::{Action, Changes, Decision, Liveness, ReplicaView, Unclaimed, View, decide, voters_for},
    protocol::{Founding, Promises, Question, Reply, is_decided, is_majority, should_try, to_propose},
};

use super::raft::{Entry, Kind, Node, NodeId, members};

/// After so many steps without a word a replica is dead.
const DEAD_AFTER: u64 = 120;
const LIVE_WITHIN: u64 = 40;

/// How a life ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Settled,
    /// A majority of the voters lost their disks, so that nobody can go on.
    Lost,
    NeverFounded,
}

/// What is durable of a replica.
#[derive(Clone, Debug)]
struct Disk {
    incarnation: u64,
    promises: Promises,
    proposed: Option<ClusterId>,
    cluster: Option<ClusterId>,
    node: Option<Node>,
}

#[derive(Debug)]
struct Replica {
    id: u64,
    is_up: bool,
    /// Who has lost a disk is started with `join`.
    may_found: bool,
    disk: Disk,
    /// While its node leads: since when, and when it has heard of each replica and of each node.
    leads_since: u64,
    heard: BTreeMap<(u64, u64), u64>,
    acknowledged: BTreeMap<NodeId, u64>,
}

/// Whatever was once committed, by cluster and place: nobody may ever commit anything else there.
type Committed = BTreeMap<(ClusterId, usize), Entry>;

#[derive(Debug)]
pub(crate) struct World {
    rng: Rng,
    now: u64,
    replicas: Vec<Replica>,
    cut: BTreeSet<(usize, usize)>,
    leaving: BTreeSet<u64>,
    next: u64,
    committed: Committed,
    /// The one leader that has committed in a term.
    committers: BTreeMap<(ClusterId, u64), NodeId>,
    /// How far the history of each leader was looked at.
    noted: BTreeMap<(NodeId, u64), usize>,
    clusters: BTreeSet<ClusterId>,
    wiped: BTreeSet<NodeId>,
    pub(crate) changes: usize,
    /// How often the rows of the table were deleted.
    pub(crate) cleared: usize,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let count = rng.u64(1..=6);
        let mut world = Self {
            now: 0,
            replicas: Vec::new(),
            cut: BTreeSet::new(),
            leaving: BTreeSet::new(),
            next: 1,
            committed: BTreeMap::new(),
            committers: BTreeMap::new(),
            noted: BTreeMap::new(),
            clusters: BTreeSet::new(),
            wiped: BTreeSet::new(),
            changes: 0,
            cleared: 0,
            rng,
        };
        for id in 1..=count {
            let disk = world.empty_disk();
            // They start at random times.
            let is_up = world.rng.bool();
            let (heard, acknowledged) = (BTreeMap::new(), BTreeMap::new());
            world.replicas.push(Replica { id, is_up, may_found: true, disk, leads_since: 0, heard, acknowledged });
        }
        world
    }

    pub(crate) fn commits(&self) -> usize {
        self.committed.len()
    }

    pub(crate) fn step(&mut self) {
        let of = self.rng.usize(..self.replicas.len());
        match self.rng.u32(..1000) {
            0..=7 => self.crash(of),
            8..=30 => self.replicas[of].is_up = true,
            31 => self.wipe(of),
            32..=37 => self.partition(),
            38..=47 => self.cut.clear(),
            49 => self.clear_rows(of),
            48 if self.leaving.is_empty() && self.replicas.len() > 2 => {
                let id = self.replicas[of].id;
                self.leaving.insert(id);
            }
            _ => self.tick(of, true),
        }
        self.now += 1;
        self.check();
    }

    /// Everything is healed and nothing happens any more: what comes of it.
    pub(crate) fn quiet(&mut self) -> End {
        let end = self.heal();
        self.check_ids();
        end
    }

    fn heal(&mut self) -> End {
        self.cut.clear();
        self.replicas.iter_mut().for_each(|replica| replica.is_up = true);
        for _ in 0..3000 {
            let of = self.rng.usize(..self.replicas.len());
            self.tick(of, false);
            self.now += 1;
            self.check();
        }
        let leader = self.replicas.iter().filter_map(|replica| replica.disk.node.as_ref());
        // One that leads nobody leads on in its own eyes.
        let there: BTreeSet<_> =
            self.replicas.iter().filter_map(|replica| Some(replica.disk.node.as_ref()?.id)).collect();
        let leader = leader.filter(|node| node.leads && node.has_majorities(&there)).max_by_key(|node| node.term);
        let Some(leader) = leader else {
            return if self.clusters.is_empty() && self.replicas.iter().all(|replica| replica.disk.node.is_none()) {
                // Too few replicas may promise, or the one that was agreed on has lost its disk.
                let fresh = self.replicas.iter().filter(|replica| replica.may_found).count();
                let wiped = fresh < self.replicas.len();
                assert!(wiped, "nobody has lost a disk, and no cluster was founded: {self:#?}");
                End::NeverFounded
            } else {
                assert!(!self.wiped.is_empty(), "all disks are there, and nobody leads: {self:#?}");
                End::Lost
            };
        };
        let (_, sets, _) = leader.config().unwrap();
        let staying = self.replicas.iter().filter(|replica| !self.leaving.contains(&replica.id)).count();
        let without_cluster = self.replicas.iter().filter(|replica| replica.disk.cluster.is_none()).count();
        assert_eq!(without_cluster, 0, "not all have found the cluster: {self:#?}");
        assert_eq!(sets.len(), 1, "a joint change was left behind: {self:#?}");
        let lost: BTreeSet<_> = sets[0].difference(&there).copied().collect();
        // The last replica cannot leave.
        let voters = voters_for(staying)..=voters_for(staying + lost.len());
        assert!(voters.contains(&sets[0].len()), "voters of {staying} replicas: {self:#?}");
        // With its row gone, nobody knows that a voter has lost its disk: it keeps its seat until a spare is there.
        let may_be_lost = self.cleared > 0 && lost.is_subset(&self.wiped);
        assert!(lost.is_empty() || may_be_lost, "a voter that nobody runs: {self:#?}");
        End::Settled
    }

    /// A member that was removed is never one again.
    fn check_ids(&self) {
        let (mut now, mut gone) = (BTreeSet::new(), BTreeSet::new());
        for entry in self.committed.values() {
            if let Kind::Config { sets, learners } = &entry.kind {
                let members: BTreeSet<NodeId> = sets.iter().flatten().chain(learners).copied().collect();
                gone.extend(now.difference(&members).copied());
                assert!(members.is_disjoint(&gone), "an id is used again: {members:?} {gone:?}");
                now = members;
            }
        }
    }

    fn empty_disk(&mut self) -> Disk {
        let incarnation = self.mint();
        Disk { incarnation, promises: Promises::default(), proposed: None, cluster: None, node: None }
    }

    fn mint(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn crash(&mut self, of: usize) {
        let replica = &mut self.replicas[of];
        replica.is_up = false;
        if let Some(node) = &mut replica.disk.node {
            node.crash();
        }
    }

    fn wipe(&mut self, of: usize) {
        self.crash(of);
        self.wiped.extend(self.replicas[of].disk.node.as_ref().map(|node| node.id));
        let disk = self.empty_disk();
        (self.replicas[of].disk, self.replicas[of].may_found) = (disk, false);
    }

    /// A client deletes the rows of the table, as it can in an etcd.
    fn clear_rows(&mut self, of: usize) {
        if let Some(node) = self.replicas[of].disk.node.as_mut().filter(|node| node.leads) {
            node.append(Kind::Clear);
            self.cleared += 1;
        }
    }

    fn partition(&mut self) {
        let side: Vec<bool> = self.replicas.iter().map(|_| self.rng.bool()).collect();
        let one_way = self.rng.u32(..4) == 0;
        for from in 0..side.len() {
            for to in 0..side.len() {
                if side[from] != side[to] && (!one_way || side[from]) {
                    self.cut.insert((from, to));
                }
            }
        }
    }

    /// Whether a message arrives. Some are lost without a cut.
    fn arrives(&mut self, from: usize, to: usize, faults: bool) -> bool {
        let lost = faults && self.rng.u32(..20) == 0;
        self.replicas[from].is_up && self.replicas[to].is_up && !lost && !self.cut.contains(&(from, to))
    }

    fn tick(&mut self, of: usize, faults: bool) {
        if !self.replicas[of].is_up {
            return;
        }
        if self.replicas[of].disk.cluster.is_none() {
            return self.seek(of, faults);
        }
        if self.replicas[of].disk.node.as_ref().is_some_and(|node| node.leads) {
            self.lead(of, faults);
        } else if self.rng.u32(..8) == 0 {
            self.stand(of, faults);
        }
        self.tell(of, faults);
    }

    /// Looks for a cluster, and tries to found one.
    fn seek(&mut self, of: usize, faults: bool) {
        for other in 0..self.replicas.len() {
            let there = self.arrives(of, other, faults) && self.arrives(other, of, faults);
            // One that has a table answers.
            let known = self.replicas[other].disk.node.as_ref().filter(|node| node.commit > 0).is_some();
            if there && other != of && known {
                self.replicas[of].disk.cluster = self.replicas[other].disk.cluster;
                return;
            }
        }
        if self.replicas[of].may_found {
            self.found(of, faults);
        }
    }

    fn ask(&mut self, of: usize, question: Question, faults: bool) -> BTreeMap<u64, Reply> {
        let mut answers = BTreeMap::new();
        for other in 0..self.replicas.len() {
            let arrives = other == of || self.arrives(of, other, faults);
            // Those that join, and those that have a node, do not answer.
            let disk = &mut self.replicas[other].disk;
            if !arrives || disk.node.is_some() || !self.replicas[other].may_found {
                continue;
            }
            let disk = &mut self.replicas[other].disk;
            let answer = match disk.cluster {
                Some(cluster) => Reply::Exists(cluster),
                None => disk.promises.answer(question),
            };
            if other == of || self.arrives(other, of, faults) {
                answers.insert(self.replicas[other].id, answer);
            }
        }
        answers
    }

    fn found(&mut self, of: usize, faults: bool) {
        let (own, all) = (self.replicas[of].id, self.replicas.len());
        let greeted = self.ask(of, Question::Hello, faults);
        let exists = |answers: &BTreeMap<u64, Reply>| answers.values().any(|answer| matches!(answer, Reply::Exists(_)));
        if exists(&greeted) || !is_majority(greeted.len(), all) {
            return;
        }
        let proposed = self.replicas[of].disk.proposed;
        if !should_try(own, proposed.is_some(), greeted.keys().copied().filter(|id| *id != own)) {
            return;
        }
        let cluster = proposed.unwrap_or_else(|| ClusterId(u128::from(self.mint())));
        self.replicas[of].disk.proposed = Some(cluster);
        if self.dies(of, faults) {
            return;
        }
        let ballot = self.replicas[of].disk.promises.next_ballot(own);
        let promises = self.ask(of, Question::Prepare(ballot), faults);
        if exists(&promises) || self.dies(of, faults) {
            return;
        }
        let Some(founding) = to_propose(&promises, all, Founding { cluster, founder: own }) else { return };
        let accepted = self.ask(of, Question::Accept(ballot, founding), faults);
        if !is_decided(&accepted, all) || self.dies(of, faults) {
            return;
        }
        if founding == (Founding { cluster, founder: own }) {
            let id = self.mint();
            let mut node = Node::new(id);
            node.append(Kind::Config { sets: vec![[id].into()], learners: BTreeSet::new() });
            let disk = &mut self.replicas[of].disk;
            let incarnation = disk.incarnation;
            node.append(Kind::Register { replica: own, incarnation, node: Some(id) });
            node.append(Kind::Assign { node: id, replica: own, incarnation });
            (disk.cluster, disk.node) = (Some(cluster), Some(node));
            let _ = self.dies(of, faults);
        }
    }

    /// A crash at the worst moment.
    fn dies(&mut self, of: usize, faults: bool) -> bool {
        let dies = faults && self.rng.u32(..10) == 0;
        if dies {
            self.crash(of);
        }
        dies
    }

    /// Where a node is.
    fn place(&self, cluster: ClusterId, id: NodeId) -> Option<usize> {
        self.replicas.iter().position(|replica| {
            replica.disk.cluster == Some(cluster) && replica.disk.node.as_ref().is_some_and(|node| node.id == id)
        })
    }

    fn stand(&mut self, of: usize, faults: bool) {
        let cluster = self.replicas[of].disk.cluster.unwrap();
        let Some(node) = self.replicas[of].disk.node.as_mut() else { return };
        let (id, voters) = (node.id, node.voters());
        if !voters.contains(&id) {
            return;
        }
        // Nobody stands while a leader is heard of that a majority follows: as with a vote beforehand.
        let term = node.term;
        let followed = (0..self.replicas.len()).any(|other| {
            let leads = self.replicas[other].disk.node.as_ref().is_some_and(|node| node.leads && node.term >= term);
            leads && other != of && self.arrives(other, of, false) && self.arrives(of, other, false)
        });
        if followed {
            return;
        }
        let (term, last) = self.replicas[of].disk.node.as_mut().unwrap().stand();
        let mut granted: BTreeSet<NodeId> = [id].into();
        for voter in voters.into_iter().filter(|voter| *voter != id) {
            let Some(place) = self.place(cluster, voter) else { continue };
            if self.arrives(of, place, faults)
                && self.replicas[place].disk.node.as_mut().unwrap().vote(id, term, last)
                && self.arrives(place, of, faults)
            {
                granted.insert(voter);
            }
        }
        let now = self.now;
        let replica = &mut self.replicas[of];
        let node = replica.disk.node.as_mut().unwrap();
        if node.term == term && node.has_majorities(&granted) {
            node.lead();
            replica.leads_since = now;
            replica.heard.clear();
            replica.acknowledged.clear();
        }
    }

    fn lead(&mut self, of: usize, faults: bool) {
        let cluster = self.replicas[of].disk.cluster.unwrap();
        if self.rng.u32(..16) == 0 {
            let number = self.mint();
            self.replicas[of].disk.node.as_mut().unwrap().append(Kind::Write(number));
        }
        let node = self.replicas[of].disk.node.clone().unwrap();
        for member in node.members().into_iter().filter(|member| *member != node.id) {
            let Some(place) = self.place(cluster, member) else { continue };
            if !self.arrives(of, place, faults) {
                continue;
            }
            let received = self.replicas[place].disk.node.as_mut().unwrap().receive(node.term, &node.log, node.commit);
            if !self.arrives(place, of, faults) {
                continue;
            }
            let now = self.now;
            let leader = self.replicas[of].disk.node.as_mut().unwrap();
            match received {
                Ok(matched) => {
                    leader.matched.insert(member, matched);
                    self.replicas[of].acknowledged.insert(member, now);
                }
                Err(term) => return leader.step_down(term),
            }
        }
        let leader = self.replicas[of].disk.node.as_mut().unwrap();
        leader.advance();
        self.note_commit(of);
        self.look_after(of, faults);
    }

    /// Takes down what a leader has committed.
    fn note_commit(&mut self, of: usize) {
        let replica = &self.replicas[of];
        let (cluster, node) = (replica.disk.cluster.unwrap(), replica.disk.node.as_ref().unwrap());
        // A leader that has noted a place before holds the same there: it never changes its own log.
        let noted = self.noted.get(&(node.id, node.term)).copied().unwrap_or_default();
        self.noted.insert((node.id, node.term), node.commit);
        for at in noted..node.commit {
            let entry = self.committed.entry((cluster, at)).or_insert_with(|| node.log[at].clone());
            assert_eq!(*entry, node.log[at], "two histories at {at} of {cluster}");
        }
        if node.commit > 0 {
            self.clusters.insert(cluster);
            if node.log[node.commit - 1].term == node.term {
                let committer = *self.committers.entry((cluster, node.term)).or_insert(node.id);
                assert_eq!(committer, node.id, "two leaders commit in term {}", node.term);
            }
        }
    }

    fn check(&self) {
        assert!(self.clusters.len() <= 1, "two clusters accept writes: {:?}", self.clusters);
    }

    /// The loop of the leader.
    fn look_after(&mut self, of: usize, faults: bool) {
        let view = self.view(of);
        let node = self.replicas[of].disk.node.as_mut().unwrap();
        node.last_len = node.log.len();
        let Decision::Act(action) = decide(&view) else { return };
        self.changes += 1;
        let id = self.mint();
        let node = self.replicas[of].disk.node.as_mut().unwrap();
        let (_, sets, learners) = node.config().unwrap();
        let (sets, mut learners) = (sets.clone(), learners.clone());
        match action {
            Action::FinishJoint(voters) => node.append(Kind::Config { sets: vec![voters], learners }),
            Action::SetVoters(voters) => {
                learners.retain(|learner| !voters.contains(learner));
                node.append(Kind::Config { sets: vec![sets[0].clone(), voters], learners });
            }
            Action::AddLearner(replica) => {
                let (incarnation, _) = table(&node.log).0[&replica];
                learners.insert(id);
                node.append(Kind::Config { sets, learners });
                node.append(Kind::Assign { node: id, replica, incarnation });
            }
            Action::RemoveLearners(gone) => {
                learners.retain(|learner| !gone.contains(learner));
                node.append(Kind::Config { sets, learners });
            }
            Action::HandOver(to) => {
                let cluster = self.replicas[of].disk.cluster.unwrap();
                self.replicas[of].disk.node.as_mut().unwrap().leads = false;
                if let Some(place) = self.place(cluster, to) {
                    self.stand(place, faults);
                }
            }
        }
    }

    fn view(&self, of: usize) -> View {
        let replica = &self.replicas[of];
        let node = replica.disk.node.as_ref().unwrap();
        let (at, sets, learners) = node.config().unwrap();
        let (registered, assigned) = table(&node.log);
        let members = node.members();
        let replicas = registered.iter().map(|(id, (incarnation, claimed))| {
            let own = assigned.iter().filter(|(_, owner)| **owner == (*id, *incarnation)).map(|(node, _)| *node);
            let own = claimed.or(own.max());
            let member = own.filter(|own| members.contains(own));
            let beat = replica.heard.get(&(*id, *incarnation)).copied();
            let acknowledged = member.and_then(|member| replica.acknowledged.get(&member).copied());
            let vital = if member.is_some() { acknowledged } else { beat };
            let silent = self.now - beat.max(acknowledged).unwrap_or(replica.leads_since).max(replica.leads_since);
            let liveness = match vital.is_some_and(|at| self.now - at < LIVE_WITHIN) {
                _ if own == Some(node.id) => Liveness::Live,
                true => Liveness::Live,
                false if silent >= DEAD_AFTER => Liveness::Dead,
                false => Liveness::Silent,
            };
            (*id, ReplicaView { liveness, node: own, is_leaving: self.leaving.contains(id) })
        });
        let caught_up = node.matched.iter().filter(|(_, matched)| **matched >= node.last_len).map(|(id, _)| *id);
        let mut view = View {
            replicas: replicas.collect(),
            voter_sets: sets.clone(),
            learners: learners.clone(),
            caught_up: caught_up.chain([node.id]).collect(),
            is_committed: node.commit > at,
            leader: node.id,
            changes: Changes::Joint,
        };
        view.include_unclaimed(|member| {
            let owner = assigned.get(&member);
            let heard = replica.acknowledged.get(&member).copied();
            let silent = self.now - heard.unwrap_or(replica.leads_since).max(replica.leads_since);
            Unclaimed {
                replica: owner.map(|(replica, _)| *replica),
                liveness: match heard {
                    Some(_) if silent < LIVE_WITHIN => Liveness::Live,
                    _ if silent >= DEAD_AFTER => Liveness::Dead,
                    _ => Liveness::Silent,
                },
                is_leaving: owner.is_some_and(|(replica, _)| self.leaving.contains(replica)),
                has_lost_disk: owner.is_some_and(|(replica, incarnation)| {
                    registered.get(replica).is_some_and(|(now, _)| now != incarnation)
                }),
            }
        });
        view
    }

    /// Tells the leader that it lives, and does what the table says of it.
    fn tell(&mut self, of: usize, faults: bool) {
        let (own, cluster) = (self.replicas[of].id, self.replicas[of].disk.cluster);
        let leader = (0..self.replicas.len()).find(|other| {
            self.replicas[*other].disk.cluster == cluster
                && self.replicas[*other].disk.node.as_ref().is_some_and(|node| node.leads)
        });
        let Some(leader) = leader else { return };
        if leader != of && !(self.arrives(of, leader, faults) && self.arrives(leader, of, faults)) {
            return;
        }
        // A write or read of the table goes through only if the leader can commit.
        let before = self.replicas[leader].disk.node.as_ref().unwrap().commit;
        if self.replicas[leader].disk.node.as_ref().unwrap().log[..before].last().map(|entry| entry.term)
            != Some(self.replicas[leader].disk.node.as_ref().unwrap().term)
        {
            return;
        }
        let incarnation = self.replicas[of].disk.incarnation;
        let now = self.now;
        self.replicas[leader].heard.insert((own, incarnation), now);
        let claimed = self.replicas[of].disk.node.as_ref().map(|node| node.id);
        let node = self.replicas[leader].disk.node.as_mut().unwrap();
        if table(&node.log).0.get(&own) != Some(&(incarnation, claimed)) {
            node.append(Kind::Register { replica: own, incarnation, node: claimed });
        }
        let committed = &node.log[..node.commit];
        let ((_, assigned), members) = (table(committed), members(committed));
        match &self.replicas[of].disk.node {
            // By the members alone, whatever rows there are: a node begins when the change is committed that takes it in.
            Some(node) if !members.contains(&node.id) => {
                // It was removed: its data go, and whoever comes is another one.
                let incarnation = self.mint();
                let disk = &mut self.replicas[of].disk;
                (disk.node, disk.incarnation) = (None, incarnation);
            }
            Some(_) => {}
            None => {
                let given = assigned.iter().filter(|(_, owner)| **owner == (own, incarnation)).map(|(node, _)| *node);
                let given = given.filter(|node| members.contains(node)).max();
                self.replicas[of].disk.node = given.map(Node::new);
            }
        }
    }
}

/// The data directory of each replica, with the node that it claims.
type Registered = BTreeMap<u64, (u64, Option<NodeId>)>;

/// The replica of each node, and its data directory.
type Assigned = BTreeMap<NodeId, (u64, u64)>;

/// The table in a log.
fn table(log: &[Entry]) -> (Registered, Assigned) {
    let (mut registered, mut assigned) = (BTreeMap::new(), BTreeMap::new());
    for entry in log {
        match &entry.kind {
            Kind::Register { replica, incarnation, node } => drop(registered.insert(*replica, (*incarnation, *node))),
            Kind::Assign { node, replica, incarnation } => drop(assigned.insert(*node, (*replica, *incarnation))),
            Kind::Clear => (registered, assigned) = Default::default(),
            Kind::Blank | Kind::Write(_) | Kind::Config { .. } => {}
        }
    }
    (registered, assigned)
}
