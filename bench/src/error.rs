//! Why a run gave no figures. A store that turned out to be wrong is an error of its own: its figures are worthless.

use std::{io, path::PathBuf};

use storage_testkit::server::ServerError;

/// The result of a call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a run gave no figures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What was asked for cannot be run.
    #[error("{0}")]
    Usage(String),
    /// The store does not hold what it acknowledged, or holds what nobody wrote. The figures of such a run are worthless.
    #[error("the store is wrong: {0}")]
    Verification(String),
    /// The store could not be prepared or read.
    #[error("the store failed: {0}")]
    Store(#[from] storage::Error),
    /// Servers could not be started; if their program is not on this machine, the text has the command that installs it.
    #[error(transparent)]
    Servers(#[from] ServerError),
    /// A file or socket of the measurement itself failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

#[cfg(any(feature = "etcd", feature = "consul", feature = "zk"))]
impl From<storage_servers::Error> for Error {
    fn from(error: storage_servers::Error) -> Self {
        match error {
            storage_servers::Error::Server(error) => Self::Servers(error),
            storage_servers::Error::Store(error) => Self::Store(error),
        }
    }
}

impl Error {
    /// For `map_err`: what was tried on this path.
    pub fn at(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path: PathBuf = path.to_owned();
        move |source| Self::Io { what: path.display().to_string(), source }
    }

    /// For `map_err`: what was tried.
    pub(crate) fn io(what: &str) -> impl FnOnce(io::Error) -> Self {
        let what = what.to_owned();
        move |source| Self::Io { what, source }
    }
}
