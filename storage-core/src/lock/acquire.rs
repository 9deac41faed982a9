//! Acquiring a lock: look, wait for the holder's lease by the own clock, and write a tenure over what was seen.
//!
//! Invariants: a lock is taken over only after its pair of versions was seen unchanged for a whole TTL. A transaction
//! in doubt is resolved before another counts. No clock is compared with that of the holder.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    FencingToken, LockOptions, call_timeout, passes,
    record::{Fence, heartbeat},
};
use crate::{Backoff, Deadline, Error, Expected, Key, Outcome, ReadOptions, Result, Store, Txn, Version, WriteOptions};

/// A lock that is ours now.
pub(super) struct Acquired {
    pub(super) fence: Fence,
    /// The version of the fence.
    pub(super) version: Version,
    /// The start of the first call that may have acquired it: the lease counts from there.
    pub(super) since: Instant,
}

/// How long to wait before looking at a lock again: at first, and at most. Looking often shows a release soon;
/// for a takeover it makes no difference.
const POLL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

pub(super) async fn acquire<S: Store>(store: &S, name: &Key, lease: &Key, options: &LockOptions) -> Result<Acquired> {
    let deadline = Deadline::after(options.wait).at();
    let mut poll = Backoff::new(POLL.0, POLL.1);
    // One for all attempts of this call: whichever of them was applied, the record shows that it was ours.
    let nonce = crate::unique_id();
    let mut attempt = Attempt { store, name, lease, options, nonce, watched: None, unknown: None };
    loop {
        // Decided before looking, so that a wait of zero looks once.
        let last = Instant::now() >= deadline;
        let free_at = match attempt.step().await {
            Ok(Step::Acquired(acquired)) => return Ok(acquired),
            Ok(Step::Held { owner, .. }) if last => return Err(attempt.end(Error::LockHeld { owner })),
            Ok(Step::Held { until, .. }) => until,
            // The next step begins with a read, which shows whether it was applied.
            Ok(Step::Doubt) => continue,
            Err(error) if passes(&error) && !last => deadline,
            Err(error) => return Err(attempt.end(error)),
        };
        let next = Instant::now() + poll.next_wait();
        tokio::time::sleep_until(next.min(free_at).min(deadline)).await;
    }
}

/// What a step came to.
enum Step {
    Acquired(Acquired),
    /// Somebody holds it: until then, if nothing more is heard of that holder.
    Held {
        until: Instant,
        owner: String,
    },
    /// A transaction without an answer may have acquired it: only another look can tell.
    Doubt,
}

struct Attempt<'a, S> {
    store: &'a S,
    name: &'a Key,
    lease: &'a Key,
    options: &'a LockOptions,
    nonce: u128,
    watched: Option<Watched>,
    unknown: Option<Unknown>,
}

/// The pair of versions that is watched, and since when it has not changed.
struct Watched {
    versions: Versions,
    since: Instant,
}

/// A transaction without an answer. It can only be applied as long as the versions that it was guarded by stand.
struct Unknown {
    versions: Versions,
    start: Instant,
    error: Error,
}

type Versions = [Option<Version>; 2];

