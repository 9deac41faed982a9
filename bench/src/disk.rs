//! Where the data of a run lies.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// Where clusters keep their data if nobody says: `target` of the current directory or of the nearest one above that has
/// it (cargo runs benches in the folder of their package), since the temporary folder is often in memory; else the temporary folder.
pub fn default_directory() -> PathBuf {
    let current = env::current_dir().unwrap_or_default();
    let target = current.ancestors().map(|folder| folder.join("target")).find(|target| target.is_dir());
    target.unwrap_or_else(env::temp_dir)
}

/// Whether a directory is in memory, where a sync costs nothing and a benchmark of durable writes says nothing.
/// `false` where the system does not tell.
///
/// # Errors
/// [`Error::Io`] if there is no such directory.
pub fn on_tmpfs(directory: &Path) -> Result<bool> {
    directory.canonicalize().map_err(Error::at(directory))?;
    Ok(matches!(filesystem_of(directory).as_deref(), Some("tmpfs" | "ramfs")))
}

/// The type of the file system that holds a directory, where the system tells.
pub(crate) fn filesystem_of(directory: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    filesystem(&mounts, &directory.canonicalize().ok()?).map(str::to_owned)
}

/// The type of the file system that holds a path, by the kernel's list of mounts (proc(5), "mountinfo"): the longest
/// mount point above it, and of equal ones the last, which hides the others.
fn filesystem<'a>(mounts: &'a str, path: &Path) -> Option<&'a str> {
    let above = mounts.lines().filter_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        // The kernel writes a space in a path as \040; other escapes are rarer still.
        let point = PathBuf::from(place.split(' ').nth(4)?.replace("\\040", " "));
        path.starts_with(&point).then_some((point.components().count(), kind.split(' ').next()?))
    });
    above.max_by_key(|(depth, _)| *depth).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_and_last_mount_holds_a_path() {
        let mounts = "\
1 0 8:1 / / rw,relatime - ext4 /dev/sda1 rw
2 1 0:2 / /tmp rw shared:1 - tmpfs tmpfs rw
3 2 8:2 / /tmp/a\\040disk rw - xfs /dev/sdb rw
4 1 8:3 / /mnt rw - ext4 /dev/sdc rw
5 1 0:5 / /mnt rw - ramfs none rw
";
        let cases = [
            ("/var/lib", "ext4"),
            ("/tmp", "tmpfs"),
            ("/tmp/x", "tmpfs"),
            ("/tmpx", "ext4"),
            ("/tmp/a disk/x", "xfs"),
            ("/mnt/x", "ramfs"),
        ];
        for (path, kind) in cases {
            assert_eq!(filesystem(mounts, Path::new(path)), Some(kind), "{path}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn shared_memory_is_seen_to_be_in_memory() {
        assert!(on_tmpfs(Path::new("/dev/shm")).unwrap());
    }
}
