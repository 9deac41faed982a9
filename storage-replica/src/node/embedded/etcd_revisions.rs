//! The revisions that clients of etcd see, for those who use the node without its API.

use async_trait::async_trait;
use futures::StreamExt as _;
use storage_core::{
    Capabilities, Committed, Conflict, Entry, Error, Expected, Guard, Key, Observed, Outcome, Page, ReadOptions,
    Result, Revision, ScanOptions, Store, Txn, Version, WatchEvent, WatchOptions, WatchStream, WriteOptions,
};

/// The store of an embedded node, with the revisions and versions that the node's etcd API shows.
///
/// An empty etcd has revision 1, and an empty embedded store 0. Replicas that have a node use its store, and those without use the API: unless
/// both are told the same versions, one that is handed from one replica to another would mean another write there.
#[derive(Debug)]
pub(super) struct EtcdRevisions<S>(pub(super) S);

/// What the API adds to each revision.
const SHIFT: u64 = 1;

fn to_etcd(revision: Revision) -> Revision {
    Revision(revision.0 + SHIFT)
}

fn from_etcd(revision: Revision) -> Revision {
    Revision(revision.0.saturating_sub(SHIFT))
}

fn version_to_etcd(version: Version) -> Version {
    version.to_u64().map_or(version, |number| Version::from_u64(number + SHIFT))
}

/// No key has the version 0, so that what cannot be meant stays what nothing has.
fn version_from_etcd(version: Version) -> Version {
    version.to_u64().map_or(version, |number| Version::from_u64(number.saturating_sub(SHIFT)))
}

fn entry_to_etcd(entry: Entry) -> Entry {
    Entry { version: version_to_etcd(entry.version), ..entry }
}

fn event_to_etcd(event: WatchEvent) -> WatchEvent {
    match event {
        WatchEvent::Put { entry, revision } => {
            WatchEvent::Put { entry: entry_to_etcd(entry), revision: revision.map(to_etcd) }
        }
        WatchEvent::Delete { key, revision } => WatchEvent::Delete { key, revision: revision.map(to_etcd) },
        event => event,
    }
}

fn error_to_etcd(error: Error) -> Error {
    match error {
        Error::Compacted { oldest } => Error::Compacted { oldest: to_etcd(oldest) },
        error => error,
    }
}

fn guard_from_etcd(guard: Guard) -> Guard {
    match guard.expected {
        Expected::Version(version) => Guard { expected: Expected::Version(version_from_etcd(version)), ..guard },
        _ => guard,
    }
}

#[async_trait]
impl<S: Store> Store for EtcdRevisions<S> {
    fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }

    async fn get(&self, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        Ok(self.0.get(key, options).await?.map(entry_to_etcd))
    }

    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        let entries = self.0.get_many(keys, options).await?;
        Ok(entries.into_iter().map(|entry| entry.map(entry_to_etcd)).collect())
    }

    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        let Page { entries, next, revision } = self.0.scan(prefix, options).await?;
        Ok(Page { entries: entries.into_iter().map(entry_to_etcd).collect(), next, revision: revision.map(to_etcd) })
    }

    async fn commit(&self, mut txn: Txn, options: WriteOptions) -> Result<Outcome> {
        txn.guards = txn.guards.into_iter().map(guard_from_etcd).collect();
        Ok(match self.0.commit(txn, options).await? {
            Outcome::Committed(Committed { versions, revision }) => Outcome::Committed(Committed {
                versions: versions.into_iter().map(|version| version.map(version_to_etcd)).collect(),
                revision: revision.map(to_etcd),
            }),
            Outcome::Conflict(Conflict { guard, current: Observed::Present(entry) }) => {
                Outcome::Conflict(Conflict { guard, current: Observed::Present(entry_to_etcd(entry)) })
            }
            conflict => conflict,
        })
    }

    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        let options = WatchOptions { after: options.after.map(from_etcd), ..options };
        let events = self.0.watch(prefix, options).await.map_err(error_to_etcd)?;
        Ok(events.map(|event| event.map(event_to_etcd).map_err(error_to_etcd)).boxed())
    }

    async fn ping(&self, options: ReadOptions) -> Result<()> {
        self.0.ping(options).await
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}
