use serde::{Deserialize, Serialize};

/// A fault that struck the store while the operations were made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Struck {
    /// Its name: `kill`, `partition` and so on.
    pub fault: String,
    /// What it struck: `n0`, `leader n2`, `n0 | n1 n2`.
    pub target: String,
    /// When, on the clock of [`Operation::start`](super::Operation::start).
    pub start: u64,
    /// When it was mended.
    pub end: u64,
}
