//! `snet completions` and `snet man`: what shells and `man` are told of the commands.

use std::{io::Write as _, path::PathBuf};

use anyhow::anyhow;

use crate::exit::{Failure, Outcome};

/// Print the completions of a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet completions bash > /etc/bash_completion.d/snet
  snet completions zsh > \"${fpath[1]}/_snet\"
  snet completions fish > ~/.config/fish/completions/snet.fish")]
pub(crate) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Print the manual page, or write one for each command.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet man | man -l -
  snet man --dir /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// Write a page for each command into this directory.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) fn completions(arguments: &Completions, mut command: clap::Command) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "snet", &mut text);
    Ok(std::io::stdout().lock().write_all(&text)?)
}

pub(crate) fn man(arguments: &Man, command: clap::Command) -> Outcome {
    let Some(dir) = &arguments.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        return Ok(std::io::stdout().lock().write_all(&page)?);
    };
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command, dir));
    written.map_err(|error| Failure::Missing(anyhow!("{}: {error}", dir.display())))
}
