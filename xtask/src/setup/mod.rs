//! `cargo xtask setup`: the servers and tools that tests need, without root.
//!
//! What is found or fetched is written to `.cache/servers/env.json`, a map from environment variables to values. The test
//! kit reads it when a variable is not set, and every cargo process that xtask starts gets all of it as its environment.
//! Clients of etcd in other languages go to `.cache/clients`, an EVM goes to `.cache/anvil`, and both into the same file; cargo-deny goes to
//! `.cache/tools`.

mod debian;
mod packages;
mod recipes;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::run;
use debian::Apt;
pub(crate) use packages::cargo_deny;
use recipes::{RECIPES, Recipe, Variables};

/// What `setup` can be told to provide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Target {
    /// The etcd server.
    Etcd,
    /// The Consul server.
    Consul,
    /// The ZooKeeper server, with Java.
    Zk,
    /// Java, which runs ZooKeeper.
    Java,
    /// The protobuf compiler, which builds the etcd client.
    Protoc,
    /// The library that gives a process another wall clock.
    Faketime,
    /// Clients of etcd in other languages, where the machine has those.
    Clients,
    /// An EVM and the contracts that pay, where the machine has npm.
    Anvil,
    /// cargo-deny, which checks licences and sources.
    Deny,
    /// All of these but cargo-deny: what tests and measurements need.
    All,
}

impl Target {
    fn recipes(self) -> &'static [&'static str] {
        match self {
            Self::Etcd => &["etcd"],
            Self::Consul => &["consul"],
            Self::Zk => &["java", "zk"],
            Self::Java => &["java"],
            Self::Protoc => &["protoc"],
            Self::Faketime => &["faketime"],
            Self::Clients | Self::Anvil | Self::Deny => &[],
            Self::All => &["protoc", "etcd", "consul", "java", "zk", "faketime"],
        }
    }
}

/// Provides the targets, says what it found, and returns the environment that makes them known.
pub(crate) fn setup(targets: &[Target]) -> Result<BTreeMap<String, String>> {
    let cache = Cache::open()?;
    let wanted = |recipe: &&Recipe| targets.iter().any(|target| target.recipes().contains(&recipe.name));
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for recipe in RECIPES.iter().filter(wanted) {
        if let Some(variables) = (recipe.on_machine)() {
            found.push((recipe, variables, "on this machine"));
        } else if let Some(variables) = cache.find(recipe) {
            found.push((recipe, variables, "in the cache"));
        } else {
            missing.push(recipe);
        }
    }
    for (recipe, variables, place) in &found {
        println!("{:<7} {place}: {}", recipe.name, summary(variables));
    }
    let mut fetched = cache.fetch(&missing)?;
    fetched.extend(found.into_iter().map(|(_, variables, _)| variables));
    if targets.iter().any(|target| matches!(target, Target::Clients | Target::All)) {
        fetched.extend(packages::provide_clients()?);
    }
    if targets.iter().any(|target| matches!(target, Target::Anvil | Target::All)) {
        fetched.extend(packages::provide_anvil()?);
    }
    // Like a language that is not there: nothing but its own step of CI needs it, and that step says so.
    if targets.contains(&Target::Deny)
        && let Err(error) = cargo_deny()
    {
        println!("deny    not provided: {error:#}");
    }
    cache.write(fetched.into_iter().flatten())
}

fn summary(variables: &Variables) -> String {
    variables.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// The folder of the servers, locked for one set-up at a time.
#[derive(Debug)]
struct Cache {
    folder: PathBuf,
    _lock: File,
}

impl Cache {
    fn open() -> Result<Self> {
        let folder = run::root().join(".cache/servers");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let lock = OpenOptions::new().create(true).append(true).open(folder.join("lock"))?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            println!("another set-up is at work; waiting for it to end");
            lock.lock()?;
        }
        Ok(Self { folder, _lock: lock })
    }

    /// The newest unpacked version that has what it should.
    fn find(&self, recipe: &Recipe) -> Option<Variables> {
        let prefix = format!("{}-", recipe.name);
        let folders = fs::read_dir(&self.folder).ok()?.flatten().map(|entry| entry.path());
        let version = |path: &PathBuf| {
            let name = path.file_name()?.to_str()?.strip_prefix(&prefix)?;
            name.split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u32>>>()
        };
        let mut versions: Vec<_> = folders.filter_map(|path| Some((version(&path)?, path))).collect();
        versions.sort();
        versions.into_iter().rev().find_map(|(_, path)| (recipe.in_tree)(&path).ok())
    }

    fn fetch(&self, missing: &[&Recipe]) -> Result<Vec<Variables>> {
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        for recipe in missing {
            println!("{:<7} to be fetched: {}", recipe.name, recipe.purpose);
        }
        let began = Instant::now();
        let work = self.folder.join("work");
        let result = self.fetch_into(&work, missing).with_context(|| by_hand(missing));
        // Lists and packages have served; after a failure they could be stale next time.
        let _ = fs::remove_dir_all(&work);
        let fetched = result?;
        println!("        fetched in {:.1} s", began.elapsed().as_secs_f64());
        Ok(fetched)
    }

    fn fetch_into(&self, work: &Path, missing: &[&Recipe]) -> Result<Vec<Variables>> {
        let apt = Apt::prepare(work, missing)?;
        missing
            .iter()
            .map(|recipe| {
                let (tree, version) = apt.unpack(recipe)?;
                let home = self.folder.join(format!("{}-{version}", recipe.name));
                // A folder of this name without the program is left from something that went wrong.
                let _ = fs::remove_dir_all(&home);
                fs::rename(&tree, &home)?;
                let variables = (recipe.in_tree)(&home)?;
                println!("{:<7} {version} fetched: {}", recipe.name, summary(&variables));
                Ok(variables)
            })
            .collect()
    }

    /// Adds to what earlier set-ups have written, and returns the whole.
    fn write(&self, variables: impl Iterator<Item = (&'static str, String)>) -> Result<BTreeMap<String, String>> {
        let file = run::known_file();
        let mut all = run::known();
        all.extend(variables.map(|(name, value)| (name.to_owned(), value)));
        // Tests may be reading it: they see the old file or the new one.
        let fresh = file.with_extension("json.new");
        fs::write(&fresh, serde_json::to_vec_pretty(&all)?)?;
        fs::rename(fresh, file)?;
        Ok(all)
    }
}

fn by_hand(missing: &[&Recipe]) -> String {
    let lines = missing.iter().map(|recipe| format!("  {}: {}", recipe.name, recipe.by_hand));
    let lines = lines.collect::<Vec<_>>().join("\n");
    format!("could not fetch Debian packages; provide these by hand, then run this again:\n{lines}\nThe cause")
}
