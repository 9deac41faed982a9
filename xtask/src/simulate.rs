//! `cargo xtask simulate`: the embedded engine on simulated machines.

use anyhow::Result;

use crate::run;

/// Builds the program `simulate` and runs it with these arguments. It has flags of the compiler that no other build has, and so a folder
/// of its own: the rest of the workspace is not built anew.
pub(crate) fn simulate(args: &[String]) -> Result<()> {
    run::loudly(cargo("run").args(["--quiet", "--bin", "simulate", "--"]).args(args))
}

/// Some seeds that all pass: what CI has time for, beside the build.
pub(crate) fn short() -> Result<()> {
    simulate(&["--seeds".to_owned(), SEEDS_OF_CI.to_string()])
}

/// Seeds that all pass, each planted bug found, and the lints of what only this build has.
pub(crate) fn check() -> Result<()> {
    simulate(&["--seeds".to_owned(), SEEDS_OF_CHECK.to_string()])?;
    run::loudly(cargo("test").arg("--quiet"))?;
    let mut clippy = cargo("clippy");
    run::loudly(clippy.args(["--package", "storage-embedded", "--lib", "--bins", "--", "-D", "warnings"]))
}

/// About a second each.
const SEEDS_OF_CI: u64 = 30;

/// How many seeds the check simulates.
const SEEDS_OF_CHECK: u64 = 60;

fn cargo(command: &str) -> std::process::Command {
    let mut cargo = run::cargo();
    cargo.args([command, "--package", "simulation", "--profile", "simulation", "--target-dir"]);
    cargo.arg(run::target().join("simulate"));
    cargo.env("RUSTFLAGS", "--cfg simulated --cfg tokio_unstable").env_remove("CARGO_ENCODED_RUSTFLAGS");
    // A folder for the parts of a build is for builds with the same flags.
    cargo.env_remove("CARGO_BUILD_BUILD_DIR");
    cargo
}
