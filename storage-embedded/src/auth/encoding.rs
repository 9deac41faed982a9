//! Changes of users and roles as bytes, and the users and roles themselves: canonical, as everything that the log carries.

use std::collections::BTreeSet;

use bytes::BufMut;

use super::change::{Access, AuthChange, Identity, PasswordHash, Permission, TokenSecret};
use crate::codec::{DecodeError, Decoded, Reader, boolean, put_bytes, put_length};

pub(crate) fn put_identity(out: &mut Vec<u8>, Identity { user, revision }: &Identity) {
    put_bytes(out, user.as_bytes());
    out.put_u64_le(*revision);
}

pub(crate) fn identity(reader: &mut Reader) -> Decoded<Identity> {
    Ok(Identity { user: reader.string()?, revision: reader.u64()? })
}

/// The kinds of changes. Numbers are never used again for something else.
mod kind {
    pub(super) const ENABLE: u8 = 1;
    pub(super) const DISABLE: u8 = 2;
    pub(super) const USER_ADD: u8 = 3;
    pub(super) const USER_DELETE: u8 = 4;
    pub(super) const USER_PASSWORD: u8 = 5;
    pub(super) const USER_GRANT: u8 = 6;
    pub(super) const USER_REVOKE: u8 = 7;
    pub(super) const ROLE_ADD: u8 = 8;
    pub(super) const ROLE_DELETE: u8 = 9;
    pub(super) const ROLE_GRANT: u8 = 10;
    pub(super) const ROLE_REVOKE: u8 = 11;
}

pub(crate) fn put_auth_change(out: &mut Vec<u8>, change: &AuthChange) {
    let mut texts = |kind: u8, texts: &[&String]| {
        out.put_u8(kind);
        texts.iter().for_each(|text| put_bytes(out, text.as_bytes()));
    };
    match change {
        AuthChange::Enable { secret } => {
            texts(kind::ENABLE, &[]);
            out.put_slice(&secret.0);
        }
        AuthChange::Disable => texts(kind::DISABLE, &[]),
        AuthChange::UserAdd { name, password } => {
            texts(kind::USER_ADD, &[name]);
            put_password(out, password.as_ref());
        }
        AuthChange::UserDelete { name } => texts(kind::USER_DELETE, &[name]),
        AuthChange::UserPassword { name, password } => {
            texts(kind::USER_PASSWORD, &[name]);
            put_password(out, password.as_ref());
        }
        AuthChange::UserGrant { name, role } => texts(kind::USER_GRANT, &[name, role]),
        AuthChange::UserRevoke { name, role } => texts(kind::USER_REVOKE, &[name, role]),
        AuthChange::RoleAdd { name } => texts(kind::ROLE_ADD, &[name]),
        AuthChange::RoleDelete { name } => texts(kind::ROLE_DELETE, &[name]),
        AuthChange::RoleGrant { role, permission } => {
            texts(kind::ROLE_GRANT, &[role]);
            put_permission(out, permission);
        }
        AuthChange::RoleRevoke { role, key, range_end } => {
            texts(kind::ROLE_REVOKE, &[role]);
            put_bytes(out, key);
            put_bytes(out, range_end);
        }
    }
}

pub(crate) fn auth_change(reader: &mut Reader) -> Decoded<AuthChange> {
    Ok(match reader.u8()? {
        kind::ENABLE => AuthChange::Enable { secret: secret(reader)? },
        kind::DISABLE => AuthChange::Disable,
        kind::USER_ADD => AuthChange::UserAdd { name: reader.string()?, password: password(reader)? },
        kind::USER_DELETE => AuthChange::UserDelete { name: reader.string()? },
        kind::USER_PASSWORD => AuthChange::UserPassword { name: reader.string()?, password: password(reader)? },
        kind::USER_GRANT => AuthChange::UserGrant { name: reader.string()?, role: reader.string()? },
        kind::USER_REVOKE => AuthChange::UserRevoke { name: reader.string()?, role: reader.string()? },
        kind::ROLE_ADD => AuthChange::RoleAdd { name: reader.string()? },
        kind::ROLE_DELETE => AuthChange::RoleDelete { name: reader.string()? },
        kind::ROLE_GRANT => AuthChange::RoleGrant { role: reader.string()?, permission: permission(reader)? },
        kind::ROLE_REVOKE => {
            AuthChange::RoleRevoke { role: reader.string()?, key: reader.bytes()?, range_end: reader.bytes()? }
        }
        _ => return Err(DecodeError("a change of users of an unknown kind")),
    })
}

pub(super) fn put_secret(out: &mut Vec<u8>, secret: &TokenSecret) {
    out.put_slice(&secret.0);
}

pub(super) fn secret(reader: &mut Reader) -> Decoded<TokenSecret> {
    let mut secret = TokenSecret([0; 32]);
    for part in secret.0.chunks_exact_mut(8) {
        part.copy_from_slice(&reader.u64()?.to_le_bytes());
    }
    Ok(secret)
}

pub(super) fn put_password(out: &mut Vec<u8>, password: Option<&PasswordHash>) {
    out.put_u8(password.is_some().into());
    if let Some(PasswordHash(hash)) = password {
        put_bytes(out, hash);
    }
}

pub(super) fn password(reader: &mut Reader) -> Decoded<Option<PasswordHash>> {
    if boolean(reader)? { Ok(Some(PasswordHash(reader.bytes()?))) } else { Ok(None) }
}

pub(super) fn put_permission(out: &mut Vec<u8>, Permission { key, range_end, access }: &Permission) {
    put_bytes(out, key);
    put_bytes(out, range_end);
    out.put_u8(*access as u8);
}

pub(super) fn permission(reader: &mut Reader) -> Decoded<Permission> {
    let (key, range_end) = (reader.bytes()?, reader.bytes()?);
    let access = Access::of(reader.u8()?).ok_or(DecodeError("a permission of an unknown kind"))?;
    Ok(Permission { key, range_end, access })
}

pub(super) fn put_names(out: &mut Vec<u8>, names: &BTreeSet<String>) {
    put_length(out, names.len());
    names.iter().for_each(|name| put_bytes(out, name.as_bytes()));
}

pub(super) fn names(reader: &mut Reader) -> Decoded<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for _ in 0..reader.length()? {
        let name = reader.string()?;
        if names.last().is_some_and(|last| *last >= name) {
            return Err(DecodeError("names that are not in their order"));
        }
        names.insert(name);
    }
    Ok(names)
}
