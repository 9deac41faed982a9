//! Which server of a cluster is asked, when another one is, and what may be sent again.
//!
//! Invariant: a request that may have been applied is never sent a second time, unless it only reads.

use std::{
    fmt,
    pin::pin,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{timeout, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Failure;
use crate::{Backoff, Deadline, Error, Result};

/// A server that has not answered for so long is avoided by later calls, and a read is sent to another server as well;
/// each further attempt of the same read has twice as long. Far more than a healthy cluster needs, and a fraction of the
/// usual deadline. (A server of Consul without a leader holds a call back for up to 7 s, its `rpc_hold_timeout`.)
const SLOW: Duration = Duration::from_secs(1);

/// The wait after every server has failed, at first,
const RETRY_FLOOR: Duration = Duration::from_millis(10);
/// and at last: an election takes one to two seconds, so a call looks for the new leader a few times a second.
const RETRY_CEILING: Duration = Duration::from_millis(300);
/// The most attempts of one call, whatever its deadline: with the waits between them this is far beyond a minute.
const MAX_ATTEMPTS: usize = 1000;

/// How long closing waits for calls, watches and connections: they end at their next step.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// One server of a cluster, as its backend knows it.
#[async_trait]
pub trait Server: Send + Sync + 'static {
    /// What a call is sent with: a connection, or the right to make one more call.
    type Ready: Send + Sync + 'static;

    /// What it is called in logs: `host:port`.
    fn name(&self) -> &str;

    /// Gets ready for one call.
    ///
    /// # Errors
    /// Nothing was sent. After [`Error::Unavailable`] another server is asked; any other error is the answer of the call.
    async fn ready(self: Arc<Self>) -> Result<Self::Ready>;
}

/// The servers of one cluster, and which of them is asked.
///
/// All calls go to one server until it fails or is slow; then to the next. The servers are equals: each passes calls on to the leader.
/// (A balancer that spreads the calls sends its share to a server that is dead or hung.)
pub struct Pool<S> {
    /// Emptied by closing, which drops the connections.
    servers: RwLock<Vec<Arc<S>>>,
    /// The place of the one in use, modulo the number of servers.
    preferred: AtomicUsize,
    closed: CancellationToken,
    under_way: TaskTracker,
}

/// What a call may do to the data, and so whether it may be sent again after it may have been carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// It changes nothing.
    Reads,
    /// It may change something.
    Writes,
}

/// A server that was chosen for one attempt.
pub struct Chosen<S> {
    /// The server.
    pub server: Arc<S>,
    place: usize,
    /// Of how many.
    of: usize,
}

/// The end of one attempt that did not succeed.
enum Failed {
    /// Another attempt may succeed, and is safe.
    Retry(Error),
    /// This is the answer.
    Final(Error),
}

impl<S: Server> Pool<S> {
    /// A pool of these servers. `closed` and `under_way` end with it: tasks that belong to it, such as those of connections, run under both.
    ///
    /// # Panics
    /// Without a server: a configuration has at least one endpoint.
    pub fn new(servers: impl IntoIterator<Item = S>, closed: CancellationToken, under_way: TaskTracker) -> Self {
        let servers: Vec<_> = servers.into_iter().map(Arc::new).collect();
        assert!(!servers.is_empty(), "a configuration has at least one endpoint");
        // Many clients of one cluster begin at different servers.
        let preferred = AtomicUsize::new(fastrand::usize(..servers.len()));
        Self { servers: RwLock::new(servers), preferred, closed, under_way }
    }

    /// # Errors
    /// [`Error::Closed`] after [`Pool::close`].
    pub fn check_open(&self) -> Result<()> {
        if self.closed.is_cancelled() { Err(Error::Closed) } else { Ok(()) }
    }

