//! One etcd server and the connection to it: made when it is needed, by one caller for all that wait.
//!
//! Invariant: before a write is sent, the server has answered something on this connection. So a server that only
//! accepts connections costs no unknown outcome. A server that was not reached rests before the next attempt.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use etcd_client::{
    Certificate, Channel, Client, ConnectOptions, GetOptions, Identity, KvClient, TlsOptions, WatchClient,
};
use storage_core::{
    Backoff, Consistency, Error, Result,
    servers::{Failure, Secret, Server, describe, read_pem},
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport;

use crate::{EtcdConfig, TlsConfig, error::failure};

/// A connection with requests under way is asked for a sign of life after so long without one. Servers end connections
/// that ask more often than every 5 s (etcd's `--grpc-keepalive-min-time`), or that ask while nothing is under way.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(6);
/// Without a sign of life for so long, the connection has ended: a hung server is noticed within 8 s by its watches.
/// Calls do not wait for this: the pool avoids a server that is slow.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// After a failed attempt to connect, the next one waits for up to this long,
const REST_FLOOR: Duration = Duration::from_millis(20);
/// and after many for up to this: a server that is back is found at once, and one that is not costs two attempts a second.
const REST_CEILING: Duration = Duration::from_millis(500);

/// The most bytes of one answer: 128 of the largest values, and room for their keys. Only `get_many` and conflicts
/// can come near; pages have a limit of their own.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

/// How much of one answer, or of one watch, the server may send before it is read. HTTP/2's default of 64 KiB would make a
/// large value wait for a round trip for each 64 KiB.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// And of all of them together: a thousand watches that nobody reads fill it, and only then do they hold up other calls.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * STREAM_WINDOW_BYTES;

/// One server, and the connection to it, if there is one.
pub(crate) struct Endpoint {
    name: String,
    transport: transport::Endpoint,
    credentials: Option<(String, Secret)>,
    connect_timeout: Duration,
    /// A std lock: held for a clone of the `Arc` alone. Nearly always read.
    current: RwLock<Option<Arc<Connection>>>,
    /// Held while connecting, so that many calls make one attempt together.
    connecting: Mutex<Rest>,
}

/// The clients of one connection. They share one HTTP/2 connection, on which requests do not wait for each other.
struct Connection {
    /// Refused by a server that knows no leader, so that the call can go to another one at once.
    kv: KvClient,
    /// For stale reads, which are there for when there is no leader.
    stale: KvClient,
    watch: WatchClient,
}

/// A connection that a call may be sent on.
pub(crate) struct Ready {
    endpoint: Arc<Endpoint>,
    connection: Arc<Connection>,
}

impl Ready {
    pub(crate) fn kv(&self) -> KvClient {
        self.connection.kv.clone()
    }

    pub(crate) fn reader(&self, consistency: Consistency) -> KvClient {
        match consistency {
            Consistency::Linearizable => self.connection.kv.clone(),
            Consistency::Stale => self.connection.stale.clone(),
        }
    }

    pub(crate) fn watch(&self) -> WatchClient {
        self.connection.watch.clone()
    }

    /// Takes the connection out of use; what is under way on it goes on.
    pub(crate) fn discard(&self) {
        let mut current = self.endpoint.write();
        // Another call may have replaced it already.
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &self.connection)) {
            *current = None;
        }
    }
}

impl Endpoint {
    /// The servers of a configuration. Reads the certificates, and connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for certificates that cannot be read or used.
    pub(crate) async fn all(config: &EtcdConfig, closed: &CancellationToken, tasks: &TaskTracker) -> Result<Vec<Self>> {
        let tls = match config.tls() {
            Some(tls) => Some(tls_options(tls).await?),
            None => None,
        };
        config
            .endpoints()
            .map(|name| {
                let executor = Owned { closed: closed.clone(), tasks: tasks.clone() };
                Ok(Self {
                    name: name.to_owned(),
                    transport: transport(name, tls.as_ref(), config.connect_timeout())?.executor(executor),
                    credentials: config.credentials().cloned(),
                    connect_timeout: config.connect_timeout(),
                    current: RwLock::default(),
                    connecting: Mutex::default(),
                })
            })
            .collect()
    }

    /// The connection, made now if there is none. An error means that nothing was sent.
    ///
    /// # Errors
    /// [`Error::Unavailable`], also at once if an attempt has failed just now; [`Error::Unauthenticated`].
    ///
    /// # Cancel safety
    /// Dropped, an attempt under way is given up, and the next call makes another.
    async fn connection(&self) -> Result<Arc<Connection>> {
        if let Some(connection) = self.current() {
            return Ok(connection);
        }
        let mut rest = self.connecting.lock().await;
        if let Some(connection) = self.current() {
            return Ok(connection);
        }
        // Calls that come while a server is away would otherwise each wait for a connection that was refused a moment ago.
        rest.check()?;
        let attempt = timeout(self.connect_timeout, self.connect()).await;
        let attempt = attempt.unwrap_or_else(|_| {
            Err(Error::unavailable(format!("no connection to {} within {:?}", self.name, self.connect_timeout)))
        });
        match attempt {
            Ok(connection) => {
                let connection = Arc::new(connection);
                *rest = Rest::default();
                *self.write() = Some(Arc::clone(&connection));
                Ok(connection)
            }
            Err(error) => {
                rest.begin(&error);
                Err(error)
            }
        }
    }

