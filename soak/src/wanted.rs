//! What a round starts, and what it has then.

use std::path::{Path, PathBuf};

use storage_testkit::{
    nemesis::{Needs, Victims},
    workload::Open,
};

/// Servers, and how a client gets a handle of its own on them.
pub(super) struct Started {
    pub(super) victims: Victims,
    pub(super) open: Open,
}

/// What is started.
pub(super) struct Wanted<'a> {
    pub(super) backend: &'a str,
    pub(super) nodes: usize,
    pub(super) needs: Needs,
    /// Whether members shall join and leave, where they can.
    pub(super) changing: bool,
    pub(super) directory: &'a Path,
    /// The program that is a node of the embedded engine when its first argument is `node`, and a replica of a cluster that grows by itself
    /// when it is `replica`.
    pub(super) program: PathBuf,
}
