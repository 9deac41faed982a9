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
pub(super) struct AsShown<S>(pub(super) S);

/// What the API adds to each revision.
const SHIFT: u64 = 1;

fn shown(revision: Revision) -> Revision {
    Revision(revision.0 + SHIFT)
}

fn meant(revision: Revision) -> Revision {
    Revision(revision.0.saturating_sub(SHIFT))
}

fn shown_version(version: Version) -> Version {
    version.to_u64().map_or(version, |number| Version::from_u64(number + SHIFT))
}

/// No key has the version 0, so that what cannot be meant stays what nothing has.
fn meant_version(version: Version) -> Version {
    version.to_u64().map_or(version, |number| Version::from_u64(number.saturating_sub(SHIFT)))
}

fn shown_entry(entry: Entry) -> Entry {
    Entry { version: shown_version(entry.version), ..entry }
}

fn shown_event(event: WatchEvent) -> WatchEvent {
    match event {
        WatchEvent::Put { entry, revision } => {
            WatchEvent::Put { entry: shown_entry(entry), revision: revision.map(shown) }
        }
        WatchEvent::Delete { key, revision } => WatchEvent::Delete { key, revision: revision.map(shown) },
        event => event,
    }
}

fn shown_error(error: Error) -> Error {
    match error {
        Error::Compacted { oldest } => Error::Compacted { oldest: shown(oldest) },
        error => error,
    }
}

fn meant_guard(guard: Guard) -> Guard {
    match guard.expected {
        Expected::Version(version) => Guard { expected: Expected::Version(meant_version(version)), ..guard },
        _ => guard,
    }
}

#[async_trait]
impl<S: Store> Store for AsShown<S> {
    fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }

    async fn get(&self, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        Ok(self.0.get(key, options).await?.map(shown_entry))
    }

    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        let entries = self.0.get_many(keys, options).await?;
        Ok(entries.into_iter().map(|entry| entry.map(shown_entry)).collect())
    }

    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        let Page { entries, next, revision } = self.0.scan(prefix, options).await?;
        Ok(Page { entries: entries.into_iter().map(shown_entry).collect(), next, revision: revision.map(shown) })
    }

    async fn commit(&self, mut txn: Txn, options: WriteOptions) -> Result<Outcome> {
        txn.guards = txn.guards.into_iter().map(meant_guard).collect();
        Ok(match self.0.commit(txn, options).await? {
            Outcome::Committed(Committed { versions, revision }) => Outcome::Committed(Committed {
                versions: versions.into_iter().map(|version| version.map(shown_version)).collect(),
                revision: revision.map(shown),
            }),
            Outcome::Conflict(Conflict { guard, current: Observed::Present(entry) }) => {
                Outcome::Conflict(Conflict { guard, current: Observed::Present(shown_entry(entry)) })
            }
            conflict => conflict,
        })
    }

    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        let options = WatchOptions { after: options.after.map(meant), ..options };
        let events = self.0.watch(prefix, options).await.map_err(shown_error)?;
        Ok(events.map(|event| event.map(shown_event).map_err(shown_error)).boxed())
    }

    async fn ping(&self, options: ReadOptions) -> Result<()> {
        self.0.ping(options).await
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}
