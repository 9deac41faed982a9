//! Users, their roles and what these may do, as etcd has them: a table of the replicated state, changed by commands and asked when a
//! command of a user is applied.
//!
//! # Invariants
//! - Whether a request may be carried out is decided where it is applied, by every replica alike, from the table as it is then.
//! - What the roles of a user allow is kept with the user, and is always that of its roles as they are.
//! - Hashes of passwords and the secret of the tokens are in the log, in snapshots and in memory, and are never shown.

mod change;
mod check;
mod encoding;
mod users;

pub use change::{Access, AuthChange, Identity, PasswordHash, Permission, TokenSecret};
pub use check::MAX_LEASE_CHECKS;
pub(crate) use encoding::{auth_change, identity, put_auth_change, put_identity};
pub(crate) use users::AuthTable;
pub use users::{MAX_MERGED, MAX_NAME_BYTES, MAX_PERMISSIONS, MAX_ROLES, MAX_USERS};

#[cfg(test)]
mod tests;
