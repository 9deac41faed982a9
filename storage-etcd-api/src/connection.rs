//! A connection of a client: it has a place as long as it lives, and ends when its client is silent or holds up the others.

use std::{
    fmt,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{extract::Request, middleware::Next, response::Response};
use bytes::BytesMut;
use futures::task::AtomicWaker;
use prometheus_client::metrics::gauge::Gauge;
use storage_embedded::{
    Refusal, Refusals,
    tls::{Withdrawal, refusal},
};
use tokio::{
    io::{self, AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep_until},
};
use tokio_rustls::server::TlsStream;
use tonic::transport::{Server, server::Connected};

use crate::{
    authority::Authorities,
    common_name::common_name,
    limits::{STREAMS_OF_A_CONNECTION, WATCHES_OF_A_CONNECTION},
    places::Places,
};

/// How long a new connection may take until its first request is there. Clients connect when they have something to ask, or ask soon after.
const ASKS_WITHIN: Duration = Duration::from_secs(30);

/// How often a client with HTTP/2 is asked whether it is there, and how long it may take to answer. Clients answer without their program, unless that
/// hangs; etcd has 2 h and 20 s, and then a client that was lost keeps its watches as long.
const PING_EVERY: Duration = Duration::from_secs(60);
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// How long nothing may come from a client that has asked something: more than two answers to pings that are missing. With HTTP/1.1 there
/// are no pings, and the server gives up an idle connection after 30 s.
const SILENT_FOR: Duration = Duration::from_secs(180);

/// When a connection that is silent by right is looked at again.
const LOOKED_AT_AGAIN: Duration = Duration::from_secs(10);

/// A server whose connections end when their clients do, however those end.
pub fn server() -> Server {
    Server::builder()
        .accept_http1(true)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PONG_WITHIN))
        .max_concurrent_streams(STREAMS_OF_A_CONNECTION)
}

/// In the clear or with TLS.
#[derive(Debug)]
pub(crate) enum Secured {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>, Withdrawal),
}

impl Secured {
    /// That of the client, which was verified, since none is asked for otherwise.
    fn certificate(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream, _) => Some(stream.get_ref().1.peer_certificates()?.first()?.as_ref()),
        }
    }
}

/// One of the places of a port, taken.
#[derive(Debug)]
pub(crate) struct ConnectionPlace {
    _permit: OwnedSemaphorePermit,
    open: Gauge,
    refusals: Arc<Refusals>,
    remote: Option<SocketAddr>,
}

impl ConnectionPlace {
    pub(crate) fn new(
        permit: OwnedSemaphorePermit,
        open: Gauge,
        refusals: Arc<Refusals>,
        remote: Option<SocketAddr>,
    ) -> Self {
        open.inc();
        Self { _permit: permit, open, refusals, remote }
    }

