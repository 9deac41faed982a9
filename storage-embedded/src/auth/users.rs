//! The table of users and roles, and how changes change it.

use std::{collections::BTreeSet, sync::Arc};

use bytes::BufMut;
use imbl::OrdMap;
use storage_core::Key;

use super::{
    change::{AuthChange, PasswordHash, Permission, TokenSecret},
    encoding::{names, password, permission, put_names, put_password, put_permission, put_secret, secret},
};
use crate::{
    codec::{DecodeError, Decoded, Reader, boolean, put_bytes, put_length},
    keys::{Digest, Table, begin, hash_bytes, own},
    mvcc::{Denied, Intervals},
};

/// How many users there may be.
pub const MAX_USERS: usize = 4096;

/// How many roles there may be.
pub const MAX_ROLES: usize = 4096;

/// How many permissions all roles together may have.
pub const MAX_PERMISSIONS: usize = 16_384;

/// How many roles and permissions of roles all users together may have: a change of a role is carried over to each of its users, in
/// some 30 ms at the most.
pub const MAX_MERGED: usize = 65_536;

/// The longest name of a user or role, and the longest end of a range, in bytes: that of a key.
pub const MAX_NAME_BYTES: usize = Key::MAX_BYTES;

/// The name of the user that there has to be, and of the role that may do everything.
pub(super) const ROOT: &str = "root";

/// The users and roles. A clone costs next to nothing.
#[derive(Clone, Debug)]
pub(crate) struct AuthTable {
    enabled: bool,
    /// It rises with every change but the one that enables; at first it is 1.
    revision: u64,
    /// While users are asked for.
    secret: Option<TokenSecret>,
    users: OrdMap<String, User>,
    roles: OrdMap<String, Arc<Vec<Permission>>>,
    /// How many permissions the roles have.
    permissions: usize,
    /// What counts against [`MAX_MERGED`].
    merged: usize,
    digest: Digest,
}

/// A user.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) password: Option<PasswordHash>,
    /// The revision in which its password was set: tokens are good for this one alone.
    pub(crate) since: u64,
    pub(crate) roles: BTreeSet<String>,
    /// What its roles allow.
    pub(super) permitted: Arc<Permitted>,
    merged: usize,
}

/// The keys that a user may read and write.
#[derive(Debug, Default)]
pub(super) struct Permitted {
    pub(super) reads: Intervals,
    pub(super) writes: Intervals,
}

impl Default for AuthTable {
    fn default() -> Self {
        let (users, roles, digest) = Default::default();
        Self { enabled: false, revision: 1, secret: None, users, roles, permissions: 0, merged: 0, digest }
    }
}

/// Reading.
impl AuthTable {
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn secret(&self) -> Option<&TokenSecret> {
        self.secret.as_ref()
    }

    pub(crate) fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    pub(crate) fn role(&self, name: &str) -> Option<&[Permission]> {
        self.roles.get(name).map(|permissions| permissions.as_slice())
    }

    pub(crate) fn users(&self) -> impl Iterator<Item = &String> {
        self.users.keys()
    }

    pub(crate) fn roles(&self) -> impl Iterator<Item = &String> {
        self.roles.keys()
    }

    /// The hash of everything in the table: nothing as long as it was never changed.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }
}

