mod apart;

use std::{
    error::Error,
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

use lexopt::{Arg, Parser, ValueExt};
use simulation::{
    nemesis::Planted,
    run::{Options, Outcome},
};
use storage_embedded::simulated::Flaw;
use tracing_subscriber::EnvFilter;

const HELP: &str = "\
Simulates clusters of the embedded engine: networks, disks and clocks are simulated, and each seed gives the same run every time.

Usage: cargo xtask simulate [OPTIONS]

  --seeds N      how many seeds [100]
  --first S      the first of them [1]
  --seed S       this one alone, twice, to see that it repeats
  --ticks N      for how many milliseconds of the simulation faults strike [12000]
  --jobs N       how many seeds at the same time, each in a process of its own [processors]
  --trace        print what happens; with RUST_LOG, also what the engine logs, on stderr
  --verbose      print a line for each seed
  --planted BUG  plant a bug, and stop when it is found: unsynced-vote, unconfirmed-read, early-acknowledgement,
                 restored-leader, random-state, repeated-write, lying-disk, emptied-disk";

struct Command {
    seeds: Range<u64>,
    alone: bool,
    /// The seed is run in this process, which was started for it.
    here: bool,
    jobs: u64,
    verbose: bool,
    options: Options,
    planted: Option<String>,
}

pub(crate) fn main() -> ExitCode {
    match parse() {
        Ok(Some(command)) => command.run(),
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn parse() -> Result<Option<Command>, Box<dyn Error>> {
    let (mut first, mut count, mut seed) = (1_u64, 100_u64, None);
    let mut command = Command {
        seeds: 0..0,
        alone: false,
        here: false,
        jobs: thread::available_parallelism().map_or(1, |processors| processors.get() as u64),
        verbose: false,
        options: Options::new(12_000),
        planted: None,
    };
    let mut arguments = Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("seeds") => count = arguments.value()?.parse()?,
            Arg::Long("first") => first = arguments.value()?.parse()?,
            Arg::Long("seed") => seed = Some(arguments.value()?.parse::<u64>()?),
            Arg::Long("here") => {
                seed = Some(arguments.value()?.parse::<u64>()?);
                command.here = true;
            }
            Arg::Long("ticks") => command.options.ticks = arguments.value()?.parse()?,
            Arg::Long("jobs") => command.jobs = arguments.value()?.parse()?,
            Arg::Long("trace") => command.options.trace = true,
            Arg::Long("verbose") => command.verbose = true,
            Arg::Long("planted") => {
                let name = arguments.value()?.string()?;
                command.options.planted = Some(planted(&name).ok_or_else(|| format!("no such bug: {name}"))?);
                command.planted = Some(name);
            }
            Arg::Long("help") | Arg::Short('h') => {
                println!("{HELP}");
                return Ok(None);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    command.alone = seed.is_some();
    command.seeds = seed.map_or(first..first.saturating_add(count), |seed| seed..seed.saturating_add(1));
    Ok(Some(command))
}

fn planted(name: &str) -> Option<Planted> {
    Some(match name {
        "unsynced-vote" => Planted::Engine(Flaw::UnsyncedVote),
        "unconfirmed-read" => Planted::Engine(Flaw::UnconfirmedRead),
        "early-acknowledgement" => Planted::Engine(Flaw::EarlyAcknowledgement),
        "restored-leader" => Planted::Engine(Flaw::RestoredLeader),
        "random-state" => Planted::Engine(Flaw::RandomState),
        "repeated-write" => Planted::Engine(Flaw::RepeatedWrite),
        "lying-disk" => Planted::LyingDisk,
        "emptied-disk" => Planted::EmptiedDisk,
        _ => return None,
    })
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
    fn run(self) -> ExitCode {
        if std::env::var_os("RUST_LOG").is_some() {
            let filter = EnvFilter::from_default_env();
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
        }
        if self.here {
            return apart::here(self.seeds.start, &self.options);
        }
        let began = Instant::now();
        let (next, sum) = (AtomicU64::new(self.seeds.start), Mutex::new(Sum::default()));
        thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| self.work(&next, &sum, began));
            }
        });
        let mut sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
        if self.alone {
            self.repeat(&mut sum);
        }
        self.report(&sum, began)
    }

    fn work(&self, next: &AtomicU64, sum: &Mutex<Sum>, began: Instant) {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            let found = |sum: &Sum| self.planted.is_some() && !sum.failed.is_empty();
            if seed >= self.seeds.end || found(&sum.lock().unwrap_or_else(PoisonError::into_inner)) {
                return;
            }
            let outcome = apart::one(seed, self.options, self.planted.as_deref());
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            match &outcome {
                Ok(outcome) => {
                    sum.add(outcome);
                    if self.verbose || self.alone || !outcome.is_passed() {
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
        let planted = self.planted.as_ref().map(|name| format!(" --planted {name}")).unwrap_or_default();
        format!("cargo xtask simulate --seed {seed} --ticks {}{planted} --trace", self.options.ticks)
    }

    /// The same seed once more: the same must happen, byte for byte.
    fn repeat(&self, sum: &mut Sum) {
        let options = Options::new(self.options.ticks);
        let Ok(again) = apart::one(self.seeds.start, options, self.planted.as_deref()) else { return };
        println!("again: hash {:016x}", again.hash);
        if sum.hash != Some(again.hash) {
            println!("the runs differ");
            sum.failed.push(self.seeds.start);
        }
    }

    fn progress(&self, sum: &Sum, began: Instant) {
        let mut terminal = std::io::stderr();
        if !terminal.is_terminal() || self.options.trace {
            return;
        }
        let of = self.seeds.end - self.seeds.start;
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
        match (sum.failed.as_slice(), &self.planted) {
            ([], None) => {
                println!("all passed");
                ExitCode::SUCCESS
            }
            ([], Some(name)) => {
                println!("{name} was not found");
                ExitCode::FAILURE
            }
            (failed, Some(name)) => {
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
