//! What clients that connect with TLS are shown, on the port of a node and on that of a replica which has no node yet.

use storage_core::Result;
use storage_embedded::tls::{Loaded, Reloading, ServerSide, TlsFiles};

/// gRPC, and what probes and scripts speak.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What a server shows, and what it wants to see.
pub type ServerTls = Reloading<ServerSide>;

/// Reads the certificates of a server. They are read again while it runs, when they change.
///
/// # Errors
/// [`storage_core::Error::InvalidArgument`] for files that cannot be read or used.
pub fn load(files: TlsFiles) -> Result<ServerTls> {
    fn config(loaded: &Loaded) -> Result<ServerSide> {
        loaded.server(&PROTOCOLS)
    }
    Reloading::new(files, config)
}
