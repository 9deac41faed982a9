//! What an operator does to a cluster of the embedded engine, right and wrong, and what has to come of it: done, refused, or not known; and what
//! must not be done is not done.

use std::time::{Duration, Instant};

use storage_testkit::nemesis::{NemesisError, Victims};

use crate::{
    members::{Rotation, Step},
    node,
};

/// A node that was killed is silent for its leader after this time: twice as long as the leader takes.
const SILENT: Duration = Duration::from_secs(3);

/// What is to be done is done within this time: some elections, on a busy machine.
const DONE_WITHIN: Duration = Duration::from_secs(60);

/// How often it is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// A port at which no program listens: its service, `tcpmux`, is long gone.
const NOWHERE: u16 = 1;

/// The invariant of what an operator must not get done.
const REFUSED: &str = "what would lose the cluster is refused";

/// What an operator can do.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Leadership goes to any voter, the one that leads, or nobody.
    Transfer,
    /// A snapshot of each node.
    Snapshots,
    /// A voter that is alive is removed while another is down.
    RemoveLive,
    /// All voters are removed.
    RemoveAll,
    /// A learner that never ran is promoted.
    PromoteDead,
    /// Each voter in turn is given an address where nobody is, and then its own again.
    Readdress,
    /// A disk is emptied, its node starts with the same flags, and is replaced as it says.
    Wipe,
    /// A disk is restored from a snapshot of the cluster that runs, its node starts beside the others, and is replaced as it says.
    Restore,
    /// One node joins, another leaves.
    Rotate,
}

impl Act {
    const ALL: [Self; 9] = [
        Self::Transfer,
        Self::Snapshots,
        Self::RemoveLive,
        Self::RemoveAll,
        Self::PromoteDead,
        Self::Readdress,
        Self::Wipe,
        Self::Restore,
        Self::Rotate,
    ];
}

impl Rotation {
    /// One act, to its end.
    pub(super) async fn order(
        &mut self,
        victims: &mut Victims,
        rng: &mut fastrand::Rng,
    ) -> Result<Option<String>, NemesisError> {
        // What was begun comes first: it keeps the spare place.
        let act = if self.step == Step::Idle { rng.choice(Act::ALL) } else { Some(Act::Rotate) };
        let members: Vec<usize> = victims.members_now.iter().copied().collect();
        let (Some(act), Some(place)) = (act, rng.choice(members.iter().copied())) else { return Ok(None) };
        let others: Vec<usize> = members.iter().copied().filter(|other| *other != place).collect();
        match act {
            Act::Transfer => {
                // Of itself to itself, as often as to another.
                let to = match victims.leader().await.filter(|_| rng.bool()) {
                    Some(leader) => self.id(leader),
                    None => rng.u64(1..=self.next),
                };
                let said = self.tell(victims, &format!("transfer {to}")).await;
                Ok(Some(format!("transfer to {to}: {said}")))
            }
            Act::Snapshots => {
                let said = self.tell(victims, "snapshot").await;
                Ok(Some(format!("snapshot: {said}")))
            }
            Act::RemoveLive => {
                // As many are down as may be: with one less, no majority of those that stay is left.
                let mut down = others;
                rng.shuffle(&mut down);
                down.truncate(members.len().saturating_sub(1) / 2);
                for other in &down {
                    victims.cluster.kill(*other)?;
                }
                tokio::time::sleep(SILENT).await;
                let said = self.refused(victims, &format!("remove {}", self.id(place))).await;
                for other in &down {
                    victims.cluster.restart(*other)?;
                }
                Ok(Some(format!("removal of n{place} while {down:?} are down: {said}")))
            }
            Act::RemoveAll => {
                let ids: Vec<String> = members.iter().map(|place| self.id(*place).to_string()).collect();
                let said = self.refused(victims, &format!("remove {}", ids.join(" "))).await;
                Ok(Some(format!("removal of all: {said}")))
            }
            Act::PromoteDead => {
                let id = self.fresh();
                let node = victims.cluster.node(self.spare)?;
                let address = format!("{}:{}", node.context().host(), node.port("peer")?);
                if self.ask(victims, &format!("add {id} {address}")).await.is_none() {
                    return Ok(None);
                }
                let said = self.refused(victims, &format!("promote {id}")).await;
                self.until(victims, &format!("remove {id}"), id, false).await?;
                Ok(Some(format!("promotion of {id}, which never ran: {said}")))
            }
            Act::Readdress => self.readdress(victims, &members).await.map(Some),
            Act::Wipe => {
                victims.cluster.wipe(place)?;
                self.forgotten(victims, place, "lost its disk").await.map(Some)
            }
            Act::Restore => {
                if !self.restore(victims, place, &others).await? {
                    return Ok(None);
                }
                self.forgotten(victims, place, "was restored beside the others").await.map(Some)
            }
            Act::Rotate => {
                use storage_testkit::nemesis::ChangeMembers as _;
                self.change(victims, rng).await
            }
        }
    }

