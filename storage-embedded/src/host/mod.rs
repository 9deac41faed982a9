//! What a node takes from the machine that it runs on, its disk aside: sockets, threads for work that blocks, time, random numbers.
//!
//! Built with `--cfg simulated`, as `cargo xtask simulate` does, all of it is simulated, and the same seed gives the same run:
//! docs/decisions/0011-simulation.md. No other build knows of that.

#[cfg(not(simulated))]
mod real;
#[cfg(simulated)]
pub mod simulated;

#[cfg(not(simulated))]
pub(crate) use real::{
    OwnedReadHalf, OwnedWriteHalf, TcpListener, TcpStream, blocking, breathe, fill_random, listener, random_u64, rest,
    watch_for_silence,
};
#[cfg(simulated)]
pub(crate) use simulated::{
    Machine, OwnedReadHalf, OwnedWriteHalf, TcpListener, TcpStream, blocking, breathe, fill_random, listener,
    random_u64, rest, watch_for_silence,
};
