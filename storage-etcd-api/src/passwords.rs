//! Passwords: hashed and compared by bcrypt, as in etcd, which takes long on purpose: on threads of their own, and few at a time.

use std::{
    sync::{Arc, OnceLock},
    thread::available_parallelism,
    time::Duration,
};

use bytes::Bytes;
use storage_embedded::PasswordHash;
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};
use tonic::Status;

use crate::{
    error::{self, Refusal},
    limits::REQUEST_TIMEOUT,
};

/// How many may wait until a password is hashed or compared: with the default cost, about as many as a processor gets done within a request's time.
const MAX_WAITING: usize = 128;

/// The longest password that bcrypt looks at, in bytes.
const MAX_PASSWORD_BYTES: usize = 72;

/// The costs that there may be. With the largest a comparison takes seconds; what a client gives as a hash may claim any.
pub(crate) const COSTS: std::ops::RangeInclusive<u32> = 4..=16;

#[derive(Clone, Debug)]
pub(crate) struct Passwords {
    cost: u32,
    /// Half of the processors: logins are not to be felt by others.
    at_once: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// What is compared with for a user that there is not: how long it takes does not tell who there is.
    nobodys: Arc<OnceLock<String>>,
}

impl Passwords {
    pub(crate) fn new(cost: u32) -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        let (at_once, waiting) = (Semaphore::new((processors / 2).max(1)), Semaphore::new(MAX_WAITING));
        Self { cost, at_once: Arc::new(at_once), waiting: Arc::new(waiting), nobodys: Arc::default() }
    }

    /// A password as it is kept.
    pub(crate) async fn hash(&self, password: String) -> Result<PasswordHash, Status> {
        if password.len() > MAX_PASSWORD_BYTES {
            return Err(error::PASSWORD_TOO_LONG.into());
        }
        let cost = self.cost;
        let hashed = self.slowly(move || bcrypt::hash(password, cost)).await?;
        let hashed = hashed.map_err(|error| Status::internal(format!("a password cannot be hashed: {error}")))?;
        Ok(PasswordHash(Bytes::from(hashed)))
    }

    /// Whether it is the password that is kept. `None`: there is none, which takes as long to find out.
    #[expect(clippy::expect_used, reason = "without it, users that there are not would be told apart by the time")]
    pub(crate) async fn is(&self, kept: Option<PasswordHash>, password: String) -> Result<bool, Status> {
        let (cost, nobodys) = (self.cost, Arc::clone(&self.nobodys));
        self.slowly(move || match &kept {
            Some(PasswordHash(hash)) => is(hash, &password),
            None => {
                let hash =
                    nobodys.get_or_init(|| bcrypt::hash("", cost).expect("a cost within bounds, and random bytes"));
                is(hash.as_bytes(), &password);
                false
            }
        })
        .await
    }

    async fn slowly<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
        let busy = |refusal: Refusal| Status::from(refusal);
        let _waiting = self.waiting.try_acquire().map_err(|_| busy(error::TOO_MANY_REQUESTS))?;
        let permit = timeout(REQUEST_TIMEOUT, Arc::clone(&self.at_once).acquire_owned()).await;
        let permit = permit.map_err(|_| busy(error::TIMED_OUT))?.map_err(|_| busy(error::STOPPED))?;
        let worked = spawn_blocking(move || {
            // Also when nobody waits for it any more.
            let _permit = permit;
            work()
        });
        worked.await.map_err(|_| busy(error::STOPPED))
    }
}

fn is(hash: &[u8], password: &str) -> bool {
    let Ok(hash) = std::str::from_utf8(hash) else { return false };
    let cost = hash.get(4..6).and_then(|cost| cost.parse().ok());
    cost.is_some_and(|cost| COSTS.contains(&cost)) && bcrypt::verify(password, hash).unwrap_or(false)
}

/// How long a token is good after it was given or used, unless it is said otherwise: etcd's.
pub(crate) const TOKEN_TTL: Duration = Duration::from_secs(300);

/// The cost of a hash, unless it is said otherwise: etcd's.
pub(crate) const COST: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_again() {
        let passwords = Passwords::new(4);
        let hash = passwords.hash("secret".to_owned()).await.unwrap();
        assert!(passwords.is(Some(hash.clone()), "secret".to_owned()).await.unwrap());
        assert!(!passwords.is(Some(hash), "Secret".to_owned()).await.unwrap());
        assert!(!passwords.is(None, String::new()).await.unwrap(), "whatever nobody's is");
        assert!(passwords.hash("p".repeat(72)).await.is_ok());
        assert!(passwords.hash("p".repeat(73)).await.is_err());
    }

    /// Of `golang.org/x/crypto/bcrypt`, which etcd uses.
    #[test]
    fn hashes_of_etcd_are_known() {
        let hash = b"$2a$10$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga";
        assert!(is(hash, "allmine") && !is(hash, "allminE"));
    }

    /// It would take days.
    #[test]
    fn a_hash_of_a_cost_without_bound_is_nobodys() {
        let hash = b"$2a$31$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga";
        assert!(!is(hash, "allmine"));
        assert!(!is(b"", "") && !is(b"$2a$10$", "") && !is("\u{fc}".repeat(30).as_bytes(), ""));
    }

    #[tokio::test]
    async fn more_than_may_wait_are_refused_at_once() {
        let passwords = Passwords::new(4);
        let all = u32::try_from(passwords.at_once.available_permits()).unwrap();
        let taken = Arc::clone(&passwords.at_once).acquire_many_owned(all);
        let _taken = taken.await.unwrap();
        let waiting: Vec<_> = (0..MAX_WAITING)
            .map(|_| {
                let passwords = passwords.clone();
                tokio::spawn(async move { passwords.hash(String::new()).await })
            })
            .collect();
        while passwords.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let refused = passwords.hash(String::new()).await.unwrap_err();
        assert_eq!(refused.message(), error::TOO_MANY_REQUESTS.words());
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
