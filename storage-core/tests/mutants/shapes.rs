//! Defects that are one function: what differs from a sound store.

use std::{collections::BTreeSet, fmt};

use async_trait::async_trait;
use futures::StreamExt;
use storage_core::{
    Capabilities, Entry, Error, Guard, Key, Observed, Op, Outcome, Page, ReadOptions, Result, ScanOptions, Store, Txn,
    WatchEvent, WatchOptions, WatchStream, WriteOptions,
};

use crate::harness::{Defect, Sound};

macro_rules! opaque {
    ($($name:ident)*) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        })*
    };
}

opaque!(Declares Commits Answers Reads Many Scans Pages Keys Events Watches Refuses);

/// Nothing is wrong.
#[derive(Debug)]
pub(crate) struct Faithful;
impl Defect for Faithful {}

/// Declares something else.
pub(crate) struct Declares(pub(crate) fn(&mut Capabilities));
impl Defect for Declares {
    fn declare(&self, capabilities: &mut Capabilities) {
        (self.0)(capabilities);
    }
}

/// Commits another transaction than it was given.
pub(crate) struct Commits(pub(crate) fn(Txn) -> Txn);
#[async_trait]
impl Defect for Commits {
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        // What is left of a transaction may be nothing, which the sound store would refuse.
        match (self.0)(txn) {
            Txn { guards, ops } if guards.is_empty() && ops.is_empty() => Ok(Outcome::Committed(nothing())),
            txn => sound.commit(txn, options).await,
        }
    }
}

pub(crate) fn nothing() -> storage_core::Committed {
    storage_core::Committed { versions: Vec::new(), revision: None }
}

/// Gives another answer to a commit.
pub(crate) struct Answers(pub(crate) fn(&Txn, Outcome) -> Outcome);
#[async_trait]
impl Defect for Answers {
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        Ok((self.0)(&txn, sound.commit(txn.clone(), options).await?))
    }
}

/// Refuses some transactions.
pub(crate) struct Refuses(pub(crate) fn(&Txn) -> bool);
#[async_trait]
impl Defect for Refuses {
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        if (self.0)(&txn) {
            return Err(Error::invalid_argument("refused"));
        }
        sound.commit(txn, options).await
    }
}

/// Reads one key wrongly.
pub(crate) struct Reads(pub(crate) fn(&Key, Option<Entry>) -> Option<Entry>);
#[async_trait]
impl Defect for Reads {
    async fn get(&self, sound: &Sound, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        Ok((self.0)(key, sound.get(key, options).await?))
    }
}

/// Reads several keys wrongly.
pub(crate) struct Many(pub(crate) fn(&[Key], Entries) -> Result<Entries>);
type Entries = Vec<Option<Entry>>;
#[async_trait]
impl Defect for Many {
    async fn get_many(&self, sound: &Sound, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        (self.0)(keys, sound.get_many(keys, options).await?)
    }
}

/// Asks for another page than it should; `None`: says that there is nothing.
pub(crate) struct Scans(pub(crate) fn(&[u8], ScanOptions) -> Option<Request>);
type Request = (Vec<u8>, ScanOptions);
#[async_trait]
impl Defect for Scans {
    async fn scan(&self, sound: &Sound, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        match (self.0)(prefix, options) {
            Some((prefix, options)) => sound.scan(&prefix, options).await,
            None => Ok(Page { entries: Vec::new(), next: None, revision: None }),
        }
    }
}

/// Gives another page than it read.
pub(crate) struct Pages(pub(crate) fn(&[u8], &ScanOptions, Page) -> Page);
#[async_trait]
impl Defect for Pages {
    async fn scan(&self, sound: &Sound, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        Ok((self.0)(prefix, &options, sound.scan(prefix, options.clone()).await?))
    }
}

