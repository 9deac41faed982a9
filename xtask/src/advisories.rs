//! Known holes in the packages that are built in, from a snapshot of RustSec's database: CI asks nobody, and its answer does not change from one day
//! to the next.
//!
//! The snapshot has the advisories of the packages in Cargo.lock, each without its prose, and the names of all packages that have any: a
//! package that comes in later and has some is seen, and asks for a new snapshot.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};

use crate::run;

/// The snapshot: `crates/PACKAGE/ADVISORY.md` as in the database, and [`ABOUT`].
const SNAPSHOT: &str = "xtask/tools/advisories";

/// The database's commit and its time, in seconds since 1970; then a package that has advisories on each line.
const ABOUT: &str = "snapshot.txt";

/// What cargo-deny calls the folder of this database: its name, and a hash of its address.
const DATABASE: &str = "advisory-db-3157b0e258782691";

/// Lays the snapshot out as a database that cargo-deny was told to fetch, and gives the folder that it is in. cargo-deny refuses it when it is
/// older than deny.toml lets it be.
///
/// # Errors
/// When a package has advisories that the snapshot does not have.
pub(crate) fn databases() -> Result<PathBuf> {
    let snapshot = run::root().join(SNAPSHOT);
    let about = read(&snapshot.join(ABOUT))?;
    let (taken, known) = about.split_once('\n').context("the snapshot of advisories names no package")?;
    let missing = missing(&packages()?, known, |package| snapshot.join("crates").join(package).is_dir());
    ensure!(missing.is_empty(), "take a new snapshot (docs/operations.md): it has no advisories of {missing:?}");
    let seconds = taken.split(' ').nth(1).and_then(|seconds| seconds.parse().ok()).context("a snapshot of no time")?;
    let databases = run::target().join("advisories");
    let database = databases.join(DATABASE);
    if database.exists() {
        fs::remove_dir_all(&database)?;
    }
    for advisory in advisories(&snapshot)? {
        let copy = database.join(advisory.strip_prefix(&snapshot)?);
        fs::create_dir_all(copy.parent().context("an advisory in no folder")?)?;
        fs::copy(advisory, copy)?;
    }
    // By the time of this file cargo-deny knows how old the database is.
    let git = database.join(".git");
    fs::create_dir_all(&git)?;
    File::create(git.join("FETCH_HEAD"))?.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))?;
    println!("advisories: RustSec's database at {taken}");
    Ok(databases)
}

/// Takes a new snapshot from a clone of the database.
///
/// # Errors
/// When there is no such clone.
pub(crate) fn take(clone: &Path) -> Result<()> {
    let log = ["log", "-1", "--format=%H %ct (%cs)"];
    let taken = run::quietly(Command::new("git").arg("-C").arg(clone).args(log))?;
    let snapshot = run::root().join(SNAPSHOT);
    if snapshot.exists() {
        fs::remove_dir_all(&snapshot)?;
    }
    let (packages, mut known) = (packages()?, BTreeSet::new());
    for advisory in advisories(clone)? {
        let (name, package) = names(&advisory).context("an advisory in no folder of a package")?;
        known.insert(package.to_owned());
        if packages.contains(package) {
            let folder = snapshot.join("crates").join(package);
            fs::create_dir_all(&folder)?;
            let facts = facts(&read(&advisory)?).with_context(|| format!("{name} has no facts"))?;
            fs::write(folder.join(name), facts)?;
        }
    }
    let known = known.into_iter().collect::<Vec<_>>().join("\n");
    fs::write(snapshot.join(ABOUT), format!("{}\n{known}\n", String::from_utf8(taken)?.trim()))?;
    Ok(())
}

/// The packages with advisories of which there are none here.
fn missing(packages: &BTreeSet<String>, known: &str, is_here: impl Fn(&str) -> bool) -> Vec<String> {
    known.lines().filter(|name| packages.contains(*name) && !is_here(name)).map(str::to_owned).collect()
}

/// What a program reads of an advisory, and its title.
fn facts(advisory: &str) -> Option<String> {
    let (facts, prose) = advisory.strip_prefix("```toml\n")?.split_once("\n```")?;
    let title = prose.lines().find(|line| line.starts_with("# "))?;
    Some(format!("```toml\n{facts}\n```\n\n{title}\n"))
}

/// The packages in Cargo.lock.
fn packages() -> Result<BTreeSet<String>> {
    let lock = read(&run::root().join("Cargo.lock"))?;
    let name = |line: &str| Some(line.strip_prefix("name = \"")?.strip_suffix('"')?.to_owned());
    let packages: BTreeSet<_> = lock.lines().filter_map(name).collect();
    ensure!(!packages.is_empty(), "Cargo.lock names no package");
    Ok(packages)
}

/// The files `crates/PACKAGE/ADVISORY.md` of a database.
fn advisories(database: &Path) -> Result<Vec<PathBuf>> {
    let crates = database.join("crates");
    let folders = fs::read_dir(&crates).with_context(|| format!("no advisories in {}", crates.display()))?;
    let mut found = Vec::new();
    for folder in folders {
        for file in fs::read_dir(folder?.path())? {
            found.push(file?.path());
        }
    }
    ensure!(!found.is_empty(), "no advisories in {}", crates.display());
    found.sort();
    Ok(found)
}

fn names(advisory: &Path) -> Option<(&str, &str)> {
    Some((advisory.file_name()?.to_str()?, advisory.parent()?.file_name()?.to_str()?))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_whose_advisories_are_not_here_is_named() {
        let packages = ["old", "new", "without"].map(str::to_owned).into();
        assert_eq!(missing(&packages, "new\nold\nother\n", |name| name == "old"), ["new"]);
    }

    #[test]
    fn of_an_advisory_its_facts_and_its_title_stay() {
        let advisory = "```toml\n[advisory]\nid = \"RUSTSEC-2021-0001\"\n```\n\n# A hole\n\nIt is deep.\n\n# More\n";
        let short = "```toml\n[advisory]\nid = \"RUSTSEC-2021-0001\"\n```\n\n# A hole\n";
        assert_eq!(facts(advisory).as_deref(), Some(short));
        assert_eq!(facts(short).as_deref(), Some(short));
    }

    #[test]
    fn the_snapshot_has_the_advisories_of_all_packages() {
        databases().unwrap();
    }
}
