//! Ports of this machine that no other test takes meanwhile, also while a server is down.
//!
//! A locked file stands for each, since the kernel gives up the locks of a process that dies.

use std::env;
use std::fs::{self, File, OpenOptions, Permissions};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::error::ServerError;

/// Below the range from which kernels pick the ports of outgoing connections (32768 and up on Linux, 49152 and up elsewhere).
/// A server that is down for a while must find its port free when it comes back, and a port from `bind(0)` may by then belong
/// to some connection.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// More attempts than this mean that the machine has a problem, not bad luck.
const ATTEMPTS: usize = 1_000;

/// Loopback ports that no other test process takes while this lives: each is a locked file, and the kernel unlocks the
/// files of a process that dies.
#[derive(Debug, Default)]
pub struct Reservation {
    locks: Vec<File>,
}

impl Reservation {
    /// Reserves one more port, free for TCP and UDP.
    ///
    /// # Errors
    /// [`ServerError::NoFreePort`], and [`ServerError::Io`] for the folder of the locks.
    pub fn port(&mut self) -> Result<u16, ServerError> {
        let dir = env::temp_dir().join("storage-testkit-ports");
        fs::create_dir_all(&dir).map_err(ServerError::io(format!("create {}", dir.display())))?;
        // Another user's tests may share the folder. If it is theirs, they have done this already.
        let _ = fs::set_permissions(&dir, Permissions::from_mode(0o777));
        for _ in 0..ATTEMPTS {
            let port = fastrand::u16(PORTS);
            if let Some(lock) = lock(&dir, port)
                && is_free(port)
            {
                self.locks.push(lock);
                return Ok(port);
            }
        }
        Err(ServerError::NoFreePort { attempts: ATTEMPTS })
    }
}

fn lock(dir: &Path, port: u16) -> Option<File> {
    let path = dir.join(port.to_string());
    let file = OpenOptions::new().create(true).append(true).open(path).ok()?;
    file.try_lock().ok()?;
    Some(file)
}

fn is_free(port: u16) -> bool {
    let address = (Ipv4Addr::LOCALHOST, port);
    TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_distinct_while_reserved() {
        let (mut one, mut two) = (Reservation::default(), Reservation::default());
        let mut ports: Vec<u16> = (0..200).flat_map(|_| [one.port().unwrap(), two.port().unwrap()]).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 400);
    }

    #[test]
    fn a_port_in_use_is_not_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!is_free(listener.local_addr().unwrap().port()));
    }

    #[test]
    fn a_port_is_locked_for_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path(), 1).unwrap();
        assert!(lock(dir.path(), 1).is_none());
        drop(held);
        assert!(lock(dir.path(), 1).is_some());
    }
}