/// Stores under another key than it was given.
pub(crate) struct Keys(pub(crate) fn(&[u8]) -> Vec<u8>);
impl Keys {
    fn inner(&self, key: &Key) -> Result<Key> {
        let bytes = (self.0)(key.as_bytes());
        Key::new(if bytes.is_empty() { vec![b'_'] } else { bytes })
    }
}
#[async_trait]
impl Defect for Keys {
    async fn get(&self, sound: &Sound, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        let entry = sound.get(&self.inner(key)?, options).await?;
        Ok(entry.map(|entry| Entry { key: key.clone(), ..entry }))
    }
    async fn get_many(&self, sound: &Sound, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        let inner = keys.iter().map(|key| self.inner(key)).collect::<Result<Vec<_>>>()?;
        let entries = sound.get_many(&inner, options).await?.into_iter().zip(keys);
        Ok(entries.map(|(entry, key)| entry.map(|entry| Entry { key: key.clone(), ..entry })).collect())
    }
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        let mut mapped = Txn::new();
        let mut seen = BTreeSet::new();
        for Guard { key, expected } in txn.guards {
            mapped.guards.push(Guard { key: self.inner(&key)?, expected });
        }
        // The last of those that fall together wins.
        for op in txn.ops.into_iter().rev() {
            let key = self.inner(op.key())?;
            if seen.insert(key.clone()) {
                mapped.ops.push(match op {
                    Op::Put { value, .. } => Op::Put { key, value },
                    Op::Delete { .. } => Op::Delete { key },
                });
            }
        }
        mapped.ops.reverse();
        sound.commit(mapped, options).await
    }
}

/// Sees other events than there were.
pub(crate) struct Events(pub(crate) fn(WatchEvent) -> Option<WatchEvent>);
#[async_trait]
impl Defect for Events {
    async fn watch(&self, sound: &Sound, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        let map = self.0;
        let events = sound.watch(prefix, options).await?;
        let events = events.filter_map(move |event| std::future::ready(event.map(map).transpose()));
        Ok(events.boxed())
    }
}

/// Watches something else than it should.
pub(crate) struct Watches(pub(crate) fn(&[u8], WatchOptions) -> (Vec<u8>, WatchOptions));
#[async_trait]
impl Defect for Watches {
    async fn watch(&self, sound: &Sound, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        let (prefix, options) = (self.0)(prefix, options);
        sound.watch(&prefix, options).await
    }
}

/// The floor of the contract: nothing is declared that need not be. Sound, unless one of the promises to refuse is broken.
#[derive(Debug, Default)]
pub(crate) struct Floor {
    pub(crate) takes_ids: bool,
    pub(crate) resumes: bool,
    pub(crate) reveals_revisions: bool,
}
#[async_trait]
impl Defect for Floor {
    fn declare(&self, capabilities: &mut Capabilities) {
        *capabilities = Capabilities::new("floor");
    }
    async fn scan(&self, sound: &Sound, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        let page = sound.scan(prefix, options).await?;
        Ok(if self.reveals_revisions { page } else { Page { revision: None, ..page } })
    }
    async fn get_many(&self, sound: &Sound, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        if keys.len() > Capabilities::MIN_TXN_OPS {
            return Err(Error::TooLarge { what: "keys", actual: keys.len(), limit: Capabilities::MIN_TXN_OPS });
        }
        let mut entries = Vec::new();
        for key in keys {
            entries.push(sound.get(key, options).await?);
            tokio::task::yield_now().await;
        }
        Ok(entries)
    }
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        if options.operation_id.is_some() && !self.takes_ids {
            return Err(Error::Unsupported { feature: "operation ids".to_owned() });
        }
        sound.ping(ReadOptions::default().timeout(options.timeout)).await.map_err(|error| match error {
            // Before anything is sent, a closed store says so.
            Error::Closed => Error::Closed,
            _ => Error::deadline_after_send(options.timeout),
        })?;
        txn.validate(&Capabilities::new("floor"))?;
        Ok(match sound.commit(txn, options).await? {
            Outcome::Committed(mut committed) => {
                if !self.reveals_revisions {
                    committed.revision = None;
                }
                Outcome::Committed(committed)
            }
            Outcome::Conflict(mut conflict) => {
                conflict.current = Observed::Unknown;
                Outcome::Conflict(conflict)
            }
        })
    }
    async fn watch(&self, sound: &Sound, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        if options.after.is_some() && !self.resumes {
            return Err(Error::Unsupported { feature: "resuming a watch".to_owned() });
        }
        let events = sound.watch(prefix, options).await?;
        let without_revision = |event| match event {
            WatchEvent::Put { entry, .. } => WatchEvent::Put { entry, revision: None },
            WatchEvent::Delete { key, .. } => WatchEvent::Delete { key, revision: None },
            other => other,
        };
        Ok(events.map(move |event| event.map(without_revision)).boxed())
    }
}
