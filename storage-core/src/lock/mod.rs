//! Locks on top of any store: no backend has to know about them.

mod acquire;
mod record;
mod renew;

use std::{fmt, time::Duration};

use self::{
    acquire::{Acquired, acquire},
    record::Fence,
    renew::Renewal,
};
use crate::{
    Backoff, DEFAULT_TIMEOUT, Deadline, Error, Expected, Guard, Key, Outcome, ReadOptions, Result, Store, Txn,
    WriteOptions,
};

/// A lock that this task holds: a lease, renewed in the background, and a fence that stops a late holder.
///
/// A lease alone is no mutual exclusion: a holder that was paused may write after its lease ran out
/// (<https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html>). So every write under the lock has to carry
/// the lock's [`guard`](Lock::guard), most easily with [`Txn::fenced`]; the commit of a holder that was overtaken
/// then conflicts, whatever any clock says.
///
/// # How it works
/// The lock `name` is two keys. The **fence** at `name` records token, owner, TTL and whether the lock is held; it
/// changes at acquisition, release and forced release only. The **heartbeat** at `name` + [`LockOptions::LEASE_SUFFIX`] is
/// rewritten by the holder every third of the TTL, guarded by the fence. One who waits and sees one and the same
/// version of the heartbeat for a whole TTL, by its own monotonic clock, takes the lock over in one transaction guarded
/// by the versions of both keys. No clock is compared with another.
///
/// # Invariants
/// - The token increases at every acquisition and forced release, and never goes down: the fence is never deleted.
/// - A transaction with the lock's guard commits only if no other acquisition, release or forced release came
///   between the lock's own acquisition and that commit.
/// - A holder that renews in time is never overtaken, except by force.
/// - [`Lock::lost`] resolves before anyone else can take the lock over, if clocks run at the same rate: the holder counts
///   the TTL from the start of its last successful renewal, a waiter from after it has seen it.
/// - A crashed holder blocks others for at most its TTL from when they begin to wait. There is no queue: any of
///   those who wait may be next.
///
/// Dropping it stops the renewal; the lock is then free for others when the lease has run out.
pub struct Lock<S> {
    store: S,
    name: Key,
    fence: Fence,
    guard: Guard,
    renewal: Renewal,
}

/// The number of a tenure of a lock: larger for each later one. For resources outside of the store that can
/// refuse a token smaller than one that they have seen; inside the store, use [`Lock::guard`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FencingToken(pub u64);

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a lock is acquired.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockOptions {
    /// How long the lease runs without a renewal: [`LockOptions::MIN_TTL`] to [`LockOptions::MAX_TTL`], in whole
    /// milliseconds (rounded down). So long may a crashed holder block others.
    pub ttl: Duration,
    /// How long to wait for a lock that is held. Zero: one attempt. A crashed holder is overtaken only if this is longer than the holder's TTL.
    pub wait: Duration,
    /// What the holder calls itself, for people who look: at most [`LockOptions::MAX_OWNER_BYTES`] bytes.
    pub owner: String,
}

impl LockOptions {
    /// The shortest lease (100 ms): a renewal every third of it has to get through to a majority in time.
    pub const MIN_TTL: Duration = Duration::from_millis(100);
    /// The longest lease (one day): a typing error must not block a channel for ever.
    pub const MAX_TTL: Duration = Duration::from_secs(24 * 3600);
    /// The longest owner, in bytes: a host name and a process id with room to spare.
    pub const MAX_OWNER_BYTES: usize = 512;

    /// What is added to a lock's name to get the key of its heartbeat. No other lock or record may have that key.
    pub const LEASE_SUFFIX: &'static str = "/lease";
    /// The longest name of a lock, in bytes.
    pub const MAX_NAME_BYTES: usize = Key::MAX_BYTES - Self::LEASE_SUFFIX.len();

    /// A lease of ten seconds, and a wait of thirty, for this owner.
    pub fn new(owner: impl Into<String>) -> Self {
        Self { ttl: Duration::from_secs(10), wait: Duration::from_secs(30), owner: owner.into() }
    }

