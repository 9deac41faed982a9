//! The machine itself.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};
pub(crate) use tokio::net::{
    TcpListener, TcpStream,
    tcp::{OwnedReadHalf, OwnedWriteHalf},
};

/// A socket that is bound already, for use on this runtime.
pub(crate) fn listener(bound: std::net::TcpListener) -> io::Result<TcpListener> {
    bound.set_nonblocking(true)?;
    TcpListener::from_std(bound)
}

/// Gives the connection up when the other side's system leaves what was sent unacknowledged, or a probe of an idle connection
/// unanswered, for so long.
pub(crate) fn watch_for_silence(stream: &TcpStream, longest: Duration) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(longest / 2).with_interval(longest / 4))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(longest))?;
    Ok(())
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

/// From the system's source of randomness, or the next best.
pub(crate) fn random_u64() -> u64 {
    getrandom::u64().unwrap_or_else(|_| fastrand::u64(..))
}