    async fn connect(&self) -> Result<Connection> {
        let channel = self.transport.connect().await;
        let channel = channel
            .map_err(|error| Error::unavailable(format!("cannot connect to {}: {}", self.name, describe(&error))))?;
        let channel = Channel::Tonic(channel);
        // Two clients on one channel, since the metadata `hasleader` belongs to a client: with it a server without a leader refuses at once,
        // instead of letting a write wait for its deadline with an unknown outcome.
        let strict = self.client(channel.clone(), true).await?;
        let stale = self.client(channel, false).await?;
        say_hello(stale.kv_client()).await?;
        Ok(Connection {
            kv: strict.kv_client().max_decoding_message_size(MAX_ANSWER_BYTES),
            stale: stale.kv_client().max_decoding_message_size(MAX_ANSWER_BYTES),
            watch: strict.watch_client().max_decoding_message_size(MAX_ANSWER_BYTES),
        })
    }

    /// A client on a channel, logged in if there are credentials.
    async fn client(&self, channel: Channel, require_leader: bool) -> Result<Client> {
        let mut options = ConnectOptions::new().with_require_leader(require_leader);
        if let Some((user, password)) = &self.credentials {
            // Tokens run out after five minutes without use, and a server that restarts forgets them.
            options = options.with_user(user, password.reveal()).with_auto_token_refresh(true);
        }
        let client = Client::from_channel(channel, Some(options)).await;
        // A login writes no key.
        client.map_err(|error| failure(error).failure.of_read())
    }

    fn current(&self) -> Option<Arc<Connection>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Option<Arc<Connection>>> {
        self.current.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Server for Endpoint {
    type Ready = Ready;

    fn name(&self) -> &str {
        &self.name
    }

    async fn ready(self: Arc<Self>) -> Result<Ready> {
        let connection = self.connection().await?;
        Ok(Ready { endpoint: self, connection })
    }
}

/// Sees that the server answers, before anything is sent that changes data.
///
/// A server that is starting or hung accepts connections all the same, since the kernel does that; a write sent to it would
/// have an unknown outcome, and this has none.
async fn say_hello(mut kv: KvClient) -> Result<()> {
    let nothing = GetOptions::new().with_serializable().with_count_only().with_limit(1);
    match kv.get("\0", Some(nothing)).await.map_err(|error| failure(error).failure) {
        // One that does not permit it has answered.
        Ok(_) | Err(Failure::Refused(Error::PermissionDenied { .. })) => Ok(()),
        Err(failure) => Err(failure.of_read()),
    }
}

/// Spares a server that was not reached just now.
#[derive(Default)]
struct Rest {
    backoff: Option<Backoff>,
    until: Option<Instant>,
    reason: String,
}

impl Rest {
    fn check(&self) -> Result<()> {
        match self.until {
            Some(until) if Instant::now() < until => Err(Error::unavailable(self.reason.clone())),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, error: &Error) {
        let backoff = self.backoff.get_or_insert_with(|| Backoff::new(REST_FLOOR, REST_CEILING));
        self.until = Some(Instant::now() + backoff.next_wait());
        self.reason = match error {
            Error::Unavailable { source } => source.to_string(),
            error => error.to_string(),
        };
    }
}

/// Runs the tasks of a connection so that closing the handle ends them and can wait for their end.
#[derive(Clone)]
struct Owned {
    closed: CancellationToken,
    tasks: TaskTracker,
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Owned {
    fn execute(&self, task: F) {
        let closed = self.closed.clone();
        self.tasks.spawn(async move {
            closed.run_until_cancelled_owned(task).await;
        });
    }
}

fn transport(name: &str, tls: Option<&TlsOptions>, connect_timeout: Duration) -> Result<transport::Endpoint> {
    let unusable = |error: transport::Error| Error::invalid_argument(format!("endpoint {name}: {}", describe(&error)));
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = transport::Endpoint::from_shared(format!("{scheme}://{name}")).map_err(unusable)?;
    let endpoint = match tls {
        Some(tls) => endpoint.tls_config(tls.clone()).map_err(unusable)?,
        None => endpoint,
    };
    Ok(endpoint
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(false)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

async fn tls_options(tls: &TlsConfig) -> Result<TlsOptions> {
    let mut options = TlsOptions::new();
    if let Some(ca) = &tls.ca {
        options = options.ca_certificate(Certificate::from_pem(read_pem(ca).await?));
    }
    if let Some((cert, key)) = &tls.identity {
        options = options.identity(Identity::from_pem(read_pem(cert).await?, read_pem(key).await?));
    }
    if let Some(name) = &tls.server_name {
        options = options.domain_name(name);
    }
    Ok(options)
}
