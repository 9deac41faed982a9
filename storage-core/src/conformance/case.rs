//! A case of the suite, how it has to be run, and how it ended.

use std::{fmt, time::Duration};

use futures::future::BoxFuture;

use super::{context::Context, stop::Checked};

/// One case of the suite.
pub struct Case {
    /// The part of the contract that it is about.
    pub group: &'static str,
    /// What it is called within the group.
    pub name: &'static str,
    /// How it has to be run.
    pub kind: Kind,
    pub(super) run: for<'a> fn(&'a Context<'a>) -> BoxFuture<'a, Checked>,
}

/// How a case has to be run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Beside others.
    Usual,
    /// Beside others; writes so much that it may take longer.
    Slow,
    /// Needs faults, and so runs alone where servers are shared.
    Disruptive,
}

/// How a case ended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Verdict {
    /// The store fulfils this part of the contract.
    Passed,
    /// The case cannot be run here, for this reason.
    Skipped(String),
    /// The store breaks the contract, as this says.
    Failed(String),
}

impl Case {
    /// How long the case may take: far longer than on an idle machine, but not for ever.
    pub fn deadline(&self) -> Duration {
        match self.kind {
            Kind::Usual => Duration::from_secs(60),
            Kind::Slow | Kind::Disruptive => Duration::from_secs(120),
        }
    }
}

/// `group::name`.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.group, self.name)
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Case({self})")
    }
}

impl Verdict {
    /// `passed`, `skipped` or `failed`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Skipped(_) => "skipped",
            Self::Failed(_) => "failed",
        }
    }

    /// Why it was skipped or failed; empty if it passed.
    pub fn reason(&self) -> &str {
        match self {
            Self::Passed => "",
            Self::Skipped(reason) | Self::Failed(reason) => reason,
        }
    }
}
