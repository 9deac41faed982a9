//! The operations of one key as small numbers: values, versions and states are named once, and the search compares names.

#![expect(clippy::indexing_slicing, reason = "each number is a place in the table that gave it")]

use std::collections::{HashMap, HashSet};

use storage_core::{Expected, Version};

use crate::history::{Action, Operation, Outcome, Seen};

/// A state of a key: absent, or a value with a version.
pub(super) type State = u32;
/// No value and no version.
pub(super) const ABSENT: State = 0;
/// Present, with a value and a version that no operation asks for. All such states are one to the search.
pub(super) const OTHER: State = 1;

/// The value of [`ABSENT`], and of a state whose version nobody saw.
const NONE: u32 = u32::MAX;
/// A value that no operation names.
const UNNAMED: u32 = u32::MAX - 1;
/// The return of an operation that may take effect at any time after its call, or never.
pub(super) const NEVER: u64 = u64::MAX;

/// What has to be true of the state when an operation takes effect.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Condition {
    Any,
    Impossible,
    Exists,
    Is(State),
    IsNot(State),
    Value(u32),
    NotValue(u32),
    Version(u32),
    NotVersion(u32),
}

/// What an operation does to the state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Effect {
    Keep,
    Set(State),
    /// One of `KeySteps::choices` from here to there: a put whose version was not told may have made any of these states.
    OneOf(u32, u32),
}

/// An operation of the key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) call: u64,
    pub(super) ret: u64,
    pub(super) guard: Condition,
    pub(super) seen: Condition,
    pub(super) effect: Effect,
    /// Takes effect as often as one likes: stands for writes that are not looked at.
    pub(super) again: bool,
    /// Its place in what [`KeySteps::new`] was given.
    pub(super) source: u32,
}

impl Step {
    pub(super) fn is_unknown(&self) -> bool {
        self.ret == NEVER
    }

    /// The one state in which it can take effect, if there is only one.
    pub(super) fn needs(&self) -> Option<State> {
        match (self.seen, self.guard) {
            (Condition::Is(state), _) | (_, Condition::Is(state)) => Some(state),
            _ => None,
        }
    }

    pub(super) fn conditions(&self) -> [Condition; 2] {
        [self.guard, self.seen]
    }
}

/// All that was done to one key.
#[derive(Debug)]
pub(super) struct KeySteps {
    pub(super) steps: Vec<Step>,
    pub(super) choices: Vec<State>,
    /// The sources of two puts that were told the same version. A version never repeats, so no order explains them.
    pub(super) same_version: Option<(u32, u32)>,
    /// The value and the version of each state.
    states: Vec<(u32, u32)>,
}

impl KeySteps {
    /// The steps of these operations of one key, without those that tell nothing: failed ones, and reads that were not answered.
    pub(super) fn new(operations: &[&Operation]) -> Self {
        Self::with_others(operations, &[])
    }

    /// The same, with writes for the `others`, those too that were refused or failed: repeated as often as one likes, whenever,
    /// under any version, whatever was there.
    pub(super) fn with_others(operations: &[&Operation], others: &[&Operation]) -> Self {
        Naming::new(operations.len()).name(operations, others)
    }

    pub(super) fn states(&self) -> usize {
        self.states.len()
    }

    pub(super) fn value(&self, state: State) -> u32 {
        self.states[state as usize].0
    }

    /// `None`: nobody saw a version of it.
    pub(super) fn version(&self, state: State) -> Option<u32> {
        Some(self.states[state as usize].1).filter(|version| *version != NONE)
    }

    #[inline]
    pub(super) fn holds(&self, condition: Condition, state: State) -> bool {
        match condition {
            Condition::Any => true,
            Condition::Impossible => false,
            Condition::Exists => state != ABSENT,
            Condition::Is(wanted) => state == wanted,
            Condition::IsNot(other) => state != other,
            Condition::Value(value) => self.states[state as usize].0 == value,
            Condition::NotValue(value) => self.states[state as usize].0 != value,
            Condition::Version(version) => self.states[state as usize].1 == version,
            Condition::NotVersion(version) => self.states[state as usize].1 != version,
        }
    }

    #[inline]
    pub(super) fn is_legal(&self, step: &Step, state: State) -> bool {
        self.holds(step.guard, state) && self.holds(step.seen, state)
    }

    /// The states that the step may make.
    pub(super) fn targets<'a>(&'a self, effect: &'a Effect) -> &'a [State] {
        match effect {
            Effect::Keep => &[],
            Effect::Set(state) => std::slice::from_ref(state),
            Effect::OneOf(from, to) => &self.choices[*from as usize..*to as usize],
        }
    }
}

