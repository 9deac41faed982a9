//! Whether whoever asks may have a command carried out.

use super::Tables;
use crate::{auth::Identity, command::Command, mvcc::Denied};

/// How many keys are looked at before a command is logged: what others on this node wait for.
const SHORT_CHECKS: usize = 256;

impl Tables {
    /// Whether one may ask for a command, by what is known now.
    pub(crate) fn allow(&self, who: &Identity, command: &Command) -> Result<(), Denied> {
        let Self { keys, auth, .. } = self;
        match command {
            Command::Mvcc { txn, .. } => auth.check_txn(keys, who, txn),
            Command::Compact { .. } | Command::Auth(_) | Command::Alarm { .. } => auth.check_root(who),
            Command::LeaseGrant { .. } => auth.check_somebody(who),
            Command::LeaseRevoke { id } => auth.check_lease_write(keys, who, *id),
            _ => unreachable!("a command that no client can ask for is not decoded"),
        }
    }

    /// The same, if it is soon found out: otherwise it is as if one might.
    pub(crate) fn allow_short(&self, who: &Identity, command: &Command) -> Result<(), Denied> {
        if self.checks(command) <= SHORT_CHECKS { self.allow(who, command) } else { Ok(()) }
    }

    /// How many keys are looked at to find out whether one may ask for a command.
    pub(crate) fn checks(&self, command: &Command) -> usize {
        match command {
            Command::Mvcc { txn, .. } => self.auth.checks(&self.keys, txn),
            Command::LeaseRevoke { id } if self.auth.is_enabled() => {
                self.keys.lease(*id).map_or(0, |lease| lease.keys.len())
            }
            _ => 0,
        }
    }
}
