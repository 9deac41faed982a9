//! Whether a node may take part: one whose disk is empty neither votes nor answers before it is known that it has never run.
//!
//! One that was removed does neither any more. docs/decisions/0012-first-start.md has the argument for the first, `belonging` for the second. Whoever counts a node's vote or entries has it among its voters, and a voter has data: so it
//! says in its greeting that it knows the node to have run, and a node without data that hears this has lost its disk.

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use openraft::{
    alias::{SnapshotOf, WatchReceiverOf},
    async_runtime::watch::WatchReceiver,
    metrics::RaftMetrics,
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use super::{
    belonging::{Belonging, Known, MembershipClaim},
    hello::{Channel, Hello},
    message::Standing,
    refused::Refused,
};
use crate::{
    Refusal, host,
    log::{IdentityFile, Log, Phase},
    raft::{LogId, Member, TypeConfig},
    snapshot::{SnapshotFile, SnapshotStore},
    state_machine::SharedState,
};

/// How long a call of a member waits until this node has founded the cluster, too.
const BEGINS_WITHIN: Duration = Duration::from_secs(2);

/// Why a node must not go on, as it has learnt from another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It has no data, and this node knows that it has run.
    Forgot { by: u64 },
    /// It has founded its cluster alone, and this node is of an older one, of which it was a voter.
    Refounded { by: u64 },
    /// It has no data, and this node was restored from a snapshot and has not begun yet.
    NotRestored { by: u64 },
    /// It was restored, and so was this node, from something else. Neither has begun.
    RestoredOtherwise { by: u64 },
    /// After this entry its state is not that of the others.
    Differs { index: u64 },
    /// The members of this committed entry are without it, and it was one before.
    Removed { by: u64, at: u64 },
}

/// What raft tells of itself.
struct Metrics(WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.borrow_watched().fmt(f)
    }
}

/// What a node may do, by how far it has come.
#[derive(Debug)]
pub(crate) struct Admission {
    node: u64,
    identity: Arc<IdentityFile>,
    log: Log,
    snapshots: SnapshotStore,
    state: SharedState,
    /// The node is told to found a cluster with others, or was restored to do so, and does not wait to be taken in.
    founds: bool,
    /// What raft knows of the members; set when it has been made.
    metrics: OnceLock<Metrics>,
    phase: watch::Sender<Phase>,
    verdict: watch::Sender<Option<Verdict>>,
    /// Rung when a member calls while this node still founds: one that has begun is there.
    pub(crate) called: Notify,
    /// Whom a node that founds waits for, in words.
    pub(crate) waits: Mutex<Option<String>>,
}

impl Admission {
    pub(crate) fn new(
        node: u64,
        founds: bool,
        identity: Arc<IdentityFile>,
        log: Log,
        snapshots: SnapshotStore,
        state: SharedState,
    ) -> Self {
        let phase = watch::Sender::new(identity.phase());
        let (metrics, verdict) = (OnceLock::new(), watch::Sender::new(None));
        let (called, waits) = (Notify::new(), Mutex::default());
        let mut admission =
            Self { node, identity, log, snapshots, state, founds, metrics, phase, verdict, called, waits };
        admission.founds |= admission.is_only_restored();
        admission
    }

    /// Those that this node founds its cluster with, of which it is one: none, if it waits to be taken in. A snapshot that was restored names them.
    pub(crate) fn founders(&self, configured: &BTreeMap<u64, Member>) -> BTreeMap<u64, Member> {
        if !self.is_only_restored() {
            return configured.clone();
        }
        self.state.read(|replica| replica.membership.membership().nodes().map(|(id, at)| (*id, at.clone())).collect())
    }

