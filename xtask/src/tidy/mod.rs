//! `cargo xtask tidy`: the rules of the house that no other tool knows.

mod arrows;
mod circles;
mod files;
mod imports;
mod invariants;
mod quotes;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::run;

/// Prints every broken rule.
///
/// # Errors
/// When a rule is broken.
pub(crate) fn tidy() -> Result<()> {
    let mut broken = arrows::check(&metadata()?);
    broken.extend(circles::check(&run::root())?);
    broken.extend(files::check(&run::root())?);
    for rule in &broken {
        eprintln!("tidy: {rule}");
    }
    if !broken.is_empty() {
        bail!("{} rules of the house are broken", broken.len());
    }
    println!("tidy: the arrows between crates and between modules are as they should be, and so are the files");
    Ok(())
}

/// What cargo knows of the workspace's own packages.
pub(crate) fn metadata() -> Result<Value> {
    let metadata = run::quietly(run::cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    Ok(serde_json::from_slice(&metadata)?)
}
