//! What a node takes from the machine that it runs on, its disk aside: sockets, threads for work that blocks, time, random numbers.
//!
//! Built with `--cfg simulated`, as `cargo xtask simulate` does, all of it is simulated, and the same seed gives the same run:
//! docs/decisions/0011-simulation.md. No other build knows of that.
//!
//! The engine asks nothing of the system past this module and `disk`: what it took elsewhere would not repeat.

#[cfg(not(simulated))]
mod real;

#[cfg(simulated)]
pub(crate) use crate::simulated::{
    OwnedReadHalf, OwnedWriteHalf, TcpListener, TcpStream, blocking, breathe, descriptors, fill_random, listener,
    processors, random_u64, rest, watch_for_silence,
};
#[cfg(not(simulated))]
pub(crate) use real::{
    OwnedReadHalf, OwnedWriteHalf, TcpListener, TcpStream, blocking, breathe, descriptors, fill_random, listener,
    processors, random_u64, rest, watch_for_silence,
};

/// A number that a cluster is told apart by; never 0, which is that of a cluster that began with nothing.
pub(crate) fn random_origin() -> std::io::Result<u128> {
    let mut bytes = [0; 16];
    fill_random(&mut bytes)?;
    Ok(u128::from_ne_bytes(bytes).max(1))
}
