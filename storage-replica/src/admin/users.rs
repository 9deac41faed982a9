//! Users and roles, as operators look at and change them.

use storage_core::Result;
use storage_etcd_api::proto::{
    authpb::{Permission, UserAddOptions, permission::Type},
    etcdserverpb::{self as pb, auth_client::AuthClient},
};

use super::{Admin, read_error, write_error};

/// Whether the nodes ask for users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsersStatus {
    /// Whether requests need a user.
    pub enabled: bool,
    /// It rises with each change of users and roles.
    pub revision: u64,
}

/// What may be done with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// They may be read and watched.
    Read,
    /// They may be written and deleted.
    Write,
    /// Both.
    ReadWrite,
}

/// The keys of a permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermittedKeys {
    /// The first one.
    pub key: Vec<u8>,
    /// The first one behind them; empty: one key; a zero byte: there is no end.
    pub range_end: Vec<u8>,
}

/// What a role may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPermission {
    /// With which keys.
    pub keys: PermittedKeys,
    /// What; `None`: nothing that this program knows.
    pub access: Option<Access>,
}

impl PermittedKeys {
    /// This key.
    pub fn one(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), range_end: Vec::new() }
    }

    /// The keys with a prefix; all for an empty one.
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        let key: Vec<u8> = prefix.into();
        let mut range_end = key.clone();
        // The next text of that length; behind nothing but the largest bytes there is none.
        while range_end.pop_if(|last| *last == u8::MAX).is_some() {}
        match range_end.last_mut() {
            Some(last) => *last += 1,
            None => range_end.push(0),
        }
        Self { key: if key.is_empty() { vec![0] } else { key }, range_end }
    }

    /// This key and all behind it.
    pub fn from(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), range_end: vec![0] }
    }
}

macro_rules! changes {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ty),*) $call:ident $request:expr;)*) => {
        $($(#[$doc])*
        ///
        /// # Errors
        /// See [`Admin::add`].
        pub async fn $name(&self, $($argument: $kind),*) -> Result<()> {
            let (url, node) = self.first().await?;
            let mut client = AuthClient::new(node);
            let answer = self.ask(client.$call($request)).await;
            answer.map(drop).map_err(|status| write_error(&url, &status))
        })*
    };
}

impl Admin {
    changes! {
        /// Asks for users from now on. There has to be a user `root` with the role `root`.
        enable_users() auth_enable pb::AuthEnableRequest {};
        /// Asks for users no more. They stay.
        disable_users() auth_disable pb::AuthDisableRequest {};
        /// A new user; without a password it is known by a certificate alone.
        add_user(name: &str, password: Option<String>) user_add pb::AuthUserAddRequest {
            name: name.to_owned(),
            options: Some(UserAddOptions { no_password: password.is_none() }),
            password: password.unwrap_or_default(),
            hashed_password: String::new(),
        };
        /// Deletes a user.
        delete_user(name: &str) user_delete pb::AuthUserDeleteRequest { name: name.to_owned() };
        /// Another password for a user, whose tokens end.
        set_password(name: &str, password: String) user_change_password pb::AuthUserChangePasswordRequest {
            name: name.to_owned(),
            password,
            hashed_password: String::new(),
        };
        /// Gives a user a role.
        grant_role(user: &str, role: &str) user_grant_role pb::AuthUserGrantRoleRequest {
            user: user.to_owned(),
            role: role.to_owned(),
        };
        /// Takes a role from a user.
        revoke_role(user: &str, role: &str) user_revoke_role pb::AuthUserRevokeRoleRequest {
            name: user.to_owned(),
            role: role.to_owned(),
        };
        /// A new role.
        add_role(name: &str) role_add pb::AuthRoleAddRequest { name: name.to_owned() };
        /// Deletes a role.
        delete_role(name: &str) role_delete pb::AuthRoleDeleteRequest { role: name.to_owned() };
        /// Lets a role do something with some keys.
        grant_permission(role: &str, keys: PermittedKeys, access: Access) role_grant_permission pb::AuthRoleGrantPermissionRequest {
            name: role.to_owned(),
            perm: Some(Permission {
                perm_type: match access {
                    Access::Read => Type::Read,
                    Access::Write => Type::Write,
                    Access::ReadWrite => Type::Readwrite,
                }
                .into(),
                key: keys.key.into(),
                range_end: keys.range_end.into(),
            }),
        };
        /// Takes from a role what it may do with some keys, as it was granted.
        revoke_permission(role: &str, keys: PermittedKeys) role_revoke_permission pb::AuthRoleRevokePermissionRequest {
            role: role.to_owned(),
            key: keys.key.into(),
            range_end: keys.range_end.into(),
        };
    }