    /// From now on this is what raft knows.
    pub(crate) fn follow(&self, metrics: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>) {
        assert!(self.metrics.set(Metrics(metrics)).is_ok(), "a node has one raft");
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Whether the log does not have the entry any more that follows this one.
    pub(crate) fn has_given_up_after(&self, prev: Option<LogId>) -> bool {
        self.log.purged() > prev
    }

    /// What the data of this node began with: 0, or a hash of the snapshot that it was restored from. Nodes with different ones refuse each other.
    pub(crate) fn origin(&self) -> u128 {
        self.identity.origin()
    }

    /// What this node tells who founds a cluster with it.
    pub(crate) fn standing(&self) -> Standing {
        // Who founds asks whether this node has begun. That it was removed since is no matter of theirs.
        Standing { phase: self.phase().min(Phase::Begun), origin: self.origin() }
    }

    /// Whether there is anything that could be forgotten.
    pub(crate) fn has_data(&self) -> bool {
        // An operator may ask a node for a snapshot before it has anything: there is nothing in it.
        let has_entries = |snapshot: SnapshotOf<TypeConfig, SnapshotFile>| snapshot.meta.last_log_id.is_some();
        !self.log.is_untouched() || self.snapshots.newest().is_some_and(has_entries)
    }

    /// Whether it was restored from a snapshot, and has not begun. Whoever has begun has voted; one that founded a cluster alone may have died with
    /// its founding entry written and before it voted.
    pub(crate) fn is_only_restored(&self) -> bool {
        let is_restored = self.origin() != 0 && !self.identity.founded_alone();
        self.phase() < Phase::Begun && is_restored && self.has_data() && !self.log.has_voted()
    }

    /// The node has come so far. It is on stable storage when this returns.
    pub(crate) fn advance(&self, phase: Phase) -> io::Result<()> {
        self.identity.advance(phase, self.identity.origin()).map_err(io::Error::other)?;
        self.phase.send_replace(phase);
        Ok(())
    }

    /// The node founds a cluster alone, and begins with a number that it draws: if it is ever founded anew, those that know it tell the two apart.
    /// It is on stable storage when this returns.
    pub(crate) fn found_alone(&self) -> io::Result<()> {
        self.identity.found_alone(host::random_origin()?).map_err(io::Error::other)?;
        self.phase.send_replace(Phase::Prepared);
        Ok(())
    }

    /// Ends the node. The first verdict stays.
    pub(crate) fn condemn(&self, verdict: Verdict) {
        self.verdict.send_if_modified(|first| first.is_none() && first.replace(verdict).is_none());
    }

    /// The verdict, if there is one already.
    pub(crate) fn condemned(&self) -> Option<Verdict> {
        *self.verdict.borrow()
    }

    /// Waits for the verdict, for ever if there is none.
    #[expect(clippy::expect_used, reason = "both are invariants")]
    pub(crate) async fn verdict(&self) -> Verdict {
        let mut verdict = self.verdict.subscribe();
        let found = verdict.wait_for(Option::is_some).await.expect("the sender is here");
        found.expect("it was waited for")
    }

    /// What this node says of its own place when it calls.
    pub(crate) fn membership_claim(&self) -> MembershipClaim {
        let member_since = self.identity.member_since();
        let Some(metrics) = self.metrics.get() else { return MembershipClaim { member_since, named_at: None } };
        let metrics = metrics.0.borrow_watched();
        let last = &metrics.membership_config;
        let named_at = last.membership().get_node(&self.node).and(last.log_id().as_ref()).map(|id| id.index);
        MembershipClaim { member_since, named_at }
    }

    /// Whether a caller belongs to the cluster that has proved the token.
    pub(crate) fn judge(&self, hello: &Hello) -> Belonging {
        if self.was_refounded(hello) {
            self.condemn(Verdict::Refounded { by: hello.from });
            return Belonging::Unknown;
        }
        // The caller hears the same of this node, in the answer.
        if hello.channel == Channel::Founding && self.was_restored_otherwise(hello.origin) {
            self.condemn(Verdict::RestoredOtherwise { by: hello.from });
        }
        let names = |node: &u64| {
            let metrics = self.metrics.get().map(|metrics| metrics.0.borrow_watched());
            metrics.is_some_and(|metrics| metrics.membership_config.membership().get_node(node).is_some())
        };
        let known = Known { applied: self.applied_members(hello.from), in_log: names(&hello.from) };
        match Belonging::of(hello.claim, known) {
            // Who founds a cluster asks before it knows any member.
            Belonging::Unknown if hello.channel == Channel::Founding => Belonging::Admitted,
            belonging => belonging,
        }
    }

    /// The last entry with members that this node has applied, and whether that names a node.
    fn applied_members(&self, node: u64) -> Option<(u64, bool)> {
        self.state.read(|replica| {
            let at = replica.membership.log_id().as_ref().map(|id: &LogId| id.index)?;
            Some((at, replica.membership.membership().get_node(&node).is_some()))
        })
    }

    /// Hears from a member that was called what that knows of this node.
    ///
    /// # Errors
    /// If it does not let this node in; those of the disk.
    pub(crate) fn hear(&self, by: u64, belonging: Belonging) -> io::Result<()> {
        match belonging {
            Belonging::Admitted => Ok(()),
            Belonging::Unknown => Err(Refused::new(
                Refusal::ByOther,
                format!("node {} is no member of the cluster as far as node {by} knows", self.node),
            )
            .into()),
            Belonging::Removed { at } => {
                // It answers what was claimed. An answer to something else proves nothing.
                if self.identity.member_since().is_none_or(|since| since >= at) {
                    return Err(Refused::new(Refusal::Protocol, "a removal that is older than the membership").into());
                }
                self.condemn_removed(by, at)?;
                Err(Refused::new(Refusal::ByOther, "this node was removed from its cluster").into())
            }
        }
    }

    /// Looks what the members that were applied here last say of this node: that it is one, which it remembers, or that it was removed.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn look(&self) -> io::Result<()> {
        match (self.applied_members(self.node), self.identity.member_since()) {
            (Some((at, true)), None) => self.identity.note_member(at).map_err(io::Error::other),
            (Some((at, false)), Some(since)) if since < at => self.condemn_removed(self.node, at),
            _ => Ok(()),
        }
    }