    /// Makes a call, on another server if one fails, until the deadline.
    ///
    /// What was certainly not applied is sent again; what may have been applied is sent again only if it reads.
    ///
    /// # Errors
    /// [`Error::UnknownOutcome`] for a write that may have been applied; [`Error::Closed`]; [`Error::Unavailable`] at the deadline;
    /// what no server will do, as [`Failure::Refused`] has it.
    pub async fn call<T, F>(
        &self,
        effect: Effect,
        limit: Duration,
        send: impl Fn(S::Ready) -> F + Send + Sync,
    ) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let _under_way = self.under_way.token();
        let deadline = Deadline::after(limit);
        let mut backoff = Backoff::new(RETRY_FLOOR, RETRY_CEILING);
        let mut patience = SLOW;
        let mut last = None;
        for attempt in 1..=MAX_ATTEMPTS {
            let chosen = self.choose()?;
            if deadline.is_over() {
                break;
            }
            // Nobody else could be asked.
            if chosen.of == 1 {
                patience = limit;
            }
            let error = match self.attempt(&chosen, effect, deadline, patience, &send).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Final(error)) => return Err(error),
                Err(Failed::Retry(error)) => error,
            };
            tracing::debug!(server = chosen.server.name(), %error, "no answer from a server");
            self.avoid(&chosen);
            last = Some(error);
            patience = patience.saturating_mul(2);
            // Only when each has been asked once: a single dead server should cost a call nothing but its own failure.
            if attempt % chosen.of == 0 {
                self.while_open(timeout_at(deadline.at(), backoff.wait())).await?.ok();
            }
        }
        Err(last.unwrap_or_else(|| deadline.passed()))
    }

    /// The server that is to be asked.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn choose(&self) -> Result<Chosen<S>> {
        self.check_open()?;
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        let place = self.preferred.load(Ordering::Relaxed);
        // There is none only while another call closes the pool.
        let server = place.checked_rem(servers.len()).and_then(|place| servers.get(place)).ok_or(Error::Closed)?;
        Ok(Chosen { server: Arc::clone(server), place, of: servers.len() })
    }

    /// Lets later calls go to the next server, unless another call has decided so already.
    pub fn avoid(&self, chosen: &Chosen<S>) {
        let (place, next) = (chosen.place, chosen.place.wrapping_add(1));
        // The order of this with other memory is of no consequence: any server serves.
        let _ = self.preferred.compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Runs until the pool is closed.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn while_open<F: Future>(&self, future: F) -> Result<F::Output> {
        self.closed.run_until_cancelled(future).await.ok_or(Error::Closed)
    }

    /// Runs a task of the pool, which closing ends and waits for.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let closed = self.closed.clone();
        self.under_way.spawn(async move {
            closed.run_until_cancelled_owned(task).await;
        });
    }

    /// Ends all calls, connections and tasks.
    pub async fn close(&self) {
        self.closed.cancel();
        // Calls under way keep theirs alive, and end by the token.
        self.servers.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.under_way.close();
        if timeout(CLOSE_TIMEOUT, self.under_way.wait()).await.is_err() {
            tracing::warn!("calls of a closed handle are still there {CLOSE_TIMEOUT:?} after they were ended");
        }
    }

    async fn attempt<T, F>(
        &self,
        chosen: &Chosen<S>,
        effect: Effect,
        deadline: Deadline,
        patience: Duration,
        send: &(impl Fn(S::Ready) -> F + Send + Sync),
    ) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let ready = timeout_at(deadline.at(), Arc::clone(&chosen.server).ready());
        let ready = match self.while_open(ready).await.map_err(Failed::Final)? {
            Ok(Ok(ready)) => ready,
            // Nothing was sent, so this is safe for writes too.
            Ok(Err(error @ Error::Unavailable { .. })) => return Err(Failed::Retry(error)),
            Ok(Err(error)) => return Err(Failed::Final(error)),
            Err(_) => return Err(Failed::Final(deadline.passed())),
        };
        if deadline.is_over() {
            return Err(Failed::Final(deadline.passed()));
        }
        // From here on it may be applied.
        let answering = self.while_open(self.answer(chosen, effect, deadline, patience, send(ready))).await;
        Err(match (answering, effect) {
            (Ok(Some(Ok(answer))), _) => return Ok(answer),
            (Ok(Some(Err(Failure::NotApplied(error)))), _) => Failed::Retry(error),
            (Ok(Some(Err(Failure::Refused(error)))), _) => Failed::Final(error),
            (Ok(Some(Err(Failure::Unknown(cause)))), Effect::Reads) => Failed::Retry(Error::unavailable(cause)),
            (Ok(Some(Err(Failure::Unknown(cause)))), Effect::Writes) => {
                self.avoid(chosen);
                Failed::Final(Error::unknown_outcome(cause))
            }
            (Ok(None), Effect::Reads) => Failed::Retry(deadline.passed()),
            (Ok(None), Effect::Writes) => Failed::Final(deadline.passed_after_send()),
            (Err(closed), Effect::Reads) => Failed::Final(closed),
            // Closed while a write was under way: it may be applied all the same, and `Closed` would say that it was not.
            (Err(closed), Effect::Writes) => Failed::Final(Error::unknown_outcome(closed)),
        })
    }

    /// Waits for the answer: a read for as long as it has patience with this server, a write until the deadline. `None`: no answer.
    async fn answer<T>(
        &self,
        chosen: &Chosen<S>,
        effect: Effect,
        deadline: Deadline,
        patience: Duration,
        answer: impl Future<Output = T>,
    ) -> Option<T> {
        let mut answer = pin!(answer);
        if let Ok(answer) = timeout_at(deadline.at().min(Deadline::after(patience).at()), &mut answer).await {
            return Some(answer);
        }
        self.avoid(chosen);
        match effect {
            Effect::Reads => None,
            // A write cannot be sent elsewhere, so its answer is worth waiting for.
            Effect::Writes => timeout_at(deadline.at(), answer).await.ok(),
        }
    }
}

