//! One session with the ensemble at a time, opened again for as long as the handle lives.
//!
//! The client library queues calls without bound while it is disconnected and sends them once it is connected again, when
//! their callers have long given up; and after a session expired it answers that for ever. So a session is thrown away
//! at its first disconnect: this store keeps nothing in a session (no ephemeral nodes), a new one costs a
//! round trip, and a call waits for it before anything is sent.

use std::{future::pending, sync::Arc, time::Duration};

use storage_core::{Backoff, Deadline, Error, Result};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use zookeeper_client::{Client, Error as ZkError, SessionState, StateWatcher};

use crate::{ZkConfig, error::session_error};

/// Attempts to open a session are at most this far apart, when no server takes us.
const MAX_RECONNECT_WAIT: Duration = Duration::from_millis(250);

/// How long a session may take to say good-bye. A server that does not answer forgets it after the session timeout.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The session of a handle. Dropping it ends it in the background; [`Session::close`] waits.
#[derive(Debug)]
pub(crate) struct Session {
    link: watch::Receiver<Link>,
    stop: watch::Sender<bool>,
    keeper: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

/// What there is of a session now.
#[derive(Clone, Debug)]
enum Link {
    /// None, for this reason.
    Down(ZkError),
    /// This one.
    Up(Client),
    /// None, and there will be none.
    Closed,
}

impl Session {
    /// Begins to open a session.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for certificates that cannot be used; [`Error::Unsupported`] for TLS without its feature.
    pub(crate) fn start(config: &ZkConfig) -> Result<Self> {
        let dialer = Dialer::new(config)?;
        let (publish, link) = watch::channel(Link::Down(ZkError::NoHosts));
        let (stop, stopped) = watch::channel(false);
        let keeper = tokio::spawn(keep(dialer, publish, stopped));
        Ok(Self { link, stop, keeper: tokio::sync::Mutex::new(Some(keeper)) })
    }

    /// A client that is connected now.
    ///
    /// # Errors
    /// [`Error::Unavailable`] at the deadline, with why there is no session; [`Error::Unauthenticated`] at once if that is
    /// why; [`Error::Closed`]. Nothing was sent.
    pub(crate) async fn client(&self, deadline: Deadline) -> Result<Client> {
        deadline.check()?;
        let mut link = self.link.clone();
        let connected = async {
            loop {
                match &*link.borrow_and_update() {
                    Link::Up(client) if client.state() == SessionState::SyncConnected => return Ok(client.clone()),
                    Link::Closed => return Err(Error::Closed),
                    Link::Down(error @ ZkError::AuthFailed) => return Err(session_error(error.clone())),
                    Link::Up(_) | Link::Down(_) => {}
                }
                link.changed().await.map_err(|_| Error::Closed)?;
            }
        };
        match deadline.reading(connected).await {
            Ok(client) => client,
            Err(late) => Err(match &*self.link.borrow() {
                Link::Down(error) => session_error(error.clone()),
                _ => late,
            }),
        }
    }

    /// Whether the handle was closed.
    pub(crate) fn is_closed(&self) -> bool {
        *self.stop.borrow()
    }

    /// Resolves when the handle is closed.
    pub(crate) fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        stopped(self.stop.subscribe())
    }

