//! From a history that is not linearizable to the few operations that already are not.
//!
//! What is left out must not make the rest wrong: a read of a value alone, without the put that wrote it, would be no finding.
//! So an operation that is left out is not denied. Reads are just not looked at; writes, refused and failed ones too, become
//! writes that may take effect at any time and as often as one likes, whatever their guards and versions. If the whole history had an
//! order, every part of it would have one in this sense; and the fewer operations are kept, the more is permitted. So
//! leaving out one after the other, in ever smaller chunks, ends at operations of which none can be left out: a minimum.

use super::{
    search::{Finding, search},
    steps::KeySteps,
};
use crate::history::Operation;

/// The most configurations at one return while a counterexample is made smaller. What is not decided within them is kept.
const MAX_CONFIGURATIONS: usize = 100_000;

/// The places of a minimal counterexample in `operations`, in order. They are of one key, and have no order: that was seen
/// at the return of the one at `at`.
pub(super) fn shrink(operations: &[&Operation], at: usize) -> Vec<usize> {
    let end = operations.get(at).and_then(|operation| operation.end);
    let until = |place: &usize| operations.get(*place).is_some_and(|operation| Some(operation.start) <= end);
    let mut kept: Vec<usize> = (0..operations.len()).filter(until).collect();
    if !is_wrong(operations, &kept) {
        kept = (0..operations.len()).collect();
    }
    let mut chunk = kept.len();
    while chunk > 1 {
        chunk = chunk.div_ceil(2);
        let mut start = 0;
        while start < kept.len() {
            let end = kept.len().min(start + chunk);
            let mut fewer = kept.clone();
            fewer.drain(start..end);
            if is_wrong(operations, &fewer) {
                kept = fewer;
            } else {
                start = end;
            }
        }
    }
    kept
}

/// Whether the kept operations have no order, whatever the others did.
fn is_wrong(operations: &[&Operation], kept: &[usize]) -> bool {
    let (mut looked_at, mut others) = (Vec::with_capacity(kept.len()), Vec::new());
    let mut kept = kept.iter().copied().peekable();
    for (place, operation) in operations.iter().enumerate() {
        if kept.next_if_eq(&place).is_some() { looked_at.push(*operation) } else { others.push(*operation) }
    }
    let key = KeySteps::with_others(&looked_at, &others);
    let found = || search(&key, &key.steps, MAX_CONFIGURATIONS, &mut || {});
    key.same_version.is_some() || matches!(found(), Finding::Violation { .. })
}
