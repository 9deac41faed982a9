//! Clients of etcd in other languages, which the tests of the etcd API run: each is installed from a lock file that pins every
//! package with its hash, by its own language's installer, into `.cache/clients`.

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context, Result};

use super::recipes::Variables;
use crate::run;

/// The folder of the lock files and of the programs that use what is installed from them.
const SOURCES: &str = "storage-replica/tests/clients";

/// Written last, with what the lock files were: it is there and the same if the installation is whole and is that of now.
const STAMP: &str = "installed";

/// A client that can be installed.
#[derive(Debug)]
struct Client {
    /// Its language, and the folder's name.
    name: &'static str,
    /// Tells tests where it is; whoever has it already may set this.
    variable: &'static str,
    /// The files that say what is installed.
    locks: &'static [&'static str],
    /// What the machine has to have.
    needs: &'static str,
    is_possible: fn() -> bool,
    /// Installs into the folder, which has the lock files.
    install: fn(&Path) -> Result<()>,
    /// What the variable is set to, within the folder.
    product: &'static str,
}

const CLIENTS: [Client; 2] = [
    Client {
        name: "python",
        variable: "ETCD3_PYTHON",
        locks: &["build.txt", "requirements.txt"],
        needs: "python3 with venv and pip (apt install python3-venv)",
        is_possible: || succeeds("python3", &["-c", "import ensurepip, venv"]),
        install: |folder| {
            run::quietly(Command::new("python3").args(["-m", "venv", "environment"]).current_dir(folder))?;
            let pip = |arguments: &[&str]| {
                let mut pip = Command::new(folder.join("environment/bin/python"));
                pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]).args(arguments);
                run::quietly(pip.current_dir(folder)).map(drop)
            };
            // One package comes as source. Without isolation it is built with the tools of the first file, which pins those too.
            pip(&["-r", "build.txt"])?;
            pip(&["--no-build-isolation", "-r", "requirements.txt"])
        },
        product: "environment/bin/python",
    },
    Client {
        name: "node",
        variable: "ETCD3_NODE_MODULES",
        locks: &["package.json", "package-lock.json"],
        needs: "node and npm (apt install npm)",
        is_possible: || succeeds("node", &["--version"]) && succeeds("npm", &["--version"]),
        install: |folder| {
            let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"];
            run::quietly(Command::new("npm").args(arguments).current_dir(folder)).map(drop)
        },
        product: "node_modules",
    },
];

/// Installs the clients that are missing or out of date. Where a language is not on this machine, it says so and goes on: tests of
/// that client are skipped.
pub(super) fn provide() -> Result<Vec<Variables>> {
    let mut provided = Vec::new();
    for client in &CLIENTS {
        let (name, variable) = (client.name, client.variable);
        if let Some(value) = env::var(variable).ok().filter(|value| !value.is_empty()) {
            println!("{name:<7} on this machine: {variable}={value}");
            provided.push(vec![(variable, value)]);
        } else if (client.is_possible)() {
            provided.push(vec![(variable, client.provide()?)]);
        } else {
            println!("{name:<7} not provided: its client of etcd needs {}", client.needs);
        }
    }
    Ok(provided)
}

impl Client {
    fn provide(&self) -> Result<String> {
        let folder = run::root().join(".cache/clients").join(self.name);
        let sources = run::root().join(SOURCES).join(self.name);
        let locks = self.locks.iter().map(|lock| read(&sources.join(lock))).collect::<Result<Vec<_>>>()?;
        let stamp = locks.concat();
        let product = folder.join(self.product).to_string_lossy().into_owned();
        if is_installed(&folder, &stamp) {
            println!("{:<7} in the cache: {}={product}", self.name, self.variable);
            return Ok(product);
        }
        println!("{:<7} to be installed: its client of etcd", self.name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        for (lock, text) in self.locks.iter().zip(&locks) {
            fs::write(folder.join(lock), text)?;
        }
        (self.install)(&folder).with_context(|| {
            format!(
                "could not install the {0} client of etcd; see that {0}'s installer reaches a registry, or set {1} to an \
                 installation of what {SOURCES}/{0} lists, then run this again. The cause",
                self.name, self.variable
            )
        })?;
        fs::write(folder.join(STAMP), stamp)?;
        println!("{:<7} installed: {}={product}", self.name, self.variable);
        Ok(product)
    }
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
        for client in &CLIENTS {
            for lock in client.locks {
                let text = read(&run::root().join(SOURCES).join(client.name).join(lock)).unwrap();
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