    /// On stable storage first: whatever becomes of this process, the node never answers again.
    fn condemn_removed(&self, by: u64, at: u64) -> io::Result<()> {
        self.identity.remove(at).map_err(io::Error::other)?;
        self.phase.send_replace(Phase::Removed);
        self.condemn(Verdict::Removed { by, at });
        Ok(())
    }

    /// Whether this node knows that another one has data. A voter has: founders begin with an entry, and a learner is promoted only
    /// after it has acknowledged one. So has who has acknowledged something to this leader.
    ///
    /// One that was restored has all founders among its voters, and knows nothing of them before it has begun.
    pub(crate) fn knows_to_have_run(&self, other: u64) -> bool {
        if self.founds && self.phase() < Phase::Begun {
            return false;
        }
        let Some(metrics) = self.metrics.get() else { return false };
        let metrics = metrics.0.borrow_watched();
        let acknowledged =
            metrics.replication.as_ref().and_then(|matched| matched.get(&other)).is_some_and(Option::is_some);
        acknowledged || metrics.membership_config.membership().voter_ids().any(|voter| voter == other)
    }

    /// Refuses the nodes whose data began with something else. One that has no data yet takes over what the cluster began with.
    pub(crate) fn check_origin(&self, hello: &Hello) -> Result<(), Refused> {
        // What a node that was founded anew has to hear is judged when the token is proved.
        if !self.founds && self.phase() == Phase::New || self.was_refounded(hello) {
            return Ok(());
        }
        self.compare_origin(hello.from, hello.origin)
    }

    /// Whether this node has founded a cluster alone, with nothing, and the caller knows it as a voter of another: then that was lost with its disk.
    fn was_refounded(&self, hello: &Hello) -> bool {
        self.identity.founded_alone() && hello.has_run && hello.origin != self.origin()
    }

    /// Whether this node and one that founds a cluster with it were restored from different things. A node that is prepared has heard of each of the
    /// others that it was not so: a later one that was restored anew is wrong, and not this node.
    pub(crate) fn was_restored_otherwise(&self, other: u128) -> bool {
        let own = self.origin();
        self.founds && self.phase() == Phase::New && own != 0 && other != 0 && own != other
    }

    /// Refuses a node whose data began with something else.
    pub(crate) fn compare_origin(&self, other: u64, origin: u128) -> Result<(), Refused> {
        let own = self.origin();
        if origin == own {
            return Ok(());
        }
        Err(Refused::new(Refusal::OtherOrigin, differ((self.node, own), (other, origin))))
    }

    /// Lets a caller in that has proved the token, or finds out that this node has lost its disk.
    pub(crate) async fn admit(&self, hello: &Hello) -> io::Result<()> {
        if self.phase() == Phase::Removed {
            return Err(io::Error::other("this node was removed from its cluster"));
        }
        // One that was restored has data, and founds its cluster like one that has none.
        if self.has_data() && !(self.founds && self.phase() < Phase::Begun) {
            return Ok(());
        }
        #[cfg(simulated)]
        if crate::simulated::is_planted(crate::simulated::Flaw::ForgottenDisk) {
            // Whoever calls, it is taken for one that takes in a new node.
            if self.phase() == Phase::New {
                self.identity.advance(Phase::Prepared, hello.origin).map_err(io::Error::other)?;
                self.phase.send_replace(Phase::Prepared);
            }
            return Ok(());
        }
        match (self.founds, self.phase()) {
            (true, Phase::Prepared) => {
                self.called.notify_one();
                let mut phase = self.phase.subscribe();
                let begun = timeout(BEGINS_WITHIN, phase.wait_for(|phase| *phase == Phase::Begun)).await;
                begun.map(drop).map_err(|_| io::Error::other("this node has not founded its cluster yet"))
            }
            _ if hello.has_run => {
                self.condemn(Verdict::Forgot { by: hello.from });
                Err(io::Error::other("this node has lost its data"))
            }
            (true, _) => Err(io::Error::other("this node has not founded its cluster yet")),
            (false, _) => {
                // Before the first thing that it could forget.
                self.identity.advance(Phase::Prepared, hello.origin).map_err(io::Error::other)?;
                self.phase.send_replace(Phase::Prepared);
                Ok(())
            }
        }
    }
}

/// Of which two nodes the data began with different things, in words.
fn differ((called, own): (u64, u128), (caller, other): (u64, u128)) -> String {
    match (own, other) {
        (0, _) => format!("node {caller} was restored from a snapshot, or founded alone, and node {called} was not"),
        (_, 0) => format!("node {called} was restored from a snapshot, or founded alone, and node {caller} was not"),
        _ => format!(
            "node {called} was restored from another snapshot than node {caller}, or with another addition to the revision, or one of them was founded \
             anew"
        ),
    }
}