    /// These options with this lease.
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl, ..self }
    }

    /// These options with this wait.
    pub fn wait(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    fn validate(&self) -> Result<()> {
        if !(Self::MIN_TTL..=Self::MAX_TTL).contains(&self.ttl) {
            let reason = format!("the TTL of a lock is {:?} to {:?}, not {:?}", Self::MIN_TTL, Self::MAX_TTL, self.ttl);
            return Err(Error::invalid_argument(reason));
        }
        let (actual, limit) = (self.owner.len(), Self::MAX_OWNER_BYTES);
        if actual > limit { Err(Error::TooLarge { what: "owner bytes", actual, limit }) } else { Ok(()) }
    }
}

/// What the record of a lock says, for people who look.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LockStatus {
    /// Whether it was acquired and not released. The holder may have crashed since.
    pub held: bool,
    /// The token of the last tenure.
    pub token: FencingToken,
    /// Who has or had it.
    pub owner: String,
    /// The lease of the last tenure.
    pub ttl: Duration,
}

impl<S: Store + Clone> Lock<S> {
    /// Acquires the lock `name`, and renews it in a task on the current runtime from then on.
    ///
    /// Takes at most [`LockOptions::wait`] and the deadline of one call more.
    ///
    /// # Errors
    /// [`Error::LockHeld`] if the wait ran out; [`Error::UnknownOutcome`] if it ran out over a transaction that may yet acquire
    /// the lock, which then blocks others for one TTL; [`Error::InvalidArgument`] and [`Error::TooLarge`] for options or a name out of range;
    /// [`Error::Corrupt`] if `name` holds something that is no lock; those of `get_many` and `commit`.
    ///
    /// # Cancel safety
    /// Dropped, the lock is acquired or not; if it is, nobody renews it and it is free after its TTL.
    pub async fn acquire(store: S, name: Key, options: LockOptions) -> Result<Self> {
        options.validate()?;
        let lease = lease_key(&name)?;
        let Acquired { fence, version, since } = acquire(&store, &name, &lease, &options).await?;
        let guard = Guard { key: name.clone(), expected: Expected::Version(version) };
        let renewal = Renewal::start(store.clone(), guard.clone(), lease, &fence, since);
        Ok(Self { store, name, fence, guard, renewal })
    }

    /// Gives the lock back, so that others need not wait for its TTL. The token stays in the record.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if it was no longer ours; those of `commit` if the store did not answer within the TTL or
    /// [`DEFAULT_TIMEOUT`]: others then wait until the lease has run out, at most.
    ///
    /// # Cancel safety
    /// Dropped, the lock is released or it runs out: in both cases it is no longer renewed.
    pub async fn release(self) -> Result<()> {
        let Self { store, name, fence, guard, renewal } = self;
        // First, or a heartbeat that is on its way would create the key again that the release deletes.
        renewal.stop().await;
        // The record stays, with its token: deleted, the next acquisition would begin at 1 again, and what remembers tokens would be fooled.
        let released = Fence { held: false, ..fence };
        let txn =
            Txn { guards: vec![guard], ..Txn::new().put(name.clone(), released.encode()).delete(lease_key(&name)?) };
        let deadline = Deadline::after(call_timeout(released.ttl));
        let mut backoff = retries();
        let mut unknown = None;
        loop {
            let left = deadline.left();
            let error = match Self::try_release(&store, &txn, &released, left).await {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(Error::LeaseLost),
                Err(error) => error,
            };
            if !passes(&error) || deadline.is_over() {
                return Err(unknown.unwrap_or(error));
            }
            if error.may_be_applied() {
                unknown = Some(error);
            }
            backoff.wait().await;
        }
    }

    /// Whether the lock was ours to release: by this attempt, or by one before of which we did not know.
    async fn try_release(store: &S, txn: &Txn, released: &Fence, timeout: Duration) -> Result<bool> {
        let outcome = store.commit(txn.clone(), WriteOptions::default().timeout(timeout)).await?;
        // A conflict with ourselves is a release: an earlier attempt was applied and its reply lost. The nonce in the record tells.
        let (Outcome::Conflict(_), Some(Guard { key, .. })) = (outcome, txn.guards.first()) else { return Ok(true) };
        let current = store.get(key, ReadOptions::default().timeout(timeout)).await?;
        Ok(current.as_ref().map(Fence::of).transpose()?.as_ref() == Some(released))
    }

