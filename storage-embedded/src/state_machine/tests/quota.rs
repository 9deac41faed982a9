//! How large the state is, and what the alarm refuses.

use storage_core::Op;

use super::*;
use crate::{
    keys::{ITEM_BYTES, KeySpace},
    tables::{MAX_ALARMS, Tables},
};

fn alarm(member: u64, raise: bool) -> Command {
    Command::Alarm { member, raise }
}

/// Counts anew what is kept up to date.
fn recount(tables: &Tables) -> u64 {
    let keys = &tables.keys;
    let records = keys.scan(b"", None).map(|(key, record)| key.as_bytes().len() + record.value.len());
    let held = |record: &Option<crate::keys::Record>| record.as_ref().map_or(0, |record| record.value.len());
    let changes =
        keys.history.iter().map(|change| change.key.as_bytes().len() + held(&change.record) + held(&change.previous));
    let items = (keys.len() + keys.history.len()) as u64;
    let bytes: usize = records.chain(changes).sum();
    bytes as u64 + items * ITEM_BYTES + keys.leases.0.len() as u64 * KeySpace::LEASE_BYTES
}

fn commands_and_alarms() -> impl Strategy<Value = Vec<Command>> {
    let alarm = (0_u64..2, any::<bool>()).prop_map(|(member, raise)| alarm(member, raise));
    vec(prop_oneof![9 => command(), 1 => alarm], 0..60)
}

proptest! {
    /// Also through a snapshot, from which another replica may go on.
    #[test]
    fn the_size_follows_from_what_there_is(commands in commands_and_alarms()) {
        let mut applier = Applier::default();
        for command in commands {
            let (before, grows) = (applier.state.tables().keys.bytes(), command.growth());
            applier.apply(command);
            let keys = &applier.state.tables().keys;
            // But for what keys held before, and for values that are kept: none is longer than these.
            prop_assert!(keys.bytes() <= before + grows + 64 * 8, "{} {before} {grows}", keys.bytes());
            prop_assert_eq!(keys.bytes(), recount(applier.state.tables()));
        }
        let tables = applier.state.tables();
        let loaded = super::snapshots::reloaded(tables);
        prop_assert_eq!(loaded.keys.bytes(), tables.keys.bytes());
        prop_assert_eq!(loaded.alarms().collect::<Vec<_>>(), tables.alarms().collect::<Vec<_>>());
        prop_assert_eq!(loaded.digest(), tables.digest());
    }

    /// The state is the same as if it had never been asked.
    #[test]
    fn while_an_alarm_stands_nothing_grows_and_what_is_refused_changes_nothing(commands in commands()) {
        let mut applier = Applier::default();
        for command in commands {
            applier.apply(command.clone());
            applier.apply(alarm(3, true));
            let before = applier.state.clone();
            // A late copy of a request is answered as it was.
            let bare = match command.clone() {
                Command::Txn { txn, .. } => Command::Txn { txn, operation: None, request: None },
                Command::Once { command, .. } => *command,
                command => command,
            };
            let applied = applier.apply(bare.clone());
            prop_assert_eq!(applied == Applied::Rejected(Rejection::NoSpace), bare.growth() > 0, "{:?}", bare);
            if bare.growth() > 0 {
                prop_assert_eq!(applier.state.tables().digest(), before.tables().digest());
                prop_assert_eq!(applier.state.tables().keys.bytes(), before.tables().keys.bytes());
            }
            let records = |state: &State| state.tables().counts().records;
            prop_assert!(records(&applier.state) <= records(&before));
            applier.state = before;
            prop_assert_eq!(applier.apply(alarm(3, false)), Applied::Nothing);
        }
    }
}

fn put(name: &str) -> mvcc::Op {
    mvcc::Op::Put(mvcc::Put { key: key(name), value: Some("v".into()), lease: None, previous: false })
}

