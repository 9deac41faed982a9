//! A service of three replicas that is paid through channels of the MultiPartyEscrow contract, and a demonstration of it on an EVM.
//!
//! `replica` is what a service owner runs: [`replica`] puts it together, [`paid`] is the layer that has calls paid for, [`channel_state`]
//! tells clients where they stand, [`treasury`] makes claims. `demo` starts three of them and an EVM with the contract ([`evm`]), has
//! clients pay ([`client`]) while replicas are killed, claims on the chain, and prints the balance sheet ([`demo`]).

mod books;
mod channel_state;
mod client;
mod demo;
mod evm;
mod paid;
mod proto;
mod replica;
mod treasury;

use std::process::ExitCode;

use clap::Parser;

/// A service that is paid through channels, and a demonstration of it.
#[derive(Debug, Parser)]
#[command(version)]
enum Command {
    /// Runs one replica of the service until it is interrupted.
    Replica(replica::Replica),
    /// Runs three replicas and an EVM with the real contract, pays, kills, claims, and prints the balance sheet.
    Demo(demo::Demo),
}

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match Command::parse() {
        Command::Replica(replica) => replica.run().await,
        Command::Demo(demo) => demo.run().await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("paid-service: {error:#}");
            ExitCode::FAILURE
        }
    }
}
