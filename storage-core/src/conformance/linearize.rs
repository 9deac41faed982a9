//! Whether the history of one register can be put in an order that explains every answer.
//!
//! Just-in-time linearization (Lowe, "Testing for linearizability", 2017): at each return, every order of the open
//! operations that puts the returning one before this moment is tried, and states that are equal are kept once.

use std::{collections::HashSet, fmt};

/// What an operation did, or (if nobody knows) would have done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// Saw this.
    Read(Option<u64>),
    /// Set this, whatever was there.
    Write(Option<u64>),
    /// Set `to` if `from` was there; `done` tells whether it was.
    Swap { from: Option<u64>, to: Option<u64>, done: bool },
}

/// One operation of a history. Times are of one clock and never equal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) called: u64,
    /// `None`: nobody knows whether it happened; it may yet happen at any time after the call.
    pub(crate) returned: Option<u64>,
    pub(crate) action: Action,
}

/// Why there is no such order.
#[derive(Debug)]
pub(crate) enum Violation {
    /// No order of the operations before explains this answer.
    Unexplained(Operation),
    /// Too many operations were open at one time to tell.
    TooManyOpen,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unexplained(operation) => write!(f, "not linearizable: no order explains {operation:?}"),
            Self::TooManyOpen => write!(f, "more than {MAX_OPEN} operations were open at one time"),
        }
    }
}

/// The most operations open at one time: the bits of the set of those that have taken effect.
const MAX_OPEN: usize = 64;

/// The value of the register, and which of the open operations have taken effect (by their slot).
type State = (Option<u64>, u64);

/// # Errors
/// The first answer that nothing explains. The register is absent (`None`) at first.
pub(crate) fn check(history: &[Operation]) -> Result<(), Violation> {
    let calls = history.iter().map(|operation| (operation.called, operation, true));
    let returns = history.iter().filter_map(|operation| Some((operation.returned?, operation, false)));
    let mut events: Vec<_> = calls.chain(returns).collect();
    events.sort_by_key(|(time, _, _)| *time);

    let mut open: Vec<Option<&Operation>> = Vec::new();
    let mut states = HashSet::from([(None, 0)]);
    for (_, operation, is_call) in events {
        if is_call {
            if let Some(slot) = open.iter_mut().find(|slot| slot.is_none()) {
                *slot = Some(operation);
            } else if open.len() < MAX_OPEN {
                open.push(Some(operation));
            } else {
                return Err(Violation::TooManyOpen);
            }
            continue;
        }
        let slot = open.iter().position(|slot| slot.is_some_and(|other| std::ptr::eq(other, operation)));
        let Some(slot) = slot else { continue };
        states = after_return(states, &open, slot);
        if let Some(slot) = open.get_mut(slot) {
            *slot = None;
        }
        if states.is_empty() {
            return Err(Violation::Unexplained(*operation));
        }
    }
    Ok(())
}

/// All states in which the operation at `slot` has taken effect, however many other open ones have too.
fn after_return(states: HashSet<State>, open: &[Option<&Operation>], slot: usize) -> HashSet<State> {
    let returning = 1 << slot;
    let mut seen = states.clone();
    let mut waiting: Vec<_> = states.into_iter().collect();
    let mut after = HashSet::new();
    while let Some((value, effective)) = waiting.pop() {
        if effective & returning != 0 {
            after.insert((value, effective & !returning));
            continue;
        }
        for (place, operation) in open.iter().enumerate() {
            let bit = 1 << place;
            let Some(operation) = operation.filter(|_| effective & bit == 0) else { continue };
            let Some(next) = step(value, operation.action) else { continue };
            if seen.insert((next, effective | bit)) {
                waiting.push((next, effective | bit));
            }
        }
    }
    after
}

/// The value after the action, or `None` if its answer is impossible now.
fn step(value: Option<u64>, action: Action) -> Option<Option<u64>> {
    match action {
        Action::Read(seen) => (seen == value).then_some(value),
        Action::Write(new) => Some(new),
        Action::Swap { from, to, done: true } => (from == value).then_some(to),
        Action::Swap { from, done: false, .. } => (from != value).then_some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(called: u64, returned: impl Into<Option<u64>>, action: Action) -> Operation {
        Operation { called, returned: returned.into(), action }
    }

    #[test]
    fn histories_with_an_order_are_accepted() {
        let swap = |from, to| Action::Swap { from, to: Some(to), done: true };
        let cases: [&[Operation]; 5] = [
            &[],
            &[at(0, 1, Action::Write(Some(1))), at(2, 3, Action::Read(Some(1)))],
            // Both reads overlap the write; either answer is fine.
            &[at(0, 9, Action::Write(Some(1))), at(1, 4, Action::Read(None)), at(2, 5, Action::Read(Some(1)))],
            // A swap whose answer was lost took effect late.
            &[at(0, None, swap(None, 1)), at(1, 2, Action::Read(None)), at(3, 4, Action::Read(Some(1)))],
            &[at(0, 3, swap(None, 1)), at(1, 4, swap(Some(1), 2)), at(5, 6, Action::Read(Some(2)))],
        ];
        for history in cases {
            assert!(check(history).is_ok(), "{history:?}");
        }
    }

    #[test]
    fn histories_without_an_order_are_refused() {
        let swap = |from, to| Action::Swap { from, to: Some(to), done: true };
        let cases: [&[Operation]; 5] = [
            &[at(0, 1, Action::Write(Some(1))), at(2, 3, Action::Read(None))],
            &[at(0, 3, swap(None, 1)), at(1, 2, swap(None, 2))],
            // The value was seen, so it cannot be gone again.
            &[at(0, 9, Action::Write(Some(1))), at(1, 2, Action::Read(Some(1))), at(3, 4, Action::Read(None))],
            &[at(0, 1, Action::Read(Some(7)))],
            &[at(0, 1, Action::Swap { from: None, to: Some(1), done: false })],
        ];
        for history in cases {
            assert!(matches!(check(history), Err(Violation::Unexplained(_))), "{history:?}");
        }
    }
}
