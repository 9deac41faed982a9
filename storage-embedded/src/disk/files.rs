//! How the files beside the log and the snapshots are treated, by whoever has some in a data directory.
//!
//! - What cannot be read is not absent. Only a name that is not there is, or a directory that is there and empty.
//! - A small file is the old one or the new one, whenever the power fails: [`replace`].
//! - Nothing is deleted because it looks lost or useless: it is [moved aside](move_aside).

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::Disk;

/// Behind the name of a file that is being written.
const ASIDE: &str = ".new";

/// Gives a file this content. If the power fails meanwhile, it has this or what it had before, whole; and this for certain when it returns.
///
/// # Errors
/// Those of the disk. The file has its old content then, or the new one.
pub fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = with_suffix(path, ASIDE);
    let file = disk.create(&aside)?;
    file.write_at(bytes, 0)?;
    file.sync_data()?;
    disk.rename(&aside, path)?;
    parent(path).map_or(Ok(()), |dir| disk.sync_dir(dir))
}

/// Whether nothing has a name.
///
/// # Errors
/// If that cannot be known. A symbolic link is something, wherever it leads.
pub fn is_absent(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether a directory is not there, or there and empty.
///
/// # Errors
/// If that cannot be known. A link that leads nowhere is an error: what it led to may come back.
pub fn is_unused(dir: &Path) -> io::Result<bool> {
    if is_absent(dir)? {
        return Ok(true);
    }
    fs::read_dir(dir)?.next().transpose().map(|entry| entry.is_none())
}

/// Gives a directory, or a file, a name that tells when it was put out of the way: `node` becomes `node.2027-01-31T235959Z`. Durable
/// when it returns. `None`: there was nothing, or an empty directory, which is left.
///
/// # Errors
/// Those of the disk. It has its old name then.
pub fn move_aside(path: &Path) -> io::Result<Option<PathBuf>> {
    if is_absent(path)? || (path.is_dir() && is_unused(path)?) {
        return Ok(None);
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "the name tells people when it happened, and nothing is decided by it"
    )]
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut to = with_suffix(path, &format!(".{}", date(since_1970)));
    let mut number = 1;
    while !is_absent(&to)? {
        number += 1;
        to = with_suffix(path, &format!(".{}-{number}", date(since_1970)));
    }
    fs::rename(path, &to)?;
    parent(path).map_or(Ok(()), sync_dir)?;
    Ok(Some(to))
}

/// What others than its owner may do with a file or directory that holds secrets or data, in words, with the command that ends it. `None`:
/// nothing, or it cannot be looked at, which whoever opens it will find.
pub fn exposure(path: &Path) -> Option<String> {
    let found = fs::metadata(path).ok()?;
    let mode = found.mode();
    // Orchestrators give a file of somebody else to a group of ours: then that is how we read it.
    let is_own = found.uid() == rustix::process::geteuid().as_raw();
    let is_exposed = mode & 0o007 != 0 || (is_own && mode & 0o070 != 0);
    let rights = match (is_own, found.is_dir()) {
        (true, true) => "700",
        (true, false) => "600",
        (false, _) => "o-rwx",
    };
    let path = path.display();
    is_exposed
        .then(|| format!("others than its owner can open {path} (mode {:o}): chmod {rights} {path}", mode & 0o777))
}

/// Logs the [`exposure`] of a file, if it has one.
pub fn warn_if_exposed(path: &Path) {
    if let Some(exposure) = exposure(path) {
        tracing::warn!("{exposure}");
    }
}

/// Makes the names in a directory durable.
///
/// # Errors
/// Those of the disk.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The directory above, `.` for a plain name, none for a root.
pub fn parent(path: &Path) -> Option<&Path> {
    path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A moment of UTC, as `2027-01-31T235959Z`.
fn date(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let (mut days, of_day) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let mut month = 1;
    for length in [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}{minute:02}{second:02}Z", days + 1)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::disk::{RealDisk, read_all};

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, shown) in [
            (0, "1970-01-01T000000Z"),
            (951_782_399, "2000-02-28T235959Z"),
            (951_782_400, "2000-02-29T000000Z"),
            (1_798_761_599, "2026-12-31T235959Z"),
            (4_107_542_400, "2100-03-01T000000Z"),
        ] {
            assert_eq!(date(Duration::from_secs(seconds)), shown);
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_absent() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert!(is_unused(&at("nothing")).unwrap());
        fs::create_dir(at("empty")).unwrap();
        assert!(is_unused(&at("empty")).unwrap());
        fs::create_dir_all(at("full/log")).unwrap();
        assert!(!is_unused(&at("full")).unwrap());
        // As a disk that is not mounted, a loop, a file in the place of a directory, and one in the way to it.
        symlink(at("elsewhere"), at("dangling")).unwrap();
        symlink(at("loop"), at("loop")).unwrap();
        fs::write(at("file"), "x").unwrap();
        for name in ["dangling", "loop", "file", "file/node"] {
            is_unused(&at(name)).unwrap_err();
        }
    }

    #[test]
    fn what_is_moved_aside_is_all_there_under_a_name_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let node = dir.path().join("node");
        assert_eq!(move_aside(&node).unwrap(), None);
        let moved: Vec<_> = (0..3)
            .map(|number| {
                fs::create_dir(&node).unwrap();
                fs::write(node.join("x"), number.to_string()).unwrap();
                move_aside(&node).unwrap().unwrap()
            })
            .collect();
        for (number, path) in moved.iter().enumerate() {
            assert!(path.to_string_lossy().contains("node.20"), "{}", path.display());
            assert_eq!(fs::read_to_string(path.join("x")).unwrap(), number.to_string());
        }
        assert!(is_absent(&node).unwrap());
    }

    #[test]
    fn what_others_can_open_is_told_with_the_command_that_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        fs::write(&file, "x").unwrap();
        for (path, mode, expected) in [
            (file.as_path(), 0o600, None),
            (&file, 0o400, None),
            (&file, 0o640, Some("chmod 600")),
            (&file, 0o604, Some("chmod 600")),
            (dir.path(), 0o700, None),
            (dir.path(), 0o755, Some("chmod 700")),
        ] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            let told = exposure(path);
            assert_eq!(told.is_some(), expected.is_some(), "{mode:o}");
            assert!(told.unwrap_or_default().contains(expected.unwrap_or_default()), "{mode:o}");
        }
        assert_eq!(exposure(&dir.path().join("nothing")), None);
    }

    #[test]
    fn a_replaced_file_is_the_old_one_or_the_new_one() {
        use crate::simulated::{Fault, SimDisk, Survival};
        let path = Path::new("/dir/mark");
        let before = || {
            let disk = SimDisk::new(1);
            disk.create_dir(Path::new("/dir")).unwrap();
            replace(&disk, path, b"old").unwrap();
            disk
        };
        let counted = before();
        let first = counted.operations();
        replace(&counted, path, b"new").unwrap();
        for operation in first..counted.operations() {
            for (seed, fault) in (0..20).flat_map(|seed| [(seed, Fault::PowerLoss), (seed, Fault::Enospc)]) {
                let disk = before();
                disk.fail_at(operation, fault);
                let done = replace(&disk, path, b"new").is_ok();
                let found = read_all(&*disk.crash(Survival::Any(seed)).open(path).unwrap()).unwrap();
                assert!(found == b"new" || found == b"old" && !done, "operation {operation}: {found:?}");
            }
        }
        let real = tempfile::tempdir().unwrap();
        replace(&RealDisk, &real.path().join("mark"), b"new").unwrap();
        assert_eq!(fs::read(real.path().join("mark")).unwrap(), b"new");
    }
}
