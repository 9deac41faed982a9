//! Debian packages without root: apt in a configuration of our own, and `dpkg -x` into a folder of ours.
//!
//! Apt checks every signature against the Debian archive's keyring, as for the machine itself. Nothing of the machine's
//! package state is read or changed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::recipes::{Package, Recipe};
use crate::run;

/// The keyring's name up to Debian 12, and after it.
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// Apt, configured to know the releases that our recipes name and nothing else.
#[derive(Debug)]
pub(super) struct Apt {
    options: Vec<String>,
    work: PathBuf,
}

impl Apt {
    /// Prepares apt in the folder `work`, and fetches the lists of the releases that `recipes` need.
    pub(super) fn prepare(work: &Path, recipes: &[&Recipe]) -> Result<Self> {
        for tool in ["apt-get", "dpkg"] {
            ensure!(run::is_installed(tool), "this machine has no {tool}");
        }
        let keyring = KEYRINGS.iter().find(|path| Path::new(path).exists());
        let keyring = keyring.context("this machine has no Debian archive keyring (package debian-archive-keyring)")?;
        let mirror = mirror()?;
        let releases: BTreeSet<&str> = recipes.iter().flat_map(|r| r.packages).map(|package| package.release).collect();
        let releases = releases.into_iter().collect::<Vec<_>>().join(" ");

        fs::create_dir_all(work.join("sources"))?;
        fs::create_dir_all(work.join("lists/partial"))?;
        fs::create_dir_all(work.join("cache/archives/partial"))?;
        fs::write(
            work.join("sources/debian.sources"),
            format!("Types: deb\nURIs: {mirror}\nSuites: {releases}\nComponents: main\nSigned-By: {keyring}\n"),
        )?;
        let set = |name: &str, value: &str| format!("-o{name}={value}");
        let path = |name: &str, folder: &str| set(name, &work.join(folder).to_string_lossy());
        let options = vec![
            set("Dir::Etc::SourceList", "/dev/null"),
            path("Dir::Etc::SourceParts", "sources"),
            path("Dir::State", "state"),
            path("Dir::State::Lists", "lists"),
            set("Dir::State::status", "/dev/null"),
            path("Dir::Cache", "cache"),
            set("Acquire::Languages", "none"),
            set("Acquire::Retries", "3"),
            // Descriptions for software centres: half of the download, of no use here.
            set("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false"),
            // Root's apt downloads as the user _apt, who may not enter this folder.
            set("APT::Sandbox::User", "root"),
        ];
        let apt = Self { options, work: work.to_owned() };
        run::quietly(apt.command().arg("update")).context("apt-get update failed")?;
        Ok(apt)
    }

    /// Downloads and unpacks a recipe's packages into a folder of its own, and returns it with the version.
    pub(super) fn unpack(&self, recipe: &Recipe) -> Result<(PathBuf, String)> {
        let downloads = self.work.join(format!("{}-debs", recipe.name));
        let tree = self.work.join(format!("{}-tree", recipe.name));
        for folder in [&downloads, &tree] {
            let _ = fs::remove_dir_all(folder);
            fs::create_dir_all(folder)?;
        }
        let wanted = recipe.packages.iter().map(|Package { name, release }| format!("{name}/{release}"));
        run::quietly(self.command().arg("download").args(wanted).current_dir(&downloads))
            .with_context(|| format!("apt-get could not download {}", recipe.name))?;
        let mut version = None;
        for deb in fs::read_dir(&downloads)? {
            let deb = deb?.path();
            run::quietly(Command::new("dpkg").arg("-x").arg(&deb).arg(&tree))?;
            let name = deb.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut parts = name.split('_');
            if parts.next() == recipe.packages.first().map(|package| package.name) {
                version = parts.next().map(upstream);
            }
        }
        relink(&tree, &tree)?;
        Ok((tree, version.context("apt-get downloaded something else")?))
    }

    fn command(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.args(["-q", "-y"]).args(&self.options).env("LC_ALL", "C");
        command
    }
}