    pub(crate) fn refuse(&self, refusal: Refusal, what: &dyn fmt::Display) {
        self.refusals.record(refusal, self.remote, what);
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// What the requests of a connection can do with it.
#[derive(Clone, Debug, Default)]
pub struct Life(Arc<Lived>);

#[derive(Debug)]
struct Lived {
    /// A request has come.
    asked: AtomicBool,
    ended: AtomicBool,
    /// How many answers of HTTP/1.1 are under way that may take as long as they like.
    listening: AtomicUsize,
    reader: AtomicWaker,
    /// In the certificate of the client, if it had to have one.
    common_name: Option<String>,
    /// Its share of the watches of the node.
    watches: Places,
}

impl Default for Lived {
    fn default() -> Self {
        let (asked, ended, listening, reader, common_name) = Default::default();
        let watches = Places::new(WATCHES_OF_A_CONNECTION, Gauge::default());
        Self { asked, ended, listening, reader, common_name, watches }
    }
}

impl Life {
    /// Its share of the watches of the node.
    pub(crate) fn watches(&self) -> &Places {
        &self.0.watches
    }

    /// Ends the connection, with all that is on its way.
    pub(crate) fn end(&self) {
        self.0.ended.store(true, Relaxed);
        self.0.reader.wake();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.0.ended.load(Relaxed)
    }

    /// That the client listens, until this is dropped: with HTTP/1.1 it has nothing to say meanwhile, and no pings are answered. The system
    /// finds out whether it is there.
    pub(crate) fn listens(&self) -> Listening {
        self.0.listening.fetch_add(1, Relaxed);
        Listening(self.clone())
    }

    fn is_listening(&self) -> bool {
        self.0.listening.load(Relaxed) > 0
    }

    /// The common name in the certificate of the client, if it had to have one.
    pub(crate) fn common_name(&self) -> Option<&str> {
        self.0.common_name.as_deref()
    }
}

/// See [`Life::listens`].
#[derive(Debug)]
pub(crate) struct Listening(Life);

impl Drop for Listening {
    fn drop(&mut self) {
        let before = self.0.0.listening.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "whoever stops listening has begun to");
    }
}

/// Notes that a connection has asked something.
pub async fn note_request(request: Request, next: Next) -> Response {
    if let Some(Life(life)) = request.extensions().get() {
        life.asked.store(true, Relaxed);
    }
    next.run(request).await
}

/// A connection of a client.
pub struct Connection {
    stream: Secured,
    place: ConnectionPlace,
    life: Life,
    authorities: Authorities,
    /// What was read and is to be passed on.
    read: BytesMut,
    /// When something came last; at first, when it was made.
    heard: Instant,
    looked_at: Pin<Box<Sleep>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("place", &self.place).field("life", &self.life).finish_non_exhaustive()
    }
}

impl Connection {
    pub(crate) fn new(stream: Secured, place: ConnectionPlace) -> Self {
        let heard = Instant::now();
        let looked_at = Box::pin(sleep_until(heard + ASKS_WITHIN));
        let common_name = stream.certificate().and_then(common_name);
        let life = Life(Arc::new(Lived { common_name, ..Lived::default() }));
        let (authorities, read) = Default::default();
        Self { stream, place, life, authorities, read, heard, looked_at }
    }

    /// An error when the client has been silent for too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.looked_at.as_mut().poll(cx));
            let asked = self.life.0.asked.load(Relaxed);
            // What comes before the first request is not heard: a byte now and then would keep the place.
            let is_silent = self.heard.elapsed() >= SILENT_FOR && !self.life.is_listening();
            if !asked || is_silent {
                if !asked {
                    self.place.refuse(Refusal::Silent, &"it has asked nothing");
                }
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            let at = (self.heard + SILENT_FOR).max(Instant::now() + LOOKED_AT_AGAIN);
            self.looked_at.as_mut().reset(at);
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Life;

    fn connect_info(&self) -> Life {
        self.life.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.life.0.reader.register(cx.waker());
        if this.life.has_ended() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if let Secured::Tls(_, withdrawal) = &mut this.stream
            && let Poll::Ready(error) = withdrawal.poll(cx)
        {
            this.place.refuse(refusal(&error).unwrap_or(Refusal::UntrustedCertificate), &error);
            return Poll::Ready(Err(error));
        }
        loop {
            if !this.read.is_empty() {
                let passed = this.read.len().min(buffer.remaining());
                buffer.put_slice(&this.read.split_to(passed));
                return Poll::Ready(Ok(()));
            }
            let before = buffer.filled().len();
            let read = match &mut this.stream {
                Secured::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
                Secured::Tls(stream, _) => Pin::new(stream).poll_read(cx, buffer),
            };
            let Poll::Ready(read) = read else { return this.poll_silence(cx).map(Err) };
            this.heard = Instant::now();
            let come = buffer.filled().get(before..).unwrap_or_default();
            if read.is_err() || come.is_empty() || this.authorities.passes(come.len()) {
                return Poll::Ready(read);
            }
            this.authorities.take(come, &mut this.read)?;
            buffer.set_filled(before);
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Secured::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Secured::Tls(stream, _) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Secured::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Secured::Tls(stream, _) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Secured::Plain(stream) => stream.is_write_vectored(),
            Secured::Tls(stream, _) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Secured::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Secured::Tls(stream, _) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Secured::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Secured::Tls(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