/// Changing.
impl AuthTable {
    /// Carries out a change, or nothing of it.
    pub(crate) fn change(&mut self, change: &AuthChange) -> Result<(), Denied> {
        match change {
            AuthChange::Enable { secret } => self.enable(secret),
            AuthChange::Disable => {
                if self.enabled {
                    let before = self.header_digest();
                    self.enabled = false;
                    self.secret = None;
                    self.replace_header(before);
                    self.next_revision();
                }
                Ok(())
            }
            AuthChange::UserAdd { name, password } => self.add_user(name, password.as_ref()),
            AuthChange::UserDelete { name } => {
                if self.enabled && name == ROOT {
                    return Err(Denied::InvalidManagement);
                }
                self.take_user(name).ok_or(Denied::UserNotFound)?;
                self.next_revision();
                Ok(())
            }
            AuthChange::UserPassword { name, password } => self.set_password(name, password.as_ref()),
            AuthChange::UserGrant { name, role } => self.grant_role(name, role),
            AuthChange::UserRevoke { name, role } => {
                if self.enabled && name == ROOT && role == ROOT {
                    return Err(Denied::InvalidManagement);
                }
                let mut user = self.users.get(name).cloned().ok_or(Denied::UserNotFound)?;
                if !user.roles.remove(role) {
                    return Err(Denied::RoleNotGranted);
                }
                self.put_user(name, user);
                self.next_revision();
                Ok(())
            }
            AuthChange::RoleAdd { name } => self.add_role(name),
            AuthChange::RoleDelete { name } => self.delete_role(name),
            AuthChange::RoleGrant { role, permission } => self.grant_permission(role, permission),
            AuthChange::RoleRevoke { role, key, range_end } => {
                let before = self.roles.get(role).ok_or(Denied::RoleNotFound)?;
                let kept = before.iter().filter(|one| one.key != key || one.range_end != range_end);
                let kept: Vec<_> = kept.cloned().collect();
                if kept.len() == before.len() {
                    return Err(Denied::PermissionNotGranted);
                }
                self.put_role(role, kept);
                self.refresh(role);
                self.next_revision();
                Ok(())
            }
        }
    }

    fn enable(&mut self, secret: &TokenSecret) -> Result<(), Denied> {
        if self.enabled {
            return Ok(());
        }
        let root = self.users.get(ROOT).ok_or(Denied::NoRootUser)?;
        if !root.is_root() {
            return Err(Denied::NoRootRole);
        }
        let before = self.header_digest();
        self.enabled = true;
        self.secret = Some(secret.clone());
        self.replace_header(before);
        Ok(())
    }

    fn add_user(&mut self, name: &String, password: Option<&PasswordHash>) -> Result<(), Denied> {
        if name.is_empty() {
            return Err(Denied::UserEmpty);
        }
        if self.users.contains_key(name) {
            return Err(Denied::UserExists);
        }
        if self.users.len() >= MAX_USERS || name.len() > MAX_NAME_BYTES {
            return Err(Denied::TooMany);
        }
        let password = password.map(kept).transpose()?;
        self.put_user(name, User::new(password, self.revision + 1, BTreeSet::new()));
        self.next_revision();
        Ok(())
    }

    fn set_password(&mut self, name: &String, password: Option<&PasswordHash>) -> Result<(), Denied> {
        let mut user = self.users.get(name).cloned().ok_or(Denied::UserNotFound)?;
        if user.password.is_some() {
            user.password = Some(kept(password.ok_or(Denied::NoPassword)?)?);
        }
        user.since = self.revision + 1;
        self.put_user(name, user);
        self.next_revision();
        Ok(())
    }

    fn grant_role(&mut self, name: &String, role: &String) -> Result<(), Denied> {
        let mut user = self.users.get(name).cloned().ok_or(Denied::UserNotFound)?;
        if role != ROOT && !self.roles.contains_key(role) {
            return Err(Denied::RoleNotFound);
        }
        if user.roles.contains(role) {
            return Ok(());
        }
        if self.merged + self.weight(role) > MAX_MERGED {
            return Err(Denied::TooMany);
        }
        user.roles.insert(role.clone());
        self.put_user(name, user);
        self.next_revision();
        Ok(())
    }

