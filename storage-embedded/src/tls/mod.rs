//! Certificates in files, which are read again when they change.

#[cfg(feature = "tls")]
mod classify;
#[cfg(feature = "tls")]
mod load;
#[cfg(feature = "tls")]
mod reload;
#[cfg(feature = "tls")]
mod withdrawal;

use std::path::PathBuf;

#[cfg(feature = "tls")]
pub use classify::refusal;
#[cfg(feature = "tls")]
pub(crate) use classify::{of as refusal_of, words};
#[cfg(feature = "tls")]
pub(crate) use load::PeerConfigs;
#[cfg(feature = "tls")]
pub use load::{Loaded, ServerSide, provider};
#[cfg(feature = "tls")]
pub use reload::Reloading;
#[cfg(feature = "tls")]
pub use withdrawal::Withdrawal;

/// Where the certificates of one side are: files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The own certificate, with those between it and the authority behind it.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The certificates of the authorities that sign those of the other side. `None`: the other side needs no certificate.
    pub ca: Option<PathBuf>,
    /// The lists of certificates that the authorities have revoked: one of each authority whose certificates are shown here, since of others it
    /// could not be known. `None`: no certificate is revoked.
    pub crl: Option<PathBuf>,
}
