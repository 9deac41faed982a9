//! Passwords, which are never on the command line: others on the machine could read them there.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::Path,
};

use anyhow::{Context as _, anyhow};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use storage_replica::config::Login;

use crate::exit::Failure;

/// Where the password of the user that asks may stand.
const VARIABLE: &str = "SNET_STORAGE_PASSWORD";

/// The password of the user that asks: from the environment, or from the terminal.
pub(super) fn of(user: &str) -> Result<String, Failure> {
    match std::env::var(VARIABLE) {
        Ok(password) => Ok(password),
        Err(_) if io::stdin().is_terminal() => asked(&format!("Password of {user}: ")),
        Err(_) => Err(Failure::Usage(anyhow!(
            "the password of {user} is needed: --password-file FILE, or {VARIABLE} in the environment"
        ))),
    }
}

/// A new password: from a file, from the terminal, or a line of standard input.
pub(super) fn new(user: &str, file: Option<&Path>) -> Result<String, Failure> {
    if let Some(file) = file {
        return Ok(Login::from_file(user, file).password()?);
    }
    if !io::stdin().is_terminal() {
        return line();
    }
    let password = asked(&format!("New password of {user}: "))?;
    if password != asked("The same again: ")? {
        return Err(Failure::Usage(anyhow!("they are not the same")));
    }
    Ok(password)
}

/// Reads a line from the terminal, which does not show it.
fn asked(question: &str) -> Result<String, Failure> {
    eprint!("{question}");
    io::stderr().flush()?;
    let shown = tcgetattr(io::stdin()).map_err(io::Error::from)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(io::stdin(), OptionalActions::Now, &hidden).map_err(io::Error::from)?;
    let read = line();
    tcsetattr(io::stdin(), OptionalActions::Now, &shown).map_err(io::Error::from)?;
    eprintln!();
    read
}

fn line() -> Result<String, Failure> {
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line).context("cannot read a password");
    if read.map_err(Failure::Missing)? == 0 {
        return Err(Failure::Usage(anyhow!("a password is needed")));
    }
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}
