//! How answers are printed.

use std::io::{self, Write as _};

use clap::ValueEnum;
use serde::Serialize;

use crate::exit::{Failure, Outcome};

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
    /// Prints an answer on standard output.
    pub(crate) fn print<R: Serialize>(self, answer: &R, table: impl FnOnce(&R) -> String) -> Outcome {
        Ok(io::stdout().lock().write_all(self.render(answer, table)?.as_bytes())?)
    }

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
