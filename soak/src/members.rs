//! How nodes of the embedded engine join and leave a cluster that works.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use storage_testkit::nemesis::{ChangeMembers, NemesisError, Victims};

/// A change is tried for so long while faults strike; it goes on with the next one.
const PATIENCE: Duration = Duration::from_secs(6);

/// A change ends within this time when nothing strikes.
const SETTLES: Duration = Duration::from_secs(60);

/// How often a node is asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// The id that the node at each place has now. An id is never used for a second disk.
pub(super) type Ids = Arc<Mutex<Vec<u64>>>;

/// One place is spare; each change fills it with a new node and empties another.
pub(super) struct Rotation {
    pub(super) ids: Ids,
    pub(super) next: u64,
    pub(super) spare: usize,
    pub(super) step: Step,
}

/// What has been begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: the spare place is empty.
    Idle,
    /// The node at the spare place joins.
    Joining,
    /// It has joined, and the node at this place leaves.
    Leaving(usize),
}

impl Rotation {
    pub(super) fn id(&self, place: usize) -> u64 {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).get(place).copied().unwrap_or_default()
    }

    fn joins(&self) -> String {
        format!("n{} joins with id {}", self.spare, self.id(self.spare))
    }

    /// Goes on until the change is done or the time is over.
    async fn advance(&mut self, victims: &mut Victims, until: Instant) -> Result<bool, NemesisError> {
        while self.step != Step::Idle {
            if Instant::now() >= until {
                return Ok(false);
            }
            if !self.try_step(victims).await? {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(true)
    }

    async fn try_step(&mut self, victims: &mut Victims) -> Result<bool, NemesisError> {
        let Some(voters) = self.ask(victims, "voters").await else { return Ok(false) };
        let is_voter = |id: u64| voters.split(' ').any(|voter| voter == id.to_string());
        match self.step {
            Step::Idle => {}
            Step::Joining => {
                let id = self.id(self.spare);
                if is_voter(id) {
                    let leaves = victims.members_now.iter().copied().filter(|place| *place != self.spare);
                    let leaves: Vec<usize> = leaves.collect();
                    // Any: the last digit of a fresh id is as good as a die.
                    let leaves = leaves.get(usize::try_from(id).unwrap_or(0) % leaves.len().max(1)).copied();
                    self.step = leaves.map_or(Step::Idle, Step::Leaving);
                    return Ok(true);
                }
                let node = victims.cluster.node(self.spare)?;
                let address = format!("{}:{}", node.context().host(), node.port("peer")?);
                if self.ask(victims, &format!("add {id} {address}")).await.is_none() {
                    return Ok(false);
                }
                return Ok(self.ask(victims, &format!("promote {id}")).await.is_some());
            }
            Step::Leaving(place) => {
                let id = self.id(place);
                if is_voter(id) && self.ask(victims, &format!("remove {id}")).await.is_none() {
                    return Ok(false);
                }
                victims.members_now.remove(&place);
                victims.cluster.wipe(place)?;
                (self.spare, self.step) = (place, Step::Idle);
            }
        }
        Ok(true)
    }

    /// A node with a new id and an empty disk at this place, which belongs to no cluster yet.
    pub(super) fn renew(&mut self, victims: &mut Victims, place: usize) -> Result<u64, NemesisError> {
        let id = self.fresh();
        victims.cluster.wipe(place)?;
        if let Some(slot) = self.ids.lock().unwrap_or_else(PoisonError::into_inner).get_mut(place) {
            *slot = id;
        }
        victims.cluster.restart(place)?;
        Ok(id)
    }

    /// An id that no node ever had.
    pub(super) fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Asks one member after the other until one says `ok`, and returns what it says behind it.
    pub(super) async fn ask(&self, victims: &Victims, word: &str) -> Option<String> {
        let mut said = Vec::new();
        self.hear(victims, word, &mut said).await
    }

    /// As [`Rotation::ask`], with what those said that did not say `ok`.
    pub(super) async fn hear(&self, victims: &Victims, word: &str, said: &mut Vec<String>) -> Option<String> {
        const ANSWERS: Duration = Duration::from_secs(6);
        for place in &victims.members_now {
            // The one that joins knows the others only when they know it.
            if *place == self.spare && self.step == Step::Joining {
                continue;
            }
            let Ok(node) = victims.cluster.node(*place) else { continue };
            let word = format!("{word}\n");
            let asked = node.context().tcp_word("client", &word);
            if let Ok(Ok(answer)) = tokio::time::timeout(ANSWERS, asked).await {
                match answer.strip_prefix("ok") {
                    Some(rest) => return Some(rest.trim().to_owned()),
                    None => said.push(answer),
                }
            }
        }
        None
    }
}

#[async_trait]
impl ChangeMembers for Rotation {
    async fn change(&mut self, victims: &mut Victims, _: &mut fastrand::Rng) -> Result<Option<String>, NemesisError> {
        if self.step == Step::Idle {
            let place = self.spare;
            self.renew(victims, place)?;
            // From now on it may have a vote, so it has to be brought back if it dies.
            victims.members_now.insert(place);
            self.step = Step::Joining;
        }
        let joins = self.joins();
        let is_done = self.advance(victims, Instant::now() + PATIENCE).await?;
        Ok(is_done.then(|| format!("{joins}, n{} leaves", self.spare)))
    }

    async fn operate(
        &mut self,
        victims: &mut Victims,
        rng: &mut fastrand::Rng,
    ) -> Result<Option<String>, NemesisError> {
        self.order(victims, rng).await
    }

    async fn settle(&mut self, victims: &mut Victims) -> Result<Option<String>, NemesisError> {
        if self.step == Step::Idle {
            return Ok(None);
        }
        let joins = self.joins();
        if self.advance(victims, Instant::now() + SETTLES).await? {
            return Ok(Some(format!("{joins}, n{} leaves", self.spare)));
        }
        Err(NemesisError::Members(format!(
            "{:?} did not end within {SETTLES:?}\n{}",
            self.step,
            victims.cluster.logs()
        )))
    }
}