    /// Ends the session and returns when it is gone.
    pub(crate) async fn close(&self) {
        self.stop.send_replace(true);
        if let Some(keeper) = self.keeper.lock().await.take() {
            // It ends by itself; it can only fail by a panic, which has been reported then.
            let _ = keeper.await;
        }
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the handle was dropped, which is as good.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Keeps a session open until the handle is closed or dropped.
async fn keep(dialer: Dialer, publish: watch::Sender<Link>, stop: watch::Receiver<bool>) {
    let mut last = None;
    tokio::select! {
        () = stopped(stop) => {}
        () = reopen(&dialer, &publish, &mut last) => {}
    }
    publish.send_replace(Link::Closed);
    if let Some(mut states) = last {
        let gone = async {
            while !states.state().is_terminated() {
                states.changed().await;
            }
        };
        // Late is fine: the server forgets the session by itself.
        let _ = timeout(CLOSE_TIMEOUT, gone).await;
    }
}

/// Opens a session, waits for its first trouble, opens the next. Never returns.
async fn reopen(dialer: &Dialer, publish: &watch::Sender<Link>, last: &mut Option<StateWatcher>) {
    let mut backoff = Backoff::new(MAX_RECONNECT_WAIT / 16, MAX_RECONNECT_WAIT);
    loop {
        match dialer.dial().await {
            Ok(client) => {
                let mut states = client.state_watcher();
                *last = Some(states.clone());
                // The watcher reports changes from now on only.
                if client.state() == SessionState::SyncConnected {
                    tracing::debug!(session = %client.session_id(), "connected");
                    backoff = Backoff::new(MAX_RECONNECT_WAIT / 16, MAX_RECONNECT_WAIT);
                    // From here on calls use it; the loop waits for its first change of state, whatever that is.
                    publish.send_replace(Link::Up(client));
                    let state = states.changed().await;
                    tracing::info!(%state, "the session ends");
                    publish.send_replace(Link::Down(match state {
                        SessionState::AuthFailed => ZkError::AuthFailed,
                        _ => ZkError::ConnectionLoss,
                    }));
                }
            }
            Err(error) => {
                tracing::debug!(%error, "no session");
                publish.send_if_modified(|link| {
                    let news = !matches!(link, Link::Down(old) if *old == error);
                    *link = Link::Down(error);
                    news
                });
            }
        }
        backoff.wait().await;
    }
}

/// Opens sessions.
struct Dialer {
    connector: zookeeper_client::Connector,
    endpoints: Arc<str>,
    secure: bool,
}

impl Dialer {
    fn new(config: &ZkConfig) -> Result<Self> {
        let mut connector = Client::connector().with_session_timeout(config.session_timeout()).with_fail_eagerly();
        if let Some((user, password)) = config.credentials() {
            connector = connector.with_auth("digest", format!("{user}:{}", password.reveal()).as_bytes());
        }
        if let Some(tls) = config.tls() {
            connector = secured(connector, config, tls)?;
        }
        let endpoints = config.endpoints().collect::<Vec<_>>().join(",").into();
        Ok(Self { connector, endpoints, secure: config.tls().is_some() })
    }

    /// Tries each endpoint once, in random order.
    async fn dial(&self) -> Result<Client, ZkError> {
        let connector = self.connector.clone();
        #[cfg(feature = "tls")]
        if self.secure {
            return connector.secure_connect(&self.endpoints).await;
        }
        if self.secure {
            // `new` has refused this.
            return pending().await;
        }
        connector.connect(&self.endpoints).await
    }
}

#[cfg(feature = "tls")]
fn secured(
    connector: zookeeper_client::Connector,
    config: &ZkConfig,
    tls: &crate::TlsConfig,
) -> Result<zookeeper_client::Connector> {
    use rustls::{
        crypto::{CryptoProvider, aws_lc_rs},
        pki_types::ServerName,
    };
    use zookeeper_client::TlsOptions;

    // The client library takes the one of the process, and panics if there is none and the build has two to choose from, as
    // it has with the backend of etcd. A program that wants another one installs it before. An error: somebody was faster.
    if CryptoProvider::get_default().is_none() {
        let _ = aws_lc_rs::default_provider().install_default();
    }
    // It panics as well at a name that no certificate can have.
    for host in config.hosts() {
        ServerName::try_from(host)
            .map_err(|error| Error::invalid_argument(format!("`{host}` is no name for TLS: {error}")))?;
    }
    let read = |path: &std::path::Path| {
        std::fs::read_to_string(path).map_err(|error| Error::invalid_argument(format!("{}: {error}", path.display())))
    };
    let unusable = |error: ZkError| Error::invalid_argument(format!("a certificate or key cannot be used: {error}"));
    let mut options = TlsOptions::new().with_pem_ca(&read(&tls.ca)?).map_err(unusable)?;
    if let Some((cert, key)) = &tls.identity {
        options = options.with_pem_identity(&read(cert)?, &read(key)?).map_err(unusable)?;
    }
    Ok(connector.with_tls(options))
}

#[cfg(not(feature = "tls"))]
fn secured(_: zookeeper_client::Connector, _: &ZkConfig, _: &crate::TlsConfig) -> Result<zookeeper_client::Connector> {
    let feature =
        "`zks:` in this build: it needs the cargo feature `zk-tls` of storage, which is `tls` of storage-zk".to_owned();
    Err(Error::Unsupported { feature })
}
