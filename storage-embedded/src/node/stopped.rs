//! Why a node runs no more, and the words with which it tells what there is to do.

use std::{error::Error as _, iter};

use storage_core::Error;

use crate::network::admission::Verdict;

/// Why a node runs no more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stopped {
    /// It was asked to, or nobody uses it any more.
    Asked,
    /// It cannot go on safely, for instance because a write to its disk failed: this is what went wrong.
    Failed(String),
    /// Its directory is as it was before its first start, and others know that it has run: it must not vote, since it has forgotten what it
    /// voted. Or it has begun anew already, alone. Or it is empty, and others were restored. In words.
    Forgot(String),
    /// Its state is not that of the others after the same entry, or was not from the beginning: they were restored from different snapshots. In words.
    Differs(String),
    /// It was removed from its cluster, which its directory remembers: it never starts again. In words.
    Removed(String),
}

/// The cause of an [`Error::PermissionDenied`]: the node was removed from its cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Removed(String);

impl Removed {
    /// In words, with what there is to do.
    pub fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }

    /// Whether an error, of a call or of a start, comes from a node that was removed from its cluster.
    pub fn caused(error: &Error) -> bool {
        iter::successors(error.source(), |cause| (*cause).source()).any(|cause| cause.is::<Self>())
    }
}

/// The error of a start in the directory of a node that was removed.
pub(super) fn removed_before() -> Error {
    let words = format!("the node of this directory was removed from its cluster. {ANEW}");
    Error::PermissionDenied { source: Removed(words).into() }
}

/// What there is to do with a node that was removed.
const ANEW: &str =
    "It votes and answers no more. To have it back, take it in anew, under another id and with an empty directory";

impl Stopped {
    /// The error that it is for who waits for the node; none if the node was asked to stop.
    pub(super) fn as_error(&self) -> Option<Error> {
        match self {
            Self::Asked => None,
            Self::Failed(reason) | Self::Forgot(reason) | Self::Differs(reason) => {
                Some(Error::corrupt(format!("the node has stopped: {reason}")))
            }
            Self::Removed(reason) => {
                let words = format!("the node has stopped: {reason}");
                Some(Error::PermissionDenied { source: Removed(words).into() })
            }
        }
    }
}

impl From<Verdict> for Stopped {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Forgot { by } => Self::Forgot(format!(
                "its directory is as it was before its first start, and node {by} knows that it has run: what it voted and acknowledged is \
                 lost. It must not take its old place, nor be restored: remove it from the cluster and take it in anew"
            )),
            Verdict::Differs { index } => Self::Differs(format!(
                "after entry {index} its state is not that of the other nodes: a disk or memory is damaged, or it is a bug. Keep its \
                 directory for those who look for the cause, remove it from the cluster and take it in anew"
            )),
            Verdict::Removed { by, at } => Self::Removed(format!(
                "it was removed from its cluster, as node {by} knows: the members of entry {at} are without it. {ANEW}"
            )),
            Verdict::Refounded { by } => Self::Forgot(format!(
                "it has founded its cluster alone, and node {by} is of an older cluster that it was a voter of: its disk was lost, and it began anew. \
                 What it has acknowledged since is in its directory only: keep that. Remove the node from the older cluster and take it in anew"
            )),
            Verdict::NotRestored { by } => Self::Forgot(format!(
                "its directory has no data, and node {by} was restored from a snapshot and waits for the others. Remove the directory and \
                 restore it from the same file, with the same addition to the revision"
            )),
            Verdict::RestoredOtherwise { by } => Self::Differs(format!(
                "it was restored from another snapshot than node {by}, or with another addition to the revision. Neither has begun, and nothing is \
                 lost: remove the directories of the founding nodes, and restore each from the same file, with the same addition to the revision"
            )),
        }
    }
}