    /// Takes the lock from whoever holds it, for operators: the holder's guard no longer holds, and the token is raised.
    /// `None`: there never was such a lock.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the lock kept changing hands; [`Error::Corrupt`] if `name` holds something that is no lock; those of `get` and `commit`.
    pub async fn force_release(store: &S, name: &Key) -> Result<Option<LockStatus>> {
        const ATTEMPTS: u32 = 16;
        let lease = lease_key(name)?;
        let mut backoff = retries();
        for _ in 0..ATTEMPTS {
            let Some(entry) = store.get(name, ReadOptions::default()).await? else { return Ok(None) };
            let fence = Fence::of(&entry)?;
            // The token is raised although nobody holds the lock then: a holder that comes back must find a larger one than its own.
            let freed = Fence { held: false, token: fence.next_token(name)?, ..fence };
            let txn = Txn::new()
                .guard(name.clone(), Expected::Version(entry.version))
                .put(name.clone(), freed.encode())
                // Without a guard on the heartbeat: the fence alone decides, and a holder that renews must not be able to hold off an operator.
                .delete(lease.clone());
            if store.commit(txn, WriteOptions::default()).await?.is_committed() {
                return Ok(Some(freed.status()));
            }
            backoff.wait().await;
        }
        Err(Error::unavailable(format!("the lock {name} changed hands {ATTEMPTS} times")))
    }

    /// What the record of a lock says. `None`: there never was such a lock.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if `name` holds something that is no lock; those of `get`.
    pub async fn status(store: &S, name: &Key) -> Result<Option<LockStatus>> {
        let entry = store.get(name, ReadOptions::default()).await?;
        Ok(entry.as_ref().map(Fence::of).transpose()?.map(Fence::status))
    }
}

impl<S> Lock<S> {
    /// The lock's name.
    pub fn name(&self) -> &Key {
        &self.name
    }

    /// The token of this tenure.
    pub fn token(&self) -> FencingToken {
        self.fence.token
    }

    /// The guard that every write under the lock has to carry: it holds as long as nobody else got the lock since.
    /// It names the key as the lock's store does, so the write has to go to the same store (under the same prefix).
    pub fn guard(&self) -> Guard {
        self.guard.clone()
    }

    /// Whether the lease still runs, as far as this holder knows. Only the [`guard`](Lock::guard) makes it certain for a write.
    pub fn is_held(&self) -> bool {
        self.renewal.is_running()
    }

    /// Resolves when the lock was taken away, or could not be renewed for its TTL: stop working under it then.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn lost(&self) {
        self.renewal.ended().await;
    }
}

impl<S> fmt::Debug for Lock<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Lock");
        debug.field("name", &self.name).field("fence", &self.fence).field("held", &self.is_held()).finish()
    }
}

impl Txn {
    /// Adds the guard of a lock, so that the transaction conflicts once the lock has gone to somebody else.
    pub fn fenced<S>(mut self, lock: &Lock<S>) -> Self {
        self.guards.push(lock.guard());
        self
    }
}

impl Fence {
    fn status(self) -> LockStatus {
        LockStatus { held: self.held, token: self.token, owner: self.owner, ttl: self.ttl }
    }
}

fn lease_key(name: &Key) -> Result<Key> {
    let (actual, limit) = (name.as_bytes().len(), LockOptions::MAX_NAME_BYTES);
    if actual > limit {
        return Err(Error::TooLarge { what: "bytes in the name of a lock", actual, limit });
    }
    name.with_suffix(LockOptions::LEASE_SUFFIX)
}

/// The deadline of one call for a lock: a call that takes longer than the lease is of no use.
fn call_timeout(ttl: Duration) -> Duration {
    ttl.min(DEFAULT_TIMEOUT)
}

/// Whether an error may pass when the same guarded transaction is sent again. It cannot be applied twice: its own first application fails its guard.
fn passes(error: &Error) -> bool {
    error.is_retryable() || error.may_be_applied()
}

/// The waits between attempts at one thing: from the time of a round trip to a time that an election takes.
fn retries() -> Backoff {
    Backoff::new(Duration::from_millis(5), Duration::from_millis(500))
}

#[cfg(test)]
mod tests;
