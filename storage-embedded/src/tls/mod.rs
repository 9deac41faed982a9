//! Certificates in files, which are read again when they change.

#[cfg(feature = "tls")]
mod classify;
#[cfg(feature = "tls")]
mod load;
#[cfg(feature = "tls")]
mod reload;

use std::path::PathBuf;

#[cfg(feature = "tls")]
pub use classify::refusal;
#[cfg(feature = "tls")]
pub(crate) use classify::{of as refusal_of, words};
#[cfg(feature = "tls")]
pub use load::{Loaded, provider};
#[cfg(feature = "tls")]
pub use reload::Reloading;

/// Where the certificates of one side are: files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The own certificate, with those between it and the authority behind it.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The certificates of the authorities that sign those of the other side. `None`: the other side needs no certificate.
    pub ca: Option<PathBuf>,
}
