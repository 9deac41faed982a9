//! What can be wrong with the log and the data directory: a variant for each different next action.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{lacks_descriptors, lacks_room};

/// What is wrong with the files of a node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// Bytes that were once durable are not what was written. The node must not start: restore its disk, or remove
    /// the member from the cluster, wipe its directory and let it join again as a new one.
    #[error("{} is corrupt at offset {offset}: {reason}", file.display())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Where the damage was found, in bytes from the start of the file.
        offset: u64,
        /// What is wrong there.
        reason: &'static str,
    },
    /// Segments that the node has written are not there any more. It must not start: it has forgotten its last votes and entries.
    #[error("the newest files of {} are missing: what its node has voted and acknowledged last is lost. If they were moved, put them back; otherwise \
             remove the node from its cluster and take it in anew, with an empty directory. A node alone: restore the last backup", dir.display())]
    Missing {
        /// The directory of the log.
        dir: PathBuf,
    },
    /// The files were written by a newer release: start that one, or a later one.
    #[error("{} has format version {found}, this release reads up to {supported}: start the newer release", file.display())]
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that this release reads.
        supported: u32,
    },
    /// Another node runs in the same directory.
    #[error("another node uses {}: stop it, or give this node a directory of its own", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory belongs to another cluster or node.
    #[error("{} belongs to node {found_node} of cluster {found_cluster:032x}, not to node {node} of cluster {cluster:032x}: \
             check the configured directory", dir.display())]
    OtherIdentity {
        /// The directory.
        dir: PathBuf,
        /// The cluster it belongs to.
        found_cluster: u128,
        /// The node it belongs to.
        found_node: u64,
        /// The cluster that was expected.
        cluster: u128,
        /// The node that was expected.
        node: u64,
    },
    /// The disk can only be read.
    #[error("cannot write {}: make it writable for this user, or remount the disk for writing", file.display())]
    ReadOnly {
        /// The file or directory.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk is full.
    #[error("no space left for {}: free space on its disk, then start the node again", file.display())]
    Full {
        /// The file or directory.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Any other failure of the disk.
    #[error("the disk failed at {}", file.display())]
    Disk {
        /// The file or directory.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no file for a new segment at present, for want of descriptors, space or rights. Nothing of the log was touched, and it may be tried again.
    #[error("the log waits for a file for its next segment: {source}{}", reason(source))]
    NoSegment {
        /// What is missing, of which file.
        source: Box<LogError>,
    },
    /// The caller appended what does not continue the log.
    #[error("entry {index} does not continue the log")]
    Hole {
        /// The index of the entry.
        index: u64,
    },
    /// An entry larger than [`MAX_ENTRY_BYTES`](super::MAX_ENTRY_BYTES).
    #[error("an entry of {bytes} bytes is larger than {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// An invariant does not hold: what is in memory, or on its way to the disk, may be half changed.
    #[error("an invariant of the log does not hold: {words}")]
    Broken {
        /// Which one.
        words: String,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

/// What the system said of a file, behind what it means.
fn reason(error: &LogError) -> String {
    std::error::Error::source(error).map_or_else(String::new, |source| format!(": {source}"))
}

impl LogError {
    /// Sorts an error of the system by what has to be done about it.
    pub(crate) fn disk(file: &Path, source: io::Error) -> Self {
        let file = file.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { file, source },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { file, source },
            _ => Self::Disk { file, source },
        }
    }

    /// The same, if it may be tried again: nothing depends yet on the file of a segment that is not begun.
    pub(super) fn before_a_segment(self) -> Self {
        let lacks_room = match &self {
            // Rights that an operator takes away come back as space does.
            Self::Full { .. } | Self::ReadOnly { .. } => true,
            Self::Disk { source, .. } => lacks_room(source),
            _ => false,
        };
        if lacks_room { Self::NoSegment { source: Box::new(self) } } else { self }
    }

    /// Whether there was no space for it.
    pub(super) fn lacks_space(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// Whether there was no descriptor to open a file with.
    pub(super) fn lacks_descriptors(&self) -> bool {
        matches!(self, Self::Disk { source, .. } if lacks_descriptors(source))
    }

    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Corrupt { .. } | Self::Missing { .. } | Self::NewerFormat { .. } => io::ErrorKind::InvalidData,
            Self::Full { .. } => io::ErrorKind::StorageFull,
            Self::ReadOnly { .. } => io::ErrorKind::ReadOnlyFilesystem,
            Self::Hole { .. } | Self::TooLarge { .. } => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::Other,
        }
    }
}

impl From<LogError> for io::Error {
    fn from(error: LogError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// Why the log takes no more writes, for everyone who asks.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the log has stopped: {0}")]
pub(crate) struct Stopped(#[source] pub Arc<LogError>);

impl From<Stopped> for io::Error {
    fn from(stopped: Stopped) -> Self {
        Self::new(stopped.0.kind(), stopped)
    }
}
