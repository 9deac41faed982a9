//! `snet storage get`, `put`, `cas`, `delete`, `scan` and `watch`.

use std::io::{Read as _, Write as _};

use ::storage::{
    Conflict, Entry, Expected, Key, Observed, Outcome as Committed, Revision, ScanOptions, Store, Txn, Version,
    WatchEvent, WatchOptions,
};
use anyhow::anyhow;
use futures::StreamExt as _;
use serde::Serialize;

use super::flags::StoreFlags;
use crate::{
    exit::{Failure, Outcome},
    output::Output,
    table::Table,
};

/// Read a key.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage get channel/7 --endpoints http://10.0.1.1:2379,http://10.0.1.2:2379
  snet storage get channel/7 --store embedded:/var/lib/channels --output json
  snet storage get channel/7 --store etcd://10.0.1.1:2379 --value-only > value

The read is linearizable: it needs a majority of the nodes. An absent key ends the command with code 4.")]
pub(crate) struct Get {
    /// The key.
    #[arg(value_parser = key)]
    key: Key,
    /// Print the bytes of the value and nothing else.
    #[arg(long)]
    value_only: bool,
    #[command(flatten)]
    flags: StoreFlags,
}

/// Set a key, whatever was there.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage put channel/7 open --endpoints http://10.0.1.1:2379
  snet storage put channel/7 - --store embedded:/var/lib/channels < value

It prints the version that the key has now. Code 3: it was not written; code 5: it may have been.")]
pub(crate) struct Put {
    /// The key.
    #[arg(value_parser = key)]
    key: Key,
    /// The value; `-` reads it from standard input.
    value: String,
    #[command(flatten)]
    flags: StoreFlags,
}

/// Set a key if it is as expected: compare and swap.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage cas channel/7 claimed --version 2f --endpoints http://10.0.1.1:2379
  snet storage cas channel/7 claimed --value open --store etcd://10.0.1.1:2379
  snet storage cas channel/7 open --absent --store embedded:/var/lib/channels

