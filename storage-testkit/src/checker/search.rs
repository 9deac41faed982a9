//! The search for an order: just-in-time linearization with memoised configurations.
//!
//! Gavin Lowe, "Testing for linearizability", 2017. A configuration is a state of the key together with the set of open
//! operations that have taken effect in it. Calls open operations; at each return, every configuration is carried on until
//! the returning operation has taken effect, in every order of open operations that their answers permit. If no
//! configuration is left, there is no order. Five rules keep the configurations few:
//!
//! 1. A completed operation that can change nothing takes effect as soon as it is legal: an order in which it does so
//!    later stays an order when it is moved here.
//! 2. Of open operations with the same condition and effect, the one that returns first goes first: in any order, two of
//!    them can change places.
//! 3. An unknown operation that was not yet needed can be needed later or never. So of two configurations that differ only in
//!    the unknown operations they used, the one that used fewer replaces the other. And of two with the same effect, one with a
//!    guard is used before one without, which may still serve where the other cannot.
//! 4. A version comes once, and so does a state that one operation alone can make. As long as a completed operation, open or still to be called, has to
//!    find it, it cannot be left; and once one that found it has returned, it cannot be made again.
//! 5. States that no operation asks for are one state.

#![expect(clippy::indexing_slicing, reason = "each number is a place in the table that gave it")]

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hash, Hasher},
};

use super::steps::{ABSENT, Condition, Effect, KeySteps, OTHER, State, Step, id};

/// The most completed operations that are open at one time: the bits of a set of them. Far more clients than any test has on one key.
pub(super) const MAX_OPEN: usize = 128;

/// How many times the most configurations of one return may be looked at in all: half a minute with the default.
const WORK_TO_LIMIT: usize = 20;

/// What was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Finding {
    /// There is an order.
    Linearizable,
    /// There is none: at the return of the step with this source, no configuration was left.
    Violation { at: usize },
    /// More configurations than were permitted, or more open operations than [`MAX_OPEN`].
    Undecided,
}

/// A state, with what has taken effect in it of what is open.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Configuration {
    state: State,
    /// Completed operations, by their bits.
    done: u128,
    /// Unknown operations, in order; behind them, as numbers beyond those of the steps, states that must not be made again.
    /// Nothing is allocated for the usual empty set.
    used: Box<[u32]>,
}

/// Searches an order of `steps`, which are of the key that `key` has the names of. `limit` bounds the configurations at one return.
/// `tick` is told after each return.
pub(super) fn search(key: &KeySteps, steps: &[Step], limit: usize, tick: &mut dyn FnMut()) -> Finding {
    let numbered = || (0_u32..).zip(steps);
    let mut calls: Vec<(u64, u32)> = numbered().map(|(number, step)| (step.call, number)).collect();
    let answered = numbered().filter(|(_, step)| !step.is_unknown());
    let mut returns: Vec<(u64, u32)> = answered.map(|(number, step)| (step.ret, number)).collect();
    // Histories come nearly sorted, by one or the other, and a stable sort makes use of that.
    calls.sort();
    returns.sort();

    let mut search = Search::new(key, steps, limit);
    let mut calls = calls.into_iter().peekable();
    for (now, number) in returns {
        // A call at the moment of a return comes first: the intervals are closed.
        while let Some((_, called)) = calls.next_if(|(call, _)| *call <= now) {
            if !search.call(called) {
                return Finding::Undecided;
            }
        }
        match search.ret(number, now) {
            Ok(true) => tick(),
            Ok(false) => return Finding::Violation { at: steps[number as usize].source as usize },
            Err(TooMany) => return Finding::Undecided,
        }
    }
    Finding::Linearizable
}

/// More configurations than the limit.
struct TooMany;

