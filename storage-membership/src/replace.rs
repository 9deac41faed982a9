//! A directory that takes the place of another one, which stays beside it.
//!
//! Two renames: the old one away, the new one to its place. Between them there is none with the name; the next start makes the second then. So whenever the
//! power fails, the replica has the old directory or the new one, and each is whole.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
};

use storage_core::{Error, Result};
use storage_embedded::disk;

use crate::ids::ClusterId;

/// The file that is written last into a directory that is being made: with it, the directory is whole.
pub(crate) const IDENTITY_FILE: &str = "replica.json";

/// Behind the name of a directory that is being made, before the id of the cluster that is lost.
const MAKING: &str = ".recovering-";
/// The same, of the old one.
const LOST: &str = ".lost-";

/// Where the new directory is made: who it is is written last.
pub(crate) fn making(dir: &Path, lost: ClusterId) -> PathBuf {
    sibling(dir, MAKING, &lost.to_string())
}

/// Where the old directory stays.
pub(crate) fn lost(dir: &Path, lost: ClusterId) -> PathBuf {
    sibling(dir, LOST, &lost.to_string())
}

/// Puts the directory that was made in the place of the old one. It is on stable storage when this returns.
///
/// # Errors
/// [`Error::Unavailable`]: then the old one is in its place, unless the message says that the next start ends it.
pub(crate) fn publish(dir: &Path, former: ClusterId) -> Result<()> {
    let (made, lost) = (making(dir, former), lost(dir, former));
    let failed =
        |from: &Path, error: io::Error| Error::unavailable(format!("cannot rename {}: {error}", from.display()));
    sync(&made)?;
    fs::rename(dir, &lost).map_err(|error| failed(dir, error))?;
    if let Err(error) = fs::rename(&made, dir) {
        return Err(match fs::rename(&lost, dir) {
            Ok(()) => failed(&made, error),
            Err(_) => Error::unavailable(format!(
                "cannot rename {} to {}: {error}; the next start of the replica tries it again",
                made.display(),
                dir.display()
            )),
        });
    }
    sync(parent(dir))
}

/// Ends what the power has cut short between the two renames.
pub(crate) fn finish(dir: &Path) -> Result<()> {
    let failed = |error: io::Error| Error::unavailable(format!("cannot read {}: {error}", parent(dir).display()));
    let Some(name) = dir.file_name() else { return Ok(()) };
    if !disk::is_absent(dir).map_err(failed)? {
        return Ok(());
    }
    let entries = match fs::read_dir(parent(dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    let prefix = joined(name, MAKING);
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let found = entry.file_name();
        let Some(lost) = found.to_str().and_then(|found| found.strip_prefix(prefix.to_str()?)) else { continue };
        // Without the old one beside it, it was never put in its place.
        let is_there = |path: &Path| disk::is_absent(path).map(|absent| !absent).map_err(failed);
        if is_there(&entry.path().join(IDENTITY_FILE))? && is_there(&sibling(dir, LOST, lost))? {
            let renamed = fs::rename(entry.path(), dir);
            renamed
                .map_err(|error| Error::unavailable(format!("cannot rename {}: {error}", entry.path().display())))?;
            return sync(parent(dir));
        }
    }
    Ok(())
}

fn sync(dir: &Path) -> Result<()> {
    disk::sync_dir(dir).map_err(|error| Error::unavailable(format!("cannot write {}: {error}", dir.display())))
}

fn sibling(dir: &Path, infix: &str, lost: &str) -> PathBuf {
    joined(&joined(dir.as_os_str(), infix), lost).into()
}

fn joined(one: &OsStr, other: &str) -> OsString {
    let mut both = one.to_owned();
    both.push(other);
    both
}

fn parent(dir: &Path) -> &Path {
    disk::parent(dir).unwrap_or(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(path: &Path, is: &str) {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join(IDENTITY_FILE), is).unwrap();
    }

    fn is(path: &Path) -> String {
        fs::read_to_string(path.join(IDENTITY_FILE)).unwrap_or_default()
    }

    #[test]
    fn wherever_it_is_cut_short_the_old_or_the_new_directory_is_in_its_place() {
        let place = tempfile::tempdir().unwrap();
        let (dir, former) = (place.path().join("r1"), ClusterId(7));
        make(&dir, "old");
        // Before the first rename the old one is, whether the new one is whole or not.
        make(&making(&dir, former), "new");
        finish(&dir).unwrap();
        assert_eq!(is(&dir), "old");
        // After the first, the new one.
        fs::rename(&dir, lost(&dir, former)).unwrap();
        finish(&dir).unwrap();
        assert_eq!((is(&dir), is(&lost(&dir, former))), ("new".to_owned(), "old".to_owned()));
        finish(&dir).unwrap();
        assert_eq!(is(&dir), "new");
        // All of it.
        let next = ClusterId(8);
        make(&making(&dir, next), "newer");
        publish(&dir, next).unwrap();
        assert_eq!((is(&dir), is(&lost(&dir, next))), ("newer".to_owned(), "new".to_owned()));
    }

    #[test]
    fn what_was_never_put_in_its_place_does_not_come_back_when_a_directory_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let (dir, former) = (place.path().join("r1"), ClusterId(7));
        make(&making(&dir, former), "new");
        finish(&dir).unwrap();
        assert!(!dir.exists());
        // Nor what is not whole.
        make(&lost(&dir, former), "old");
        fs::remove_file(making(&dir, former).join(IDENTITY_FILE)).unwrap();
        finish(&dir).unwrap();
        assert!(!dir.exists());
    }

    #[test]
    fn a_directory_that_cannot_be_put_there_leaves_the_old_one() {
        let place = tempfile::tempdir().unwrap();
        let (dir, former) = (place.path().join("r1"), ClusterId(7));
        make(&dir, "old");
        assert!(publish(&dir, former).is_err(), "nothing was made");
        assert_eq!(is(&dir), "old");
        make(&making(&dir, former), "new");
        make(&lost(&dir, former), "an older one");
        assert!(publish(&dir, former).is_err(), "the name is taken");
        assert_eq!(is(&dir), "old");
    }
}
