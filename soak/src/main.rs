//! `soak`: every workload under every class of faults, for a while. `cargo xtask soak` calls it.

use std::{env, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, builder::PossibleValuesParser};
use soak::{Soak, soak, workloads};
use storage_testkit::nemesis::{Class, FaultSchedule};

/// Strikes a cluster while clients work on it, and checks every answer.
#[derive(Debug, Parser)]
#[command(after_help = "\
Partitions and loss of power need root on Linux; without it they are skipped, with the reason.

Exit code 0: passed. 1: a violation, or servers that did not come back. 2: the command line is wrong. 3: some rounds prove nothing.")]
struct Arguments {
    /// The backend: embedded, growing, etcd, consul or zk.
    #[arg(long)]
    backend: String,
    /// How long; a fraction is fine.
    #[arg(long, default_value = "2", value_name = "NUMBER", value_parser = minutes)]
    minutes: Duration,
    /// Where all choices come from; default: at random, and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// What strikes; default: one class after the other.
    #[arg(long, value_name = "CLASS", value_parser = PossibleValuesParser::new(Class::ALL.map(Class::name)))]
    fault: Option<String>,
    /// What clients do; default: one workload after the other.
    #[arg(long, value_parser = PossibleValuesParser::new(workloads()))]
    workload: Option<String>,
    /// How many servers vote.
    #[arg(long, default_value_t = 3, value_name = "NUMBER")]
    nodes: usize,
    /// How many clients there are.
    #[arg(long, default_value_t = 12, value_name = "NUMBER")]
    clients: usize,
    /// How long a round of one workload under one class is, in seconds.
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    round: u64,
    /// Where the servers have their data; default: the system's temporary folder.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Where the history of a violation goes.
    #[arg(long, default_value = "target/soak")]
    out: PathBuf,
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| format!("{text} is no number"))?;
    Duration::try_from_secs_f64(60.0 * minutes).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string()),
    };
    match env::args().nth(1).as_deref() {
        Some("node") => return node(&runtime),
        Some("replica") => return replica(&runtime),
        _ => {}
    }
    let arguments = Arguments::parse();
    let program = match env::current_exe() {
        Ok(program) => program,
        Err(error) => return fail(&error.to_string()),
    };
    let chosen = Soak {
        backend: arguments.backend,
        nodes: arguments.nodes,
        time: arguments.minutes,
        round: Duration::from_secs(arguments.round),
        pace: FaultSchedule::PACE,
        serves_within: FaultSchedule::SERVES_WITHIN,
        seed: arguments.seed.unwrap_or_else(|| fastrand::u64(..1 << 32)),
        class: arguments.fault.as_deref().and_then(Class::named),
        workload: arguments.workload,
        clients: arguments.clients,
        directory: arguments.directory.unwrap_or_else(env::temp_dir),
        out: arguments.out,
        program,
    };
    let (backend, seed, seconds) = (&chosen.backend, chosen.seed, chosen.time.as_secs());
    println!("{backend}, {} nodes, {} clients, {seconds} s, seed {seed}", chosen.nodes, chosen.clients);
    match runtime.block_on(soak(&chosen, |line| println!("{line}"))) {
        Ok(summary) => {
            println!("\n{summary}");
            let code = if summary.is_violated() { 1 } else { u8::from(!summary.is_passed()) * 3 };
            ExitCode::from(code)
        }
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(what: &str) -> ExitCode {
    eprintln!("soak: {what}");
    ExitCode::FAILURE
}

#[cfg(feature = "embedded")]
fn node(runtime: &tokio::runtime::Runtime) -> ExitCode {
    let arguments = soak::NodeArguments::parse_from(env::args().skip(1));
    match runtime.block_on(soak::node(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

#[cfg(not(feature = "embedded"))]
fn node(_: &tokio::runtime::Runtime) -> ExitCode {
    fail("the embedded engine is not in this build")
}

#[cfg(all(feature = "embedded", feature = "etcd"))]
fn replica(runtime: &tokio::runtime::Runtime) -> ExitCode {
    let arguments = soak::ReplicaArguments::parse_from(env::args().skip(1));
    match runtime.block_on(soak::replica(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

#[cfg(not(all(feature = "embedded", feature = "etcd")))]
fn replica(_: &tokio::runtime::Runtime) -> ExitCode {
    fail("clusters that grow by themselves are not in this build")
}
