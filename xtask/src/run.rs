//! Child processes, and where the workspace is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail};

/// The workspace's top folder.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}

/// The example of docs/adding-a-backend.md, which is no member of the workspace.
pub(crate) const EXAMPLE: &str = "examples/file-backend/Cargo.toml";

/// The folder that everything is built in, for what is no member of the workspace.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Where a set-up writes what it has found, for later calls and for the tests.
pub(crate) fn known_file() -> PathBuf {
    root().join(".cache/servers/env.json")
}

/// What earlier set-ups have found: environment variables and their values.
pub(crate) fn known() -> BTreeMap<String, String> {
    fs::read(known_file()).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// The cargo that runs xtask, in the top folder, with the environment that the set-up found.
pub(crate) fn cargo() -> Command {
    let mut command = with_known(Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())));
    command.current_dir(root());
    // `cargo run` sets these for xtask itself. The build scripts of some crates look at them, and the same cargo without xtask would build
    // these crates anew, and whatever needs them.
    let own = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(own)) {
        command.env_remove(name);
    }
    command
}

/// A command with the environment that the set-up found.
pub(crate) fn with_known(mut command: Command) -> Command {
    for (name, value) in known() {
        if env::var_os(&name).is_none() {
            command.env(name, value);
        }
    }
    command
}

/// Runs a command with this terminal.
pub(crate) fn loudly(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", name(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", name(command));
    }
    Ok(())
}

/// Runs a command and returns what it prints; its complaints are shown only if it fails.
pub(crate) fn quietly(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("cannot start {}", name(command)))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{} ended with {}\n{}", name(command), output.status, errors.trim_end());
    }
    Ok(output.stdout)
}

/// Whether a program is on `PATH`.
pub(crate) fn is_installed(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

fn name(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let words = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).filter(|arg| !arg.starts_with("-o"));
    [program].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}
