//! `cargo xtask paid-service`: the example of a service that is paid through channels.

use anyhow::Result;

use crate::run;
use crate::setup::{self, Target};

/// Builds the example for release and runs its demonstration with these arguments.
pub(crate) fn demo(args: &[String]) -> Result<()> {
    setup::setup(&[Target::Anvil])?;
    let program = ["--package", "paid-service", "--", "demo"];
    run::loudly(run::cargo().args(["run", "--release"]).args(program).args(args))
}