/// The list of etcd, and what stands within a transaction within another.
#[test]
fn what_grows_is_refused_and_the_rest_goes_on() {
    let delete = || mvcc::Op::Delete(mvcc::Delete { keys: KeyRange::One("a".into()), previous: false });
    let nested = mvcc::Txn::of(mvcc::Op::Txn(mvcc::Txn::of(put("n"))));
    let branch = mvcc::Txn { success: vec![delete()], failure: vec![put("f")], ..mvcc::Txn::default() };
    let request = Request { session: 2, sequence: 1, acknowledged_below: 1 };
    let by = |command| Command::By { who: crate::auth::Identity::NOBODY, command: Box::new(command) };
    let once = |command| Command::Once { request, command: Box::new(command) };
    for (command, goes_on) in [
        (Command::mvcc(mvcc::Txn::of(put("m"))), false),
        (Command::mvcc(nested), false),
        (Command::mvcc(branch), false),
        (Command::Txn { txn: Txn::new().put(key("a"), "2"), operation: None, request: None }, false),
        (Command::LeaseGrant { id: 7, ttl_seconds: 1 }, false),
        (by(Command::LeaseGrant { id: 7, ttl_seconds: 1 }), false),
        (once(by(Command::mvcc(mvcc::Txn::of(put("m"))))), false),
        (Command::mvcc(mvcc::Txn::of(delete())), true),
        (Command::Txn { txn: Txn::new().delete(key("a")), operation: None, request: None }, true),
        (Command::LeaseRevoke { id: 5 }, true),
        (Command::LeaseExpire { id: 5, granted: 1 }, true),
        (Command::Compact { revision: 2 }, true),
        (Command::RowPut { name: "row".into(), value: "content".into() }, true),
        (Command::OpenSession { nonce: 8 }, true),
        (Command::Auth(crate::auth::AuthChange::RoleAdd { name: "role".into() }), true),
    ] {
        let mut applier = Applier::default();
        applier.apply(Command::LeaseGrant { id: 5, ttl_seconds: 30 });
        applier.apply(Command::OpenSession { nonce: 1 });
        applier.put("a", "1");
        applier.apply(alarm(1, true));
        let applied = applier.apply(command.clone());
        assert_eq!(applied != Applied::Rejected(Rejection::NoSpace), goes_on, "{command:?}: {applied}");
    }
}

/// Whoever asks again what became of a write is told that, and not that nothing was written.
#[test]
fn a_write_that_was_made_before_the_alarm_is_answered_as_it_was() {
    let mut applier = Applier::default();
    applier.apply(Command::OpenSession { nonce: 1 });
    let txn = |value: &'static str| Txn { guards: vec![], ops: vec![Op::Put { key: key("a"), value: value.into() }] };
    let named = |id, value| Command::Txn { txn: txn(value), operation: Some(OperationId(id)), request: None };
    let numbered = |sequence| Command::Txn {
        txn: txn("n"),
        operation: None,
        request: Some(Request { session: 1, sequence, acknowledged_below: 1 }),
    };
    let (made, sent) = (applier.apply(named(1, "x")), applier.apply(numbered(1)));
    applier.apply(alarm(1, true));
    assert_eq!((applier.apply(named(1, "x")), applier.apply(numbered(1))), (made, sent));
    // What was refused is made when there is space; but a late copy of one proposal stays refused, since its caller was told.
    let refused = Applied::Rejected(Rejection::NoSpace);
    assert_eq!((applier.apply(named(2, "y")), applier.apply(numbered(2))), (refused.clone(), refused.clone()));
    assert_eq!(applier.apply(alarm(1, false)), Applied::Nothing);
    assert_eq!(applier.apply(numbered(2)), refused);
    assert!(matches!(applier.apply(named(2, "y")), Applied::Outcome(Outcome::Committed(_))));
    assert_eq!(applier.value("a"), Some("y".into()));
}

#[test]
fn each_member_has_one_alarm_and_all_of_them_are_bounded() {
    let mut applier = Applier::default();
    let no_such = Applied::Rejected(Rejection::NoSuchAlarm);
    assert_eq!(applier.apply(alarm(1, false)), no_such);
    assert_eq!((applier.apply(alarm(1, true)), applier.apply(alarm(1, true))), (Applied::Nothing, Applied::Nothing));
    applier.apply(alarm(2, true));
    assert_eq!(applier.state.tables().alarms().collect::<Vec<_>>(), [1, 2]);
    applier.apply(alarm(1, false));
    assert!(applier.state.tables().is_full(), "the other stands");
    for member in 0..1000 {
        applier.apply(alarm(member, true));
    }
    assert_eq!(applier.state.tables().alarms().len(), MAX_ALARMS);
    assert_eq!(applier.apply(alarm(5000, true)), Applied::Rejected(Rejection::TooManyAlarms));
}
