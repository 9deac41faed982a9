//! The machine itself.

use std::{io, time::Duration};

pub(crate) use tokio::net::{
    TcpListener, TcpStream,
    tcp::{OwnedReadHalf, OwnedWriteHalf},
};

use crate::connections::descriptor_limit;
pub(crate) use crate::connections::watch_for_silence;

/// A socket that is bound already, for use on this runtime.
pub(crate) fn listener(bound: std::net::TcpListener) -> io::Result<TcpListener> {
    bound.set_nonblocking(true)?;
    TcpListener::from_std(bound)
}

/// How many descriptors this process may have.
pub(crate) fn descriptors() -> u64 {
    descriptor_limit().soft
}

/// How many processors this process may use.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Works where that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Sleeps, where that may block.
pub(crate) fn rest(time: Duration) {
    std::thread::sleep(time);
}

/// Lets the other tasks of the thread run for a moment, far shorter than the runtime's timer can tell, and other threads that want
/// its processor: those may be the callers that are waited for.
pub(crate) async fn breathe() {
    std::thread::yield_now();
    tokio::task::yield_now().await;
}

/// From the system's source of randomness.
pub(crate) fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    getrandom::fill(bytes).map_err(io::Error::other)
}

/// From the system's source of randomness.
pub(crate) fn random_u64() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}
