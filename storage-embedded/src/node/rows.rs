use std::time::Duration;

use bytes::Bytes;
use storage_core::{Error, Result};

use super::Node;
use crate::{command::Command, state_machine::Applied};

/// The configuration table of the cluster: small rows that stand apart from the keys of the users.
impl Node {
    /// Sets a row.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are too many rows or this one is too large; [`Error::Unavailable`] if there is no leader
    /// within `timeout`; [`Error::UnknownOutcome`] if nobody knows: setting it again does no harm.
    pub async fn put_row(&self, name: impl Into<Bytes>, value: impl Into<Bytes>, timeout: Duration) -> Result<()> {
        self.change_row(Command::RowPut { name: name.into(), value: value.into() }, timeout).await
    }

    /// Removes a row.
    ///
    /// # Errors
    /// As for [`Node::put_row`].
    pub async fn delete_row(&self, name: impl Into<Bytes>, timeout: Duration) -> Result<()> {
        self.change_row(Command::RowDelete { name: name.into() }, timeout).await
    }

    /// The content of a row, as this node knows it.
    pub fn row(&self, name: &[u8]) -> Option<Bytes> {
        self.state().read(|replica| replica.state.tables().row(name).cloned())
    }

    async fn change_row(&self, command: Command, timeout: Duration) -> Result<()> {
        match self.apply(&command, timeout).await? {
            Applied::Nothing => Ok(()),
            applied => Err(Error::invalid_argument(applied.to_string())),
        }
    }
}
