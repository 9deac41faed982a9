//! Connections to one server, each with one call at a time.
//!
//! Invariant: a call is sent only on a connection on which the server has answered before. A server that accepts a
//! connection and serves it not (above all Consul at its `http_max_conns_per_client`, which closes it without reading)
//! fails here before anything is sent, so that the write is known not to be applied. That, and the moment at which a
//! request counts as sent, are why no general HTTP client is used: see docs/decisions/0018-consul-client.md.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header::HOST};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use storage_core::{
    Error, Result,
    servers::{Failure, describe},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{self, ClientConfig, pki_types::ServerName},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::error::MAX_ANSWER_BYTES;

/// A connection that has not been used for so long is not used again: what lies between may have forgotten it.
const MAX_IDLE: Duration = Duration::from_secs(30);

/// What a new connection is tried with: it costs a server next to nothing and needs no permission.
const TRIED_WITH: &str = "status/leader";

/// A connection that is used by one call.
pub(crate) type Connection = SendRequest<Full<Bytes>>;

/// TLS to one server.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) config: Arc<ClientConfig>,
    /// The name that its certificate must have.
    pub(crate) name: ServerName<'static>,
}

/// The connections to one server.
pub(crate) struct Connections {
    /// `host:port`.
    address: String,
    host: HeaderValue,
    tls: Option<Tls>,
    connect_timeout: Duration,
    /// The last used is used first, so that those that are too many grow old. There are never more than calls at once.
    idle: Mutex<Vec<(Connection, Instant)>>,
    closed: CancellationToken,
    under_way: TaskTracker,
}

impl Connections {
    /// Connects to nothing yet. The tasks of the connections run under `closed` and `under_way`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an address that no HTTP header can hold.
    pub(crate) fn new(
        address: String,
        tls: Option<Tls>,
        connect_timeout: Duration,
        closed: CancellationToken,
        under_way: TaskTracker,
    ) -> Result<Self> {
        let host = HeaderValue::from_str(&address)
            .map_err(|_| Error::invalid_argument(format!("`{address}` is no address of a server")))?;
        Ok(Self { address, host, tls, connect_timeout, idle: Mutex::default(), closed, under_way })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// One that is idle, or a new one.
    ///
    /// # Errors
    /// Nothing was sent. [`Error::Unavailable`], with the address and the reason, if there is no connection;
    /// [`Error::Unauthenticated`] if the server cannot prove who it is.
    pub(crate) async fn connection(&self) -> Result<Connection> {
        while let Some((mut connection, since)) = self.pop() {
            if since.elapsed() < MAX_IDLE && connection.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        match timeout(self.connect_timeout, self.connect()).await {
            Ok(connected) => connected,
            Err(_) => Err(self.unreachable(&format!("no connection within {:?}", self.connect_timeout))),
        }
    }

    /// Makes a call. Whoever drops this drops the connection too, and does not know what becomes of the call.
    ///
    /// # Errors
    /// What it means that there is no answer.
    pub(crate) async fn ask(
        &self,
        mut connection: Connection,
        method: Method,
        what: &str,
        token: Option<&HeaderValue>,
        body: Bytes,
    ) -> Result<Response<Bytes>, Failure> {
        let request = self.request(method, what, token, body)?;
        let answer = connection.send_request(request).await.map_err(|error| {
            let words = format!("{}: {}", self.address, describe(&error));
            // Canceled: the connection had ended before the first byte was written.
            if error.is_canceled() {
                Failure::NotApplied(Error::unavailable(words))
            } else {
                Failure::Unknown(words.into())
            }
        })?;
        let (head, body) = answer.into_parts();
        // Counted while it comes: the length that a server claims is not to be trusted, and the memory would be gone.
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                let (what, actual) = ("(or more) bytes in one answer", MAX_ANSWER_BYTES + 1);
                Failure::Refused(Error::TooLarge { what, actual, limit: MAX_ANSWER_BYTES })
            } else {
                Failure::Unknown(format!("{}: {}", self.address, describe(error.as_ref())).into())
            }
        })?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push((connection, Instant::now()));
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    fn pop(&self) -> Option<(Connection, Instant)> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(&self.address).await.map_err(|error| self.unreachable(&error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| self.unreachable(&error.to_string()))?;
        let mut connection = match &self.tls {
            None => self.speak(stream).await?,
            Some(tls) => {
                let connector = TlsConnector::from(Arc::clone(&tls.config));
                let stream = connector.connect(tls.name.clone(), stream).await;
                self.speak(stream.map_err(|error| self.untrusted(&error, tls))?).await?
            }
        };
        self.try_out(&mut connection).await?;
        Ok(connection)
    }

    async fn speak(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Connection> {
        let (connection, driver) =
            handshake(TokioIo::new(stream)).await.map_err(|error| self.unreachable(&describe(&error)))?;
        let closed = self.closed.clone();
        self.under_way.spawn(async move {
            // Its errors are those of the calls.
            let _ = closed.run_until_cancelled_owned(driver).await;
        });
        Ok(connection)
    }

    /// Asks for something that everybody may know, and so finds out whether the server serves this connection.
    async fn try_out(&self, connection: &mut Connection) -> Result<()> {
        let request = self.request(Method::GET, TRIED_WITH, None, Bytes::new()).map_err(Failure::of_read)?;
        let answer = connection.send_request(request).await.map_err(|error| {
            self.unreachable(&format!("it accepts a connection and does not serve it: {}", describe(&error)))
        })?;
        let status = answer.status();
        // Without a limit it could be of any length.
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| self.unreachable(&describe(error.as_ref())))?.to_bytes();
        // Whatever else it answers, it answers, and will answer the call.
        if status == http::StatusCode::TOO_MANY_REQUESTS {
            return Err(self.unreachable(String::from_utf8_lossy(&body).trim()));
        }
        connection.ready().await.map_err(|error| self.unreachable(&describe(&error)))
    }

    fn request(
        &self,
        method: Method,
        what: &str,
        token: Option<&HeaderValue>,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder().method(method).uri(format!("/v1/{what}")).header(HOST, &self.host);
        if let Some(token) = token {
            request = request.header("X-Consul-Token", token);
        }
        request.body(Full::new(body)).map_err(|error| Failure::Refused(Error::invalid_argument(error.to_string())))
    }

    fn unreachable(&self, why: &str) -> Error {
        Error::unavailable(format!("{}: {why}", self.address))
    }

    /// Another try would end as this one did, if it is the certificate that is wrong.
    fn untrusted(&self, error: &std::io::Error, tls: &Tls) -> Error {
        let words = format!("{}: TLS: {error}", self.address);
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        let Some(rustls::Error::InvalidCertificate(invalid)) = cause else { return Error::unavailable(words) };
        let named = match invalid {
            rustls::CertificateError::NotValidForName | rustls::CertificateError::NotValidForNameContext { .. } => {
                format!(
                    " (expected the name `{}`; `server_name` says another, with Consul's own certificates \
                     `server.<datacenter>.consul`)",
                    tls.name.to_str()
                )
            }
            _ => String::new(),
        };
        Error::Unauthenticated { source: format!("{words}{named}").into() }
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connections").field(&self.address).finish()
    }
}
