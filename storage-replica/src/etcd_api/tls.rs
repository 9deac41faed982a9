//! Clients that connect with TLS.

use std::{io, sync::Arc, time::Duration};

use futures::{Stream, stream};
use storage_core::Result;
use storage_embedded::{
    Refusals,
    tls::{Loaded, Reloading, TlsFiles, refusal},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How many clients may be at their handshake; more wait in the system's queue.
const MAX_HANDSHAKES: usize = 256;

/// gRPC, and what probes and scripts speak.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What a server shows, and what it wants to see.
pub(crate) type ServerTls = Reloading<ServerConfig>;

pub(crate) fn load(files: TlsFiles) -> Result<ServerTls> {
    fn config(loaded: &Loaded) -> Result<ServerConfig> {
        loaded.server(&PROTOCOLS)
    }
    Reloading::new(files, config)
}

/// The connections of clients that have got through the handshake, as they come. Those that have not are counted.
pub(crate) fn connections(
    listener: TcpListener,
    tls: ServerTls,
    refusals: Arc<Refusals>,
) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> {
    stream::unfold((listener, tls, refusals, JoinSet::new()), |(listener, tls, refusals, mut handshakes)| async move {
        loop {
            tokio::select! {
                Some(Ok(Some(stream))) = handshakes.join_next(), if !handshakes.is_empty() => {
                    return Some((Ok(stream), (listener, tls, refusals, handshakes)));
                }
                accepted = listener.accept(), if handshakes.len() < MAX_HANDSHAKES => match accepted {
                    Ok((stream, _)) => {
                        handshakes.spawn(handshake(stream, tls.current(), Arc::clone(&refusals)));
                    }
                    Err(error) => {
                        // Out of file descriptors, most likely: it passes, and until then nothing is gained by trying at once.
                        tracing::warn!(%error, "cannot accept a connection on the client port");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
    })
}

async fn handshake(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    refusals: Arc<Refusals>,
) -> Option<TlsStream<TcpStream>> {
    let remote = stream.peer_addr().ok();
    stream.set_nodelay(true).ok()?;
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            match refusal(&error) {
                Some(reason) => refusals.record(reason, remote, &error),
                None => tracing::debug!(?remote, %error, "a client has not got through the handshake"),
            }
            None
        }
        Err(_) => None,
    }
}
