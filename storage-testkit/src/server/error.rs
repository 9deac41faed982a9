//! Why servers could not do what a test asked of them.
//!
//! Messages carry what somebody needs who sees only the output of CI: the end of each log, and the command that
//! installs what is missing.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::programs::MissingProgram;

/// Why a cluster could not do what a test asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A program is not installed; the text has the command that installs it.
    #[error(transparent)]
    MissingProgram(#[from] MissingProgram),
    /// The number of nodes is outside 1 to [`MAX_NODES`](super::MAX_NODES).
    #[error("a cluster has 1 to {max} nodes, not {asked}")]
    ClusterSize {
        /// What was asked for.
        asked: usize,
        /// The largest size.
        max: usize,
    },
    /// The cluster has no node of this number.
    #[error("no node {index} in a cluster of {count}")]
    NoSuchNode {
        /// The number that was asked for, from 0.
        index: usize,
        /// The nodes there are.
        count: usize,
    },
    /// The specification wants no port of this name.
    #[error("the server's specification names no port `{name}`")]
    UnknownPort {
        /// The name that was asked for.
        name: String,
    },
    /// No port was free after many attempts.
    #[error("no free loopback port after {attempts} attempts")]
    NoFreePort {
        /// How many ports were tried.
        attempts: usize,
    },
    /// The node does not run, so it cannot take a signal.
    #[error("node {node} does not run")]
    NotRunning {
        /// The node's name.
        node: String,
    },
    /// The node runs already.
    #[error("node {node} runs already")]
    AlreadyRunning {
        /// The node's name.
        node: String,
    },
    /// A server ended although nobody stopped it. The logs' ends are in the text, the files stay.
    #[error("node {node} of {server} ended by itself; logs are in {}\n{logs}", dir.display())]
    Exited {
        /// The server's name.
        server: String,
        /// The node's name.
        node: String,
        /// The folder with the complete logs.
        dir: PathBuf,
        /// The last lines of each node's log.
        logs: String,
    },
    /// A node was not ready in time. The logs' ends are in the text, the files stay.
    #[error("node {node} of {server} was not ready within {waited:?}; logs are in {}\n{logs}", dir.display())]
    NotReady {
        /// The server's name.
        server: String,
        /// The first node that was not ready.
        node: String,
        /// The deadline.
        waited: Duration,
        /// The folder with the complete logs.
        dir: PathBuf,
        /// The last lines of each node's log.
        logs: String,
    },
    /// The operating system refused something.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl ServerError {
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// Whether another process took one of the ports first, so that a start on other ports may succeed.
    pub(super) fn is_port_race(&self) -> bool {
        match self {
            Self::Exited { logs, .. } | Self::NotReady { logs, .. } => {
                logs.to_ascii_lowercase().contains("address already in use")
            }
            _ => false,
        }
    }
}
