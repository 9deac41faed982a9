use std::{fmt, io};

use crate::Refusal;

/// Why a connection is refused.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    /// For the log of this node.
    pub(crate) words: String,
    /// What the other side is told, if that is not all of it.
    told: Option<&'static str>,
}

impl Refused {
    pub(crate) fn new(refusal: Refusal, words: impl Into<String>) -> Self {
        Self { refusal, words: words.into(), told: None }
    }

    /// The same, of which the other side hears this and no more: it has not proved who it is, and `words` may name the cluster or a node.
    pub(crate) fn telling(self, told: &'static str) -> Self {
        Self { told: Some(told), ..self }
    }

    /// What the other side is told.
    pub(crate) fn told(&self) -> &str {
        self.told.unwrap_or(&self.words)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, refused)
    }
}