struct Search<'a> {
    key: &'a KeySteps,
    steps: &'a [Step],
    limit: usize,
    /// The configurations of all returns so far.
    work: usize,
    facts: Vec<Facts>,
    /// For each step, the class of those with the same condition and effect; [`UNIQUE`] if it is alone.
    class: Vec<u32>,
    /// For each step, the class of those with the same effect.
    effect: Vec<u32>,
    /// For each class, when one of it was offered; for those of effects, when one that has a guard.
    offered: Vec<u64>,
    offered_effect: Vec<u64>,
    offers: u64,
    /// The bits that no open step has.
    free: u128,
    /// The open completed steps, the first to return first.
    open: Vec<Open>,
    /// The open unknown steps, those with guards before the others, the first called first.
    unknown: Vec<u32>,
    /// How many unknown steps make it worth while to look for those that cannot matter any more.
    sweep_at: usize,
    configurations: Vec<Configuration>,
    visited: Visited,
    kept: Visited,
    waiting: Vec<Configuration>,
    /// Those that used one unknown step more: their turn comes when those with fewer are through, so that rule 3 finds fewer first.
    later: Vec<Configuration>,
}

/// A completed step that is open.
#[derive(Clone, Copy)]
struct Open {
    number: u32,
    /// Its bit in [`Configuration::done`].
    mask: u128,
    step: Step,
}

/// What is known of a state from the steps.
#[derive(Clone, Copy, Default)]
struct Facts {
    /// Which state it is to the search: itself, or [`OTHER`].
    same_as: State,
    /// The first state with the same version, itself if it has none: there the next four facts are, since they are of the version.
    first: State,
    /// How many steps can make it.
    makers: u32,
    /// When the last of them returns.
    made_until: u64,
    /// There is a completed step that has to find it.
    wanted: bool,
    /// Such a step has returned.
    was_found: bool,
    /// It comes at most once.
    once: bool,
    /// When the last completed step is called that has to find it.
    wanted_until: u64,
}

const UNIQUE: u32 = u32::MAX;
/// Fewer unknown steps than this cost nothing.
const FIRST_SWEEP: usize = 8;

impl<'a> Search<'a> {
    fn new(key: &'a KeySteps, steps: &'a [Step], limit: usize) -> Self {
        let facts = facts(key, steps);
        let effect = |step: &Step| match step.effect {
            Effect::Set(state) => Effect::Set(facts[state as usize].same_as),
            other => other,
        };
        let (class, contents) = classes(steps, |step| (step.guard, step.seen, effect(step), step.again));
        let (effect, effects) = classes(steps, effect);
        Self {
            key,
            steps,
            limit,
            work: 0,
            facts,
            class,
            effect,
            offered: vec![0; contents],
            offered_effect: vec![0; effects],
            offers: 0,
            free: u128::MAX,
            open: Vec::new(),
            unknown: Vec::new(),
            sweep_at: FIRST_SWEEP,
            configurations: vec![Configuration { state: ABSENT, done: 0, used: Box::default() }],
            visited: Visited::default(),
            kept: Visited::default(),
            waiting: Vec::new(),
            later: Vec::new(),
        }
    }

    /// Opens a step. Answers whether there was room.
    fn call(&mut self, number: u32) -> bool {
        let step = &self.steps[number as usize];
        if step.is_unknown() {
            let place = match step.guard {
                Condition::Any => self.unknown.len(),
                _ => self.unknown.partition_point(|other| self.steps[*other as usize].guard != Condition::Any),
            };
            self.unknown.insert(place, number);
            return true;
        }
        if self.free == 0 {
            return false;
        }
        let mask = 1 << self.free.trailing_zeros();
        self.free &= !mask;
        let place = self.open.partition_point(|other| (other.step.ret, other.number) < (step.ret, number));
        self.open.insert(place, Open { number, mask, step: *step });
        true
    }

    /// Carries every configuration on until the step has taken effect, and closes it. Answers whether one is left.
    fn ret(&mut self, number: u32, now: u64) -> Result<bool, TooMany> {
        // Steps return in the order in which they stand here.
        let Open { number: first, mask: returning, step } = self.open[0];
        assert_eq!(first, number, "calls and returns are in one order");
        let mut before = std::mem::take(&mut self.configurations);
        for configuration in &mut before {
            self.settle(configuration);
        }
        if before.iter().all(|configuration| configuration.done & returning != 0) && before.len() == 1 {
            self.configurations = before;
        } else {
            self.carry_on(before, returning, now)?;
        }
        for configuration in &mut self.configurations {
            configuration.done &= !returning;
        }
        self.open.remove(0);
        self.free |= returning;
        if let Some(state) = step.needs() {
            let first = self.facts[state as usize].first;
            self.facts[first as usize].was_found = true;
        }
        if !self.unknown.is_empty() {
            self.forget(now);
        }
        Ok(!self.configurations.is_empty())
    }

