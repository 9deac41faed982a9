//! `cargo xtask bench`: the comparison of the backends, beside real servers.

use anyhow::Result;

use crate::run;
use crate::setup::{self, Target};

/// Builds `snet` with every backend for release and runs `snet bench` with these arguments.
pub(crate) fn bench(args: &[String]) -> Result<()> {
    setup::setup(&[Target::All])?;
    run::loudly(
        run::cargo().args(["run", "--release", "--package", "snet", "--features", "all", "--", "bench"]).args(args),
    )
}
