//! What strikes a cluster: crashes, disks that fail or are slow, networks that are cut, held up or slow, changes of members and leaders.

mod operator;

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use storage_embedded::{
    Role,
    simulated::{Fault, Flaw, SimDisk, Survival, break_connections},
};
use turmoil::Sim;

use self::operator::Membership;
use crate::{
    plan::KINDS,
    shared::{Shared, name},
    site::{Order, Site},
};

/// When the first fault strikes, in ticks: a leader was elected mostly.
const BEGINS: u64 = 800;

/// How a link is disturbed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cut {
    /// What is sent is lost.
    Both,
    /// What the first sends to the second is lost.
    OneWay,
    /// What is sent waits until the end.
    Held,
}

/// What ends at some tick.
#[derive(Debug)]
enum Undo {
    Links(Vec<(String, String)>),
    Restart(Rc<Site>),
    Readable(Rc<Site>),
    /// What is asked of a node then, if it runs.
    Order(Rc<Site>, Order),
    Disk(Rc<Site>),
    Latency,
}

/// The one who strikes.
#[derive(Debug)]
pub(crate) struct Nemesis {
    rng: fastrand::Rng,
    shared: Rc<Shared>,
    sites: Vec<Rc<Site>>,
    /// All hosts, also those of the clients outside.
    hosts: Vec<String>,
    links: BTreeMap<(String, String), Cut>,
    undo: Vec<(u64, Undo)>,
    next: u64,
    members: BTreeMap<u64, Membership>,
    /// The last entry that any member was seen to know as committed: by it, or one before it, the members are what they are.
    members_by: Option<(u64, u64)>,
    /// Those that were ever to be removed, done or not.
    told_to_leave: BTreeSet<u64>,
    /// Since which tick a node has been down, or without its data.
    down_since: BTreeMap<u64, u64>,
    flaw: Option<Planted>,
    /// How often each kind struck.
    pub(crate) struck: BTreeMap<&'static str, u64>,
}

/// A defect that is planted to see that it is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Planted {
    /// One in the engine.
    Engine(Flaw),
    /// Disks say that they have synced, and have not.
    LyingDisk,
    /// A node that lost its power starts with an empty disk, and does not find out that it has run.
    EmptiedDisk,
}

impl Nemesis {
    pub(crate) fn new(
        rng: fastrand::Rng,
        shared: Rc<Shared>,
        sites: Vec<Rc<Site>>,
        outside: Vec<String>,
        flaw: Option<Planted>,
    ) -> Self {
        let hosts = sites.iter().map(|site| name(site.id)).chain(outside).collect();
        let founders = shared.plan.founders;
        let members =
            sites.iter().map(|site| (site.id, if site.id <= founders { Membership::Voter } else { Membership::Spare }));
        let members = members.collect();
        let (links, undo, struck) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        let (told_to_leave, down_since) = (BTreeSet::new(), BTreeMap::new());
        Self {
            rng,
            shared,
            sites,
            hosts,
            links,
            undo,
            next: BEGINS,
            members,
            members_by: None,
            told_to_leave,
            down_since,
            flaw,
            struck,
        }
    }

    /// Does what is due at this tick.
    pub(crate) fn act(&mut self, sim: &mut Sim<'_>, tick: u64) {
        self.finish(sim, tick);
        if self.flaw == Some(Planted::LyingDisk) && tick == BEGINS {
            self.sites.iter().for_each(|site| site.machine.disk().lie(true));
        }
        if tick == BEGINS {
            self.damage();
        }
        self.restart_fallen(sim, tick);
        if tick < self.next {
            return;
        }
        let gap = self.shared.plan.gap.clone();
        self.next = tick + self.rng.u64(gap);
        let kinds: Vec<u32> = (0..KINDS).filter(|kind| self.shared.plan.kinds & (1 << kind) != 0).collect();
        if let Some(kind) = self.rng.choice(kinds) {
            self.strike(sim, tick, kind);
        }
    }

    /// Ends everything, and lets every node run.
    pub(crate) fn heal(&mut self, sim: &mut Sim<'_>) {
        self.shared.event_log.record(format_args!("everything heals"));
        // First, or a node would be started that cannot read its disk.
        self.sites.iter().for_each(|site| site.machine.disk().deny(None));
        std::mem::take(&mut self.undo).into_iter().for_each(|(_, undo)| self.undo(sim, undo));
        for site in self.sites.clone() {
            site.machine.slow_down(self.shared.plan.disk);
            self.restart(sim, &site);
        }
    }

    /// Starts what has fallen without being struck any more; what fails on start tries again a little later.
    pub(crate) fn restart_fallen(&mut self, sim: &mut Sim<'_>, tick: u64) {
        for site in self.sites.clone() {
            let waits = self.undo.iter().any(|(_, undo)| matches!(undo, Undo::Restart(of) if Rc::ptr_eq(of, &site)));
            if !waits && !sim.is_host_running(name(site.id)) {
                let pause = self.rng.u64(10..800);
                // After a failure of its disk, the machine is looked after; or the process is just started again.
                if self.rng.bool() {
                    self.lose_power(&site);
                } else {
                    site.machine.kill();
                }
                self.undo.push((tick + pause, Undo::Restart(site)));
            }
        }
    }