    /// Rule 1.
    fn settle(&self, configuration: &mut Configuration) {
        for Open { step, mask, .. } in &self.open {
            if step.effect == Effect::Keep && self.key.is_legal(step, configuration.state) {
                configuration.done |= mask;
            }
        }
    }

    /// Leaves in `configurations` what can be reached from `before` with `returning` done.
    fn carry_on(&mut self, before: Vec<Configuration>, returning: u128, now: u64) -> Result<(), TooMany> {
        self.visited.clear();
        self.kept.clear();
        for configuration in before {
            if self.visited.insert(&configuration) {
                self.waiting.push(configuration);
            }
        }
        loop {
            while let Some(configuration) = self.waiting.pop() {
                if configuration.done & returning != 0 {
                    if self.kept.insert(&configuration) {
                        self.configurations.push(configuration);
                    }
                    continue;
                }
                self.moves(&configuration, now);
                if self.visited.len() > self.limit {
                    return Err(TooMany);
                }
            }
            if self.later.is_empty() {
                // What is searched again and again is as hopeless as what is searched at once.
                self.work += self.visited.len();
                let usual = self.limit.saturating_mul(WORK_TO_LIMIT).max(self.steps.len().saturating_mul(MAX_OPEN));
                return if self.work > usual { Err(TooMany) } else { Ok(()) };
            }
            std::mem::swap(&mut self.waiting, &mut self.later);
        }
    }

    /// Every next configuration, by one operation that changes the state.
    fn moves(&mut self, from: &Configuration, now: u64) {
        let state = self.facts[from.state as usize];
        let mut only = None;
        if state.once {
            // Rule 4. What can change nothing and wants this state is done already.
            if state.wanted_until > now {
                return;
            }
            let wants = |open: &&Open| from.done & open.mask == 0 && open.step.needs() == Some(from.state);
            let mut wanting = self.open.iter().filter(wants);
            only = wanting.next().map(|open| open.number);
            if wanting.next().is_some() {
                return;
            }
        }
        self.offers += 1;
        for place in 0..self.open.len() {
            let Open { number, mask, step } = self.open[place];
            if from.done & mask == 0 && only.is_none_or(|only| only == number) {
                self.offer(from, number, mask, &step);
            }
        }
        if only.is_some() {
            return;
        }
        for place in 0..self.unknown.len() {
            let number = self.unknown[place];
            let step = &self.steps[number as usize];
            if from.used.binary_search(&number).is_ok() || !self.key.is_legal(step, from.state) {
                continue;
            }
            let effect = self.effect[number as usize];
            if effect != UNIQUE && !step.again {
                // Rule 3: the place of one with a guard can be taken by one without later, but not the other way round.
                if step.guard != Condition::Any {
                    self.offered_effect[effect as usize] = self.offers;
                } else if self.offered_effect[effect as usize] == self.offers {
                    continue;
                }
            }
            self.offer(from, number, 0, step);
        }
    }

    /// The configurations after this step, which has no mask if it is unknown.
    fn offer(&mut self, from: &Configuration, number: u32, mask: u128, step: &Step) {
        let key = self.key;
        // Rule 2: the first of a class that comes here is the one that returns first.
        let class = self.class[number as usize];
        if class != UNIQUE && std::mem::replace(&mut self.offered[class as usize], self.offers) == self.offers {
            return;
        }
        if step.effect == Effect::Keep || !key.is_legal(step, from.state) {
            return;
        }
        for target in key.targets(&step.effect) {
            let facts = self.facts[*target as usize];
            let state = facts.same_as;
            let mut next = Configuration { state, ..from.clone() };
            next.done |= mask;
            if step.is_unknown() && !step.again {
                next.used = with(&next.used, number);
            }
            // Rule 4. What has one maker needs no look.
            let of_version = self.facts[facts.first as usize];
            if facts.once && of_version.makers > 1 {
                if of_version.was_found || self.is_found(from, facts.first) {
                    continue;
                }
                if !of_version.wanted {
                    // No completed step tells that it was there before, so the configuration has to know.
                    let made = id(self.steps.len()) + facts.first;
                    if next.used.binary_search(&made).is_ok() {
                        continue;
                    }
                    next.used = with(&next.used, made);
                }
            }
            self.settle(&mut next);
            if self.visited.insert(&next) {
                if next.used.len() > from.used.len() { self.later.push(next) } else { self.waiting.push(next) }
            }
        }
    }

