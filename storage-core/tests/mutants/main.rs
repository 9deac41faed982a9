//! The suite proves itself: stores with one defect each, and the cases that have to catch it.
//!
//! Every case of the suite is seen to fail on at least one of them, so no case passes whatever a store does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod defects;
mod harness;
mod shapes;
mod table;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use storage_core::conformance::{CASES, Case, Verdict, run_within};
use tokio::{sync::Semaphore, task::JoinSet};

use self::{
    harness::{Defect, Defective},
    shapes::{Faithful, Floor},
    table::MUTANTS,
};

/// How long a case may take here: several times what a sound store needs on a busy machine, so that a case fails by this
/// alone only on a defect that makes it wait for ever.
const DEADLINE: Duration = Duration::from_secs(12);
/// How many cases run at once; most of them wait.
const AT_ONCE: usize = 24;

/// Cases that no store can fail, with the reason.
const EXEMPT: &[(&str, &str)] =
    &[("faults::invalid_key", "a key is checked when it is made, before there is any store to be wrong")];

/// One mutant: its name says the defect, and these cases have to catch it.
#[derive(Debug)]
pub(crate) struct Row(pub(crate) &'static str, pub(crate) Make, pub(crate) &'static [&'static str]);

/// Makes the defect of one namespace.
type Make = fn() -> Arc<dyn Defect>;

async fn verdicts(runs: Vec<(&'static str, Make, &'static Case)>) -> Vec<(String, String, Verdict)> {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for (name, make, case) in runs {
        let turns = Arc::clone(&turns);
        tasks.spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            let verdict = run_within(case, &Defective { name, make }, DEADLINE).await;
            (name.to_owned(), case.to_string(), verdict)
        });
    }
    tasks.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sound_stores_pass() {
    let sound: [(&str, Make); 2] = [("faithful", || Arc::new(Faithful)), ("floor", || Arc::new(Floor::default()))];
    let runs = sound.into_iter().flat_map(|(name, make)| CASES.iter().map(move |case| (name, make, case)));
    let mut failed = Vec::new();
    for (name, case, verdict) in verdicts(runs.collect()).await {
        match verdict {
            Verdict::Passed => {}
            Verdict::Skipped(reason) if name == "floor" => println!("{name}: {case} skipped: {reason}"),
            other => failed.push(format!("{name}: {case}: {other:?}")),
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_defect_is_caught_and_every_case_catches_one() {
    let find =
        |name: &str| CASES.iter().find(|case| case.to_string() == name).unwrap_or_else(|| panic!("no case {name}"));
    let runs =
        MUTANTS.iter().flat_map(|Row(name, make, cases)| cases.iter().map(move |case| (*name, *make, find(case))));
    let (mut caught, mut missed, mut failing) = (BTreeSet::new(), Vec::new(), BTreeSet::new());
    for (name, case, verdict) in verdicts(runs.collect()).await {
        match verdict {
            Verdict::Failed(why) => {
                println!("{name} -> caught by {case}: {why}");
                failing.insert(case);
                caught.insert(name);
            }
            other => missed.push(format!("{name}: {case} did not fail, but {}: {}", other.kind(), other.reason())),
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
    assert_eq!(caught.len(), MUTANTS.len(), "each mutant has a name of its own and is caught");
    let never = CASES.iter().map(Case::to_string);
    let never: Vec<_> =
        never.filter(|case| !failing.contains(case) && !EXEMPT.iter().any(|(exempt, _)| exempt == case)).collect();
    assert!(never.is_empty(), "cases that no mutant fails: {never:#?}");
    assert!(EXEMPT.iter().all(|(exempt, _)| !failing.contains(*exempt)), "exempt, and yet it fails");
}