/// Gives the names.
struct Naming<'a> {
    values: HashMap<&'a [u8], u32>,
    versions: HashMap<Version, u32>,
    /// For each version: the put that was told that it gave it.
    assigned: Vec<Option<u32>>,
    same_version: Option<(u32, u32)>,
    /// For each version: whether it was surely there at some time, or an unknown operation may have found it there.
    found: Vec<bool>,
    by_content: HashMap<(u32, u32), State>,
    states: Vec<(u32, u32)>,
}

impl<'a> Naming<'a> {
    fn new(operations: usize) -> Self {
        Self {
            values: HashMap::with_capacity(operations),
            versions: HashMap::with_capacity(operations),
            assigned: Vec::with_capacity(operations),
            same_version: None,
            found: Vec::with_capacity(operations),
            by_content: HashMap::with_capacity(operations),
            states: vec![(NONE, NONE), (UNNAMED, NONE)],
        }
    }

    fn name(mut self, operations: &[&'a Operation], others: &[&'a Operation]) -> KeySteps {
        let sources = operations.iter().zip(0..).filter(|(operation, _)| tells(operation));
        let mut steps: Vec<Step> = sources.map(|(operation, source)| self.step(operation, source)).collect();
        let any_put = self.others(others, &mut steps);

        // Which states a put may have made whose version was not told: none that another put was told to have made.
        let open = |version: u32| self.assigned[version as usize].is_none() && self.found[version as usize];
        let mut candidates: HashMap<u32, Vec<State>> = HashMap::new();
        let mut with_version = vec![Named::Nothing; self.assigned.len()];
        for (state, (value, version)) in (0..).zip(&self.states).filter(|(_, (_, version))| *version != NONE) {
            with_version[*version as usize].add(state);
            if open(*version) {
                candidates.entry(*value).or_default().push(state);
            }
        }
        // Versions that only guards knew may have had any value.
        let is_bare = |version: &u32| open(*version) && with_version[*version as usize] == Named::Nothing;
        let bare: Vec<u32> = (0..id(self.assigned.len())).filter(is_bare).collect();
        if any_put {
            for version in &bare {
                let state = id(self.states.len());
                self.states.push((UNNAMED, *version));
                steps.push(any_time(Effect::Set(state)));
            }
        }

        let (mut choices, mut ranges) = (Vec::new(), HashMap::new());
        for step in &mut steps {
            let Effect::Set(state) = step.effect else { continue };
            let (value, version) = self.states[state as usize];
            // Only puts whose version was not told have a choice: an unknown outcome, or a store that does not tell.
            if state <= OTHER || version != NONE {
                continue;
            }
            let (from, to) = *ranges.entry(value).or_insert_with(|| {
                let from = id(choices.len());
                choices.push(state);
                choices.extend(candidates.get(&value).into_iter().flatten());
                for version in &bare {
                    let state = id(self.states.len());
                    self.states.push((value, *version));
                    choices.push(state);
                }
                (from, id(choices.len()))
            });
            if to - from > 1 {
                step.effect = Effect::OneOf(from, to);
            }
        }
        with_version.fill(Named::Nothing);
        let mut with_value = vec![Named::Nothing; self.values.len()];
        for (state, (value, version)) in (0..).zip(&self.states) {
            if let Some(named) = with_value.get_mut(*value as usize) {
                named.add(state);
            }
            if let Some(named) = with_version.get_mut(*version as usize) {
                named.add(state);
            }
        }
        for step in &mut steps {
            for condition in [&mut step.guard, &mut step.seen] {
                let (named, positive) = match condition {
                    Condition::Version(version) => (with_version[*version as usize], true),
                    Condition::NotVersion(version) => (with_version[*version as usize], false),
                    Condition::Value(value) => (with_value[*value as usize], true),
                    Condition::NotValue(value) => (with_value[*value as usize], false),
                    _ => continue,
                };
                // A condition that one state fulfils becomes that state: comparing numbers is what makes the search
                // fast.
                let exact = match named {
                    Named::Nothing => Condition::Impossible,
                    Named::One(state) => Condition::Is(state),
                    Named::Several => continue,
                };
                *condition = if positive { exact } else { not(exact) };
            }
        }
        KeySteps { steps, choices, states: self.states, same_version: self.same_version }
    }

