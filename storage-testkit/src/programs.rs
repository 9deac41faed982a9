//! Where the programs that tests start are found.
//!
//! A program `etcd` is, in this order: the value of the environment variable `ETCD_BIN`, a program of that name on `PATH`,
//! or what `cargo xtask setup etcd` has written down in `.cache/servers/env.json`. That file maps names of environment
//! variables to values; it is the whole agreement between xtask, which fetches programs, and this crate, which starts them.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// A program, or another thing that servers need, is not on this machine.
#[derive(Debug, thiserror::Error)]
#[error("`{name}` is not on this machine: set {variable}, or run: cargo xtask setup {setup}")]
pub struct MissingProgram {
    name: String,
    variable: String,
    setup: String,
}

/// Finds the program `name`, for example `etcd`, whose environment variable is `ETCD_BIN`.
///
/// # Errors
/// [`MissingProgram`] when it is nowhere; the text has the command that installs it.
pub fn find(name: &str) -> Result<PathBuf, MissingProgram> {
    let variable = format!("{}_BIN", name.to_ascii_uppercase());
    env::var_os(&variable)
        .map(PathBuf::from)
        .or_else(|| on_path(name))
        .or_else(|| written_down(&variable).map(PathBuf::from).filter(|path| path.exists()))
        .ok_or_else(|| {
            // etcd comes with programs beside it.
            let setup = if name.starts_with("etcd") { "etcd" } else { name };
            MissingProgram { name: name.to_owned(), variable, setup: setup.to_owned() }
        })
}

/// Finds the value of an environment variable that is no program, for example `ZOOKEEPER_CLASSPATH`; `setup` is the word
/// after `cargo xtask setup` that provides it.
///
/// # Errors
/// [`MissingProgram`] when neither the environment nor the set-up has it.
pub fn variable(variable: &str, setup: &str) -> Result<String, MissingProgram> {
    env::var(variable).ok().or_else(|| written_down(variable)).ok_or_else(|| MissingProgram {
        name: variable.to_owned(),
        variable: variable.to_owned(),
        setup: setup.to_owned(),
    })
}

fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn written_down(variable: &str) -> Option<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/servers/env.json");
    let mut values: BTreeMap<String, String> = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    values.remove(variable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_on_the_path_is_found() {
        assert!(find("sh").unwrap().is_absolute());
    }

    #[test]
    fn a_missing_program_names_the_variable_and_the_command_that_helps() {
        let text = find("no-such-server").unwrap_err().to_string();
        assert!(text.contains("cargo xtask setup no-such-server"), "{text}");
        let text = variable("NO_SUCH_CLASSPATH", "zk").unwrap_err().to_string();
        assert!(text.contains("set NO_SUCH_CLASSPATH") && text.contains("cargo xtask setup zk"), "{text}");
    }
}
