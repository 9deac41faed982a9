//! The program `simulate`: which seeds run, in processes of their own, and what came of them.
//!
//! It only starts, counts and prints. What happens in a seed is the library's affair, and must not depend on anything
//! here but the options.

mod seed_process;

use std::{
    io::{IsTerminal, Write},
    ops::Range,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

use clap::{
    Parser,
    builder::{PossibleValuesParser, TypedValueParser},
};
use simulation::{
    nemesis::Planted,
    run::{Options, Outcome},
};
use storage_embedded::simulated::Flaw;
use tracing_subscriber::EnvFilter;

/// Simulates clusters of the embedded engine: networks, disks and clocks are simulated, and each seed gives the same run every time.
#[derive(Parser)]
#[command(name = "simulate", bin_name = "cargo xtask simulate", args_override_self = true)]
struct Command {
    /// How many seeds
    #[arg(long, value_name = "N", default_value_t = 100)]
    seeds: u64,
    /// The first of them
    #[arg(long, value_name = "S", default_value_t = 1)]
    first: u64,
    /// This one alone, twice, to see that it repeats
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    // The seed is run in this process, which was started for it.
    #[arg(long, value_name = "S", hide = true)]
    here: Option<u64>,
    /// For how many milliseconds of the simulation faults strike
    #[arg(long, value_name = "N", default_value_t = 12_000)]
    ticks: u64,
    /// How many seeds at the same time, each in a process of its own; as many as there are processors by default
    #[arg(long, value_name = "N", default_value_t = processors(), hide_default_value = true)]
    jobs: u64,
    /// Print what happens; with RUST_LOG, also what the engine logs, on stderr
    #[arg(long)]
    trace: bool,
    /// Print a line for each seed
    #[arg(long)]
    verbose: bool,
    /// Plant a bug, and stop when it is found
    #[arg(long, value_name = "BUG", value_parser = bug())]
    planted: Option<Bug>,
}

/// A bug that can be planted, by its name.
type Bug = (&'static str, Planted);

const BUGS: [Bug; 16] = [
    ("unsynced-vote", Planted::Engine(Flaw::UnsyncedVote)),
    ("unconfirmed-read", Planted::Engine(Flaw::UnconfirmedRead)),
    ("early-acknowledgement", Planted::Engine(Flaw::EarlyAcknowledgement)),
    ("restored-leader", Planted::Engine(Flaw::RestoredLeader)),
    ("random-state", Planted::Engine(Flaw::RandomState)),
    ("repeated-write", Planted::Engine(Flaw::RepeatedWrite)),
    ("lying-disk", Planted::LyingDisk),
    ("emptied-disk", Planted::EmptiedDisk),
    ("unchecked-change", Planted::Engine(Flaw::UncheckedChange)),
    ("wiped-voter", Planted::Engine(Flaw::ForgottenDisk)),
    ("unreadable-is-absent", Planted::Engine(Flaw::UnreadableIsAbsent)),
    ("ignored-segment", Planted::Engine(Flaw::IgnoredSegment)),
    ("stale-lease-clock", Planted::Engine(Flaw::StaleLeaseClock)),
    ("early-numbers", Planted::Engine(Flaw::EarlyNumbers)),
    ("greedy-delete", Planted::Engine(Flaw::GreedyDelete)),
    ("uncompared", Planted::Engine(Flaw::Uncompared)),
];

fn bug() -> impl TypedValueParser<Value = Bug> {
    let names = PossibleValuesParser::new(BUGS.map(|(name, _)| name));
    names.try_map(|name| BUGS.into_iter().find(|(known, _)| *known == name).ok_or("no such bug"))
}

fn processors() -> u64 {
    thread::available_parallelism().map_or(1, |processors| processors.get() as u64)
}

pub(crate) fn main() -> ExitCode {
    Command::parse().run()
}

/// What came of all seeds so far.
#[derive(Default)]
struct Sum {
    seeds: u64,
    ticks: u64,
    answered: u64,
    refused: u64,
    unheard: u64,
    faults: u64,
    starts: u64,
    terms: usize,
    entries: usize,
    compared: u64,
    slowest: (u64, u64),
    /// That of the last seed.
    hash: Option<u64>,
    failed: Vec<u64>,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        let (answered, refused, unheard) = outcome.operations;
        self.seeds += 1;
        self.ticks += outcome.ticks;
        self.answered += answered;
        self.refused += refused;
        self.unheard += unheard;
        self.faults += outcome.faults;
        self.starts += outcome.starts;
        self.terms += outcome.terms;
        self.entries += outcome.entries;
        self.compared += outcome.compared;
        self.slowest = self.slowest.max((outcome.recovery, outcome.seed));
        self.hash = Some(outcome.hash);
        if !outcome.is_passed() {
            self.failed.push(outcome.seed);
        }
    }
}

impl Command {
    /// The seeds that are run.
    fn range(&self) -> Range<u64> {
        let (first, count) = self.seed.map_or((self.first, self.seeds), |seed| (seed, 1));
        first..first.saturating_add(count)
    }

    fn options(&self) -> Options {
        let mut options = Options::new(self.ticks).planted(self.planted.map(|(_, bug)| bug));
        options.trace = self.trace;
        options
    }

    fn run(self) -> ExitCode {
        if std::env::var_os("RUST_LOG").is_some() {
            let filter = EnvFilter::from_default_env();
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
        }
        if let Some(seed) = self.here {
            return seed_process::run_here(seed, &self.options());
        }
        let began = Instant::now();
        let (next, sum) = (AtomicU64::new(self.range().start), Mutex::new(Sum::default()));
        thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| self.work(&next, &sum, began));
            }
        });
        let mut sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(seed) = self.seed {
            self.repeat(seed, &mut sum);
        }
        self.report(&sum, began)
    }

    fn work(&self, next: &AtomicU64, sum: &Mutex<Sum>, began: Instant) {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            // Of a planted bug one finding is enough. Without one all seeds are run, so that the list of failures is
            // whole.
            let found = |sum: &Sum| self.planted.is_some() && !sum.failed.is_empty();
            if seed >= self.range().end || found(&sum.lock().unwrap_or_else(PoisonError::into_inner)) {
                return;
            }
            let outcome = seed_process::run_in_child(seed, self.options(), self.planted.map(|(name, _)| name));
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            match &outcome {
                Ok(outcome) => {
                    sum.add(outcome);
                    if self.verbose || self.seed.is_some() || !outcome.is_passed() {
                        clear();
                        println!("{outcome}");
                    }
                }
                Err(panic) => {
                    sum.seeds += 1;
                    sum.failed.push(seed);
                    clear();
                    println!("seed {seed}: {panic}");
                }
            }
            if !outcome.is_ok_and(|outcome| outcome.is_passed()) {
                println!("  again: {}", self.again(seed));
            }
            self.progress(&sum, began);
        }
    }

    /// The command that runs a seed again.
    fn again(&self, seed: u64) -> String {
        let planted = self.planted.map(|(name, _)| format!(" --planted {name}")).unwrap_or_default();
        format!("cargo xtask simulate --seed {seed} --ticks {}{planted} --trace", self.ticks)
    }

    /// The same seed once more: the same must happen, byte for byte.
    fn repeat(&self, seed: u64, sum: &mut Sum) {
        let (options, planted) = (Options::new(self.ticks), self.planted.map(|(name, _)| name));
        let Ok(again) = seed_process::run_in_child(seed, options, planted) else { return };
        println!("again: hash {:016x}", again.hash);
        if sum.hash != Some(again.hash) {
            println!("the runs differ");
            sum.failed.push(seed);
        }
    }

    fn progress(&self, sum: &Sum, began: Instant) {
        let mut terminal = std::io::stderr();
        if !terminal.is_terminal() || self.trace {
            return;
        }
        let Range { start, end } = self.range();
        let of = end - start;
        let rate = sum.seeds as f64 / began.elapsed().as_secs_f64();
        let failed = sum.failed.len();
        let _ = write!(
            terminal,
            "\r\x1b[2K{} of {of} seeds, {} ticks, {failed} failed, {rate:.1} seeds/s",
            sum.seeds, sum.ticks
        );
        let _ = terminal.flush();
    }

    fn report(&self, sum: &Sum, began: Instant) -> ExitCode {
        clear();
        let Sum { seeds, ticks, answered, refused, unheard, faults, starts, terms, entries, compared, .. } = sum;
        println!(
            "{seeds} seeds, {ticks} ticks in {:.1} s: {} operations ({answered} answered, {refused} refused, {unheard} unknown), \
             {faults} faults, {starts} starts of nodes, {terms} leaders, {entries} entries, {compared} states compared; slowest \
             to serve again: {} ticks (seed {})",
            began.elapsed().as_secs_f64(),
            answered + refused + unheard,
            sum.slowest.0,
            sum.slowest.1,
        );
        match (sum.failed.as_slice(), self.planted) {
            ([], None) => {
                println!("all passed");
                ExitCode::SUCCESS
            }
            ([], Some((name, _))) => {
                println!("{name} was not found");
                ExitCode::FAILURE
            }
            (failed, Some((name, _))) => {
                println!("{name} was found: seeds {failed:?}");
                ExitCode::SUCCESS
            }
            (failed, None) => {
                println!("failed: {failed:?}");
                ExitCode::FAILURE
            }
        }
    }
}

/// Clears the line of the progress.
fn clear() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[2K");
    }
}
