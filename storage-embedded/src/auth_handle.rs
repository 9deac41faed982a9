//! Users and roles through a node: what the server of etcd's API asks and changes.
//!
//! Whether somebody may do something is decided where it is applied, by each replica, and not here.

use std::time::Duration;

use crate::{
    auth::{AuthChange, AuthTable, Identity, PasswordHash, Permission, TokenSecret},
    command::{Applied, Command, Rejection},
    mvcc::{Denied, Result},
    node::Node,
};

/// The users and roles of a cluster's clients, through a node of it.
///
/// Who holds it holds the node, and may do everything: it is for whoever serves clients to find out who asks, and to say so ([`Auth::by`]).
/// What is read is as new as this replica; wait for [`Mvcc::barrier`](crate::Mvcc::barrier) first.
///
/// There may be [`MAX_USERS`](crate::MAX_USERS), [`MAX_ROLES`](crate::MAX_ROLES), [`MAX_PERMISSIONS`](crate::MAX_PERMISSIONS) and
/// [`MAX_MERGED`](crate::MAX_MERGED) permissions by way of roles; names have up to [`MAX_NAME_BYTES`](crate::MAX_NAME_BYTES).
#[derive(Clone, Debug)]
pub struct Auth {
    node: Node,
    who: Option<Identity>,
}

/// Whether users are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthStatus {
    /// Whether requests need a user.
    pub enabled: bool,
    /// It rises with each change of users and roles; at first it is 1.
    pub revision: u64,
}

/// What a user logs in with, and what its tokens are made of.
#[derive(Clone, Debug)]
pub struct Login {
    /// `None`: it cannot log in with a password.
    pub password: Option<PasswordHash>,
    /// The revision in which its password was set. A token for another one is good no more.
    pub since: u64,
    /// What tokens are signed with.
    pub secret: TokenSecret,
}

impl Node {
    /// The users and roles of clients.
    pub fn auth(&self) -> Auth {
        Auth { node: self.clone(), who: None }
    }
}

impl Auth {
    /// The same for a client, which may do what it is allowed to.
    #[must_use]
    pub fn by(&self, who: Identity) -> Self {
        Self { node: self.node.clone(), who: Some(who) }
    }

    /// Whether users are asked for.
    pub fn status(&self) -> AuthStatus {
        self.look(|table| AuthStatus { enabled: table.is_enabled(), revision: table.revision() })
    }

    /// What a user logs in with; the outer `None`: users are not asked for; the inner: there is no such user.
    pub fn login(&self, user: &str) -> Option<Option<Login>> {
        self.look(|table| {
            let secret = table.secret()?;
            Some(table.user(user).map(|user| Login {
                password: user.password.clone(),
                since: user.since,
                secret: secret.clone(),
            }))
        })
    }

    /// That the client is `root`, or has its role; or that users are not asked for.
    ///
    /// # Errors
    /// Why it is not.
    pub fn check_root(&self) -> Result<(), Denied> {
        self.check(|table, who| table.check_root(who))
    }

    /// That the client has said who it is; or that users are not asked for.
    ///
    /// # Errors
    /// [`Denied::UserEmpty`].
    pub fn check_somebody(&self) -> Result<(), Denied> {
        self.check(|table, who| table.check_somebody(who))
    }

    /// The names of the users, in order.
    ///
    /// # Errors
    /// Why the client may not know.
    pub fn users(&self) -> Result<Vec<String>, Denied> {
        self.check_root()?;
        Ok(self.look(|table| table.users().cloned().collect()))
    }

    /// The names of the roles, in order.
    ///
    /// # Errors
    /// Why the client may not know.
    pub fn roles(&self) -> Result<Vec<String>, Denied> {
        self.check_root()?;
        Ok(self.look(|table| table.roles().cloned().collect()))
    }

    /// The roles of a user, in order.
    ///
    /// # Errors
    /// [`Denied::UserNotFound`]; why the client may not know.
    pub fn user_roles(&self, user: &str) -> Result<Vec<String>, Denied> {
        self.check(|table, who| table.check_user(who, user))?;
        self.look(|table| table.user(user).map(|user| user.roles.iter().cloned().collect())).ok_or(Denied::UserNotFound)
    }

    /// The permissions of a role, in the order of their keys.
    ///
    /// # Errors
    /// [`Denied::RoleNotFound`]; why the client may not know.
    pub fn permissions(&self, role: &str) -> Result<Vec<Permission>, Denied> {
        self.check(|table, who| table.check_role(who, role))?;
        self.look(|table| table.role(role).map(<[_]>::to_vec)).ok_or(Denied::RoleNotFound)
    }

    /// Changes users or roles.
    ///
    /// # Errors
    /// [`MvccError::Denied`](crate::mvcc::MvccError::Denied); those of the contract.
    ///
    /// # Cancel safety
    /// Dropped, it may have been carried out or not.
    pub async fn change(&self, change: AuthChange, timeout: Duration) -> Result<()> {
        let command = Command::Auth(change);
        let command = match self.who.clone() {
            Some(who) => Command::By { who, command: Box::new(command) },
            None => command,
        };
        match self.node.apply_once(&command, timeout).await? {
            Applied::Rejected(Rejection::Denied(denied)) => Err(denied.into()),
            Applied::Rejected(rejection) => Err(rejection.into()),
            _ => Ok(()),
        }
    }

    fn check(&self, check: impl FnOnce(&AuthTable, &Identity) -> Result<(), Denied>) -> Result<(), Denied> {
        self.who.as_ref().map_or(Ok(()), |who| self.look(|table| check(table, who)))
    }

    fn look<T>(&self, look: impl FnOnce(&AuthTable) -> T) -> T {
        self.node.state().read(|replica| look(&replica.state.tables().auth))
    }
}
