//! How the program ends.

use std::process::ExitCode;

use storage_replica::Removed;

/// The part of the help that tells the exit codes.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done
  1  a store was found to be wrong, or operations on it failed
  2  the command line is wrong
  3  something that the command needs could not be had: a directory, a port, a server, a connection
  4  the answer is no: a key is absent, or has another value or version than was expected
  5  a write may have been applied or not, since no answer came: look before you try again
  6  the node was removed from its cluster: do not start it again
  7  some records could not be read: they are named, and all others are told
  141  whoever reads the output has gone, as `head` does";

/// Why a command did not do what it should.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A store was found to be wrong, or operations on it failed.
    Wrong(anyhow::Error),
    /// The command line asks for what cannot be.
    Usage(anyhow::Error),
    /// Something could not be had.
    Missing(anyhow::Error),
    /// The answer is no.
    No(anyhow::Error),
    /// Nobody knows whether a write was applied.
    Unknown(anyhow::Error),
    /// The node of this process was removed from its cluster.
    Removed(anyhow::Error),
    /// Some records could not be read, and were passed over.
    Partial(anyhow::Error),
    /// Whoever reads standard output has seen enough, as `head` has: nothing is wrong.
    ReaderGone,
}

/// As if the signal had ended it that other programs die of then.
const READER_GONE: u8 = 128 + 13;

impl Failure {
    /// An answer that is no.
    pub(crate) fn no(what: impl std::fmt::Display) -> Self {
        Self::No(anyhow::anyhow!("{what}"))
    }
}

/// The outcome of a command.
pub(crate) type Outcome = Result<(), Failure>;

/// Prints what went wrong, and gives the exit code.
pub(crate) fn code(outcome: Outcome) -> ExitCode {
    let (code, error) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Wrong(error)) => (1, error),
        Err(Failure::Usage(error)) => (2, error),
        Err(Failure::Missing(error)) => (3, error),
        Err(Failure::No(error)) => (4, error),
        Err(Failure::Unknown(error)) => (5, error),
        Err(Failure::Removed(error)) => (6, error),
        Err(Failure::Partial(error)) => (7, error),
        Err(Failure::ReaderGone) => return ExitCode::from(READER_GONE),
    };
    eprintln!("error: {}", told(&error));
    if code == 2 {
        eprintln!("\nFor more information, try '--help'.");
    }
    ExitCode::from(code)
}

/// An error with its causes, each told once: some tell theirs in their own words.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
    }
    text
}

impl From<bench::Error> for Failure {
    fn from(error: bench::Error) -> Self {
        match error {
            bench::Error::Usage(_) => Self::Usage(error.into()),
            bench::Error::Verification(_) => Self::Wrong(error.into()),
            _ => Self::Missing(error.into()),
        }
    }
}

/// What a store may say.
impl From<storage::Error> for Failure {
    fn from(error: storage::Error) -> Self {
        if Removed::caused(&error) {
            return Self::Removed(error.into());
        }
        match error {
            storage::Error::InvalidArgument { .. }
            | storage::Error::Unsupported { .. }
            | storage::Error::TooLarge { .. } => Self::Usage(error.into()),
            storage::Error::Corrupt { .. } => Self::Wrong(error.into()),
            storage::Error::UnknownOutcome { .. } => Self::Unknown(error.into()),
            _ => Self::Missing(error.into()),
        }
    }
}

/// Writing to standard output.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::ReaderGone;
        }
        Self::Missing(anyhow::Error::new(error).context("standard output"))
    }
}
