//! A file system of the cluster's own, whose power can fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::network::Unavailable;

/// The size of the file system (4 GiB): logs of a dozen nodes that are allocated in advance. What is not written takes no room.
const BYTES: u64 = 4 << 30;

/// The kernel may write to the disk while it is copied; the copy is made again then, so often.
const COPIES: usize = 20;

/// Unmounting is tried so often.
const UNMOUNTS: usize = 50;

/// A file that is written before each loss of power and never synced: if it survives, nothing was lost and nothing proven.
const CANARY: &str = "canary";

/// A file system in a file: what is not synced when the power fails is lost. Linux with root, `mkfs.ext4` and `mount`.
///
/// Killing a server loses nothing that it has written, as the kernel keeps it. Here the file is copied while all servers stand
/// still, and after they are killed the copy is what they find: exactly what had reached the disk. Dropping it unmounts it.
#[derive(Debug)]
pub struct Image {
    dir: TempDir,
    losses: usize,
}

impl Image {
    /// Makes a file system in a folder in `parent` and mounts it.
    ///
    /// # Errors
    /// [`Unavailable`] says what is missing.
    pub fn create(parent: &Path) -> Result<Self, Unavailable> {
        let failed = |error: std::io::Error| Unavailable(format!("{}: {error}", parent.display()));
        let dir = tempfile::Builder::new().prefix("power-").tempdir_in(parent).map_err(failed)?;
        let image = Self { dir, losses: 0 };
        let file = fs::File::create(image.file()).map_err(failed)?;
        file.set_len(BYTES).map_err(failed)?;
        fs::create_dir(image.path()).map_err(failed)?;
        run("mkfs.ext4", &["-q", "-F", &image.file().display().to_string()])?;
        image.mount()?;
        Ok(image)
    }

    /// Where it is mounted: the folder for [`ClusterOptions::parent_dir`](super::ClusterOptions).
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    /// Syncs everything, as servers on disks that have been there for long.
    ///
    /// # Errors
    /// [`Unavailable`] with what the system says.
    pub fn sync(&self) -> Result<(), Unavailable> {
        run("sync", &["-f", &self.path().display().to_string()])
    }

    /// The moment at which the power fails: keeps what is on the disk now. All servers have to stand still. They are then
    /// killed, and [`Image::power_on`] follows.
    ///
    /// # Errors
    /// [`Unavailable`] with what the system says.
    pub fn power_off(&mut self) -> Result<(), Unavailable> {
        let failed = |error: std::io::Error| Unavailable(format!("{}: {error}", self.dir.path().display()));
        fs::write(self.path().join(CANARY), self.losses.to_string()).map_err(failed)?;
        for _ in 0..COPIES {
            let before = self.written()?;
            run("cp", &["--sparse=always", &self.file().display().to_string(), &self.next().display().to_string()])?;
            if self.written()? == before {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(Unavailable(format!("the disk did not stand still for {COPIES} copies")))
    }

    /// The power is back: mounts what was on the disk when it failed. No process may have a file open there. Returns
    /// whether something was lost.
    ///
    /// # Errors
    /// [`Unavailable`] with what the system says.
    pub fn power_on(&mut self) -> Result<bool, Unavailable> {
        let failed = |error: std::io::Error| Unavailable(format!("{}: {error}", self.dir.path().display()));
        self.unmount()?;
        fs::rename(self.next(), self.file()).map_err(failed)?;
        self.mount()?;
        let canary = fs::read(self.path().join(CANARY)).unwrap_or_default();
        let lost = canary != self.losses.to_string().as_bytes();
        self.losses += 1;
        Ok(lost)
    }

    /// A process that was just killed may hold the disk for a moment.
    fn unmount(&self) -> Result<(), Unavailable> {
        let place = self.path().display().to_string();
        for _ in 1..UNMOUNTS {
            if run("umount", &[&place]).is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        run("umount", &[&place])
    }

    /// What is deleted there is given back, so that a copy takes as long as what is there and not as all that ever was.
    fn mount(&self) -> Result<(), Unavailable> {
        run("mount", &["-o", "loop,discard", &self.file().display().to_string(), &self.path().display().to_string()])
    }

    /// How many sectors the loop device has written: the seventh field of its statistics (Linux, block/stat.rst).
    fn written(&self) -> Result<u64, Unavailable> {
        let unknown = || Unavailable(format!("nothing is mounted at {}", self.path().display()));
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| Unavailable(error.to_string()))?;
        let path = self.path().display().to_string();
        let mut fields = mounts.lines().map(|line| line.split(' ')).map(|mut line| (line.next(), line.next()));
        let device = fields.find(|(_, place)| *place == Some(path.as_str())).and_then(|(device, _)| device);
        let device = device.and_then(|device| device.strip_prefix("/dev/")).ok_or_else(unknown)?;
        let statistics = fs::read_to_string(format!("/sys/block/{device}/stat")).map_err(|_| unknown())?;
        statistics.split_whitespace().nth(6).and_then(|sectors| sectors.parse().ok()).ok_or_else(unknown)
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn next(&self) -> PathBuf {
        self.dir.path().join("image-when-the-power-failed")
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Lazily, so that a process which still dies does not leave it for ever.
        let _ = run("umount", &["--lazy", &self.path().display().to_string()]);
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), Unavailable> {
    let ended = Command::new(program).args(arguments).output();
    let ended = ended.map_err(|error| Unavailable(format!("{program}: {error}")))?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    Err(Unavailable(format!(
        "a file system image needs root: `{program} {}` said: {}",
        arguments.join(" "),
        said.trim()
    )))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn only_what_was_synced_is_there_after_the_power_has_failed() {
        let mut image = match Image::create(&std::env::temp_dir()) {
            Ok(image) => image,
            Err(reason) => {
                println!("skipped: {reason}");
                return;
            }
        };
        for round in 0..2 {
            let mut synced = fs::File::create(image.path().join(format!("synced-{round}"))).unwrap();
            synced.write_all(b"safe").unwrap();
            synced.sync_all().unwrap();
            fs::File::open(image.path()).unwrap().sync_all().unwrap();
            fs::write(image.path().join(format!("unsynced-{round}")), "lost").unwrap();
            drop(synced);
            image.power_off().unwrap();
            assert!(image.power_on().unwrap(), "the canary is dead");
            assert_eq!(fs::read(image.path().join(format!("synced-{round}"))).unwrap(), b"safe");
            let unsynced = fs::read(image.path().join(format!("unsynced-{round}"))).unwrap_or_default();
            assert_ne!(unsynced, b"lost");
        }
    }

    #[test]
    fn what_is_deleted_is_not_copied() {
        let image = match Image::create(&std::env::temp_dir()) {
            Ok(image) => image,
            Err(reason) => {
                println!("skipped: {reason}");
                return;
            }
        };
        let allocated = || fs::metadata(image.file()).unwrap().blocks() * 512;
        let (empty, path) = (allocated(), image.path().join("file"));
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(&vec![0xa5; 32 << 20]).unwrap();
        file.sync_all().unwrap();
        drop(file);
        let full = allocated();
        assert!(full >= empty + (32 << 20), "{full} bytes");
        fs::remove_file(&path).unwrap();
        // The kernel gives back in the background, and not while a process that another test has just forked holds the file.
        let given_back = (0..200).any(|_| {
            image.sync().unwrap();
            thread::sleep(Duration::from_millis(50));
            allocated() < empty + (8 << 20)
        });
        assert!(given_back, "{} bytes of {full} stay", allocated());
    }
}
