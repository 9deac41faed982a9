//! Histories of a sound register: clients in closed loops whose operations take effect at a moment of their own.

use std::{cmp::Reverse, collections::BinaryHeap};

use bytes::Bytes;
use fastrand::Rng;
use storage_core::{Expected, Key, Version};
use storage_testkit::history::{Action, History, Operation, Outcome, Seen};

/// What the clients of one key do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Simulation {
    pub(crate) operations: usize,
    pub(crate) clients: usize,
    /// Of a hundred operations: reads, blind puts, deletes; the rest are swaps of what the client saw last.
    pub(crate) reads: u32,
    pub(crate) puts: u32,
    pub(crate) deletes: u32,
    /// Of a thousand answers, how many are lost.
    pub(crate) lost: u32,
    /// Whether the store tells versions; swaps compare values otherwise.
    pub(crate) versions: bool,
    /// Whether a conflict tells what is there.
    pub(crate) tells: bool,
    /// How many values there are; `None`: each put writes one of its own.
    pub(crate) values: Option<u32>,
}

/// Swaps of versions, as an optimistic service does them.
pub(crate) const SWAPS: Simulation = Simulation {
    operations: 1000,
    clients: 16,
    reads: 40,
    puts: 0,
    deletes: 0,
    lost: 0,
    versions: true,
    tells: true,
    values: None,
};

type Held = Option<(Bytes, Version)>;

struct Client {
    saw: Held,
    open: Operation,
    lost: bool,
}

impl Simulation {
    pub(crate) fn run(&self, key: &Key, rng: &mut Rng) -> Vec<Operation> {
        let (mut history, mut held, mut written) = (Vec::with_capacity(self.operations), Held::None, 0);
        // Time, client, and which moment of an operation it is: its call, its effect, its return.
        let mut moments: BinaryHeap<Reverse<(u64, usize, u8)>> =
            (0..self.clients).map(|client| Reverse((rng.u64(0..100), client, 0))).collect();
        let mut clients: Vec<Option<Client>> = (0..self.clients).map(|_| None).collect();
        let mut saw: Vec<Held> = vec![None; self.clients];
        while history.len() < self.operations {
            let Some(Reverse((now, number, moment))) = moments.pop() else { break };
            match moment {
                0 => {
                    written += 1;
                    let open = self.operation(key, now, number, &saw[number], written, rng);
                    let lost = rng.u32(0..1000) < self.lost;
                    clients[number] = Some(Client { saw: saw[number].clone(), open, lost });
                    moments.push(Reverse((now + rng.u64(20..1000), number, 1)));
                }
                1 => {
                    let client = clients[number].as_mut().unwrap();
                    // Half of the lost answers are of operations that were lost on the way.
                    if !client.lost || rng.bool() {
                        client.open.outcome = self.decide(&client.open, &mut held, written);
                        written += 1;
                    }
                    moments.push(Reverse((now + rng.u64(20..1000), number, 2)));
                }
                _ => {
                    let Client { mut open, lost, saw: before } = clients[number].take().unwrap();
                    open.end = Some(now);
                    saw[number] = learned(&open, before);
                    if lost {
                        open.outcome = Outcome::Unknown;
                        saw[number] = None;
                    }
                    history.push(open);
                    moments.push(Reverse((now + rng.u64(1..200), number, 0)));
                }
            }
        }
        // What is still under way may have taken effect.
        history.extend(clients.into_iter().flatten().map(|client| Operation {
            outcome: Outcome::Unknown,
            end: None,
            ..client.open
        }));
        history
    }

    fn operation(&self, key: &Key, now: u64, client: usize, saw: &Held, written: u64, rng: &mut Rng) -> Operation {
        let value = match self.values {
            Some(values) => u64::from(rng.u32(0..values)),
            None => written,
        };
        let put = Action::Put(Bytes::from(format!("v{value}")));
        let (guard, action) = match rng.u32(0..100) {
            dice if dice < self.reads => (Expected::Any, Action::Read),
            dice if dice < self.reads + self.puts => (Expected::Any, put),
            dice if dice < self.reads + self.puts + self.deletes => (Expected::Any, Action::Delete),
            _ => match saw {
                None => (Expected::Absent, put),
                Some((_, version)) if self.versions => (Expected::Version(*version), put),
                Some((value, _)) => (Expected::Value(value.clone()), put),
            },
        };
        let (process, start, end, key) = (client as u64, now, None, key.clone());
        Operation { process, start, end, key, guard, action, outcome: Outcome::Unknown, txn: None, id: None }
    }

    fn decide(&self, operation: &Operation, held: &mut Held, written: u64) -> Outcome {
        let told = |version: Version| self.versions.then_some(version);
        let seen = match held {
            None => Seen::Absent,
            Some((value, version)) => Seen::Present { value: value.clone(), version: told(*version) },
        };
        if !operation.guard.holds(held.as_ref().map(|(value, version)| (value.as_ref(), *version))) {
            return Outcome::Conflict { seen: if self.tells { seen } else { Seen::Untold } };
        }
        let version = Version::from_u64(written);
        match &operation.action {
            Action::Read => return Outcome::Ok { seen, version: None },
            Action::Put(value) => *held = Some((value.clone(), version)),
            Action::Delete => *held = None,
        }
        let version = told(version).filter(|_| operation.action != Action::Delete);
        Outcome::Ok { seen: Seen::Untold, version }
    }
}

/// What a client knows after an operation, for its next swap.
fn learned(operation: &Operation, before: Held) -> Held {
    let none = Version::from_u64(0);
    match (&operation.outcome, &operation.action) {
        (Outcome::Ok { seen: Seen::Present { value, version }, .. }, _)
        | (Outcome::Conflict { seen: Seen::Present { value, version } }, _) => {
            Some((value.clone(), version.unwrap_or(none)))
        }
        (Outcome::Ok { version, .. }, Action::Put(value)) => Some((value.clone(), version.unwrap_or(none))),
        (Outcome::Conflict { seen: Seen::Untold }, _) => before,
        _ => None,
    }
}

pub(crate) fn history(simulation: &Simulation, keys: usize, rng: &mut Rng) -> History {
    let runs = (0..keys).flat_map(|key| simulation.run(&Key::new(format!("key/{key}")).unwrap(), rng));
    History::new(runs.collect())
}
