//! What connections this process has.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// How many connections of this process lead to a port of 127.0.0.1. Linux only: it reads `/proc`.
///
/// # Errors
/// What the system says.
pub fn connections_to(port: u16) -> io::Result<usize> {
    const ESTABLISHED: &str = "01";
    let own: BTreeSet<PathBuf> =
        fs::read_dir("/proc/self/fd")?.flatten().filter_map(|file| fs::read_link(file.path()).ok()).collect();
    let remote = format!("0100007F:{port:04X}");
    let sockets = fs::read_to_string("/proc/self/net/tcp")?;
    let ours = sockets.lines().filter(|line| {
        let mut fields = line.split_whitespace().skip(2);
        // Number, local address, remote address, state, and as the tenth the inode: proc(5).
        let (peer, state, inode) = (fields.next(), fields.next(), fields.nth(5).unwrap_or_default());
        let socket = format!("socket:[{inode}]");
        peer == Some(remote.as_str()) && state == Some(ESTABLISHED) && own.contains(Path::new(&socket))
    });
    Ok(ours.count())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_counts_while_it_is_open() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(connections_to(port).unwrap(), 0);
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert_eq!(connections_to(port).unwrap(), 1);
        drop(stream);
        assert_eq!(connections_to(port).unwrap(), 0);
    }
}
