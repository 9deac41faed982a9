//! `snet bench`: measures stores, and prints the table of requests per second by the number of nodes.

mod compare;
mod preload;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use ::bench::{Amount, BACKENDS, Clients, Comparison, Placement, Workload, backend, markdown};
use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand, ValueEnum};

use crate::{
    exit::{Failure, Outcome},
    output::Output,
    progress::Progress,
};

const EXAMPLES: &str = "\
Examples:
  snet bench
      put and compare-and-swap on the embedded engine, 1, 3 and 5 nodes, 10 clients x 500 iterations, as published for etcd
  snet bench --backends embedded,embedded-etcd-api,etcd,consul,zk --html report.html
      the same beside real servers, started here for each round (cargo feature `all`, `cargo xtask setup all`), as a page with charts
  snet bench --quick, snet bench --full
      every backend of this build, shortly, or everything at length
  snet bench --seconds 5 --clients 10,64,256 --nodes 3
      longer, and with more clients: less noise
  snet bench --ops put,get,cas,hot-cas,txn,payment --value-bytes 2048
      every operation, with larger values
  snet bench --ops put --clients 64 --rates 1000,5000 --seconds 5
      besides, in open loops: latencies at fixed rates, as they are for those who do not wait for each other
  snet bench --nodes 3 --kills 10 --json after.json
      besides, the time without service after each of 10 kills of the leader
  snet bench compare before.json after.json
      what changed, and whether it is noise
  snet bench --preload 1000000 --seconds 3
      what a million channels cost

All nodes run on this machine. Each iteration waits for its answer (a closed loop). A cas is a read and a swap, and counts
as two requests; a payment is a reservation and a commit, likewise. After each run the counters in the store have to add up to the
acknowledged writes, else the command fails with code 1. The limit is what waiting for the disk and the network allows:
clients x requests / (fdatasync + round trip), where several nodes sync at once on one disk. docs/benchmarks.md explains the rest, and the format of the JSON.";

/// Measure stores, and check while measuring that they lose nothing.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Backends to compare, in interleaved rounds [default: embedded].
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    backends: Option<Vec<String>>,
    /// Sizes of the clusters [default: 1,3,5].
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS")]
    nodes: Option<Vec<usize>>,
    /// Numbers of clients, 1 to 4096 [default: 10].
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS")]
    clients: Option<Vec<usize>>,
    /// Besides the closed loop, open loops of so many iterations per second, by all clients together.
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS", visible_alias = "rate")]
    rates: Vec<f64>,
    /// Iterations of each client in each round [default: 500; with --clients, --seconds 1].
    #[arg(long, value_name = "NUMBER", conflicts_with = "seconds")]
    iterations: Option<u64>,
    /// Work for so long in each round instead of a number of iterations.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<Duration>,
    /// The size of a value.
    #[arg(long, default_value_t = 128, value_name = "BYTES")]
    value_bytes: usize,
    /// Operations: put, get, cas, hot-cas (all clients on one key), txn (three keys), payment (reserve and commit) [default: put,cas].
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    ops: Option<Vec<String>>,
    /// How often everything is repeated; the figures are medians [default: 3].
    #[arg(long, value_name = "NUMBER")]
    rounds: Option<usize>,
    /// Which nodes the clients call.
    #[arg(long, value_enum, default_value_t)]
    placement: PlacementName,
    /// Besides, kill the leader so often, and measure the time without service.
    #[arg(long, value_name = "NUMBER", conflicts_with = "failover")]
    kills: Option<usize>,
    /// The same as --kills 10.
    #[arg(long)]
    failover: bool,
    /// Every backend of this build on 1 and 3 nodes, put and cas.
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Every backend of this build on 1, 3 and 5 nodes, every operation, 10 and 256 clients, 10 kills.
    #[arg(long)]
    full: bool,
    /// Threads for the clients.
    #[arg(long, default_value_t = Clients::THREADS, value_name = "NUMBER")]
    client_threads: usize,
    /// Where clusters keep their data while they run; default: `target` here or above, else the temporary folder.
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
    /// Store so many channels in a node of the embedded engine instead, and measure what they cost: memory, time for a
    /// snapshot and a restart, and the speed of puts beside an empty node.
    #[arg(long, value_name = "CHANNELS", conflicts_with_all = [
        "backends", "nodes", "ops", "placement", "rates", "kills", "failover", "quick", "full", "html", "markdown", "json"
    ])]
    preload: Option<u64>,
    /// Write the report to this file too, as one page with charts.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the report to this file too, in Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write the report to this file too, in JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How the report is printed.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Command {
    Compare(compare::Arguments),
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum PlacementName {
    /// All nodes, evenly.
    #[default]
    Spread,
    /// The node that leads.
    Leader,
    /// One node that does not lead.
    Follower,
}

pub(crate) fn run(arguments: Arguments) -> Outcome {
    if let Some(Command::Compare(files)) = arguments.command {
        return compare::run(&files);
    }
    if arguments.client_threads == 0 {
        return Err(Failure::Usage(anyhow!("the clients need at least one thread")));
    }
    let clients = Clients::new(arguments.client_threads)?;
    match arguments.preload {
        Some(channels) => preload::run(&arguments, channels, &clients),
        None => run_comparison(&arguments, &clients),
    }
}