    /// Whether an open operation has found a state with the version of this one.
    fn is_found(&self, configuration: &Configuration, first: State) -> bool {
        self.open
            .iter()
            .filter(|open| configuration.done & open.mask != 0)
            .any(|open| open.step.needs().is_some_and(|state| self.facts[state as usize].first == first))
    }

    /// Forgets unknown operations that make no difference any more: those that have taken effect in every configuration, and
    /// those that have missed the one state in which they could. Whether one of these had taken effect is all the same, which
    /// makes configurations alike that were not.
    fn forget(&mut self, now: u64) {
        let Some((first, others)) = self.configurations.split_first() else { return };
        if first.used.is_empty() && others.is_empty() && self.unknown.len() < self.sweep_at {
            return;
        }
        let current: HashSet<State, Hashing> =
            self.configurations.iter().map(|configuration| configuration.state).collect();
        let (steps, facts) = (self.steps, &self.facts);
        let is_over = |number: u32| {
            steps[number as usize].needs().is_some_and(|state| {
                let fact = &facts[state as usize];
                fact.once && facts[fact.first as usize].made_until < now && !current.contains(&state)
            })
        };
        let is_used = |number: u32| {
            first.used.binary_search(&number).is_ok()
                && others.iter().all(|other| other.used.binary_search(&number).is_ok())
        };
        let before = self.unknown.len();
        let (mut gone, left): (Vec<u32>, Vec<u32>) =
            std::mem::take(&mut self.unknown).into_iter().partition(|number| is_over(*number) || is_used(*number));
        gone.sort_unstable();
        self.unknown = left;
        self.sweep_at = FIRST_SWEEP.max(2 * self.unknown.len());
        if self.unknown.len() == before {
            return;
        }
        for configuration in &mut self.configurations {
            if configuration.used.iter().any(|number| gone.binary_search(number).is_ok()) {
                let used = configuration.used.iter().copied();
                configuration.used = used.filter(|number| gone.binary_search(number).is_err()).collect();
            }
        }
        self.configurations.sort_by_key(|configuration| configuration.used.len());
        self.kept.clear();
        let kept = &mut self.kept;
        self.configurations.retain(|configuration| kept.insert(configuration));
    }
}

fn facts(key: &KeySteps, steps: &[Step]) -> Vec<Facts> {
    type Names = HashSet<u32, Hashing>;
    let (mut states, mut values, mut versions) = (Names::default(), Names::default(), Names::default());
    for condition in steps.iter().flat_map(Step::conditions) {
        match condition {
            Condition::Is(state) | Condition::IsNot(state) => _ = states.insert(state),
            Condition::Value(value) | Condition::NotValue(value) => _ = values.insert(value),
            Condition::Version(version) | Condition::NotVersion(version) => _ = versions.insert(version),
            Condition::Any | Condition::Impossible | Condition::Exists => {}
        }
    }
    let asked_for = |state: State| {
        state == ABSENT
            || states.contains(&state)
            || values.contains(&key.value(state))
            || key.version(state).is_some_and(|version| versions.contains(&version))
    };
    let mut first_with: HashMap<u32, State, Hashing> = HashMap::default();
    let mut name = |state| {
        let first = key.version(state).map_or(state, |version| *first_with.entry(version).or_insert(state));
        Facts { same_as: if asked_for(state) { state } else { OTHER }, first, ..Facts::default() }
    };
    let mut facts: Vec<Facts> = (0..id(key.states())).map(&mut name).collect();
    for step in steps {
        for target in key.targets(&step.effect) {
            let first = facts[*target as usize].first;
            let fact = &mut facts[first as usize];
            fact.makers = if step.again { 2 } else { fact.makers + 1 };
            fact.made_until = fact.made_until.max(step.ret);
        }
        if let (Some(state), false) = (step.needs(), step.is_unknown()) {
            let fact = &mut facts[state as usize];
            fact.wanted_until = fact.wanted_until.max(step.call);
            let first = fact.first;
            facts[first as usize].wanted = true;
        }
    }
    for state in ABSENT..id(key.states()) {
        let fact = facts[state as usize];
        let makers = facts[fact.first as usize].makers;
        let once = state > OTHER && fact.same_as == state && (key.version(state).is_some() || makers == 1);
        facts[state as usize].once = once;
    }
    facts
}

