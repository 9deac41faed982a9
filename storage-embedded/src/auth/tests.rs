//! The table of users and roles, by itself.

use bytes::Bytes;

use super::*;
use crate::{
    codec::Reader,
    mvcc::{Denied, KeyRange},
};

fn permission(key: &'static str, range_end: &'static str, access: Access) -> Permission {
    Permission { key: key.into(), range_end: range_end.into(), access }
}

fn hash() -> Option<PasswordHash> {
    Some(PasswordHash("hash".into()))
}

fn user(name: &str) -> AuthChange {
    AuthChange::UserAdd { name: name.into(), password: hash() }
}

fn role(name: &str) -> AuthChange {
    AuthChange::RoleAdd { name: name.into() }
}

fn grant(name: &str, role: &str) -> AuthChange {
    AuthChange::UserGrant { name: name.into(), role: role.into() }
}

fn allow(role: &str, permission: Permission) -> AuthChange {
    AuthChange::RoleGrant { role: role.into(), permission }
}

fn enable() -> AuthChange {
    AuthChange::Enable { secret: TokenSecret([7; 32]) }
}

fn table(changes: impl IntoIterator<Item = AuthChange>) -> AuthTable {
    let mut table = AuthTable::default();
    for change in changes {
        table.change(&change).unwrap_or_else(|denied| panic!("{change:?}: {denied}"));
    }
    table
}

/// Users `root` and `alice`, whose role may read `a` and `b` to `d`, and write `c`.
fn sample() -> AuthTable {
    table([
        user("root"),
        grant("root", "root"),
        user("alice"),
        role("reader"),
        grant("alice", "reader"),
        allow("reader", permission("a", "", Access::Read)),
        allow("reader", permission("b", "c", Access::Read)),
        allow("reader", permission("c", "d", Access::ReadWrite)),
        enable(),
    ])
}

fn who(user: &str, table: &AuthTable) -> Identity {
    Identity { user: user.into(), revision: table.revision() }
}

/// What a snapshot makes of it.
fn restored(table: &AuthTable) -> AuthTable {
    let (mut header, mut items) = (Vec::new(), Vec::new());
    table.put_header(&mut header);
    let _ = table.put_each_role(|put| {
        put(&mut items);
        Ok::<_, ()>(())
    });
    let roles = items.len();
    let _ = table.put_each_user(|put| {
        put(&mut items);
        Ok::<_, ()>(())
    });
    let mut found = AuthTable::default();
    found.restore_header(&mut Reader::new(header.into())).unwrap();
    let items = Bytes::from(items);
    let (mut of_roles, mut of_users) = (Reader::new(items.slice(..roles)), Reader::new(items.slice(roles..)));
    while !of_roles.is_empty() {
        found.restore_role(&mut of_roles).unwrap();
    }
    while !of_users.is_empty() {
        found.restore_user(&mut of_users).unwrap();
    }
    found
}

#[test]
fn a_range_is_allowed_by_all_roles_together() {
    let table = sample();
    let alice = who("alice", &table);
    let between = |first: &'static str, end: &'static str| KeyRange::Between(first.into(), end.into());
    for (keys, reads) in [
        (KeyRange::One("a".into()), true),
        (KeyRange::One("aa".into()), false),
        (between("b", "d"), true),
        (between("bb", "cc"), true),
        (between("a", "d"), false),
        (between("b", "e"), false),
        (KeyRange::From("b".into()), false),
        (KeyRange::One("d".into()), false),
    ] {
        assert_eq!(table.check_read(&alice, &keys).is_ok(), reads, "{keys:?}");
    }
    assert_eq!(table.check_read(&Identity::NOBODY, &KeyRange::One("a".into())), Err(Denied::UserEmpty));
    assert_eq!(table.check_read(&who("bob", &table), &KeyRange::One("a".into())), Err(Denied::PermissionDenied));
    assert_eq!(table.check_read(&who("root", &table), &KeyRange::From("\0".into())), Ok(()));
}

#[test]
fn what_was_decided_before_a_change_is_refused() {
    let mut table = sample();
    let alice = who("alice", &table);
    table.change(&role("other")).unwrap();
    assert_eq!(table.check_read(&alice, &KeyRange::One("a".into())), Err(Denied::OldRevision));
}

#[test]
fn whoever_has_a_role_has_what_it_loses_no_more() {
    let mut table = sample();
    let reads_b = |table: &AuthTable| table.check_read(&who("alice", table), &KeyRange::One("b".into())).is_ok();
    assert!(reads_b(&table));
    let revoke = AuthChange::RoleRevoke { role: "reader".into(), key: "b".into(), range_end: "c".into() };
    table.change(&revoke).unwrap();
    assert!(!reads_b(&table));
    table.change(&allow("reader", permission("\0", "\0", Access::Read))).unwrap();
    assert!(reads_b(&table));
    table.change(&AuthChange::RoleDelete { name: "reader".into() }).unwrap();
    assert!(!reads_b(&table));
}

