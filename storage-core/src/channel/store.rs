//! Channels in a store, typed: one entry a channel, with its key made of its id.
//!
//! Invariants: a key has one spelling, and a record lies only at the key of its own id. At another one it could pay one
//! channel from the deposit of another. The order of keys is that of ids.

use futures::{StreamExt, TryStreamExt, future::ready, stream::BoxStream};

use super::{ChannelId, ChannelState};
use crate::{
    Conflict, Entry, Error, Expected, Key, Observed, Outcome, ReadOptions, Result, Revision, ScanOptions, Store,
    StoreExt, Txn, Version, WatchEvent, WatchOptions, WriteOptions,
};

/// What the keys of all channels begin with.
pub const KEY_PREFIX: &[u8] = b"channel/";

/// The channels in a store, typed.
///
/// A channel is one entry: its key is [`key_of`] its id, its value the [encoding](ChannelState::encode) of its state.
/// A transaction over a channel and other records is built from these two.
///
/// Keys are `channel/` and the id in 64 lower-case hexadecimal digits, so their order is that of the ids.
///
/// # Errors
/// Every read answers [`Error::Corrupt`] for an entry that is no channel, or is that of another id; then those of the call underneath.
#[derive(Clone, Debug)]
pub struct ChannelStore<S> {
    store: S,
}

/// A channel as one read saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VersionedChannel {
    /// Its state.
    pub state: ChannelState,
    /// The version of its entry, for [`ChannelStore::compare_and_swap`].
    pub version: Version,
}

/// Why a channel was not written: nothing was applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelConflict {
    /// What is there instead; `None`: no such channel. Read after the conflict if the store does not tell with it.
    pub current: Option<VersionedChannel>,
}

/// One page of channels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelPage {
    /// The channels, in the order of their ids.
    pub channels: Vec<VersionedChannel>,
    /// Where the next page begins: behind this one; `None`: there are no more.
    pub next: Option<ChannelId>,
    /// The revision at which this page was read, where the store has revisions.
    pub revision: Option<Revision>,
}

/// A change of one channel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelEvent {
    /// Which channel.
    pub channel_id: ChannelId,
    /// What it is now; `None`: it is gone.
    pub current: Option<VersionedChannel>,
    /// The commit that changed it, where the store has revisions.
    pub revision: Option<Revision>,
}

impl<S: Store> ChannelStore<S> {
    /// The channels in `store`.
    pub fn new(store: S) -> Self {
        Self { store }
    }

    /// The store underneath, for transactions over more than one record.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Reads a channel; `None`: there is none of this id.
    pub async fn get(&self, id: ChannelId, options: ReadOptions) -> Result<Option<VersionedChannel>> {
        let entry = self.store.get(&key_of(id), options).await?;
        entry.as_ref().map(VersionedChannel::of).transpose()
    }

    /// Reads one page of channels, in the order of their ids: those after `after`, at most `limit`,
    /// which is 1 to [`ScanOptions::MAX_LIMIT`].
    pub async fn page(&self, after: Option<ChannelId>, limit: usize, read: ReadOptions) -> Result<ChannelPage> {
        let options = ScanOptions { read, after: after.map(key_of), limit };
        let page = self.store.scan(KEY_PREFIX, options).await?;
        let channels = page.entries.iter().map(VersionedChannel::of).collect::<Result<_>>()?;
        let next = page.next.as_ref().map(id_of).transpose()?;
        Ok(ChannelPage { channels, next, revision: page.revision })
    }