    /// Ends what is due, and strikes no more.
    pub(crate) fn finish(&mut self, sim: &mut Sim<'_>, tick: u64) {
        let (due, later) = std::mem::take(&mut self.undo).into_iter().partition::<Vec<_>, _>(|(at, _)| *at <= tick);
        self.undo = later;
        due.into_iter().for_each(|(_, undo)| self.undo(sim, undo));
    }

    /// The voters, as the operator knows them.
    pub(crate) fn voters(&self) -> Vec<u64> {
        self.members.iter().filter(|(_, state)| **state == Membership::Voter).map(|(id, _)| *id).collect()
    }

    fn strike(&mut self, sim: &mut Sim<'_>, tick: u64, kind: u32) {
        let until = tick + self.rng.u64(self.shared.plan.lasting.clone());
        let Some(site) = self.rng.choice(self.sites.iter().cloned()) else { return };
        let site = &site;
        let what = match kind {
            0 => self.crash(sim, site, until, true),
            1 => self.crash(sim, site, until, false),
            2 => {
                for site in self.sites.clone() {
                    let back = tick + self.rng.u64(1..=(until - tick).max(1));
                    let power = self.rng.u8(..4) > 0;
                    self.crash(sim, &site, back, power);
                }
                "crash of all"
            }
            3 => match self.leader() {
                Some(leader) => {
                    let power = self.rng.bool();
                    self.crash(sim, &leader, until, power)
                }
                None => return,
            },
            // One that fails before the node starts is none of the node's.
            4 | 5 if !sim.is_host_running(name(site.id)) => return,
            4 => Self::fail_disk(site, self.rng.u64(..60), Fault::PowerLoss),
            5 => {
                let fault = if self.rng.bool() { Fault::Eio } else { Fault::Enospc };
                Self::fail_disk(site, self.rng.u64(..60), fault)
            }
            6 => self.halves(sim, until),
            7 => self.isolate(sim, site, until),
            8 => match self.leader() {
                Some(leader) => self.isolate(sim, &leader, until),
                None => return,
            },
            9 => self.cut_one(sim, until),
            10 => {
                let most = self.rng.u64(5..200);
                site.machine.slow_down(most);
                self.undo.push((until, Undo::Disk(Rc::clone(site))));
                "slow disk"
            }
            11 => {
                let most = self.shared.plan.latency.end + self.rng.u64(10..300);
                sim.set_max_message_latency(Duration::from_millis(most));
                self.undo.push((until, Undo::Latency));
                "slow network"
            }
            12 => {
                let to = self.rng.u64(1..=self.shared.plan.founders + self.shared.plan.spares);
                Self::order(site, Order::Transfer(to));
                "transfer of leadership"
            }
            13 => {
                Self::order(site, Order::Snapshot);
                "snapshot"
            }
            14..=16 => match self.change_members(site) {
                Some(what) => what,
                None => return,
            },
            17 => match self.wipe(sim, tick, until) {
                Some(what) => what,
                None => return,
            },
            18 => self.deny(sim, site, tick, until),
            19 => match self.remove_a_live_voter(sim, tick) {
                Some(what) => what,
                None => return,
            },
            20 => match self.order_anything(site) {
                Some(what) => what,
                None => return,
            },
            _ => match self.lead_and_lead_again(tick) {
                Some(what) => what,
                None => return,
            },
        };
        *self.struck.entry(what).or_default() += 1;
        self.shared.event_log.record(format_args!("fault: {what}"));
    }

    fn crash(&mut self, sim: &mut Sim<'_>, site: &Rc<Site>, until: u64, power: bool) -> &'static str {
        let host = name(site.id);
        if !sim.is_host_running(host.clone()) {
            return "crash in vain";
        }
        if power {
            self.lose_power(site);
            // A machine without power says no goodbye.
            if self.rng.bool() {
                let links =
                    self.hosts.iter().filter(|other| **other != host).map(|other| (host.clone(), other.clone()));
                let links = self.disturb(sim, links.collect(), Cut::Both);
                self.undo.push((until, Undo::Links(links)));
            }
        } else {
            site.machine.kill();
        }
        // What the node's tasks do while they are dropped is done to a disk that nobody will see again.
        site.orders.take();
        let node = site.node.take();
        sim.crash(host);
        drop(node);
        self.undo.push((until, Undo::Restart(Rc::clone(site))));
        if power { "loss of power" } else { "kill" }
    }

    fn lose_power(&mut self, site: &Rc<Site>) {
        let survival = match self.rng.u8(..4) {
            0 => Survival::Nothing,
            _ => Survival::Any(self.rng.u64(..)),
        };
        let machine = &site.machine;
        machine.lose_power(survival);
        if self.flaw == Some(Planted::EmptiedDisk) {
            machine.replace_disk(SimDisk::new(self.rng.u64(..)));
        }
    }

    fn fail_disk(site: &Site, after: u64, fault: Fault) -> &'static str {
        let disk = site.machine.disk();
        disk.fail_at(disk.operations() + after, fault);
        site.excused.set(true);
        match fault {
            Fault::PowerLoss => "loss of power at an operation",
            Fault::Enospc => "disk full",
            _ => "disk error",
        }
    }