#[test]
fn a_refused_change_changes_nothing() {
    let mut table = sample();
    let (revision, digest) = (table.revision(), table.digest());
    for (change, denied) in [
        (user(""), Denied::UserEmpty),
        (user("alice"), Denied::UserExists),
        (role(""), Denied::RoleEmpty),
        (role("reader"), Denied::RoleExists),
        (grant("bob", "reader"), Denied::UserNotFound),
        (grant("alice", "writer"), Denied::RoleNotFound),
        (allow("writer", permission("a", "", Access::Read)), Denied::RoleNotFound),
        (allow("reader", permission("b", "a", Access::Read)), Denied::InvalidManagement),
        (allow("reader", permission("", "a", Access::Read)), Denied::InvalidManagement),
        (AuthChange::UserDelete { name: "root".into() }, Denied::InvalidManagement),
        (AuthChange::UserRevoke { name: "root".into(), role: "root".into() }, Denied::InvalidManagement),
        (AuthChange::RoleDelete { name: "root".into() }, Denied::InvalidManagement),
        (AuthChange::UserRevoke { name: "alice".into(), role: "root".into() }, Denied::RoleNotGranted),
        (AuthChange::UserPassword { name: "alice".into(), password: None }, Denied::NoPassword),
        (user(&"n".repeat(MAX_NAME_BYTES + 1)), Denied::TooMany),
    ] {
        assert_eq!(table.change(&change), Err(denied), "{change:?}");
        assert_eq!((table.revision(), table.digest()), (revision, digest), "{change:?}");
    }
    // What is so already is no change either.
    for change in [enable(), grant("alice", "reader")] {
        assert_eq!(table.change(&change), Ok(()));
        assert_eq!((table.revision(), table.digest()), (revision, digest), "{change:?}");
    }
}

#[test]
fn tokens_end_with_the_password_and_when_users_are_not_asked_for() {
    let mut table = sample();
    let since = |table: &AuthTable| table.user("alice").unwrap().since;
    let before = since(&table);
    table.change(&AuthChange::UserPassword { name: "alice".into(), password: hash() }).unwrap();
    let changed = since(&table);
    assert!(changed > before);
    table.change(&AuthChange::UserDelete { name: "alice".into() }).unwrap();
    table.change(&user("alice")).unwrap();
    assert!(since(&table) > changed, "another user of the same name");
    assert!(table.secret().is_some());
    table.change(&AuthChange::Disable).unwrap();
    assert!(table.secret().is_none());
}

#[test]
fn limits_hold_on_the_way_through_roles_too() {
    let mut table = table([role("wide"), user("u0")]);
    let wide = 300;
    for number in 0..wide {
        let key = Bytes::from(format!("{number:04}"));
        let permission = Permission { key, range_end: Bytes::new(), access: Access::Read };
        table.change(&allow("wide", permission)).unwrap();
    }
    let mut refused = None;
    for number in 0.. {
        let name = format!("u{number}");
        if number > 0 {
            table.change(&user(&name)).unwrap();
        }
        if let Err(denied) = table.change(&grant(&name, "wide")) {
            refused = Some((number, denied));
            break;
        }
    }
    let holders = MAX_MERGED / (wide + 1);
    assert_eq!(refused, Some((holders, Denied::TooMany)));
    // Each further permission is one more for each of them.
    let left = (MAX_MERGED - holders * (wide + 1)) / holders;
    let mut more = |number: usize| {
        let key = Bytes::from(format!("z{number}"));
        table.change(&allow("wide", Permission { key, range_end: Bytes::new(), access: Access::Read }))
    };
    assert!((0..left).all(|number| more(number).is_ok()));
    assert_eq!(more(left), Err(Denied::TooMany));
}

#[test]
fn a_snapshot_has_all_of_it() {
    let table = sample();
    let found = restored(&table);
    assert_eq!(found.digest(), table.digest());
    assert_eq!((found.is_enabled(), found.revision(), found.secret()), (true, table.revision(), table.secret()));
    assert!(found.check_read(&who("alice", &found), &KeyRange::One("b".into())).is_ok(), "what roles allow");
    // The digest is one of the whole: whatever is another is noticed.
    let mut other = restored(&table);
    other.change(&AuthChange::UserPassword { name: "alice".into(), password: hash() }).unwrap();
    assert_ne!(other.digest(), table.digest());
}

#[test]
fn a_table_that_was_never_changed_has_no_hash() {
    assert_eq!(AuthTable::default().digest().0, 0);
    assert!(AuthTable::default().is_new() && !sample().is_new());
}

#[test]
fn nothing_secret_is_shown() {
    let shown = format!("{:?} {:?}", sample(), enable());
    assert!(!shown.contains("hash") && !shown.contains("7, 7"), "{shown}");
}
