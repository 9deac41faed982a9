//! The configuration table through a node: rows that stand apart from the keys of the users, who cannot reach them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use storage_core::{Error, Result};

use super::Node;
use crate::command::{Applied, Command, Rejection, RowChange};

/// The configuration table of the cluster: small rows that stand apart from the keys of the users. No client reaches them: they are in no range, no
/// watch and no copy, and a cluster that is restored begins without any.
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

    /// Changes rows together, once, if others are what they are expected to be. `false`: they are not, and nothing was changed.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are too many rows or one is too large, and [`Error::Unavailable`] if no leader can be reached: nothing was
    /// changed. [`Error::UnknownOutcome`] if nobody knows.
    ///
    /// # Cancel safety
    /// Dropped, it may have been made or not.
    pub async fn change_rows(&self, change: RowChange, timeout: Duration) -> Result<bool> {
        match self.apply_once(&Command::Rows(change), timeout).await? {
            Applied::Nothing => Ok(true),
            Applied::Rejected(Rejection::RowsDiffer) => Ok(false),
            applied => Err(Error::invalid_argument(applied.to_string())),
        }
    }

    /// The content of a row, as this node knows it.
    pub fn row(&self, name: &[u8]) -> Option<Bytes> {
        self.state().read(|replica| replica.state.tables().row(name).cloned())
    }

    /// All rows whose names begin so, with everything that was acknowledged before the call.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no leader can be reached within `timeout`.
    pub async fn rows(&self, prefix: &[u8], timeout: Duration) -> Result<BTreeMap<Bytes, Bytes>> {
        self.patient_barrier(timeout).await?;
        self.compared(timeout).await?;
        Ok(self.state().read(|replica| {
            let rows = replica.state.tables().rows().filter(|(name, _)| name.starts_with(prefix));
            rows.map(|(name, content)| (name.clone(), content.clone())).collect()
        }))
    }

    /// The members by the latest change of them that is committed, and was when the call began: those that vote, and all.
    /// A node that is not among them, and was, has been removed for ever.
    ///
    /// [`Node::status`] names those by the latest change in the log of this node, which another leader may yet take back.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no leader can be reached within `timeout`.
    pub async fn committed_members(&self, timeout: Duration) -> Result<(BTreeSet<u64>, BTreeSet<u64>)> {
        self.patient_barrier(timeout).await?;
        Ok(self.state().read(|replica| {
            let membership = replica.membership.membership();
            (membership.voter_ids().collect(), membership.nodes().map(|(id, _)| *id).collect())
        }))
    }

    async fn change_row(&self, command: Command, timeout: Duration) -> Result<()> {
        match self.apply(&command, timeout).await? {
            Applied::Nothing => Ok(()),
            applied => Err(Error::invalid_argument(applied.to_string())),
        }
    }
}