impl<S: Store> Attempt<'_, S> {
    /// Looks at the lock and takes it if it is free or its lease has run out.
    async fn step(&mut self) -> Result<Step> {
        let seen = self.look().await?;
        if let Some(unknown) = &self.unknown {
            if let Some((fence, version)) = seen.tenure(self.nonce) {
                let since = unknown.start;
                return Ok(Step::Acquired(Acquired { fence, version, since }));
            }
            // Its guards are gone for ever, since no version repeats: it was refused, or will be when it arrives. From here on a conflict is
            // somebody else.
            if unknown.versions != seen.versions {
                self.unknown = None;
            }
        }
        match seen.free_at(&mut self.watched) {
            Some(until) if until > Instant::now() => Ok(Step::Held { until, owner: seen.owner() }),
            // Not held, or watched for a whole TTL without a sign of life.
            _ => self.take(seen).await,
        }
    }

    async fn look(&self) -> Result<Seen> {
        let read = ReadOptions::default().timeout(call_timeout(self.options.ttl));
        let mut entries = self.store.get_many(&[self.name.clone(), self.lease.clone()], read).await?.into_iter();
        let (fence, lease) = (entries.next().flatten(), entries.next().flatten());
        let versions = [&fence, &lease].map(|entry| entry.as_ref().map(|entry| entry.version));
        let fence = fence.as_ref().map(Fence::of).transpose()?;
        Ok(Seen { fence, versions })
    }

    /// Writes a tenure of ours over what was seen, if that is still there.
    async fn take(&mut self, seen: Seen) -> Result<Step> {
        let token = seen.fence.as_ref().map_or(Ok(FencingToken(1)), |fence| fence.next_token(self.name))?;
        let LockOptions { ttl, owner, .. } = self.options.clone();
        let fence = Fence { held: true, token, ttl, nonce: self.nonce, owner };
        // Both keys are guarded. The fence alone would let a holder be overtaken whose heartbeat came between the look and this
        // transaction; the heartbeat alone would miss a release.
        let expected = seen.versions.map(|version| version.map_or(Expected::Absent, Expected::Version));
        let [fence_expected, lease_expected] = expected;
        let txn = Txn::new()
            .guard(self.name.clone(), fence_expected)
            .guard(self.lease.clone(), lease_expected)
            .put(self.name.clone(), fence.encode())
            .put(self.lease.clone(), heartbeat(token));
        // Before the call: the lease may have begun at any time after this, so counting from here errs on the safe side.
        let start = Instant::now();
        match self.store.commit(txn, WriteOptions::default().timeout(call_timeout(ttl))).await {
            Ok(Outcome::Committed(committed)) => {
                let version = committed.version().ok_or_else(|| Error::corrupt("a committed put has no version"))?;
                Ok(Step::Acquired(Acquired { fence, version, since: start }))
            }
            // Faster than this one was perhaps our own earlier one.
            Ok(Outcome::Conflict(_)) if self.unknown.is_some() => Ok(Step::Doubt),
            Ok(Outcome::Conflict(_)) => Ok(Step::Held { until: start, owner: self.look().await?.owner() }),
            // A second one in doubt is not remembered: it had the guards of the first or newer ones, and only one of them can be applied.
            Err(error) if error.may_be_applied() && self.unknown.is_none() => {
                self.unknown = Some(Unknown { versions: seen.versions, start, error });
                Ok(Step::Doubt)
            }
            Err(error) => Err(error),
        }
    }

    /// The error to end with: that a transaction may yet acquire the lock matters more than any other.
    fn end(self, error: Error) -> Error {
        self.unknown.map_or(error, |unknown| unknown.error)
    }
}

/// What one look saw.
struct Seen {
    fence: Option<Fence>,
    /// Of the fence and of the heartbeat.
    versions: Versions,
}

impl Seen {
    /// From when on the lock may be taken; `None`: it is not held. Begins to watch if what is seen is new.
    fn free_at(&self, watched: &mut Option<Watched>) -> Option<Instant> {
        let fence = self.fence.as_ref().filter(|fence| fence.held)?;
        // The clock is read after the read has ended, so a whole TTL passes after the last renewal that it can have seen.
        let since = match watched {
            Some(watched) if watched.versions == self.versions => watched.since,
            _ => watched.insert(Watched { versions: self.versions, since: Instant::now() }).since,
        };
        Some(since + fence.ttl)
    }

    fn tenure(&self, nonce: u128) -> Option<(Fence, Version)> {
        let fence = self.fence.clone().filter(|fence| fence.held && fence.nonce == nonce)?;
        let [version, _] = self.versions;
        Some((fence, version?))
    }

    fn owner(&self) -> String {
        self.fence.as_ref().map(|fence| fence.owner.clone()).unwrap_or_default()
    }
}