    /// All channels, in the order of their ids, read page by page.
    pub fn list(&self) -> BoxStream<'_, Result<VersionedChannel>> {
        self.store.scan_all(KEY_PREFIX).and_then(|entry| ready(VersionedChannel::of(&entry))).boxed()
    }

    /// Adds a channel that is not there. The inner result is its version, or what is in the way.
    ///
    /// # Cancel safety
    /// As for [`Store::commit`]; so for every write here.
    pub async fn put_if_absent(
        &self,
        state: &ChannelState,
        options: WriteOptions,
    ) -> Result<Result<Version, ChannelConflict>> {
        self.put(state, Expected::Absent, options).await
    }

    /// Moves a channel whose version is `version` to `state`. The inner result is the new version, or what is there instead.
    pub async fn compare_and_swap(
        &self,
        version: Version,
        state: &ChannelState,
        options: WriteOptions,
    ) -> Result<Result<Version, ChannelConflict>> {
        self.put(state, Expected::Version(version), options).await
    }

    /// Removes a channel whose version is `version`. The inner result says what is there instead.
    pub async fn delete(
        &self,
        id: ChannelId,
        version: Version,
        options: WriteOptions,
    ) -> Result<Result<(), ChannelConflict>> {
        let key = key_of(id);
        let txn = Txn::new().guard(key.clone(), Expected::Version(version)).delete(key);
        match self.store.commit(txn, options).await? {
            Outcome::Committed(_) => Ok(Ok(())),
            Outcome::Conflict(conflict) => Ok(Err(self.conflict(id, conflict, options).await?)),
        }
    }

    /// The changes of channels, as [`Store::watch`] promises them.
    pub async fn watch(&self, options: WatchOptions) -> Result<BoxStream<'static, Result<ChannelEvent>>> {
        let events = self.store.watch(KEY_PREFIX, options).await?;
        Ok(events.map(|event| ChannelEvent::of(event?)).boxed())
    }

    async fn put(
        &self,
        state: &ChannelState,
        expected: Expected,
        options: WriteOptions,
    ) -> Result<Result<Version, ChannelConflict>> {
        let key = key_of(state.channel_id);
        let txn = Txn::new().guard(key.clone(), expected).put(key, state.encode());
        match self.store.commit(txn, options).await? {
            Outcome::Committed(committed) => {
                let version = committed.version();
                version.map(Ok).ok_or_else(|| Error::corrupt("the store gave a committed put no version"))
            }
            Outcome::Conflict(conflict) => Ok(Err(self.conflict(state.channel_id, conflict, options).await?)),
        }
    }

    async fn conflict(&self, id: ChannelId, conflict: Conflict, options: WriteOptions) -> Result<ChannelConflict> {
        let current = match conflict.current {
            Observed::Present(entry) => Some(VersionedChannel::of(&entry)?),
            Observed::Absent => None,
            // Consul and ZooKeeper do not tell. This is read after the conflict, so it may be newer than what was in the way: enough for a
            // caller that decides anew.
            Observed::Unknown => self.get(id, ReadOptions::default().timeout(options.timeout)).await?,
        };
        Ok(ChannelConflict { current })
    }
}

/// The key of a channel.
pub fn key_of(id: ChannelId) -> Key {
    let digits = format!("{:064x}", id);
    #[expect(clippy::expect_used, reason = "72 bytes are within Key::MAX_BYTES")]
    Key::new([KEY_PREFIX, digits.as_bytes()].concat()).expect("a key of 72 bytes is valid")
}

/// The channel that a key is of.
///
/// # Errors
/// [`Error::Corrupt`] if it is no key of a channel.
pub fn id_of(key: &Key) -> Result<ChannelId> {
    let digits = key.as_bytes().strip_prefix(KEY_PREFIX).and_then(|digits| std::str::from_utf8(digits).ok());
    // The parser also takes upper case and fewer digits.
    let id = digits.and_then(|digits| format!("0x{digits}").parse().ok());
    // Other spellings of the number are no keys of ours.
    let id = id.filter(|id| key_of(*id) == *key);
    id.ok_or_else(|| Error::corrupt(format!("{key} is no key of a channel")))
}

impl VersionedChannel {
    /// The channel that an entry is.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is no channel, or that of another id than its key says.
    pub fn of(entry: &Entry) -> Result<Self> {
        let Entry { key, value, version } = entry;
        let state =
            ChannelState::decode(value).map_err(|error| Error::corrupt(format!("channel at {key}: {error}")))?;
        // A record copied to the key of another channel would pay one channel from the deposit of another.
        if state.channel_id != id_of(key)? {
            return Err(Error::corrupt(format!("channel at {key}: it has the id {}", state.channel_id)));
        }
        Ok(Self { state, version: *version })
    }
}

impl ChannelEvent {
    fn of(event: WatchEvent) -> Result<Self> {
        let (channel_id, revision) = (id_of(event.key())?, event.revision());
        let current = match event {
            WatchEvent::Put { entry, .. } => Some(VersionedChannel::of(&entry)?),
            WatchEvent::Delete { .. } => None,
        };
        Ok(Self { channel_id, current, revision })
    }
}
