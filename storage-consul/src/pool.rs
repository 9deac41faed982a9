use std::{
    fmt,
    pin::pin,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use storage_core::{Backoff, Deadline, Error, Result};
use tokio::time::{timeout, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    client::Server,
    config::ConsulConfig,
    error::{Failure, chain},
};

/// A server that has not answered for so long is avoided by later calls, and a read is sent to another server as well;
/// each further attempt of the same read has twice as long. Far more than a healthy cluster needs, and a fraction of the
/// usual deadline. (A server without a leader holds a call back for up to 7 s, Consul's `rpc_hold_timeout`.)
const SLOW: Duration = Duration::from_secs(1);

/// The wait after every server has failed, at first,
const RETRY_FLOOR: Duration = Duration::from_millis(10);
/// and at last: an election takes one to two seconds, so a call looks for the new leader a few times a second.
const RETRY_CEILING: Duration = Duration::from_millis(300);
/// The most attempts of one call, whatever its deadline: with the waits between them this is far beyond a minute.
const MAX_ATTEMPTS: usize = 1000;

/// How long closing waits for the calls and watches of the handle: they end at their next step.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The servers of one cluster, and which of them is asked.
///
/// All calls go to one server until it fails or is slow; then to the next. Consul's servers (and its client agents) are equals:
/// each passes calls on to the leader.
pub(crate) struct Pool {
    /// Emptied by closing, which ends the connections.
    servers: RwLock<Vec<Arc<Server>>>,
    /// The place of the one in use, modulo the number of servers.
    preferred: AtomicUsize,
    closed: CancellationToken,
    under_way: TaskTracker,
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

/// A server that was chosen for an attempt.
pub(crate) struct Chosen {
    pub(crate) server: Arc<Server>,
    place: usize,
    of: usize,
}

impl Pool {
    /// The servers of a configuration. Reads the certificates, and connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for certificates that cannot be read or used.
    pub(crate) async fn new(config: &ConsulConfig) -> Result<Self> {
        let http = http_client(config).await?;
        let scheme = if config.tls().is_some() { "https" } else { "http" };
        let token = config.token().map(str::to_owned);
        let server = |name| Arc::new(Server::new(http.clone(), format!("{scheme}://{name}"), token.clone()));
        let servers: Vec<_> = config.endpoints().map(server).collect();
        // Many clients of one cluster begin at different servers.
        let preferred = AtomicUsize::new(fastrand::usize(..servers.len().max(1)));
        let (closed, under_way) = (CancellationToken::new(), TaskTracker::new());
        Ok(Self { servers: RwLock::new(servers), preferred, closed, under_way })
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
        send: impl Fn(Arc<Server>) -> F + Send + Sync,
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
            if chosen.of == 1 {
                patience = limit;
            }
            let error = match self.attempt(&chosen, effect, deadline, patience, &send).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Final(error)) => return Err(error),
                Err(Failed::Retry(error)) => error,
            };
            tracing::debug!(server = chosen.server.name(), %error, "no answer from a server of Consul");
            self.avoid(&chosen);
            last = Some(error);
            patience = patience.saturating_mul(2);
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
    pub(crate) fn choose(&self) -> Result<Chosen> {
        self.check_open()?;
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        let place = self.preferred.load(Ordering::Relaxed);
        let server = place.checked_rem(servers.len()).and_then(|place| servers.get(place));
        let chosen = server.map(|server| Chosen { server: Arc::clone(server), place, of: servers.len() });
        chosen.ok_or(Error::Closed)
    }

    /// Lets later calls go to the next server, unless another call has decided so already.
    pub(crate) fn avoid(&self, chosen: &Chosen) {
        let (place, next) = (chosen.place, chosen.place.wrapping_add(1));
        // The order of this with other memory is of no consequence: any server serves.
        let _ = self.preferred.compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Runs until the handle is closed.
    ///
    /// # Errors
    /// [`Error::Closed`].
    async fn while_open<F: Future>(&self, future: F) -> Result<F::Output> {
        self.closed.run_until_cancelled(future).await.ok_or(Error::Closed)
    }

    /// Runs a task of the handle, which closing ends and waits for.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let closed = self.closed.clone();
        self.under_way.spawn(async move {
            closed.run_until_cancelled_owned(task).await;
        });
    }

    /// Ends all calls and connections.
    pub(crate) async fn close(&self) {
        self.closed.cancel();
        self.under_way.close();
        if timeout(CLOSE_TIMEOUT, self.under_way.wait()).await.is_err() {
            tracing::warn!("calls of a handle on Consul are still there {CLOSE_TIMEOUT:?} after they were ended");
        }
        self.servers.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    async fn attempt<T, F>(
        &self,
        chosen: &Chosen,
        effect: Effect,
        deadline: Deadline,
        patience: Duration,
        send: &(impl Fn(Arc<Server>) -> F + Send + Sync),
    ) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let turn = self.while_open(timeout_at(deadline.at(), chosen.server.calls.acquire())).await;
        let Ok(Ok(_turn)) = turn.map_err(Failed::Final)? else { return Err(Failed::Final(deadline.passed())) };
        if deadline.is_over() {
            return Err(Failed::Final(deadline.passed()));
        }
        // From here on it may be applied.
        let answer = send(Arc::clone(&chosen.server));
        let answering = self.while_open(self.answer(chosen, effect, deadline, patience, answer)).await;
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
            (Err(closed), Effect::Writes) => Failed::Final(Error::unknown_outcome(closed)),
        })
    }

    /// Waits for the answer: a read for as long as it has patience with this server, a write until the deadline. `None`: no answer.
    async fn answer<T>(
        &self,
        chosen: &Chosen,
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
            Effect::Writes => timeout_at(deadline.at(), answer).await.ok(),
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_list().entries(servers.iter()).finish()
    }
}

/// The client under all servers of a handle. It has connections of its own to each of them.
async fn http_client(config: &ConsulConfig) -> Result<reqwest::Client> {
    let mut client = reqwest::Client::builder()
        .connect_timeout(config.connect_timeout())
        .tcp_nodelay(true)
        .http1_only()
        // Neither what the environment says about proxies nor a redirect: a token goes to the endpoints alone.
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .use_rustls_tls()
        .tls_built_in_root_certs(false);
    if let Some(tls) = config.tls() {
        for certificate in
            reqwest::Certificate::from_pem_bundle(&pem(&tls.ca).await?).map_err(|error| unusable(&error))?
        {
            client = client.add_root_certificate(certificate);
        }
        if let Some((cert, key)) = &tls.identity {
            let both = [pem(cert).await?, b"\n".to_vec(), pem(key).await?].concat();
            client = client.identity(reqwest::Identity::from_pem(&both).map_err(|error| unusable(&error))?);
        }
    }
    client.build().map_err(|error| unusable(&error))
}

async fn pem(path: &std::path::Path) -> Result<Vec<u8>> {
    let file = tokio::fs::read(path).await;
    file.map_err(|error| Error::invalid_argument(format!("cannot read {}: {error}", path.display())))
}

fn unusable(error: &reqwest::Error) -> Error {
    Error::invalid_argument(format!("TLS: {}", chain(error)))
}