impl<S: Server> fmt::Debug for Pool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_list().entries(servers.iter().map(|server| server.name())).finish()
    }
}

impl<S: Server> fmt::Debug for Chosen<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Chosen").field(&self.server.name()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Mutex};

    use super::*;

    /// A server that has only a name.
    struct Named(&'static str);

    #[async_trait]
    impl Server for Named {
        type Ready = &'static str;

        fn name(&self) -> &str {
            self.0
        }

        async fn ready(self: Arc<Self>) -> Result<&'static str> {
            if self.0 == "down" { Err(Error::unavailable("down")) } else { Ok(self.0) }
        }
    }

    /// A call to servers that answer so, in the order in which they are asked, and how many of them were.
    async fn called(effect: Effect, answers: Vec<Option<Result<u8, Failure>>>) -> (Result<u8>, usize) {
        let pool = Pool::new([Named("a"), Named("b")], CancellationToken::new(), TaskTracker::new());
        let (answers, asked) = (Mutex::new(answers.into_iter()), Mutex::new(0));
        let end = pool.call(effect, Duration::from_secs(10), |_| {
            *asked.lock().unwrap() += 1;
            let answer = answers.lock().unwrap().next().expect("no further attempt");
            async move {
                match answer {
                    Some(answer) => answer,
                    None => pending().await,
                }
            }
        });
        (end.await, *asked.lock().unwrap())
    }

    fn not_applied() -> Option<Result<u8, Failure>> {
        Some(Err(Failure::NotApplied(Error::unavailable("no leader"))))
    }

    fn unknown() -> Option<Result<u8, Failure>> {
        Some(Err(Failure::Unknown("leader changed".into())))
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_be_applied_is_sent_again_only_if_it_reads() {
        let refused = || Some(Err(Failure::Refused(Error::invalid_argument("too large"))));
        for (effect, answers, expected) in [
            (Effect::Writes, vec![not_applied(), not_applied(), Some(Ok(1))], ("ok", 3)),
            (Effect::Writes, vec![not_applied(), unknown()], ("unknown_outcome", 2)),
            (Effect::Writes, vec![None], ("unknown_outcome", 1)),
            (Effect::Reads, vec![unknown(), None, Some(Ok(1))], ("ok", 3)),
            (Effect::Reads, vec![None, None, None, None], ("unavailable", 4)),
            (Effect::Reads, vec![refused()], ("invalid_argument", 1)),
            (Effect::Writes, vec![refused()], ("invalid_argument", 1)),
        ] {
            let shown = format!("{effect:?} {answers:?}");
            let (end, asked) = called(effect, answers).await;
            assert_eq!((end.map_or_else(|error| error.kind(), |_| "ok"), asked), expected, "{shown}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_fails_or_is_slow_is_avoided_by_later_calls() {
        let pool = Pool::new([Named("a"), Named("b")], CancellationToken::new(), TaskTracker::new());
        let first = pool.choose().unwrap();
        let write = pool.call::<(), _>(Effect::Writes, Duration::from_secs(10), |_| pending());
        assert!(matches!(write.await, Err(Error::UnknownOutcome { .. })));
        assert_ne!(pool.choose().unwrap().server.name(), first.server.name());
        pool.avoid(&first);
        assert_ne!(pool.choose().unwrap().server.name(), first.server.name(), "decided already");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_cannot_be_reached_costs_a_write_nothing() {
        let pool = Pool::new([Named("down"), Named("up")], CancellationToken::new(), TaskTracker::new());
        for _ in 0..4 {
            let asked = pool.call(Effect::Writes, Duration::from_secs(10), |name| async move { Ok(name) });
            assert_eq!(asked.await.unwrap(), "up");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn closing_ends_what_is_under_way_and_refuses_what_comes() {
        let pool = Arc::new(Pool::new([Named("a")], CancellationToken::new(), TaskTracker::new()));
        let hanging = |effect| {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move { pool.call::<(), _>(effect, Duration::MAX, |_| pending()).await })
        };
        let (read, write) = (hanging(Effect::Reads), hanging(Effect::Writes));
        pool.spawn(pending());
        tokio::task::yield_now().await;
        pool.close().await;
        assert!(pool.under_way.is_empty());
        assert!(matches!(read.await.unwrap(), Err(Error::Closed)));
        assert!(matches!(write.await.unwrap(), Err(Error::UnknownOutcome { .. })));
        assert!(matches!(pool.choose(), Err(Error::Closed)));
    }
}
