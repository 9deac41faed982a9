//! How many connections a process takes, and how long it bears with those that say nothing: what all ports of a node have in common.
//!
//! # Invariants
//! - The log, the snapshots and the members of the cluster find a descriptor, however many clients and strangers connect: each port has a
//!   [`Budget`] of its own, and all of them together leave some.
//! - An accept that fails ends nothing, costs no processor time, and is said once.

mod accept;
mod budget;
mod descriptors;

use std::{io, os::fd::AsFd, time::Duration};

use socket2::{SockRef, TcpKeepalive};

pub use accept::{AcceptFailures, accept_from};
pub use budget::{Budget, CLIENTS};
pub use descriptors::{DescriptorLimit, descriptor_limit, raise_descriptor_limit};

/// How long the other side's system may leave what was sent unacknowledged, or a probe of an idle connection unanswered,
/// until the connection is given up: a silent cut of the network or a lost machine then shows as a broken connection.
/// A process that is merely paused does not, since its system still answers. 10 s.
pub const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);

/// Gives a connection up when the other side's system is silent for so long: see [`SILENCE_TIMEOUT`].
///
/// # Errors
/// Those of the system; the connection can be used all the same.
pub fn watch_for_silence(socket: &impl AsFd, longest: Duration) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(longest / 2).with_interval(longest / 4))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(longest))?;
    Ok(())
}