If something else is there, nothing is written and the command ends with code 4.")]
pub(crate) struct Cas {
    /// The key.
    #[arg(value_parser = key)]
    key: Key,
    /// The new value; `-` reads it from standard input.
    new_value: String,
    #[command(flatten)]
    expected: ExpectedThere,
    #[command(flatten)]
    flags: StoreFlags,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct ExpectedThere {
    /// The version that the key has to have.
    #[arg(long, value_name = "VERSION", value_parser = version)]
    version: Option<Version>,
    /// The value that the key has to have.
    #[arg(long, value_name = "VALUE")]
    value: Option<String>,
    /// The key has to be absent.
    #[arg(long)]
    absent: bool,
}

/// Remove a key.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage delete channel/7 --endpoints http://10.0.1.1:2379
  snet storage delete channel/7 --version 2f --store etcd://10.0.1.1:2379

To remove a key that is absent is fine, unless a version is given.")]
pub(crate) struct Delete {
    /// The key.
    #[arg(value_parser = key)]
    key: Key,
    /// The version that the key has to have.
    #[arg(long, value_name = "VERSION", value_parser = version)]
    version: Option<Version>,
    #[command(flatten)]
    flags: StoreFlags,
}

/// Read all keys with a prefix, in their order.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage scan --endpoints http://10.0.1.1:2379
  snet storage scan channel/ --limit 100 --store embedded:/var/lib/channels --output json")]
pub(crate) struct Scan {
    /// The prefix; without it, all keys.
    #[arg(default_value = "")]
    prefix: String,
    /// Stop after so many keys.
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
    #[command(flatten)]
    flags: StoreFlags,
}

/// Follow the changes of keys with a prefix, until Ctrl-C.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage watch channel/ --endpoints http://10.0.1.1:2379
  snet storage watch --after 1000 --store etcd://10.0.1.1:2379 --output json
      from an earlier revision on, a line of JSON for each change
  snet storage watch lock --changes 1 --store etcd://10.0.1.1:2379
      wait for one change")]
pub(crate) struct Watch {
    /// The prefix; without it, all keys.
    #[arg(default_value = "")]
    prefix: String,
    /// Begin after this revision, where the store has revisions.
    #[arg(long, value_name = "REVISION")]
    after: Option<u64>,
    /// End after so many changes.
    #[arg(long, value_name = "NUMBER")]
    changes: Option<usize>,
    #[command(flatten)]
    flags: StoreFlags,
}

pub(super) async fn get(Get { key, value_only, flags }: &Get) -> Outcome {
    let store = flags.open().await?;
    let found = store.get(key, flags.reads()).await;
    let _ = store.close().await;
    let entry = found?.ok_or_else(|| Failure::no(format!("{key} is absent")))?;
    if *value_only {
        // As it is, without a line's end: a value of any bytes goes through a pipe unchanged.
        return Ok(std::io::stdout().lock().write_all(&entry.value)?);
    }
    flags.output.print(&Row::from(&entry), |row| {
        let mut table = Table::default();
        table.row(["key", &row.key]);
        table.row(["version", &row.version]);
        table.row(["value", &row.printed_value()]);
        table.to_string()
    })
}

pub(super) async fn put(Put { key, value, flags }: &Put) -> Outcome {
    let txn = Txn::new().put(key.clone(), read_value(value)?);
    flags.ask(async |store| written(store, key, txn, flags).await, Written::table).await
}

pub(super) async fn cas(Cas { key, new_value, expected, flags }: &Cas) -> Outcome {
    let expected = match expected {
        ExpectedThere { version: Some(version), .. } => Expected::Version(*version),
        ExpectedThere { value: Some(value), .. } => Expected::Value(value.clone().into()),
        _ => Expected::Absent,
    };
    let txn = Txn::new().guard(key.clone(), expected).put(key.clone(), read_value(new_value)?);
    flags.ask(async |store| written(store, key, txn, flags).await, Written::table).await
}

pub(super) async fn delete(Delete { key, version, flags }: &Delete) -> Outcome {
    let txn = Txn::new().delete(key.clone());
    let txn = match version {
        Some(version) => txn.guard(key.clone(), Expected::Version(*version)),
        None => txn,
    };
    flags.ask(async |store| written(store, key, txn, flags).await, Written::table).await
}

pub(super) async fn scan(Scan { prefix, limit, flags }: &Scan) -> Outcome {
    let all = async |store: &dyn Store| {
        let (mut rows, mut after) = (Vec::new(), None);
        loop {
            // It never goes below zero, since no page has more than was asked for.
            let left = limit.map_or(ScanOptions::MAX_LIMIT, |limit| limit - rows.len());
            if left == 0 {
                return Ok(Rows { entries: rows, more: true });
            }
            let limit = left.min(ScanOptions::MAX_LIMIT);
            let page = store.scan(prefix.as_bytes(), ScanOptions { read: flags.reads(), after, limit }).await?;
            rows.extend(page.entries.iter().map(Row::from));
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(Rows { entries: rows, more: false }),
            }
        }
    };
    flags
        .ask(all, |rows| {
            let mut table = Table::default();
            for row in &rows.entries {
                table.row([&row.key, &row.version, &row.printed_value()]);
            }
            let more = if rows.more { ", and there may be more" } else { "" };
            let keys = if rows.entries.len() == 1 { "key" } else { "keys" };
            format!("{table}{} {keys}{more}\n", rows.entries.len())
        })
        .await
}

pub(super) async fn watch(Watch { prefix, after, changes, flags }: &Watch) -> Outcome {
    let store = flags.open().await?;
    let options = WatchOptions { after: after.map(Revision), timeout: flags.timeout() };
    let mut events = store.watch(prefix.as_bytes(), options).await?;
    let mut left = changes.unwrap_or(usize::MAX);
    while left > 0 {
        let event = tokio::select! {
            event = events.next() => event,
            _ = tokio::signal::ctrl_c() => break,
        };
        let Some(event) = event else { break };
        let change = PrintedChange::from(&event?);
        let line = match flags.output {
            Output::Table => change.line(),
            Output::Json => serde_json::to_string(&change).map_err(|error| Failure::Missing(error.into()))?,
        };
        writeln!(std::io::stdout().lock(), "{line}")?;
        left -= 1;
    }
    let _ = store.close().await;
    Ok(())
}