    fn add_role(&mut self, name: &String) -> Result<(), Denied> {
        if name.is_empty() {
            return Err(Denied::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(Denied::RoleExists);
        }
        if self.roles.len() >= MAX_ROLES || name.len() > MAX_NAME_BYTES {
            return Err(Denied::TooMany);
        }
        self.put_role(name, Vec::new());
        self.next_revision();
        Ok(())
    }

    fn delete_role(&mut self, name: &String) -> Result<(), Denied> {
        if self.enabled && name == ROOT {
            return Err(Denied::InvalidManagement);
        }
        let permissions = self.roles.remove(name).ok_or(Denied::RoleNotFound)?;
        self.permissions -= permissions.len();
        self.digest.remove(role_digest(name, &permissions));
        for holder in self.holders(name) {
            if let Some(mut user) = self.users.get(&holder).cloned() {
                user.roles.remove(name);
                self.put_user(&holder, user);
            }
        }
        self.next_revision();
        Ok(())
    }

    fn grant_permission(&mut self, role: &String, granted: &Permission) -> Result<(), Denied> {
        if granted.keys().is_none() || granted.key.len().max(granted.range_end.len()) > MAX_NAME_BYTES {
            return Err(Denied::InvalidManagement);
        }
        let mut permissions = self.roles.get(role).ok_or(Denied::RoleNotFound)?.to_vec();
        // As etcd does it: of those with the same first key, only the first one is replaced. So one can be granted twice.
        let place = permissions.partition_point(|one| one.key < granted.key);
        match permissions.get_mut(place) {
            Some(one) if one.key == granted.key && one.range_end == granted.range_end => one.access = granted.access,
            _ => {
                if self.permissions >= MAX_PERMISSIONS || self.merged + self.holders(role).len() > MAX_MERGED {
                    return Err(Denied::TooMany);
                }
                let (key, range_end) = (own(&granted.key), own(&granted.range_end));
                permissions.push(Permission { key, range_end, access: granted.access });
                permissions.sort_by(|one, other| one.key.cmp(&other.key));
            }
        }
        self.put_role(role, permissions);
        self.refresh(role);
        self.next_revision();
        Ok(())
    }

    fn next_revision(&mut self) {
        let before = self.header_digest();
        self.revision += 1;
        self.replace_header(before);
    }

    /// Takes the header into the hash, which had `before` of it.
    fn replace_header(&mut self, before: u64) {
        self.digest.remove(before);
        self.digest.add(self.header_digest());
    }

    /// The users that have a role.
    fn holders(&self, role: &str) -> Vec<String> {
        let holders = self.users.iter().filter(|(_, user)| user.roles.contains(role));
        holders.map(|(name, _)| name.clone()).collect()
    }

    /// What a role counts against [`MAX_MERGED`].
    fn weight(&self, role: &str) -> usize {
        1 + self.roles.get(role).map_or(0, |permissions| permissions.len())
    }

    /// Carries a change of a role over to its users.
    fn refresh(&mut self, role: &str) {
        for holder in self.holders(role) {
            if let Some(user) = self.users.get(&holder).cloned() {
                self.put_user(&holder, user);
            }
        }
    }

    /// Puts in a user, with what its roles allow.
    fn put_user(&mut self, name: &String, mut user: User) {
        self.take_user(name);
        user.merged = user.roles.iter().map(|role| self.weight(role)).sum();
        user.permitted = Arc::new(self.permitted(&user.roles));
        self.merged += user.merged;
        self.digest.add(user_digest(name, &user));
        self.users.insert(name.clone(), user);
    }

    fn take_user(&mut self, name: &String) -> Option<User> {
        let user = self.users.remove(name)?;
        self.merged -= user.merged;
        self.digest.remove(user_digest(name, &user));
        Some(user)
    }

    fn permitted(&self, roles: &BTreeSet<String>) -> Permitted {
        let mut permitted = Permitted::default();
        let permissions =
            roles.iter().filter_map(|role| self.roles.get(role)).flat_map(|permissions| permissions.iter());
        for permission in permissions {
            let Some(keys) = permission.keys() else { continue };
            if permission.access.reads() {
                permitted.reads.insert(keys.clone());
            }
            if permission.access.writes() {
                permitted.writes.insert(keys);
            }
        }
        permitted
    }

    fn put_role(&mut self, name: &str, permissions: Vec<Permission>) {
        self.digest.add(role_digest(name, &permissions));
        self.permissions += permissions.len();
        if let Some(before) = self.roles.insert(name.to_owned(), Arc::new(permissions)) {
            self.permissions -= before.len();
            self.digest.remove(role_digest(name, &before));
        }
    }
}

impl User {
    fn new(password: Option<PasswordHash>, since: u64, roles: BTreeSet<String>) -> Self {
        Self { password, since, roles, permitted: Arc::default(), merged: 0 }
    }

    /// Whether it may do everything.
    pub(crate) fn is_root(&self) -> bool {
        self.roles.contains(ROOT)
    }
}

/// In memory of its own.
fn kept(PasswordHash(hash): &PasswordHash) -> Result<PasswordHash, Denied> {
    if hash.len() > PasswordHash::MAX_BYTES { Err(Denied::NoPassword) } else { Ok(PasswordHash(own(hash))) }
}

/// The table as bytes: what a snapshot has of it, and what counts in the hash of the state.
impl AuthTable {
    /// Whether it was ever changed.
    pub(crate) fn is_new(&self) -> bool {
        self.revision == 1
    }

