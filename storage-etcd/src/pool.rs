use std::{
    fmt,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use etcd_client::Error as ClientError;
use storage_core::{Backoff, Deadline, Error, Result};
use tokio::time::{timeout, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    EtcdConfig,
    endpoint::{Connection, Endpoint},
    error::{Verdict, failure},
};

/// A server that has not answered for so long is avoided by later calls, and a read is sent to another server as well;
/// each further attempt of the same read has twice as long. Far more than a healthy cluster needs, and a fraction of the
/// usual deadline.
const SLOW: Duration = Duration::from_secs(1);

/// The wait after every server has failed, at first,
const RETRY_FLOOR: Duration = Duration::from_millis(10);
/// and at last: an election takes one to two seconds, so a call looks for the new leader a few times a second.
const RETRY_CEILING: Duration = Duration::from_millis(300);
/// The most attempts of one call, whatever its deadline: with the waits between them this is far beyond a minute.
const MAX_ATTEMPTS: usize = 1000;

/// How long closing waits for the tasks of the connections: they end at their next step.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The servers of one cluster, and which of them is asked.
///
/// All calls go to one server, over one connection, until it fails or is slow; then to the next. etcd's servers are equals:
/// each passes writes on to the leader. (A balancer that spreads the calls sends its share to a server that is dead or hung.)
pub(crate) struct Pool {
    endpoints: Vec<Endpoint>,
    /// The place of the one in use, modulo the number of endpoints.
    preferred: AtomicUsize,
    closed: CancellationToken,
    tasks: TaskTracker,
}

/// What a call may do to the data, and so whether it may be sent again after it may have been carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    Reads,
    Writes,
}

/// The end of one attempt that did not succeed.
enum Failed {
    /// Another attempt may succeed, and is safe.
    Retry(Error),
    /// This is the answer.
    Final(Error),
}

impl Pool {
    pub(crate) async fn new(config: &EtcdConfig) -> Result<Self> {
        let (closed, tasks) = (CancellationToken::new(), TaskTracker::new());
        let endpoints = Endpoint::all(config, &closed, &tasks).await?;
        // Many clients of one cluster begin at different servers.
        let preferred = AtomicUsize::new(fastrand::usize(..endpoints.len()));
        Ok(Self { endpoints, preferred, closed, tasks })
    }