/// The class of each step that changes something, by what `content` makes of it, and how many classes there are.
fn classes<T: Eq + Hash>(steps: &[Step], content: impl Fn(&Step) -> T) -> (Vec<u32>, usize) {
    let mut names: HashMap<T, (u32, u32), Hashing> = HashMap::with_capacity_and_hasher(steps.len(), Hashing::default());
    for step in steps.iter().filter(|step| step.effect != Effect::Keep) {
        let next = id(names.len());
        names.entry(content(step)).or_insert((next, 0)).1 += 1;
    }
    let name = |step: &Step| match names.get(&content(step)) {
        Some((name, members)) if *members > 1 => *name,
        _ => UNIQUE,
    };
    (steps.iter().map(name).collect(), names.len())
}

/// A set of unknown operations, and one more.
fn with(used: &[u32], number: u32) -> Box<[u32]> {
    let place = used.partition_point(|other| *other < number);
    used[..place].iter().copied().chain([number]).chain(used[place..].iter().copied()).collect()
}

/// Configurations that were seen, and all that they replace.
#[derive(Default)]
struct Visited {
    /// Those that used no unknown operation: they replace any other with the same state and done set.
    plain: HashSet<(State, u128), Hashing>,
    others: HashMap<(State, u128), Vec<Box<[u32]>>, Hashing>,
    count: usize,
}

impl Visited {
    /// Whether it is new, and not replaced by any that was seen.
    fn insert(&mut self, configuration: &Configuration) -> bool {
        let Configuration { state, done, used } = configuration;
        if used.is_empty() {
            let new = self.plain.insert((*state, *done));
            self.count += usize::from(new);
            return new;
        }
        if self.plain.contains(&(*state, *done)) {
            return false;
        }
        let seen = self.others.entry((*state, *done)).or_default();
        if seen.iter().any(|fewer| is_subset(fewer, used)) {
            return false;
        }
        seen.push(used.clone());
        self.count += 1;
        true
    }

    fn len(&self) -> usize {
        self.count
    }

    fn clear(&mut self) {
        // Clearing takes as long as the table is large, so one that was large once is given back.
        const LARGE: usize = 1024;
        if self.count > LARGE {
            *self = Self::default();
        } else if self.count > 0 {
            self.plain.clear();
            self.others.clear();
            self.count = 0;
        }
    }
}

/// Whether all of `few` are among `many`; both are in order.
fn is_subset(few: &[u32], many: &[u32]) -> bool {
    few.len() <= many.len() && few.iter().all(|number| many.binary_search(number).is_ok())
}

/// A hash of numbers that the search made itself: nobody chooses them so that they collide.
type Hashing = BuildHasherDefault<Mixer>;

#[derive(Default)]
struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, word: u64) {
        // The odd number nearest to 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming 3, 6.4).
        self.0 = (self.0.rotate_left(26) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.mix(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.mix(u64::from(number));
    }

    fn write_u32(&mut self, number: u32) {
        self.mix(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.mix(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.mix(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.mix(number.cast_unsigned() as u64);
    }

    #[expect(clippy::cast_possible_truncation, reason = "both halves are mixed in")]
    fn write_u128(&mut self, number: u128) {
        self.mix(number as u64);
        self.mix((number >> 64) as u64);
    }
}
