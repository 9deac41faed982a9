//! How many files and connections the system lets this process have open.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many descriptors this process may have open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DescriptorLimit {
    /// How many there may be now; `u64::MAX`: any number.
    pub soft: u64,
    /// How far the process may raise that by itself.
    pub hard: u64,
}

impl From<Rlimit> for DescriptorLimit {
    fn from(limit: Rlimit) -> Self {
        // None: there is no limit.
        Self { soft: limit.current.unwrap_or(u64::MAX), hard: limit.maximum.unwrap_or(u64::MAX) }
    }
}

/// The limit as it is.
pub fn descriptor_limit() -> DescriptorLimit {
    getrlimit(Resource::Nofile).into()
}

/// Raises the soft limit of open files to the hard one, which every process may do, and tells what the limit is then. For the start of a
/// program, before it starts nodes: each makes its [`Budget`](super::Budget) of the limit that it finds. The soft limit is mostly 1024, for the
/// sake of programs that use `select`, which this crate does not.
///
/// # Errors
/// Those of the system. The limit is as it was then.
pub fn raise_descriptor_limit() -> io::Result<DescriptorLimit> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(descriptor_limit())
}