    /// # Errors
    /// [`Error::Closed`] after [`Pool::close`].
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.is_cancelled() { Err(Error::Closed) } else { Ok(()) }
    }

    /// Makes a call, on another server if one fails, until the deadline.
    ///
    /// What was certainly not applied is sent again; what may have been applied is sent again only if it reads.
    pub(crate) async fn call<T, F>(
        &self,
        effect: Effect,
        limit: Duration,
        send: impl Fn(&Connection) -> F + Send,
    ) -> Result<T>
    where
        F: Future<Output = Result<T, ClientError>> + Send,
    {
        let deadline = Deadline::after(limit);
        let mut backoff = Backoff::new(RETRY_FLOOR, RETRY_CEILING);
        let mut patience = if self.endpoints.len() > 1 { SLOW } else { limit };
        let mut last = None;
        for attempt in 1..=MAX_ATTEMPTS {
            self.check_open()?;
            if deadline.is_over() {
                break;
            }
            let (place, endpoint) = self.endpoint()?;
            let error = match self.attempt(endpoint, effect, deadline, patience, &send).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Final(error)) => return Err(error),
                Err(Failed::Retry(error)) => error,
            };
            tracing::debug!(endpoint = endpoint.name(), %error, "no answer from a server of etcd");
            self.avoid(place);
            last = Some(error);
            patience = patience.saturating_mul(2);
            if attempt % self.endpoints.len() == 0 {
                self.while_open(timeout_at(deadline.at(), backoff.wait())).await?.ok();
            }
        }
        Err(last.unwrap_or_else(|| deadline.passed()))
    }

    /// A connection for a call that looks after itself, such as a watch, and the endpoint's name.
    pub(crate) async fn connection(&self) -> Result<(Borrowed<'_>, Arc<Connection>)> {
        let (place, endpoint) = self.endpoint()?;
        match self.while_open(endpoint.connection()).await? {
            Ok(connection) => Ok((Borrowed { pool: self, place, endpoint }, connection)),
            Err(error) => {
                self.avoid(place);
                Err(error)
            }
        }
    }

    /// Runs until the handle is closed.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub(crate) async fn while_open<F: Future>(&self, future: F) -> Result<F::Output> {
        self.closed.run_until_cancelled(future).await.ok_or(Error::Closed)
    }

    /// Ends all calls, connections and their tasks.
    pub(crate) async fn close(&self) {
        self.closed.cancel();
        for endpoint in &self.endpoints {
            endpoint.forget();
        }
        self.tasks.close();
        if timeout(CLOSE_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!("tasks of the connections to etcd are still there {CLOSE_TIMEOUT:?} after they were ended");
        }
    }

    async fn attempt<T, F>(
        &self,
        endpoint: &Endpoint,
        effect: Effect,
        deadline: Deadline,
        patience: Duration,
        send: &(impl Fn(&Connection) -> F + Send),
    ) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, ClientError>> + Send,
    {
        let connecting =
            self.while_open(timeout_at(deadline.at(), endpoint.connection())).await.map_err(Failed::Final)?;
        let connection = match connecting {
            Ok(Ok(connection)) => connection,
            Ok(Err(error @ Error::Unavailable { .. })) => return Err(Failed::Retry(error)),
            Ok(Err(error)) => return Err(Failed::Final(error)),
            Err(_) => return Err(Failed::Final(deadline.passed())),
        };
        if deadline.is_over() {
            return Err(Failed::Final(deadline.passed()));
        }
        // From here on it may be applied.
        let answering = self.while_open(self.answer(endpoint, effect, deadline, patience, send(&connection))).await;
        let error = match (answering, effect) {
            (Ok(Some(Ok(answer))), _) => return Ok(answer),
            (Ok(Some(Err(error))), _) => error,
            (Ok(None), Effect::Reads) => return Err(Failed::Retry(deadline.passed())),
            (Ok(None), Effect::Writes) => return Err(Failed::Final(deadline.passed_after_send())),
            (Err(closed), Effect::Reads) => return Err(Failed::Final(closed)),
            (Err(closed), Effect::Writes) => return Err(Failed::Final(Error::unknown_outcome(closed))),
        };
        let failure = failure(error);
        if failure.broken {
            endpoint.discard(&connection);
        }
        Err(match (failure.verdict, effect) {
            (Verdict::NotApplied(error), _) => Failed::Retry(error),
            (Verdict::Refused(error), _) => Failed::Final(error),
            (Verdict::Unknown(cause), Effect::Reads) => Failed::Retry(Error::unavailable(cause)),
            (Verdict::Unknown(cause), Effect::Writes) => {
                self.avoid_endpoint(endpoint);
                Failed::Final(Error::unknown_outcome(cause))
            }
        })
    }

    /// Waits for the answer: a read for as long as it has patience with this server, a write until the deadline. `None`: no answer.
    async fn answer<T>(
        &self,
        endpoint: &Endpoint,
        effect: Effect,
        deadline: Deadline,
        patience: Duration,
        answer: impl Future<Output = T>,
    ) -> Option<T> {
        let mut answer = pin!(answer);
        if let Ok(answer) = timeout_at(deadline.at().min(Deadline::after(patience).at()), &mut answer).await {
            return Some(answer);
        }
        self.avoid_endpoint(endpoint);
        match effect {
            Effect::Reads => None,
            Effect::Writes => timeout_at(deadline.at(), answer).await.ok(),
        }
    }

    fn endpoint(&self) -> Result<(usize, &Endpoint)> {
        let place = self.preferred.load(Ordering::Relaxed);
        // A configuration has at least one endpoint.
        let endpoint = place.checked_rem(self.endpoints.len()).and_then(|place| self.endpoints.get(place));
        endpoint.map(|endpoint| (place, endpoint)).ok_or(Error::Closed)
    }

    /// Lets later calls go to the next server, unless another call has decided so already.
    fn avoid(&self, place: usize) {
        // The order of this with other memory is of no consequence: any server serves.
        let _ = self.preferred.compare_exchange(place, place.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
    }

    fn avoid_endpoint(&self, slow: &Endpoint) {
        if let Ok((place, endpoint)) = self.endpoint()
            && std::ptr::eq(endpoint, slow)
        {
            self.avoid(place);
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.endpoints.iter().map(Endpoint::name)).finish()
    }
}

/// The endpoint that a connection was taken from, to be told how it did.
pub(crate) struct Borrowed<'p> {
    pool: &'p Pool,
    place: usize,
    endpoint: &'p Endpoint,
}

impl Borrowed<'_> {
    /// The connection failed: later calls go elsewhere.
    pub(crate) fn failed(&self, connection: &Arc<Connection>, broken: bool) {
        self.pool.avoid(self.place);
        if broken {
            self.endpoint.discard(connection);
        }
    }
}
