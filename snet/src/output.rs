//! How answers are printed.

use clap::ValueEnum;
use serde::Serialize;

use crate::exit::Failure;

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

impl Output {
    /// The text of an answer.
    pub(crate) fn render<R: Serialize>(self, answer: &R, table: impl FnOnce(&R) -> String) -> Result<String, Failure> {
        match self {
            Self::Table => Ok(table(answer)),
            Self::Json => {
                let text = serde_json::to_string_pretty(answer).map_err(|error| Failure::Missing(error.into()))?;
                Ok(text + "\n")
            }
        }
    }
}
