//! Errors of the engine's files, as errors of the contract.

use std::io;

use storage_core::Error;

use crate::log::LogError;

/// What a caller can do about files that a node cannot start with.
pub(crate) fn from_log(error: LogError) -> Error {
    let text = error.to_string();
    match error {
        LogError::Corrupt { .. } | LogError::Missing { .. } | LogError::Broken { .. } => Error::corrupt(text),
        LogError::NewerFormat { .. }
        | LogError::Locked { .. }
        | LogError::OtherIdentity { .. }
        | LogError::Hole { .. }
        | LogError::TooLarge { .. } => Error::invalid_argument(text),
        LogError::Closed => Error::Closed,
        error => Error::unavailable(error),
    }
}

/// The same for the files of snapshots.
pub(crate) fn from_file(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData => Error::corrupt(error.to_string()),
        _ => Error::unavailable(error),
    }
}