    /// Two groups that do not reach each other, with the clients outside in either.
    fn halves(&mut self, sim: &mut Sim<'_>, until: u64) -> &'static str {
        let (one, other): (Vec<_>, Vec<_>) = self.hosts.clone().into_iter().partition(|_| self.rng.bool());
        let cut = self.any_cut();
        let links = one.iter().flat_map(|a| other.iter().map(|b| (a.clone(), b.clone()))).collect();
        let links = self.disturb(sim, links, cut);
        self.undo.push((until, Undo::Links(links)));
        "partition"
    }

    fn isolate(&mut self, sim: &mut Sim<'_>, site: &Rc<Site>, until: u64) -> &'static str {
        let host = name(site.id);
        let cut = self.any_cut();
        let inwards = self.rng.bool();
        let others = self.hosts.clone().into_iter().filter(|other| *other != host);
        let links = others.map(|other| if inwards { (other, host.clone()) } else { (host.clone(), other) }).collect();
        let links = self.disturb(sim, links, cut);
        self.undo.push((until, Undo::Links(links)));
        "isolation"
    }

    fn cut_one(&mut self, sim: &mut Sim<'_>, until: u64) -> &'static str {
        let ends = self.rng.choose_multiple(self.hosts.iter().cloned(), 2);
        let cut = self.any_cut();
        let links = match ends.as_slice() {
            [one, other] => vec![(one.clone(), other.clone())],
            _ => Vec::new(),
        };
        let links = self.disturb(sim, links, cut);
        self.undo.push((until, Undo::Links(links)));
        "cut of a link"
    }

    fn any_cut(&mut self) -> Cut {
        self.rng.choice([Cut::Both, Cut::OneWay, Cut::Held]).unwrap_or(Cut::Both)
    }

    /// Disturbs those of the links that are not disturbed yet, and says which.
    fn disturb(&mut self, sim: &mut Sim<'_>, links: Vec<(String, String)>, cut: Cut) -> Vec<(String, String)> {
        let mut disturbed = Vec::new();
        for (from, to) in links {
            let free = |links: &BTreeMap<_, _>| {
                !links.contains_key(&(from.clone(), to.clone())) && !links.contains_key(&(to.clone(), from.clone()))
            };
            if !free(&self.links) {
                continue;
            }
            match cut {
                Cut::Both => sim.partition(from.clone(), to.clone()),
                Cut::OneWay => sim.partition_oneway(from.clone(), to.clone()),
                Cut::Held => sim.hold(from.clone(), to.clone()),
            }
            self.shared.event_log.record(format_args!("{from} to {to}: {cut:?}"));
            self.links.insert((from.clone(), to.clone()), cut);
            disturbed.push((from, to));
        }
        disturbed
    }

    fn undo(&mut self, sim: &mut Sim<'_>, undo: Undo) {
        match undo {
            Undo::Links(links) => {
                for (from, to) in links {
                    self.shared.event_log.record(format_args!("{from} to {to}: healed"));
                    if self.links.remove(&(from.clone(), to.clone())) == Some(Cut::Held) {
                        sim.release(from, to);
                    } else {
                        sim.repair(from.clone(), to.clone());
                        // What was lost is not sent again here: the connections are given up, as after some silence.
                        break_connections(sim.lookup(from), sim.lookup(to));
                    }
                }
            }
            Undo::Restart(site) => self.restart(sim, &site),
            Undo::Readable(site) => site.machine.disk().deny(None),
            Undo::Order(site, order) => Self::order(&site, order),
            Undo::Disk(site) => site.machine.slow_down(self.shared.plan.disk),
            Undo::Latency => sim.set_max_message_latency(Duration::from_millis(self.shared.plan.latency.end)),
        }
    }

    fn restart(&mut self, sim: &mut Sim<'_>, site: &Rc<Site>) {
        let host = name(site.id);
        if sim.is_host_running(host.clone()) {
            return;
        }
        site.excused.set(site.machine.disk().denies());
        if self.flaw == Some(Planted::LyingDisk) {
            site.machine.disk().lie(true);
        }
        sim.bounce(host);
    }

    fn leader(&self) -> Option<Rc<Site>> {
        self.sites
            .iter()
            .find(|site| site.node.borrow().as_ref().is_some_and(|node| node.probe().role == Role::Leader))
            .cloned()
    }

    fn order(site: &Site, order: Order) {
        if let Some(orders) = &*site.orders.borrow() {
            // The node may be stopping.
            let _ = orders.send(order);
        }
    }
}
