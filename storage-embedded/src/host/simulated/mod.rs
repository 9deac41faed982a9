//! A machine that is simulated, with turmoil's network, tokio's paused clock, a disk in memory, and one source of randomness for
//! everything that runs on the thread: seed it with [`fastrand::seed`], and the run repeats.
//!
//! Only builds with `--cfg simulated` have this module; it is the workbench of the crate `simulation`.

mod machine;
mod probe;
mod runtime;
mod socket;

use std::{cell::Cell, io, time::Duration};

pub use machine::Machine;
pub use probe::{Probe, ProbedEntry};
pub use runtime::Runtime;
pub use socket::{OwnedReadHalf, OwnedWriteHalf, TcpListener, TcpStream, break_connections, connects};

/// A defect that is planted to see that it is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Flaw {
    /// A vote is answered before it is synced.
    UnsyncedVote,
    /// The leader answers reads without asking anybody whether it still leads.
    UnconfirmedRead,
    /// Raft is told that entries are durable before they are written.
    EarlyAcknowledgement,
    /// A leader that restarts leads on in its old term.
    RestoredLeader,
    /// Applying an entry draws a random number.
    RandomState,
    /// A write that is sent again is another write.
    RepeatedWrite,
}

thread_local! {
    static PLANTED: Cell<Option<Flaw>> = const { Cell::new(None) };
    /// How long work that blocks takes at the most, in milliseconds.
    static BLOCKS: Cell<u64> = const { Cell::new(0) };
}

/// Plants a defect in every node that this thread simulates from now on, or none.
pub fn plant(flaw: Option<Flaw>) {
    PLANTED.set(flaw);
}

/// How long work that blocks (a snapshot that is written, a piece of one that is received) takes at the most.
pub fn blocking_takes(most: Duration) {
    BLOCKS.set(u64::try_from(most.as_millis()).unwrap_or(u64::MAX));
}

pub(crate) fn is_planted(flaw: Flaw) -> bool {
    PLANTED.get() == Some(flaw)
}

/// A simulated machine has no sockets that are bound already.
pub(crate) fn listener(_: std::net::TcpListener) -> io::Result<TcpListener> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Who simulates breaks silent connections, with [`break_connections`].
pub(crate) fn watch_for_silence(_: &TcpStream, _: Duration) -> io::Result<()> {
    Ok(())
}

/// Works at once, after some time in which others run.
pub(crate) async fn blocking<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    wait(BLOCKS.get()).await;
    work()
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
pub(crate) fn random_u64() -> u64 {
    fastrand::u64(..)
}

/// Waits up to so many milliseconds.
async fn wait(most: u64) {
    if most > 0 {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..=most))).await;
    }
}
