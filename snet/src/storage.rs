//! `snet storage ...`: runs the nodes of a store, looks after it, and reads and writes it.

mod alarm;
mod auth;
mod certs;
mod check;
#[cfg(feature = "etcd")]
mod cluster;
mod config;
mod copy;
mod data;
mod flags;
mod foreground;
mod init;
mod log;
mod member;
mod password;
mod ping;
mod serve;
mod snapshot;
mod status;
mod tls;
mod token;

use clap::Subcommand;

use crate::exit::{Failure, Outcome};

/// Run, look after, read and write a store.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(Box<init::Init>),
    Certs(certs::Certs),
    Serve(serve::Serve),
    #[command(subcommand)]
    Config(config::Command),
    Get(data::Get),
    Put(data::Put),
    Cas(data::Cas),
    Delete(data::Delete),
    Scan(data::Scan),
    Watch(data::Watch),
    Copy(copy::Copy),
    Status(status::Status),
    #[command(subcommand)]
    Member(member::Command),
    #[command(subcommand)]
    Alarm(alarm::Command),
    #[command(subcommand)]
    Auth(auth::Command),
    #[cfg(feature = "etcd")]
    #[command(subcommand)]
    Cluster(cluster::Command),
    #[command(subcommand)]
    Snapshot(snapshot::Command),
    Ping(ping::Ping),
    Check(check::Check),
}

pub(crate) fn run(command: Command) -> Outcome {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| Failure::Missing(error.into()))?;
    runtime.block_on(async {
        match command {
            Command::Init(arguments) => init::run(*arguments).await,
            Command::Certs(arguments) => certs::run(&arguments),
            Command::Serve(arguments) => serve::run(&arguments).await,
            Command::Config(command) => config::run(&command),
            Command::Get(arguments) => data::get(&arguments).await,
            Command::Put(arguments) => data::put(&arguments).await,
            Command::Cas(arguments) => data::cas(&arguments).await,
            Command::Delete(arguments) => data::delete(&arguments).await,
            Command::Scan(arguments) => data::scan(&arguments).await,
            Command::Watch(arguments) => data::watch(&arguments).await,
            Command::Copy(arguments) => copy::run(&arguments).await,
            Command::Status(arguments) => status::run(&arguments).await,
            Command::Member(command) => member::run(&command).await,
            Command::Alarm(command) => alarm::run(&command).await,
            Command::Auth(command) => auth::run(&command).await,
            #[cfg(feature = "etcd")]
            Command::Cluster(command) => cluster::run(&command).await,
            Command::Snapshot(command) => snapshot::run(&command).await,
            Command::Ping(arguments) => ping::run(&arguments).await,
            Command::Check(arguments) => check::run(&arguments).await,
        }
    })
}
