//! `cargo xtask soak`: long runs under faults, of a program that is built with every backend.

use anyhow::Result;

use crate::run;
use crate::setup::{self, Target};

/// Builds the program `soak` with every backend for release and runs it with these arguments.
pub(crate) fn soak(args: &[String]) -> Result<()> {
    setup::setup(&[Target::All])?;
    let program = ["--package", "soak", "--features", "all", "--"];
    run::loudly(run::cargo().args(["run", "--release"]).args(program).args(args))
}
