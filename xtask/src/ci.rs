//! `cargo xtask ci`: the same checks on a laptop and in CI.

use std::process::Command;

use anyhow::Result;

use crate::setup::{self, Target};
use crate::steps::Steps;
use crate::{advisories, features, run, simulate, test, tidy};

/// Runs every step, and fails when one did.
pub(crate) fn ci() -> Result<()> {
    let mut steps = Steps::default();
    steps.run("setup", || setup::setup(&[Target::All]).map(drop));
    steps.run("fmt", || {
        cargo(&["fmt", "--all", "--check"])?;
        cargo(&["fmt", "--manifest-path", run::EXAMPLE, "--check"])
    });
    steps.run("tidy", tidy::tidy);
    steps.run("clippy", || {
        cargo(&["clippy", "--workspace", "--features", test::EVERYTHING, "--all-targets", "--", "-D", "warnings"])?;
        let mut example = run::cargo();
        example.args(["clippy", "--manifest-path", run::EXAMPLE, "--all-targets", "--target-dir"]);
        run::loudly(example.arg(run::target()).args(["--", "-D", "warnings"]))
    });
    steps.run("features", features::check);
    steps.run("test", || test::test(&test::Options::all()));
    steps.run("simulate", simulate::short);
    steps.run("doc", || {
        let mut doc = run::cargo();
        doc.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
        run::loudly(&mut doc)
    });
    match setup::cargo_deny() {
        Ok(program) => steps.run("deny", || {
            let databases = advisories::databases()?;
            // Then nothing else is fetched: neither an index nor a newer database.
            cargo(&["fetch", "--locked"])?;
            let mut deny = run::with_known(Command::new(program));
            deny.args(["--offline", "check", "--hide-inclusion-graph", "advisories", "licenses", "bans", "sources"]);
            run::loudly(deny.env("ADVISORY_DBS", databases).current_dir(run::root()))
        }),
        Err(error) => steps.skip("deny", &error),
    }
    steps.finish()
}

fn cargo(args: &[&str]) -> Result<()> {
    run::loudly(run::cargo().args(args))
}
