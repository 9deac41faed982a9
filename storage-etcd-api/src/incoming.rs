//! The connections of clients as they come: bounded in number, secured if the port has TLS, and given up when nothing comes of them. So for the
//! port of a node, for that of a replica which has no node yet, and for that of the operators.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures::{Stream, stream};
use prometheus_client::metrics::gauge::Gauge;
use storage_embedded::{
    Refusal, Refusals,
    connections::{AcceptFailures, accept_from, watch_for_silence},
    tls::{Withdrawal, refusal},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    connection::{Connection, ConnectionPlace, Secured},
    tls::ServerTls,
};

/// How long a handshake of TLS may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How many clients may be at their handshake; more wait in the system's queue.
const MAX_HANDSHAKES: usize = 256;

/// How long a client's system may leave what was sent unacknowledged, a probe of an idle connection unanswered, or the window shut, until its
/// connection is given up. Longer than between members: somebody may look at a paused client with a debugger.
const SILENCE: Duration = Duration::from_secs(30);

/// A port: how many connections it may have, how many it has, and which it has refused.
#[derive(Clone, Debug)]
pub struct Port {
    name: &'static str,
    places: Arc<Semaphore>,
    open: Gauge,
    refusals: Arc<Refusals>,
}

impl Port {
    /// A port with this many places, and a word for it, as messages have it.
    pub fn new(name: &'static str, places: usize) -> Self {
        let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Self { name, places, open: Gauge::default(), refusals: Arc::new(Refusals::new(name)) }
    }

    /// The same, and its connections are counted here.
    #[must_use]
    pub(crate) fn counted(self, open: Gauge) -> Self {
        Self { open, ..self }
    }

    /// Which connections it has refused, and why.
    pub fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    /// A place, unless there is none. A client that is refused finds another node; left waiting, it would not look for one.
    fn place(&self, remote: Option<SocketAddr>) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        if place.is_none() {
            self.refusals.record(Refusal::TooMany, remote, &"there are as many connections as there may be");
        }
        place
    }
}

/// The connections to a port, as they come, those with TLS when they have got through the handshake. It never ends, and never fails.
pub fn connections(
    listener: TcpListener,
    tls: Option<ServerTls>,
    port: Port,
) -> impl Stream<Item = io::Result<Connection>> {
    let failures = AcceptFailures::new(port.name);
    let tls = tls.map(Arc::new);
    let mut handshakes = JoinSet::new();
    if let Some(tls) = tls.clone() {
        handshakes.spawn(async move {
            tls.follow().await;
            None
        });
    }
    let state = (listener, tls, port, failures, handshakes);
    stream::unfold(state, |(listener, tls, port, mut failures, mut handshakes)| async move {
        loop {
            let stream = tokio::select! {
                Some(ended) = handshakes.join_next() => match ended {
                    Ok(Some(connection)) => return Some((Ok(connection), (listener, tls, port, failures, handshakes))),
                    Ok(None) | Err(_) => continue,
                },
                stream = accept_from(&listener, &mut failures), if handshakes.len() < MAX_HANDSHAKES => stream,
            };
            let remote = stream.peer_addr().ok();
            let Some(permit) = port.place(remote) else { continue };
            // A connection that cannot be watched serves all the same.
            let _ = stream.set_nodelay(true).and_then(|()| watch_for_silence(&stream, SILENCE));
            let place = ConnectionPlace::new(permit, port.open.clone(), Arc::clone(&port.refusals), remote);
            match &tls {
                None => {
                    let connection = Connection::new(Secured::Plain(stream), place);
                    return Some((Ok(connection), (listener, tls, port, failures, handshakes)));
                }
                Some(tls) => drop(handshakes.spawn(handshake(stream, Arc::clone(tls), place))),
            }
        }
    })
}

async fn handshake(stream: TcpStream, tls: Arc<ServerTls>, place: ConnectionPlace) -> Option<Connection> {
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.current().config));
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let shown = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
            let withdrawal = Withdrawal::new(&tls, move |side| side.verify(&shown));
            Some(Connection::new(Secured::Tls(Box::new(stream), withdrawal), place))
        }
        Ok(Err(error)) => {
            match refusal(&error) {
                Some(reason) => place.refuse(reason, &error),
                None => tracing::debug!(%error, "a client has not got through the handshake"),
            }
            None
        }
        Err(_) => {
            place.refuse(Refusal::Silent, &"no handshake in time");
            None
        }
    }
}