    /// Adds steps for writes that are not looked at: one for all that write the same. Answers whether one of them is a put.
    fn others(&mut self, others: &[&'a Operation], steps: &mut Vec<Step>) -> bool {
        let mut effects = HashSet::new();
        for operation in others {
            match &operation.action {
                Action::Read => {}
                Action::Delete => _ = effects.insert(ABSENT),
                Action::Put(value) => {
                    effects.insert(OTHER);
                    if let Some(value) = self.values.get(value.as_ref()).copied() {
                        effects.insert(self.state(value, NONE));
                    }
                }
            }
        }
        let any_put = effects.contains(&OTHER);
        steps.extend(effects.into_iter().map(|state| any_time(Effect::Set(state))));
        any_put
    }

    fn step(&mut self, operation: &'a Operation, source: u32) -> Step {
        let unknown = operation.outcome == Outcome::Unknown;
        let conflict = matches!(operation.outcome, Outcome::Conflict { .. });
        let (seen, version) = match &operation.outcome {
            Outcome::Ok { seen, version } => (self.seen(seen), *version),
            Outcome::Conflict { seen } => (self.seen(seen), None),
            Outcome::Failed | Outcome::Unknown => (Condition::Any, None),
        };
        let guard = match &operation.guard {
            Expected::Any => Condition::Any,
            Expected::Absent => Condition::Is(ABSENT),
            Expected::Exists => Condition::Exists,
            Expected::Version(version) => {
                let version = self.version(*version);
                // A guard that held, or may have, has found its version there. One that failed says only that it was
                // not there then.
                self.found[version as usize] |= !conflict;
                Condition::Version(version)
            }
            Expected::Value(value) => Condition::Value(self.value(value)),
        };
        let guard = if conflict { not(guard) } else { guard };
        let ret = operation.end.filter(|_| !unknown).unwrap_or(NEVER);
        let step = |effect| Step { call: operation.start, ret, guard, seen, effect, again: false, source };
        step(match &operation.action {
            _ if conflict => Effect::Keep,
            Action::Read => Effect::Keep,
            Action::Delete => Effect::Set(ABSENT),
            Action::Put(value) => {
                let value = self.value(value);
                let version = version.map_or(NONE, |version| self.version(version));
                if version != NONE
                    && let Some(other) = self.assigned[version as usize].replace(source)
                {
                    self.same_version.get_or_insert((other, source));
                }
                Effect::Set(self.state(value, version))
            }
        })
    }

    fn seen(&mut self, seen: &'a Seen) -> Condition {
        match seen {
            Seen::Untold => Condition::Any,
            Seen::Absent => Condition::Is(ABSENT),
            Seen::Present { value, version: None } => Condition::Value(self.value(value)),
            Seen::Present { value, version: Some(version) } => {
                let (value, version) = (self.value(value), self.version(*version));
                self.found[version as usize] = true;
                Condition::Is(self.state(value, version))
            }
        }
    }

    fn value(&mut self, value: &'a [u8]) -> u32 {
        let next = id(self.values.len());
        *self.values.entry(value).or_insert(next)
    }

    fn version(&mut self, version: Version) -> u32 {
        let next = id(self.versions.len());
        let name = *self.versions.entry(version).or_insert(next);
        if name == next {
            self.assigned.push(None);
            self.found.push(false);
        }
        name
    }

    fn state(&mut self, value: u32, version: u32) -> State {
        let next = id(self.states.len());
        let name = *self.by_content.entry((value, version)).or_insert(next);
        if name == next {
            self.states.push((value, version));
        }
        name
    }
}

/// How many states have a value, or a version.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    Nothing,
    One(State),
    Several,
}

impl Named {
    fn add(&mut self, state: State) {
        *self = if *self == Self::Nothing { Self::One(state) } else { Self::Several };
    }
}

/// A write that is not looked at.
fn any_time(effect: Effect) -> Step {
    let any = Condition::Any;
    Step { call: 0, ret: NEVER, guard: any, seen: any, effect, again: true, source: UNNAMED }
}

/// Whether anything follows from the operation.
fn tells(operation: &Operation) -> bool {
    match operation.outcome {
        Outcome::Failed => false,
        Outcome::Unknown => operation.action != Action::Read,
        Outcome::Ok { .. } | Outcome::Conflict { .. } => true,
    }
}

fn not(condition: Condition) -> Condition {
    match condition {
        Condition::Any => Condition::Impossible,
        Condition::Impossible => Condition::Any,
        Condition::Exists => Condition::Is(ABSENT),
        Condition::Is(ABSENT) => Condition::Exists,
        Condition::Is(state) => Condition::IsNot(state),
        Condition::IsNot(state) => Condition::Is(state),
        Condition::Value(value) => Condition::NotValue(value),
        Condition::NotValue(value) => Condition::Value(value),
        Condition::Version(version) => Condition::NotVersion(version),
        Condition::NotVersion(version) => Condition::Version(version),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "four billion operations do not fit into memory")]
pub(super) fn id(place: usize) -> u32 {
    place as u32
}
