//! The command line of the project. `snet --help` has the commands, and `snet COMMAND --help` examples of each.

mod bench;
mod channel;
mod check_history;
mod exit;
mod files;
mod manual;
mod output;
mod progress;
mod storage;
mod store_url;
mod table;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use storage_replica::raise_descriptor_limit;

/// The allocator of the program: with the small buffers that a store handles by the million it is far faster than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Looks after stores of payment-channel state, and measures them.
#[derive(Debug, Parser)]
#[command(name = "snet", version, after_help = exit::HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Arguments),
    #[command(subcommand)]
    Channel(channel::Command),
    CheckHistory(check_history::Arguments),
    #[command(subcommand)]
    Storage(storage::Command),
    Completions(manual::Completions),
    Man(manual::Man),
}

fn main() -> ExitCode {
    if let Err(error) = raise_descriptor_limit() {
        eprintln!("cannot raise the limit of open files, which bounds the connections of nodes: {error}");
    }
    let result = match Arguments::parse().command {
        Command::Bench(arguments) => bench::run(arguments),
        Command::Channel(command) => channel::run(command),
        Command::CheckHistory(arguments) => check_history::run(&arguments),
        Command::Storage(command) => storage::run(command),
        Command::Completions(arguments) => manual::completions(&arguments, Arguments::command()),
        Command::Man(arguments) => manual::man(&arguments, Arguments::command()),
    };
    exit::code(result)
}
