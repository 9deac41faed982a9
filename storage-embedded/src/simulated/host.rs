//! What `host` has of the real machine, on the simulated one.

use std::{cell::Cell, io, time::Duration};

use super::{TcpListener, TcpStream};

thread_local! {
    /// How long work that blocks takes at the most, in milliseconds.
    static BLOCKS: Cell<u64> = const { Cell::new(0) };
}

/// How long work that blocks (a snapshot that is written, a piece of one that is received) takes at the most.
pub fn blocking_takes(most: Duration) {
    BLOCKS.set(u64::try_from(most.as_millis()).unwrap_or(u64::MAX));
}

/// A simulated machine has no sockets that are bound already.
pub(crate) fn listener(_: std::net::TcpListener) -> io::Result<TcpListener> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The usual limit.
pub(crate) fn descriptors() -> u64 {
    1024
}

/// Who simulates breaks silent connections, with [`break_connections`](super::break_connections).
pub(crate) fn watch_for_silence(_: &TcpStream, _: Duration) -> io::Result<()> {
    Ok(())
}

/// Works at once, after some time in which others run.
pub(crate) async fn blocking<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    wait(BLOCKS.get()).await;
    work()
}

/// The same on every machine that repeats a run.
pub(crate) fn processors() -> usize {
    2
}

/// The work took no time.
pub(crate) fn rest(_: Duration) {}

/// The shortest time there is.
pub(crate) async fn breathe() {
    wait(1).await;
}

/// From the seed.
pub(crate) fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    bytes.fill_with(|| fastrand::u8(..));
    Ok(())
}

/// From the seed.
pub(crate) fn random_u64() -> io::Result<u64> {
    Ok(fastrand::u64(..))
}

/// Waits up to so many milliseconds.
pub(super) async fn wait(most: u64) {
    if most > 0 {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..=most))).await;
    }
}
