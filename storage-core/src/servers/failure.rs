use std::error::Error as StdError;

use crate::{Cause, Error};

/// Whether a request that failed was carried out, and whether another server might do better.
#[derive(Debug)]
pub enum Failure {
    /// Certainly not applied. Another server, or this one later, may apply it.
    NotApplied(Error),
    /// It may have been applied, or may yet be.
    Unknown(Cause),
    /// Certainly not applied, and no server will.
    Refused(Error),
}

impl Failure {
    /// As the error of a request that changes nothing, so that it does not matter whether it was carried out.
    pub fn of_read(self) -> Error {
        match self {
            Self::NotApplied(error) | Self::Refused(error) => error,
            Self::Unknown(cause) => Error::unavailable(cause),
        }
    }
}

/// An error with everything that caused it: client libraries say no more than "transport error" in the outermost one.
pub fn describe(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}