/// A key with its value, as it is printed. A value that is no text is printed in hexadecimal digits.
#[derive(Serialize)]
struct Row {
    key: String,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
}

#[derive(Serialize)]
struct Rows {
    entries: Vec<Row>,
    /// Whether the limit ended the scan.
    more: bool,
}

/// What a write has done.
#[derive(Serialize)]
struct Written {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
}

/// A change, as it is printed.
#[derive(Serialize)]
struct PrintedChange {
    change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    #[serde(flatten)]
    entry: Option<Row>,
    #[serde(rename = "key", skip_serializing_if = "Option::is_none")]
    deleted: Option<String>,
}

impl From<&Entry> for Row {
    fn from(entry: &Entry) -> Self {
        let printable = |text: &&str| text.chars().all(|c| !c.is_control() || c == '\n' || c == '\t');
        let text = std::str::from_utf8(&entry.value).ok().filter(printable);
        Self {
            key: entry.key.to_string(),
            version: entry.version.to_string(),
            value: text.map(str::to_owned),
            value_hex: text.is_none().then(|| entry.value.iter().map(|byte| format!("{byte:02x}")).collect()),
        }
    }
}

impl Row {
    /// The value for people.
    fn printed_value(&self) -> String {
        match (&self.value, &self.value_hex) {
            (Some(text), _) => text.clone(),
            (None, hex) => format!("0x{}", hex.as_deref().unwrap_or_default()),
        }
    }
}

impl Written {
    fn table(&self) -> String {
        let mut table = Table::default();
        match &self.version {
            Some(version) => table.row([self.key.as_str(), version]),
            None => table.row([self.key.as_str(), "removed"]),
        }
        table.to_string()
    }
}

impl From<&WatchEvent> for PrintedChange {
    fn from(event: &WatchEvent) -> Self {
        let revision = event.revision().map(|revision| revision.0);
        match event {
            WatchEvent::Put { entry, .. } => Self { change: "put", revision, entry: Some(entry.into()), deleted: None },
            event => Self { change: "delete", revision, entry: None, deleted: Some(event.key().to_string()) },
        }
    }
}

impl PrintedChange {
    fn line(&self) -> String {
        let revision = self.revision.map(|revision| format!("{revision}  ")).unwrap_or_default();
        match (&self.entry, &self.deleted) {
            (Some(row), _) => format!("{revision}put  {}  {}", row.key, row.printed_value()),
            (None, key) => format!("{revision}delete  {}", key.as_deref().unwrap_or_default()),
        }
    }
}

/// Commits a write, and says what is there instead if it met a conflict.
async fn written(store: &dyn Store, key: &Key, txn: Txn, flags: &StoreFlags) -> Result<Written, Failure> {
    match store.commit(txn, flags.writes()).await? {
        Committed::Committed(committed) => Ok(Written {
            key: key.to_string(),
            version: committed.version().map(|version| version.to_string()),
            revision: committed.revision.map(|revision| revision.0),
        }),
        Committed::Conflict(Conflict { current, .. }) => Err(Failure::no(match current {
            Observed::Present(entry) => {
                let row = Row::from(&entry);
                format!("nothing was written: {key} has version {} and value {}", row.version, row.printed_value())
            }
            Observed::Absent => format!("nothing was written: {key} is absent"),
            Observed::Unknown => format!("nothing was written: {key} is not as expected"),
        })),
    }
}

/// A value as given, or standard input.
fn read_value(text: &str) -> Result<Vec<u8>, Failure> {
    if text != "-" {
        return Ok(text.as_bytes().to_vec());
    }
    let mut value = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut value);
    read.map_err(|error| Failure::Missing(anyhow!("standard input: {error}")))?;
    Ok(value)
}

fn key(text: &str) -> Result<Key, String> {
    Key::new(text.to_owned()).map_err(|error| error.to_string())
}

fn version(text: &str) -> Result<Version, String> {
    text.parse().map_err(|error: ::storage::Error| error.to_string())
}