    /// Whether the nodes ask for users.
    ///
    /// # Errors
    /// See [`Admin::members`]. So for the others that only look.
    pub async fn users_status(&self) -> Result<UsersStatus> {
        let (url, node) = self.first().await?;
        let answer = self.ask(AuthClient::new(node).auth_status(pb::AuthStatusRequest {})).await;
        let answer = answer.map_err(|status| read_error(&url, &status))?.into_inner();
        Ok(UsersStatus { enabled: answer.enabled, revision: answer.auth_revision })
    }

    /// The names of the users.
    ///
    /// # Errors
    /// See [`Admin::users_status`].
    pub async fn users(&self) -> Result<Vec<String>> {
        let (url, node) = self.first().await?;
        let answer = self.ask(AuthClient::new(node).user_list(pb::AuthUserListRequest {})).await;
        Ok(answer.map_err(|status| read_error(&url, &status))?.into_inner().users)
    }

    /// The names of the roles.
    ///
    /// # Errors
    /// See [`Admin::users_status`].
    pub async fn roles(&self) -> Result<Vec<String>> {
        let (url, node) = self.first().await?;
        let answer = self.ask(AuthClient::new(node).role_list(pb::AuthRoleListRequest {})).await;
        Ok(answer.map_err(|status| read_error(&url, &status))?.into_inner().roles)
    }

    /// The roles of a user.
    ///
    /// # Errors
    /// See [`Admin::users_status`].
    pub async fn user_roles(&self, name: &str) -> Result<Vec<String>> {
        let (url, node) = self.first().await?;
        let request = pb::AuthUserGetRequest { name: name.to_owned() };
        let answer = self.ask(AuthClient::new(node).user_get(request)).await;
        Ok(answer.map_err(|status| read_error(&url, &status))?.into_inner().roles)
    }

    /// What a role may do.
    ///
    /// # Errors
    /// See [`Admin::users_status`].
    pub async fn permissions(&self, role: &str) -> Result<Vec<KeyPermission>> {
        let (url, node) = self.first().await?;
        let request = pb::AuthRoleGetRequest { role: role.to_owned() };
        let answer = self.ask(AuthClient::new(node).role_get(request)).await;
        let answer = answer.map_err(|status| read_error(&url, &status))?.into_inner();
        Ok(answer.perm.into_iter().map(KeyPermission::from).collect())
    }
}

impl From<Permission> for KeyPermission {
    fn from(permission: Permission) -> Self {
        let access = match Type::try_from(permission.perm_type) {
            Ok(Type::Read) => Some(Access::Read),
            Ok(Type::Write) => Some(Access::Write),
            Ok(Type::Readwrite) => Some(Access::ReadWrite),
            Err(_) => None,
        };
        let keys = PermittedKeys { key: permission.key.into(), range_end: permission.range_end.into() };
        Self { keys, access }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_text_of_its_length() {
        for (prefix, key, range_end) in [
            (&b"a/"[..], &b"a/"[..], &b"a0"[..]),
            (b"a\xff", b"a\xff", b"b"),
            (b"\xff", b"\xff", b"\0"),
            (b"", b"\0", b"\0"),
        ] {
            let expected = PermittedKeys { key: key.to_vec(), range_end: range_end.to_vec() };
            assert_eq!(PermittedKeys::prefix(prefix), expected, "{prefix:?}");
        }
    }
}
