//! A file or folder of a server that cannot be read when it starts.
//!
//! What it checks: a server that cannot read its data must not begin anew in its place. Whatever it has done, the data
//! are put back when this is mended.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use async_trait::async_trait;

use super::{Fault, NemesisError, Strike, Victims};
use crate::server::ServerError;

/// A folder or a file of a server cannot be read when it starts: its permissions are gone. For root, who may read everything, a link to itself
/// stands in its place, which nobody can follow.
#[derive(Debug, Default)]
pub(super) struct Unreadable {
    denied: Option<Denied>,
}

#[derive(Debug)]
struct Denied {
    place: usize,
    path: PathBuf,
    /// The permissions that it had.
    mode: u32,
    /// Where it is meanwhile, if a link stands in its place.
    aside: Option<PathBuf>,
}

/// Whether it is a snapshot that is gone, with a newer one there: a server that starts with that removes it, read or not.
fn is_superseded(path: &Path) -> bool {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (own, siblings) = (name(path), path.parent().and_then(|dir| fs::read_dir(dir).ok()));
    let is_newer = |other: String| other.starts_with("snapshot-") && other > own;
    own.starts_with("snapshot-")
        && fs::symlink_metadata(path).is_err()
        && siblings.into_iter().flatten().flatten().any(|other| is_newer(name(&other.path())))
}

#[async_trait]
impl Fault for Unreadable {
    fn name(&self) -> &'static str {
        "unreadable"
    }

    async fn strike(&mut self, victims: &mut Victims, rng: &mut fastrand::Rng) -> Result<Strike, NemesisError> {
        let (place, name) = victims.choose(rng).await;
        victims.cluster.kill(place)?;
        let node = victims.cluster.node(place)?;
        let aside = node.context().dir().join("aside");
        let path = rng.choice(below(&node.data_dir())).unwrap_or_else(|| node.data_dir());
        let denied = deny(&path, aside).map_err(ServerError::io(format!("deny {}", path.display())))?;
        self.denied = Some(Denied { place, ..denied });
        let bit = !is_readable(&path);
        victims.cluster.restart(place)?;
        Ok(Strike { target: format!("{name}: {}", path.display()), bit })
    }

    /// What was not readable is not replaced, and is there again.
    async fn mend(&mut self, victims: &mut Victims) -> Result<(), NemesisError> {
        let Some(denied) = self.denied.take() else { return Ok(()) };
        victims.cluster.kill(denied.place)?;
        if denied.aside.is_some() && !is_link(&denied.path) && !is_superseded(&denied.path) {
            victims.note("what cannot be read is not replaced", format!("{} was begun anew", denied.path.display()));
        }
        allow(&denied).map_err(ServerError::io(format!("give back {}", denied.path.display())))?;
        Ok(victims.cluster.restart(denied.place)?)
    }
}

/// Everything below a folder, some levels deep.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        found.extend(below(&entry.path()));
        found.push(entry.path());
    }
    found
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}

fn is_readable(path: &Path) -> bool {
    if path.is_dir() { fs::read_dir(path).is_ok() } else { fs::File::open(path).is_ok() }
}

fn deny(path: &Path, aside: PathBuf) -> io::Result<Denied> {
    let mode = fs::metadata(path)?.permissions().mode();
    fs::set_permissions(path, fs::Permissions::from_mode(0o000))?;
    let mut denied = Denied { place: 0, path: path.to_owned(), mode, aside: None };
    if is_readable(path) {
        fs::rename(path, &aside)?;
        symlink(path, path)?;
        denied.aside = Some(aside);
    }
    Ok(denied)
}

fn allow(denied: &Denied) -> io::Result<()> {
    if let Some(aside) = &denied.aside {
        // Whatever a server has made of the place.
        if denied.path.is_dir() {
            fs::remove_dir_all(&denied.path)?;
        } else if fs::symlink_metadata(&denied.path).is_ok() {
            fs::remove_file(&denied.path)?;
        }
        fs::create_dir_all(denied.path.parent().unwrap_or(Path::new("/")))?;
        fs::rename(aside, &denied.path)?;
    }
    fs::set_permissions(&denied.path, fs::Permissions::from_mode(denied.mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_denied_cannot_be_read_until_it_is_given_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir_all(data.join("log")).unwrap();
        fs::write(data.join("log/segment"), "entries").unwrap();
        assert_eq!(below(&data).len(), 2);
        for path in [data.join("log/segment"), data.join("log"), data.clone()] {
            let before = fs::metadata(&path).unwrap().permissions();
            let denied = deny(&path, folder.path().join("aside")).unwrap();
            assert!(!is_readable(&path), "{}", path.display());
            assert!(fs::read(data.join("log/segment")).is_err());
            allow(&denied).unwrap();
            assert_eq!(fs::read(data.join("log/segment")).unwrap(), b"entries");
            assert_eq!(fs::metadata(&path).unwrap().permissions(), before);
        }
    }
}
