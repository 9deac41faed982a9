//! Whether a request may be carried out is decided where it is applied.

use super::*;
use crate::{
    auth::{Access, AuthChange, Identity, PasswordHash, Permission, TokenSecret},
    mvcc::{Compare, Delete, Denied, KeyRange, Op, Operand, Put, Range, Relation},
};

/// Users `root`, `alice`, who may read `r` and write `w`, and `bob`, who may do nothing.
pub(super) fn changes() -> Vec<AuthChange> {
    let user = |name: &str| AuthChange::UserAdd { name: name.into(), password: Some(PasswordHash("hash".into())) };
    let allow = |key: &'static str, access| AuthChange::RoleGrant {
        role: "some".into(),
        permission: Permission { key: key.into(), range_end: Bytes::new(), access },
    };
    vec![
        user("root"),
        user("alice"),
        AuthChange::UserAdd { name: "bob".into(), password: None },
        AuthChange::RoleAdd { name: "some".into() },
        AuthChange::UserGrant { name: "root".into(), role: "root".into() },
        AuthChange::UserGrant { name: "alice".into(), role: "some".into() },
        allow("r", Access::Read),
        allow("w", Access::Write),
        AuthChange::Enable { secret: TokenSecret([7; 32]) },
    ]
}

fn by(user: &str, revision: u64, command: Command) -> Command {
    Command::By { who: Identity { user: user.into(), revision }, command: Box::new(command) }
}

/// The revision after [`changes`].
const REVISION: u64 = 9;

fn put(name: &str, lease: u64, previous: bool) -> Op {
    Op::Put(Put { key: key(name), value: Some("v".into()), lease: Some(lease), previous })
}

fn one(op: Op) -> Command {
    Command::mvcc(mvcc::Txn::of(op))
}

/// Some by each, allowed and not.
pub(super) fn requests() -> Vec<Command> {
    let commands = || {
        [
            one(put("w", 0, false)),
            one(put("r", 0, false)),
            one(Op::Range(Range::new(KeyRange::One("r".into())))),
            Command::Compact { revision: 2 },
            Command::Auth(AuthChange::RoleAdd { name: "another".into() }),
        ]
    };
    ["alice", "bob", "nobody", "root"].into_iter().flat_map(|user| commands().map(|c| by(user, REVISION, c))).collect()
}

fn applier() -> Applier {
    let mut applier = Applier::default();
    for change in changes() {
        assert_eq!(applier.apply(Command::Auth(change)), Applied::Nothing);
    }
    assert_eq!(applier.state.tables().auth.revision(), REVISION);
    applier
}

fn denied(applied: &Applied) -> Option<Denied> {
    match applied {
        Applied::Rejected(Rejection::Denied(denied)) => Some(*denied),
        _ => None,
    }
}

#[test]
fn each_operation_needs_its_permission() {
    let read = |name: &'static str| Op::Range(Range::new(KeyRange::One(name.into())));
    let delete = |name: &'static str, previous| Op::Delete(Delete { keys: KeyRange::One(name.into()), previous });
    let within = |op: Op| Op::Txn(mvcc::Txn { failure: vec![op], ..mvcc::Txn::default() });
    let compared = |name: &'static str| mvcc::Txn {
        compares: vec![Compare {
            keys: KeyRange::One(name.into()),
            relation: Relation::Equal,
            with: Operand::Version(0),
        }],
        ..mvcc::Txn::default()
    };
    let cases = vec![
        ("a read", one(read("r")), true),
        ("a read of what may be written", one(read("w")), false),
        ("a put", one(put("w", 0, false)), true),
        ("a put of what may be read", one(put("r", 0, false)), false),
        ("a put that tells what was there", one(put("w", 0, true)), false),
        ("a deletion", one(delete("w", false)), true),
        ("a deletion that tells what was there", one(delete("w", true)), false),
        ("a comparison", Command::mvcc(compared("r")), true),
        ("a comparison of what may be written", Command::mvcc(compared("w")), false),
        ("within a transaction, in the branch that is not taken", one(within(put("r", 0, false))), false),
        ("within a transaction", one(within(put("w", 0, false))), true),
        ("a compaction", Command::Compact { revision: 1 }, false),
        ("a change of roles", Command::Auth(AuthChange::RoleAdd { name: "x".into() }), false),
        ("a lease", Command::LeaseGrant { id: 5, ttl_seconds: 9 }, true),
    ];
    for (name, command, allowed) in cases {
        let mut applier = applier();
        let before = (applier.state.tables().digest(), applier.state.tables().keys.revision);
        let applied = applier.apply(by("alice", REVISION, command.clone()));
        let expected = (!allowed).then_some(Denied::PermissionDenied);
        assert_eq!(denied(&applied), expected, "{name}");
        if !allowed {
            let after = (applier.state.tables().digest(), applier.state.tables().keys.revision);
            assert_eq!(after, before, "{name}");
        }
        assert_eq!(denied(&applier.apply(by("root", REVISION, command.clone()))), None, "{name}");
        let nobody = applier.apply(by("", 0, command.clone()));
        assert_eq!(denied(&nobody), Some(Denied::UserEmpty), "{name}");
        // Of the process itself.
        let own = denied(&applier.apply(command)).filter(|denied| *denied != Denied::RoleExists);
        assert_eq!(own, None, "{name}");
    }
}

#[test]
fn what_was_decided_by_an_old_revision_is_refused() {
    let mut applier = applier();
    applier.apply(Command::Auth(AuthChange::RoleAdd { name: "another".into() }));
    let old = applier.apply(by("alice", REVISION, one(put("w", 0, false))));
    assert_eq!(denied(&old), Some(Denied::OldRevision));
    let new = applier.apply(by("alice", REVISION + 1, one(put("w", 0, false))));
    assert_eq!(denied(&new), None);
}

/// Whoever could attach a key to a lease of others could have theirs deleted.
#[test]
fn a_lease_is_for_those_who_may_write_all_its_keys() {
    let mut applier = applier();
    applier.apply(Command::LeaseGrant { id: 5, ttl_seconds: 9 });
    let attach = |applier: &mut Applier| denied(&applier.apply(by("alice", REVISION, one(put("w", 5, false)))));
    assert_eq!(attach(&mut applier), None);
    applier.apply(one(put("x", 5, false)));
    assert_eq!(attach(&mut applier), Some(Denied::PermissionDenied));
    let revoke = |user| by(user, REVISION, Command::LeaseRevoke { id: 5 });
    assert_eq!(denied(&applier.apply(revoke("alice"))), Some(Denied::PermissionDenied));
    assert_eq!(denied(&applier.apply(revoke("root"))), None);
}

#[test]
fn without_users_everybody_may_do_everything() {
    let mut applier = Applier::default();
    for command in requests() {
        assert_eq!(denied(&applier.apply(command)).filter(|denied| *denied != Denied::RoleExists), None);
    }
}

#[test]
fn a_denial_is_remembered_as_it_was() {
    for number in 1..=16 {
        let denied = Denied::of(number).unwrap();
        let mut bytes = Vec::new();
        Applied::from(denied).encode(&mut bytes);
        assert_eq!(bytes, [7, 13, number]);
        assert_eq!(Applied::decode(bytes.into()).unwrap(), Applied::from(denied));
    }
    assert_eq!((Denied::of(0), Denied::of(17)), (None, None));
}