    /// So many are refused that the others are a majority, and can take it back.
    async fn readdress(&mut self, victims: &mut Victims, members: &[usize]) -> Result<String, NemesisError> {
        let mut moved = 0;
        for place in members {
            let nowhere = format!("{}:{NOWHERE}", victims.cluster.node(*place)?.context().host());
            moved += usize::from(self.tell(victims, &format!("address {} {nowhere}", self.id(*place))).await == "done");
        }
        if 2 * moved >= members.len() {
            victims.note(REFUSED, format!("{moved} of {} voters were given wrong addresses", members.len()));
        }
        for place in members {
            let node = victims.cluster.node(*place)?;
            let word = format!("address {} {}:{}", self.id(*place), node.context().host(), node.port("peer")?);
            let until = Instant::now() + DONE_WITHIN;
            while self.ask(victims, &word).await.is_none() {
                if Instant::now() >= until {
                    return Err(NemesisError::Members(format!("`{word}` is not done within {DONE_WITHIN:?}")));
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(format!("{moved} of {} voters were given wrong addresses, and their own again", members.len()))
    }

    /// In place of the disk of this node there is what another one has saved of the cluster. Whether one has.
    async fn restore(&self, victims: &mut Victims, place: usize, others: &[usize]) -> Result<bool, NemesisError> {
        let address = |place: &usize| {
            let node = victims.cluster.node(*place)?;
            Ok::<_, NemesisError>(format!("{}:{}", node.context().host(), node.port("peer")?))
        };
        let members = others.iter().chain([&place]).map(|place| Ok((self.id(*place), address(place)?)));
        let members: Vec<(u64, String)> = members.collect::<Result<_, NemesisError>>()?;
        let file = victims.cluster.node(place)?.context().dir().join("saved.snapshot");
        if self.ask(victims, &format!("save {}", file.display())).await.is_none() {
            return Ok(false);
        }
        victims.cluster.wipe(place)?;
        let dir = victims.cluster.node(place)?.data_dir();
        let restored = node::restore(&file, self.id(place), &dir, &members);
        restored.map_err(|error| NemesisError::Members(format!("a snapshot cannot be restored: {error}")))?;
        Ok(true)
    }

    /// The node at this place has forgotten what it did, and starts with the same flags. Then it is replaced, as its message says.
    async fn forgotten(&mut self, victims: &mut Victims, place: usize, how: &str) -> Result<String, NemesisError> {
        let old = self.id(place);
        victims.cluster.restart(place)?;
        let until = Instant::now() + DONE_WITHIN;
        while victims.cluster.is_running(place)? && Instant::now() < until {
            tokio::time::sleep(PAUSE).await;
        }
        if victims.cluster.is_running(place)? {
            victims.note("a node that has forgotten takes no part", format!("n{place} runs with id {old}"));
        } else if !victims.cluster.logs().contains("its directory is as it was before its first start") {
            victims.note("a refusal says why", format!("n{place} ended: {}", victims.cluster.logs()));
        }
        self.until(victims, &format!("remove {old}"), old, false).await?;
        let new = self.renew(victims, place)?;
        let node = victims.cluster.node(place)?;
        let address = format!("{}:{}", node.context().host(), node.port("peer")?);
        self.until(victims, &format!("add {new} {address}"), new, true).await?;
        self.until(victims, &format!("promote {new}"), new, true).await?;
        Ok(format!("n{place} {how}, was refused as {old}, and is back as {new}"))
    }

    /// Says something to the members, and what they say, in short.
    async fn tell(&self, victims: &Victims, word: &str) -> String {
        let mut said = Vec::new();
        match self.hear(victims, word, &mut said).await {
            Some(_) => "done".to_owned(),
            None => said.pop().map_or_else(|| "no answer".to_owned(), |last| last.chars().take(60).collect()),
        }
    }

    /// Asks for what must not be done.
    async fn refused(&self, victims: &mut Victims, word: &str) -> String {
        let said = self.tell(victims, word).await;
        if said == "done" {
            victims.note(REFUSED, format!("`{word}` was done"));
        }
        said
    }

    /// Asks again and again until the node of this id is where it is to be.
    async fn until(&self, victims: &Victims, word: &str, id: u64, is_there: bool) -> Result<(), NemesisError> {
        let (until, mut said) = (Instant::now() + DONE_WITHIN, Vec::new());
        let list = if word.starts_with("promote") { "voters" } else { "members" };
        loop {
            let listed = self.ask(victims, list).await;
            if listed.is_some_and(|ids| ids.split(' ').any(|listed| listed == id.to_string()) == is_there) {
                return Ok(());
            }
            if Instant::now() >= until {
                let last = said.pop().unwrap_or_default();
                return Err(NemesisError::Members(format!("`{word}` is not done within {DONE_WITHIN:?}: {last}")));
            }
            if self.hear(victims, word, &mut said).await.is_none() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
