//! What can be changed of users and roles.

use std::fmt;

use bytes::Bytes;

use crate::mvcc::KeyRange;

/// A change of users or roles: all of it or, with the reason, nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthChange {
    /// From now on requests need a user. There has to be a user `root` with the role `root`.
    Enable {
        /// What tokens are signed with until users are not asked for any more.
        secret: TokenSecret,
    },
    /// Requests need no user any more. Users and roles stay.
    Disable,
    /// A new user.
    UserAdd {
        /// Its name.
        name: String,
        /// `None`: it cannot log in with a password, only with a certificate.
        password: Option<PasswordHash>,
    },
    /// A user that there is no more.
    UserDelete {
        /// Its name.
        name: String,
    },
    /// Another password. Tokens of the user end.
    UserPassword {
        /// The name of the user.
        name: String,
        /// `None`: none that could be read. A user without password stays one.
        password: Option<PasswordHash>,
    },
    /// A user gets a role. The role `root`, which may do everything, need not be there.
    UserGrant {
        /// The name of the user.
        name: String,
        /// The name of the role.
        role: String,
    },
    /// A user loses a role.
    UserRevoke {
        /// The name of the user.
        name: String,
        /// The name of the role.
        role: String,
    },
    /// A new role.
    RoleAdd {
        /// Its name.
        name: String,
    },
    /// A role that there is no more; users lose it.
    RoleDelete {
        /// Its name.
        name: String,
    },
    /// A role gets a permission. One for the same keys may be replaced: as in etcd.
    RoleGrant {
        /// The name of the role.
        role: String,
        /// What it may do from now on.
        permission: Permission,
    },
    /// A role loses its permissions for some keys.
    RoleRevoke {
        /// The name of the role.
        role: String,
        /// The first key, as it was granted.
        key: Bytes,
        /// The end of the range, as it was granted.
        range_end: Bytes,
    },
}

/// What a role may do with some keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The first key.
    pub key: Bytes,
    /// The first key behind them; empty: one key; a zero byte: there is no end.
    pub range_end: Bytes,
    /// What may be done with them.
    pub access: Access,
}

impl Permission {
    /// The keys. `None`: there are none.
    pub(super) fn keys(&self) -> Option<KeyRange> {
        let (key, end) = (self.key.clone(), self.range_end.clone());
        if key.is_empty() {
            return None;
        }
        match end.as_ref() {
            [] => Some(KeyRange::One(key)),
            [0] => Some(KeyRange::From(key)),
            _ => (key < end).then_some(KeyRange::Between(key, end)),
        }
    }
}

/// What may be done with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Access {
    /// They may be read and watched.
    Read = 0,
    /// They may be written and deleted.
    Write = 1,
    /// Both.
    ReadWrite = 2,
}

impl Access {
    /// By its number, which is that of etcd.
    pub fn of(number: u8) -> Option<Self> {
        [Self::Read, Self::Write, Self::ReadWrite].into_iter().find(|access| *access as u8 == number)
    }

    pub(super) fn reads(self) -> bool {
        self != Self::Write
    }

    pub(super) fn writes(self) -> bool {
        self != Self::Read
    }
}

/// A password as it is kept: what it is checked with, in a form that the engine does not know. It is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub Bytes);

impl PasswordHash {
    /// The longest, in bytes: several times that of bcrypt.
    pub const MAX_BYTES: usize = 256;
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

/// What the tokens of users are signed with. All replicas have the same, so a token is good on each of them. It is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret(pub [u8; 32]);

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(..)")
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name of the user; empty: nobody.
    pub user: String,
    /// The revision of the users and roles when that was found out; 0: nobody. What was decided with an older one is refused.
    pub revision: u64,
}

impl Identity {
    /// Nobody: whoever has said nothing of itself.
    pub const NOBODY: Self = Self { user: String::new(), revision: 0 };
}
