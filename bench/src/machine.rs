//! The machine of a measurement, as far as the system tells: figures without it compare with nothing.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::disk;

/// The machine of a measurement, as far as the system tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The operating system and its version.
    pub system: String,
    /// The architecture.
    pub architecture: String,
    /// The model of the processor.
    pub processor: Option<String>,
    /// How many processors the program may use.
    pub processors: usize,
    /// The memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// The type of the file system that held the data.
    pub filesystem: Option<String>,
}

impl Machine {
    /// This machine, with data in this directory.
    pub fn this(directory: &Path) -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let kibibytes =
            value("/proc/meminfo", "MemTotal").and_then(|text| text.strip_suffix(" kB")?.parse::<u64>().ok());
        Self {
            system: format!("{} {}", std::env::consts::OS, release.trim()).trim().to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            processor: value("/proc/cpuinfo", "model name"),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: kibibytes.map(|kibibytes| kibibytes * 1024),
            filesystem: disk::filesystem_of(directory),
        }
    }

    /// All of it in a line.
    pub fn line(&self) -> String {
        let Self { system, architecture, processor, processors, memory_bytes, filesystem } = self;
        let mut parts = vec![format!("{system} {architecture}")];
        let processor = processor.as_ref().map_or_else(String::new, |model| format!(" ({model})"));
        parts.push(format!("{processors} processors{processor}"));
        parts.extend(memory_bytes.map(|bytes| format!("{:.0} GiB of memory", bytes as f64 / f64::from(1 << 30))));
        parts.extend(filesystem.as_ref().map(|kind| format!("data on {kind}")));
        parts.join(", ")
    }
}

/// The first value of this name in a file of `name: value` lines.
fn value(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}
