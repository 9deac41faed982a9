//! `snet channel move`

use ::storage::channel::Address;
use payment_channels::{Ledger, move_unnamed};
use serde::Serialize;

use super::{address, listing::tell_unreadable, read_store::ReadStore};
use crate::{exit::Outcome, output::Output, store_url::store_url};

/// Move the records of an earlier version, which name neither network nor contract, to where this one looks for them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet channel move etcd://127.0.0.1:2379 --chain-id 1 --contract 0x5e592F9b1d303183d963635f895f0f0C48284f4e

Stop all replicas first, and start those of this version afterwards. Each record moves in one transaction: a move that was cut off
goes on when it is run again. Claims tell their contract; those of another one are named and left, and so is what cannot be read.
The code is 6 then.")]
pub(crate) struct Move {
    /// The store of the service, as `storage::open` takes it: a URL, or `@FILE` or `env:NAME` for one that nobody else shall read.
    #[arg(value_parser = store_url)]
    url: String,
    /// The chain on which the contract is: 1 is the Ethereum mainnet, 11155111 Sepolia.
    #[arg(long, value_name = "NUMBER")]
    chain_id: u64,
    /// The contract that holds the deposits of all channels in the records.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    contract: Address,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Serialize)]
struct MoveAnswer {
    chain_id: u64,
    contract: String,
    records: u64,
    left: usize,
}

pub(super) async fn run(Move { url, chain_id, contract, output }: &Move) -> Outcome {
    // One that is not there is not made.
    ReadStore::open(url).await?.close().await;
    let store = ::storage::open(url).await?;
    let moved = move_unnamed(&*store, Ledger { chain_id: *chain_id, contract: *contract }).await;
    // What was written is written.
    let _ = store.close().await;
    let moved = moved?;
    let (chain_id, contract) = (*chain_id, contract.to_string());
    let answer = MoveAnswer { chain_id, contract, records: moved.records, left: moved.left.len() };
    output.print(&answer, |MoveAnswer { chain_id, contract, records, .. }| {
        format!("{records} records are those of contract {contract} on chain {chain_id} now\n")
    })?;
    tell_unreadable(&moved.left)
}
