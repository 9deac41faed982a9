//! How a case ends early: failed or skipped, and where in the suite it was.
//!
//! Messages are bounded, as the largest values are megabytes. An error of the store where none may come is a failure,
//! not a skip.

use std::{fmt, panic::Location};

use super::FaultError;
use crate::Error;

/// The longest rendering of one value in a message, in characters; the largest values of a store are megabytes.
const MAX_SHOWN: usize = 400;

/// How a case ends.
pub(crate) type Checked<T = ()> = Result<T, Stop>;

/// Why a case ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The store broke the contract; says where in the suite and how.
    Failed(String),
    /// The case cannot be run here; says why.
    Skipped(String),
}

impl Stop {
    /// A failure at the place of the caller.
    #[track_caller]
    pub(crate) fn failed(what: impl fmt::Display) -> Self {
        let place = Location::caller();
        let file = place.file().rsplit(['/', '\\']).next().unwrap_or_default();
        Self::Failed(format!("{what} ({file}:{})", place.line()))
    }

    pub(crate) fn skipped(reason: impl Into<String>) -> Self {
        Self::Skipped(reason.into())
    }
}

/// What a call of a handle found, before the place of the case is added to it by `?`.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The store answered with an error where none may come.
    Answer(Error),
    /// The store answered something else than the case counts on.
    Mismatch(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Answer(error)
    }
}

impl From<Trouble> for Stop {
    #[track_caller]
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Answer(error) => error.into(),
            Trouble::Mismatch(what) => Self::failed(what),
        }
    }
}

impl From<Error> for Stop {
    #[track_caller]
    fn from(error: Error) -> Self {
        Self::failed(format_args!("a call failed with {}: {error}", error.kind()))
    }
}

impl From<FaultError> for Stop {
    #[track_caller]
    fn from(error: FaultError) -> Self {
        match error {
            FaultError::Impossible(reason) => Self::Skipped(reason),
            FaultError::Failed(cause) => Self::failed(format_args!("a fault could not be made: {cause}")),
        }
    }
}

/// A value for a message, in bounded length.
pub(crate) fn show(value: &impl fmt::Debug) -> String {
    let text = format!("{value:?}");
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}... ({} characters)", text.get(..end).unwrap_or_default(), text.len()),
        None => text,
    }
}

/// Ends the case with a failure that says what is wrong, unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err($crate::conformance::stop::Stop::failed(format_args!($($what)+)));
        }
    };
}

/// Ends the case with a failure that shows both, unless the two are equal.
macro_rules! ensure_eq {
    ($actual:expr, $expected:expr, $($what:tt)+) => {
        match (&$actual, &$expected) {
            (actual, expected) => {
                if actual != expected {
                    return Err($crate::conformance::stop::Stop::failed(format_args!(
                        "{}: expected {}, got {}",
                        format_args!($($what)+),
                        $crate::conformance::stop::show(expected),
                        $crate::conformance::stop::show(actual),
                    )));
                }
            }
        }
    };
}

/// Ends the case with a failure, unless the result is an error of this variant.
macro_rules! ensure_error {
    ($result:expr, $error:pat, $($what:tt)+) => {
        match &$result {
            Err($error) => {}
            other => {
                return Err($crate::conformance::stop::Stop::failed(format_args!(
                    "{}: expected {}, got {}",
                    format_args!($($what)+),
                    stringify!($error),
                    $crate::conformance::stop::show(other),
                )));
            }
        }
    };
}

pub(crate) use {ensure, ensure_eq, ensure_error};