fn run_comparison(arguments: &Arguments, clients: &Clients) -> Outcome {
    let comparison = comparison(arguments)?;
    comparison.validate()?;
    warn_of_memory(&comparison.directory)?;
    let mut progress = Progress::new(comparison.steps());
    let report = ::bench::compare(&comparison, clients, |step| progress.step(step))?;
    drop(progress);
    // First the files: a reader of standard output may be gone.
    write(arguments.json.as_deref(), || Output::Json.render(&report, markdown))?;
    write(arguments.markdown.as_deref(), || Ok(markdown(&report)))?;
    write(arguments.html.as_deref(), || Ok(::bench::html(&report)))?;
    arguments.output.print(&report, markdown)?;
    if report.is_clean() {
        return Ok(());
    }
    Err(Failure::Wrong(anyhow!("operations failed; the report says how many and how")))
}

fn write(file: Option<&Path>, text: impl FnOnce() -> Result<String, Failure>) -> Outcome {
    let Some(file) = file else { return Ok(()) };
    let text = text()?;
    fs::write(file, text).with_context(|| file.display().to_string()).map_err(Failure::Missing)
}

fn warn_of_memory(directory: &Path) -> Outcome {
    if ::bench::on_tmpfs(directory)? {
        let directory = directory.display();
        eprintln!(
            "warning: {directory} is in memory, where a sync costs nothing: the figures say nothing about durable writes. \
             Name a directory on a disk with --dir."
        );
    }
    Ok(())
}

/// What is run unless the command line says otherwise.
struct Preset {
    backends: Vec<String>,
    nodes: &'static [usize],
    clients: &'static [usize],
    ops: &'static [&'static str],
    amount: Amount,
    rounds: usize,
    kills: usize,
}

impl Preset {
    /// As published for etcd.
    fn usual() -> Self {
        Self {
            backends: vec!["embedded".to_owned()],
            nodes: &[1, 3, 5],
            clients: &[10],
            ops: &["put", "cas"],
            amount: Amount::Iterations(500),
            rounds: 3,
            kills: 0,
        }
    }

    fn quick() -> Self {
        let backends = durable().filter(|name| !PLACED.contains(&name.as_str())).collect();
        let amount = Amount::Time(Duration::from_millis(500));
        Self { backends, nodes: &[1, 3], amount, rounds: 2, ..Self::usual() }
    }

    fn full() -> Self {
        Self {
            backends: durable().collect(),
            clients: &[10, 256],
            ops: &["put", "get", "cas", "hot-cas", "txn", "payment"],
            amount: Amount::Time(Duration::from_millis(600)),
            kills: KILLS,
            ..Self::usual()
        }
    }

    fn of(arguments: &Arguments) -> Self {
        match (arguments.quick, arguments.full) {
            (true, _) => Self::quick(),
            (_, true) => Self::full(),
            _ if arguments.clients.is_some() => Self { amount: OTHER_CLIENTS, ..Self::usual() },
            _ => Self::usual(),
        }
    }
}

/// With other numbers of clients than published, as many iterations of each would take from a blink to minutes.
const OTHER_CLIENTS: Amount = Amount::Time(Duration::from_secs(1));

/// The engine once more, with its callers elsewhere.
const PLACED: [&str; 2] = ["embedded-leader", "embedded-follower"];

/// Enough for a distribution.
const KILLS: usize = 10;

/// Every backend of this build that keeps what it acknowledges.
fn durable() -> impl Iterator<Item = String> {
    BACKENDS.iter().filter(|backend| backend.durable).map(|backend| backend.name.to_owned())
}

impl Arguments {
    fn amount(&self) -> Amount {
        match (self.seconds, self.iterations) {
            (Some(time), _) => Amount::Time(time),
            (None, Some(iterations)) => Amount::Iterations(iterations),
            (None, None) => Preset::of(self).amount,
        }
    }

    fn directory(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(::bench::default_directory)
    }
}

fn comparison(arguments: &Arguments) -> Result<Comparison, ::bench::Error> {
    let preset = Preset::of(arguments);
    let backends = arguments.backends.clone().unwrap_or(preset.backends);
    let ops = arguments.ops.clone();
    let ops = ops.unwrap_or_else(|| preset.ops.iter().copied().map(str::to_owned).collect());
    let kills = arguments.kills.or(arguments.failover.then_some(KILLS));
    Ok(Comparison {
        backends: backends.iter().map(|name| backend(name)).collect::<Result<_, _>>()?,
        nodes: arguments.nodes.clone().unwrap_or_else(|| preset.nodes.to_vec()),
        workloads: ops.iter().map(|name| name.parse()).collect::<Result<Vec<Workload>, _>>()?,
        clients: arguments.clients.clone().unwrap_or_else(|| preset.clients.to_vec()),
        rates: arguments.rates.clone(),
        value_bytes: arguments.value_bytes,
        amount: arguments.amount(),
        rounds: arguments.rounds.unwrap_or(preset.rounds),
        placement: match arguments.placement {
            PlacementName::Spread => Placement::Spread,
            PlacementName::Leader => Placement::Leader,
            PlacementName::Follower => Placement::Follower,
        },
        kills: kills.unwrap_or(preset.kills),
        directory: arguments.directory(),
        command: std::iter::once("snet".to_owned()).chain(std::env::args().skip(1)).collect::<Vec<_>>().join(" "),
    })
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "give a number of seconds, such as 5 or 0.5".to_owned())?;
    let duration = Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| "the time has to be above 0".to_owned())
}
