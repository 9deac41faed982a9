//! A machine that is simulated, with turmoil's network, tokio's paused clock, a disk in memory, and one source of randomness for
//! everything that runs on the thread: seed it with [`fastrand::seed`], and the run repeats.
//!
//! It is the workbench of the crate `simulation`, in builds with `--cfg simulated`; the engine's own tests use its disk too. No product
//! has any of it. It stands below the engine and must not know it: what runs on it takes it for the machine.

mod disk;
#[cfg(simulated)]
mod flaw;
#[cfg(simulated)]
mod host;
#[cfg(simulated)]
mod machine;
#[cfg(simulated)]
mod runtime;
#[cfg(simulated)]
mod socket;

pub use disk::{Fault, SimDisk, Survival};
#[cfg(simulated)]
pub(crate) use flaw::is_planted;
#[cfg(simulated)]
pub use flaw::{Flaw, plant};
#[cfg(simulated)]
pub use host::blocking_takes;
#[cfg(simulated)]
pub(crate) use host::{
    blocking, breathe, descriptors, fill_random, listener, processors, random_u64, rest, watch_for_silence,
};
#[cfg(simulated)]
pub use machine::Machine;
#[cfg(simulated)]
pub use runtime::Runtime;
#[cfg(simulated)]
pub use socket::{OwnedReadHalf, OwnedWriteHalf, TcpListener, TcpStream, break_connections, connects};