    pub(crate) fn put_header(&self, out: &mut Vec<u8>) {
        out.put_u8(self.enabled.into());
        out.put_u64_le(self.revision);
        out.put_u8(self.secret.is_some().into());
        if let Some(secret) = &self.secret {
            put_secret(out, secret);
        }
    }

    pub(crate) fn put_each_role<E>(
        &self,
        mut put: impl FnMut(&dyn Fn(&mut Vec<u8>)) -> Result<(), E>,
    ) -> Result<(), E> {
        self.roles.iter().try_for_each(|(name, permissions)| put(&|out| put_role(out, name, permissions)))
    }

    pub(crate) fn put_each_user<E>(
        &self,
        mut put: impl FnMut(&dyn Fn(&mut Vec<u8>)) -> Result<(), E>,
    ) -> Result<(), E> {
        self.users.iter().try_for_each(|(name, user)| put(&|out| put_user(out, name, user)))
    }

    /// The reverse of [`AuthTable::put_header`], for a table to which nothing was done.
    ///
    /// # Errors
    /// For what contradicts itself or what is there. So for the others, which are put in behind it: first the roles, then the users.
    pub(crate) fn restore_header(&mut self, reader: &mut Reader) -> Decoded<()> {
        let (enabled, revision) = (boolean(reader)?, reader.u64()?);
        let secret = if boolean(reader)? { Some(secret(reader)?) } else { None };
        if !self.is_new() || revision <= 1 || secret.is_some() != enabled {
            return Err(DecodeError("a table of users that contradicts itself"));
        }
        (self.enabled, self.revision, self.secret) = (enabled, revision, secret);
        self.digest.add(self.header_digest());
        Ok(())
    }

    /// Puts in a role.
    pub(crate) fn restore_role(&mut self, reader: &mut Reader) -> Decoded<()> {
        let name = reader.string()?;
        let permissions = (0..reader.length()?).map(|_| {
            let Permission { key, range_end, access } = permission(reader)?;
            Ok(Permission { key: own(&key), range_end: own(&range_end), access })
        });
        let permissions: Vec<_> = permissions.collect::<Decoded<_>>()?;
        if self.roles.contains_key(&name) || !self.users.is_empty() {
            return Err(DecodeError("a role that stands there twice, or behind the users"));
        }
        self.put_role(&name, permissions);
        Ok(())
    }

    /// Puts in a user.
    pub(crate) fn restore_user(&mut self, reader: &mut Reader) -> Decoded<()> {
        let name = reader.string()?;
        let password = password(reader)?.map(|PasswordHash(hash)| PasswordHash(own(&hash)));
        let user = User::new(password, reader.u64()?, names(reader)?);
        if self.users.contains_key(&name) {
            return Err(DecodeError("a user that stands there twice"));
        }
        self.put_user(&name, user);
        Ok(())
    }

    /// Nothing, as long as the table was never changed: states without users have the hash that they always had.
    fn header_digest(&self) -> u64 {
        if self.is_new() {
            return 0;
        }
        let mut bytes = Vec::new();
        self.put_header(&mut bytes);
        hash_bytes(begin(Table::Auth), &bytes)
    }
}

fn put_role(out: &mut Vec<u8>, name: &str, permissions: &[Permission]) {
    put_bytes(out, name.as_bytes());
    put_length(out, permissions.len());
    permissions.iter().for_each(|permission| put_permission(out, permission));
}

fn put_user(out: &mut Vec<u8>, name: &str, user: &User) {
    put_bytes(out, name.as_bytes());
    put_password(out, user.password.as_ref());
    out.put_u64_le(user.since);
    put_names(out, &user.roles);
}

fn role_digest(name: &str, permissions: &[Permission]) -> u64 {
    let mut bytes = Vec::new();
    put_role(&mut bytes, name, permissions);
    hash_bytes(begin(Table::Role), &bytes)
}

fn user_digest(name: &str, user: &User) -> u64 {
    let mut bytes = Vec::new();
    put_user(&mut bytes, name, user);
    hash_bytes(begin(Table::User), &bytes)
}
