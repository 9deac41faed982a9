//! `snet storage copy`: all keys of one store into another, page by page, so that it can be resumed and compared.

use ::storage::{
    Entry, Expected, Key, Outcome as Committed, ReadOptions, ScanOptions, Store, StoreExt as _, Txn, Version,
    WriteOptions,
};
use anyhow::anyhow;
use futures::TryStreamExt as _;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{
    exit::{Failure, Outcome},
    output::Output,
    store_url::store_url,
    table::{Table, thousands},
};

/// Copy all keys with a prefix from one store to another, of whatever backend, and compare both at the end.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage copy --from etcd://10.0.1.1:2379 --to embedded:/var/lib/channels
  snet storage copy --from consul://10.0.1.1 --to zk://10.0.2.1 --prefix channel/
  snet storage copy --from @etcd.url --to env:NEW_STORE
      a URL with a password is in a file, or in a variable: whoever is on this machine can read a command line

Stop whoever writes to either store first. A copy that was interrupted is resumed by the same command: keys that are there
already, with the same value, are left alone. A key with another value is not touched, and ends the command with code 4, unless
--overwrite is given. At the end both stores are read again and compared, by number and SHA-256 of all keys and values: code 1 if
they differ. Versions are each store's own and are not copied.")]
pub(crate) struct Copy {
    /// The store to read.
    #[arg(long, value_name = "URL", value_parser = store_url)]
    from: String,
    /// The store to write.
    #[arg(long, value_name = "URL", value_parser = store_url)]
    to: String,
    /// Copy only keys with this prefix.
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// Replace values that differ.
    #[arg(long)]
    overwrite: bool,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What was done.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct CopyReport {
    /// Keys that were written.
    copied: u64,
    /// Keys that were there already.
    unchanged: u64,
    /// Keys in both stores at the end.
    keys: u64,
    /// The hash of all keys and values in both stores at the end.
    sha256: String,
}

pub(super) async fn run(arguments: &Copy) -> Outcome {
    let Copy { from, to, prefix, overwrite, output } = arguments;
    let within = within(from, to).filter(|within| [within, prefix.as_bytes()].concat().starts_with(prefix.as_bytes()));
    let from = ::storage::open(from).await?;
    let copied = match ::storage::open(to).await {
        Ok(to) => {
            let copied = match within {
                Some(within) if is_within(&*from, &*to, &within).await? => Err(Failure::Usage(anyhow!(
                    "the store to write lies in the store to read: what is copied would be copied again; choose a --to outside of \
                     --from, or a --prefix that leaves it out"
                ))),
                _ => copy(&*from, &*to, prefix.as_bytes(), *overwrite).await,
            };
            let _ = to.close().await;
            copied
        }
        Err(error) => Err(error.into()),
    };
    let _ = from.close().await;
    output.print(&copied?, |report| {
        let mut table = Table::default();
        let number = |number: u64| thousands(number as f64);
        table.row(["copied", &number(report.copied)]);
        table.row(["there already", &number(report.unchanged)]);
        table.row(["keys in both stores", &number(report.keys)]);
        format!("{table}sha256 of both  {}\n", report.sha256)
    })
}

/// What keys of the second store begin with in the first, if that can be: only in an etcd is a store that is part of another among its keys.
fn within(from: &str, to: &str) -> Option<Vec<u8>> {
    let parse = |text: &str| ::storage::servers::parse_hosts(text).ok().filter(|url| url.scheme().starts_with("etcd"));
    let path = |url: &str| percent_decode_str(url.trim_start_matches('/')).collect::<Vec<_>>();
    let (from, to) = (path(parse(from)?.path()), path(parse(to)?.path()));
    // With nothing between them they are one store, and each key is there already.
    to.strip_prefix(&*from).filter(|within| !within.is_empty()).map(<[u8]>::to_vec)
}

/// Whether what is written to the second store is in the first: they may be one cluster by whatever addresses.
async fn is_within(from: &dyn Store, to: &dyn Store, within: &[u8]) -> Result<bool, Failure> {
    let mark = format!("snet-copy-{:032x}", ::storage::unique_id());
    let key = Key::new(mark.clone())?;
    to.put(&key, mark.clone()).await?;
    let seen = match Key::new([within, key.as_bytes()].concat()) {
        Ok(key) => from.get(&key, ReadOptions::default()).await,
        // A key that is too long for the first store is not in it.
        Err(_) => Ok(None),
    };
    to.delete(&key).await?;
    Ok(seen?.is_some())
}

async fn copy(from: &dyn Store, to: &dyn Store, prefix: &[u8], overwrite: bool) -> Result<CopyReport, Failure> {
    let mut report = CopyReport::default();
    let mut after = None;
    loop {
        let page = from.scan(prefix, ScanOptions { after, ..ScanOptions::default() }).await?;
        for batch in batches(page.entries, to) {
            copy_batch(to, batch, overwrite, &mut report).await?;
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    // Read again from both, and not remembered from above: what counts is what is there, also of keys that were left
    // alone.
    let (source, copy) = (digest(from, prefix).await?, digest(to, prefix).await?);
    if source != copy {
        return Err(Failure::Wrong(anyhow!(
            "the stores differ: {} keys with SHA-256 {} here, {} with {} there; if somebody has written meanwhile, stop them and \
             run the command again; otherwise the second store has had keys of its own",
            source.0,
            source.1,
            copy.0,
            copy.1
        )));
    }
    (report.keys, report.sha256) = copy;
    Ok(report)
}

/// Entries in pieces that each make one transaction of the store that they go to.
fn batches(entries: Vec<Entry>, to: &dyn Store) -> Vec<Vec<Entry>> {
    let limits = to.capabilities();
    // Each has a guard besides.
    let most = (limits.max_txn_ops / 2).max(1);
    let mut batches: Vec<Vec<Entry>> = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        // The key stands in the guard and in the put. Backends count a few bytes more, hence half of what is allowed.
        let size = 2 * entry.key.as_bytes().len() + entry.value.len();
        match batches.last_mut() {
            Some(batch) if batch.len() < most && bytes + size <= limits.max_txn_bytes / 2 => {
                bytes += size;
                batch.push(entry);
            }
            _ => {
                bytes = size;
                batches.push(vec![entry]);
            }
        }
    }
    batches
}

/// Writes what is not there yet.
async fn copy_batch(
    to: &dyn Store,
    batch: Vec<Entry>,
    overwrite: bool,
    report: &mut CopyReport,
) -> Result<(), Failure> {
    let keys: Vec<Key> = batch.iter().map(|entry| entry.key.clone()).collect();
    let there = to.get_many(&keys, ReadOptions::default()).await?;
    let mut txn = Txn::new();
    let mut copied = 0;
    for (entry, there) in batch.into_iter().zip(there) {
        let expected = match there {
            None => Expected::Absent,
            Some(there) if there.value == entry.value => {
                report.unchanged += 1;
                continue;
            }
            // The version that was looked at: a value that somebody writes in between is not replaced unseen.
            Some(there) if overwrite => Expected::Version(there.version),
            Some(there) => return Err(differs(&there.key, there.version)),
        };
        copied += 1;
        txn = txn.guard(entry.key.clone(), expected).put(entry.key, entry.value);
    }
    if copied == 0 {
        return Ok(());
    }
    match to.commit(txn, WriteOptions::default()).await? {
        Committed::Committed(_) => {
            report.copied += copied;
            Ok(())
        }
        Committed::Conflict(_) => {
            Err(Failure::No(anyhow!("somebody else writes to the second store: stop them, and run the command again")))
        }
    }
}

fn differs(key: &Key, version: Version) -> Failure {
    Failure::No(anyhow!(
        "{key} has another value in the second store (version {version}); it was left as it is; --overwrite replaces such values"
    ))
}

/// How many keys there are, and the SHA-256 of all of them with their values, in their order.
async fn digest(store: &dyn Store, prefix: &[u8]) -> Result<(u64, String), Failure> {
    let (mut count, mut hash) = (0, Sha256::new());
    let mut entries = store.scan_all(prefix);
    while let Some(entry) = entries.try_next().await? {
        count += 1;
        for part in [entry.key.as_bytes(), &entry.value] {
            // Its length before each part: without it, a byte that moves from a key to its value would change nothing.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    }
    Ok((count, hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}

#[cfg(test)]
mod tests {
    use ::storage::MemoryStore;

    use super::*;

    async fn filled(range: std::ops::Range<u32>) -> MemoryStore {
        let store = MemoryStore::new();
        for number in range {
            let key = Key::new(format!("k/{number:05}")).unwrap();
            store.put(&key, format!("value {number}")).await.unwrap();
        }
        store
    }

    #[tokio::test]
    async fn everything_is_copied_once() {
        let (from, to) = (filled(0..2500).await, MemoryStore::new());
        let report = copy(&from, &to, b"", false).await.unwrap();
        assert_eq!((report.copied, report.unchanged, report.keys), (2500, 0, 2500));
        assert_eq!(report.sha256, digest(&from, b"").await.unwrap().1);
        let again = copy(&from, &to, b"", false).await.unwrap();
        assert_eq!((again.copied, again.unchanged, again.keys), (0, 2500, 2500));
    }

    #[tokio::test]
    async fn a_copy_goes_on_where_it_ended() {
        let (from, to) = (filled(0..300).await, filled(0..130).await);
        let report = copy(&from, &to, b"", false).await.unwrap();
        assert_eq!((report.copied, report.unchanged, report.keys), (170, 130, 300));
    }

    #[tokio::test]
    async fn a_value_that_differs_is_left_alone_unless_it_shall_be_replaced() {
        let (from, to) = (filled(0..10).await, MemoryStore::new());
        let key = Key::new("k/00003").unwrap();
        let version = to.put(&key, "mine").await.unwrap();
        assert!(matches!(copy(&from, &to, b"", false).await, Err(Failure::No(_))));
        let left = to.get(&key, ReadOptions::default()).await.unwrap().unwrap();
        assert_eq!((left.version, left.value), (version, "mine".into()));
        assert_eq!(copy(&from, &to, b"", true).await.unwrap().copied, 10);
    }

    #[tokio::test]
    async fn keys_that_the_source_does_not_have_are_told() {
        let (from, to) = (filled(0..10).await, filled(0..11).await);
        assert!(matches!(copy(&from, &to, b"", false).await, Err(Failure::Wrong(_))));
        assert_eq!(copy(&from, &to, b"k/00001", false).await.unwrap().keys, 1, "only below the prefix");
    }

    #[tokio::test]
    async fn large_values_go_in_pieces() {
        let (from, to) = (MemoryStore::new(), MemoryStore::new());
        for number in 0..20 {
            let key = Key::new(format!("large/{number}")).unwrap();
            from.put(&key, vec![7; MemoryStore::MAX_VALUE_BYTES]).await.unwrap();
        }
        assert_eq!(copy(&from, &to, b"", false).await.unwrap().copied, 20);
    }
}
