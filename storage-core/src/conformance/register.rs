//! Whether a register that is only read and swapped is linearizable.
//!
//! Each swap names the value that it replaces, and no value is written twice. So the writes have one order that follows from the
//! history itself, a chain, and nothing has to be searched for: it is enough to hold the chain against the clock. Registers with blind
//! writes and deletes need a search; the checker of storage-testkit has one, and the tests of every backend run it on real servers.

use std::collections::{HashMap, HashSet};

/// What an operation did, or (if nobody knows) would have done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// Saw this.
    Read(Option<u64>),
    /// Set `to` if `from` was there; `done` tells whether it was.
    Swap { from: Option<u64>, to: u64, done: bool },
}

/// One operation of a history. Times are of one clock and never equal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) called: u64,
    /// `None`: nobody knows whether it happened; it may yet happen at any time after the call.
    pub(crate) returned: Option<u64>,
    pub(crate) action: Action,
}

/// # Errors
/// Why no order of the operations explains all their answers. The register is absent (`None`) at first.
pub(crate) fn check(history: &[Operation]) -> Result<(), String> {
    let places = places(history)?;
    let place = |value| places.get(&value).copied().ok_or_else(|| format!("{value:?} is in no order of the writes"));
    let calls = history.iter().map(|operation| (operation.called, operation, true));
    let returns = history.iter().filter_map(|operation| Some((operation.returned?, operation, false)));
    let mut events: Vec<_> = calls.chain(returns).collect();
    events.sort_by_key(|(time, _, _)| *time);

    // How many writes have certainly happened. What is called later comes behind them.
    let mut happened = 0;
    for (_, operation, is_call) in events {
        let (at_least, in_time) = match operation.action {
            Action::Read(value) => (place(value)?, place(value)? >= happened),
            Action::Swap { to, done: true, .. } => match (place(Some(to)), operation.returned) {
                (Ok(place), _) => (place, place > happened),
                // Nobody saw it, so it need not have happened.
                (Err(_), None) => continue,
                (Err(why), Some(_)) => return Err(why),
            },
            // Another write came first: the one that replaced `from`, if none after it.
            Action::Swap { from, done: false, .. } => (place(from)? + 1, place(from)? + 1 < places.len()),
        };
        if is_call && !in_time {
            return Err(format!("not linearizable: no order explains {operation:?}"));
        }
        if !is_call {
            happened = happened.max(at_least);
        }
    }
    Ok(())
}

/// How many writes came before the register had each value, itself included.
fn places(history: &[Operation]) -> Result<HashMap<Option<u64>, usize>, String> {
    let mut seen = HashSet::new();
    let mut swaps = Vec::new();
    for Operation { called, returned, action } in history {
        match *action {
            Action::Read(value) => drop(seen.insert(value)),
            Action::Swap { from, to, done } => {
                seen.insert(from);
                if done {
                    swaps.push((*called, from, Some(to)));
                }
                if done && returned.is_some() {
                    seen.insert(Some(to));
                }
            }
        }
    }
    swaps.sort_unstable();
    let (certain, uncertain): (Vec<_>, Vec<_>) = swaps.into_iter().partition(|(_, _, to)| seen.contains(to));
    let mut next = HashMap::new();
    for (_, from, to) in certain {
        if let Some(other) = next.insert(from, to) {
            return Err(format!("both {other:?} and {to:?} replaced {from:?}"));
        }
    }
    // One that nobody saw may have happened last, and been in the way of one that failed: that which was called first explains most.
    for (_, from, to) in uncertain {
        next.entry(from).or_insert(to);
    }
    let mut places = HashMap::from([(None, 0)]);
    let mut last = None;
    while let Some(value) = next.remove(&last) {
        places.insert(value, places.len());
        last = value;
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(called: u64, returned: impl Into<Option<u64>>, action: Action) -> Operation {
        Operation { called, returned: returned.into(), action }
    }

    fn swap(from: Option<u64>, to: u64) -> Action {
        Action::Swap { from, to, done: true }
    }

    fn failed(from: Option<u64>) -> Action {
        Action::Swap { from, to: 99, done: false }
    }

    #[test]
    fn histories_with_an_order_are_accepted() {
        let cases: [&[Operation]; 7] = [
            &[],
            &[at(0, 1, swap(None, 1)), at(2, 3, Action::Read(Some(1)))],
            // Both reads overlap the write; either answer is fine.
            &[at(0, 9, swap(None, 1)), at(1, 4, Action::Read(None)), at(2, 5, Action::Read(Some(1)))],
            // A swap whose answer was lost took effect late.
            &[at(0, None, swap(None, 1)), at(1, 2, Action::Read(None)), at(3, 4, Action::Read(Some(1)))],
            // Or not at all, or it was in the way of another.
            &[at(0, None, swap(None, 1)), at(1, 2, Action::Read(None))],
            &[at(0, None, swap(None, 1)), at(1, 2, failed(None))],
            &[
                at(0, 3, swap(None, 1)),
                at(1, 4, swap(Some(1), 2)),
                at(2, 5, failed(Some(1))),
                at(6, 7, Action::Read(Some(2))),
            ],
        ];
        for history in cases {
            assert_eq!(check(history), Ok(()), "{history:?}");
        }
    }

    #[test]
    fn histories_without_an_order_are_refused() {
        let cases: [&[Operation]; 9] = [
            // Stale.
            &[at(0, 1, swap(None, 1)), at(2, 3, Action::Read(None))],
            &[at(0, 1, swap(None, 1)), at(2, 3, swap(Some(1), 2)), at(4, 5, Action::Read(Some(1)))],
            // Two replaced the same value.
            &[at(0, 3, swap(None, 1)), at(1, 2, swap(None, 2))],
            // The value was seen, so it cannot be gone again.
            &[at(0, 9, swap(None, 1)), at(1, 2, Action::Read(Some(1))), at(3, 4, Action::Read(None))],
            // Seen before it was written, by a read and by a conflict.
            &[at(0, 1, Action::Read(Some(1))), at(2, 3, swap(None, 1))],
            &[at(0, 1, failed(None)), at(2, 3, swap(None, 1))],
            // Nobody wrote it.
            &[at(0, 1, Action::Read(Some(7)))],
            &[at(0, 1, swap(Some(7), 1))],
            // Nothing was in the way.
            &[at(0, 1, failed(None))],
        ];
        for history in cases {
            assert!(check(history).is_err(), "{history:?}");
        }
    }
}