/// The part of a Debian version that upstream gave: `3.5.16` of `3.5.16-4`, `1.8.7` of `1.8.7+dfsg1-2+b3`.
fn upstream(debian: &str) -> String {
    debian.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect()
}

/// Links that packages have to absolute paths, such as Java's to its configuration in /etc, lead out of the tree; this leads
/// them back to what was unpacked.
fn relink(folder: &Path, tree: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            relink(&path, tree)?;
        } else if entry.file_type()?.is_symlink() {
            let target = fs::read_link(&path)?;
            let Ok(inside) = target.strip_prefix("/") else { continue };
            if tree.join(inside).symlink_metadata().is_err() {
                continue;
            }
            // Relative, because the tree is renamed once it is complete.
            let depth = path.strip_prefix(tree)?.components().count().saturating_sub(1);
            fs::remove_file(&path)?;
            symlink(Path::new(&"../".repeat(depth)).join(inside), &path)?;
        }
    }
    Ok(())
}

/// The Debian mirror that this machine's own sources name.
fn mirror() -> Result<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(parts) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(parts.flatten().map(|entry| entry.path()));
    }
    let is_source = |path: &PathBuf| path.extension().is_some_and(|end| end == "list" || end == "sources");
    let texts = files.iter().filter(|path| is_source(path)).filter_map(|path| fs::read_to_string(path).ok());
    match texts.into_iter().find_map(|text| mirror_in(&text)) {
        Some(mirror) => Ok(mirror),
        None => bail!("this machine's apt sources name no Debian mirror"),
    }
}

/// The mirror in one sources file, in the one-line form or the newer form of fields: the archive of whole releases with its
/// component `main`, not that of security updates, which lacks packages that never had one.
fn mirror_in(text: &str) -> Option<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let one_line = lines.filter_map(|line| {
        let line = line.strip_prefix("deb ")?.trim();
        let line = if line.starts_with('[') { line.split_once(']')?.1 } else { line };
        let mut words = line.split_whitespace();
        Some((words.next()?, words.next()?, words.any(|word| word == "main")))
    });
    let fields = text.split("\n\n").filter_map(|stanza| {
        let field = |name: &str| {
            let values = stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            Some(values.split_whitespace())
        };
        let has = |name: &str, word: &str| field(name).is_some_and(|mut words| words.any(|w| w == word));
        if !has("Types", "deb") || has("Enabled", "no") {
            return None;
        }
        Some((field("URIs")?.next()?, field("Suites")?.next()?, has("Components", "main")))
    });
    one_line
        .chain(fields)
        .filter(|(mirror, suite, main)| *main && !suite.contains("security") && mirror.contains("debian"))
        .map(|(mirror, ..)| mirror.to_owned())
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_read_from_both_forms_of_sources() {
        let cases = [
            ("deb http://mirror.example/debian bookworm main\n", Some("http://mirror.example/debian")),
            (
                "# deb http://old.example/debian sid main\ndeb [signed-by=/k.gpg arch=amd64] https://a.example/debian/ sid contrib main",
                Some("https://a.example/debian/"),
            ),
            ("deb http://security.example/debian-security bookworm-security main\n", None),
            ("deb-src http://mirror.example/debian bookworm main\n", None),
            ("deb https://packages.example/tool stable main\n", None),
            (
                "Types: deb\nURIs: http://s.example/debian-security\nSuites: bookworm-security\nComponents: main\n\n\
                 Types: deb deb-src\n# why\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n\
                 Components: main contrib\nSigned-By: /k.gpg\n",
                Some("http://mirror.example/debian"),
            ),
            ("Types: deb\nEnabled: no\nURIs: http://m.example/debian\nSuites: sid\nComponents: main\n", None),
            ("", None),
        ];
        for (text, mirror) in cases {
            assert_eq!(mirror_in(text).as_deref(), mirror, "{text}");
        }
    }

    #[test]
    fn the_upstream_version_names_the_folder() {
        for (debian, version) in
            [("3.5.16-4", "3.5.16"), ("1.8.7+dfsg1-2+b3", "1.8.7"), ("17.0.19+10-1~deb12u2", "17.0.19")]
        {
            assert_eq!(upstream(debian), version);
        }
    }
}
