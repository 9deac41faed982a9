//! How fast the checker is: `cargo bench -p storage-testkit --bench checker`. The figures are in docs/histories.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../tests/support/simulate.rs"]
mod simulate;

use std::time::Instant;

use fastrand::Rng;
use simulate::{SWAPS, Simulation};
use storage_testkit::{checker::Checker, history::History};

/// The quickest counts: others may use the machine.
const ROUNDS: usize = 7;

fn main() {
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let puts = Simulation { reads: 50, puts: 25, ..SWAPS };
    let cases: [(&str, usize, Simulation); 9] = [
        ("swaps, 1,000 keys of 1,000", 1000, SWAPS),
        ("swaps, one key", 1, Simulation { operations: 200_000, ..SWAPS }),
        ("swaps by value, no versions, one key", 1, Simulation { operations: 200_000, versions: false, ..SWAPS }),
        ("swaps, conflicts tell nothing, one key", 1, Simulation { operations: 200_000, tells: false, ..SWAPS }),
        ("swaps, 1 of 50 lost, one key", 1, Simulation { operations: 200_000, lost: 20, ..SWAPS }),
        ("swaps, 1 of 5 lost, 100 keys of 1,000", 100, Simulation { lost: 200, ..SWAPS }),
        ("reads, puts, swaps, one key", 1, Simulation { operations: 200_000, ..puts }),
        ("blind puts alone, one key", 1, Simulation { operations: 200_000, reads: 0, puts: 100, ..SWAPS }),
        ("all, 1 of 20 lost, 100 keys of 1,000", 100, Simulation { deletes: 5, lost: 50, ..puts }),
    ];
    for (name, keys, simulation) in cases.into_iter().filter(|(name, ..)| name.contains(&only)) {
        let history = simulate::history(&simulation, keys, &mut Rng::with_seed(7));
        let mut seconds = f64::INFINITY;
        let mut undecided = 0;
        for _ in 0..ROUNDS {
            let began = Instant::now();
            let report = Checker::default().check(&history);
            seconds = seconds.min(began.elapsed().as_secs_f64());
            assert!(report.violations.is_empty(), "{name}: {report}");
            undecided = report.undecided.len();
        }
        let rate = history.operations().len() as f64 / seconds;
        println!("{name:<40} {seconds:>8.3} s  {rate:>12.0} operations/s  {undecided} undecided");
    }
    let history = simulate::history(&SWAPS, 1000, &mut Rng::with_seed(7));
    let mut lines = Vec::new();
    history.write(&mut lines).unwrap();
    let began = Instant::now();
    let read = History::read(&lines[..]).unwrap();
    let rate = read.operations().len() as f64 / began.elapsed().as_secs_f64();
    println!("reading {:.0} MB of lines: {rate:.0} operations/s", lines.len() as f64 / 1e6);
}
