//! The token of a cluster: what its members prove to know. It is never shown.

use std::{fmt, str::FromStr};

/// A word that no other cluster has: the ids of the cluster and of its nodes are made of it, and nodes let in who proves to know
/// it. Embedded nodes do not send it, and it is not shown; since the ids are, it should be drawn by lot: `openssl rand -hex 32`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    word: String,
    /// Why it is not known here.
    missing: Option<String>,
}

impl Token {
    /// One that is not known here, and why: nothing can be started with it.
    pub fn missing(why: String) -> Self {
        Self { word: String::new(), missing: Some(why) }
    }

    /// Whether it is known here.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), String> {
        self.missing.clone().map_or(Ok(()), Err)
    }

    /// The word itself; empty if it is not [known](Self::check).
    pub fn as_str(&self) -> &str {
        &self.word
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("a token has at least one character: choose one that no other cluster has".to_owned());
        }
        Ok(Self { word: text.to_owned(), missing: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown() {
        let token: Token = "s3cret".parse().unwrap();
        assert!(!format!("{token:?}").contains("s3cret"));
    }
}
