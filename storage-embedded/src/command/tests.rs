use std::path::PathBuf;

use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
};
use storage_core::{Expected, Guard, Key, Op, OperationId, Txn, Version};

use super::*;
use crate::{
    auth::{Access, PasswordHash, Permission, TokenSecret},
    mvcc::{Compare, Delete, Direction, KeyRange, Operand, Order, OrderBy, Put, Range, Relation, RevisionFilter},
};

fn key() -> impl Strategy<Value = Key> {
    vec(any::<u8>(), 1..40).prop_map(|bytes| Key::new(bytes).unwrap())
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..60).prop_map(Bytes::from)
}

fn expected() -> impl Strategy<Value = Expected> {
    prop_oneof![
        Just(Expected::Any),
        Just(Expected::Absent),
        Just(Expected::Exists),
        any::<[u8; 16]>().prop_map(|bytes| Expected::Version(Version::from_bytes(bytes))),
        bytes().prop_map(Expected::Value),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (key(), bytes()).prop_map(|(key, value)| Op::Put { key, value }),
        key().prop_map(|key| Op::Delete { key })
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>());
    numbers.prop_map(|(session, sequence, acknowledged_below)| Request { session, sequence, acknowledged_below })
}

fn row_change() -> impl Strategy<Value = RowChange> {
    let rows = || btree_map(bytes(), option::of(bytes()), 0..4);
    (rows(), rows()).prop_map(|(expected, next)| RowChange { expected, next })
}

fn txn() -> impl Strategy<Value = Txn> {
    let guard = (key(), expected()).prop_map(|(key, expected)| Guard { key, expected });
    (vec(guard, 0..4), vec(op(), 0..4)).prop_map(|(guards, ops)| Txn { guards, ops })
}

fn keys() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        bytes().prop_map(KeyRange::One),
        bytes().prop_map(KeyRange::From),
        (bytes(), bytes()).prop_map(|(first, end)| KeyRange::Between(first, end)),
    ]
}

fn range() -> impl Strategy<Value = Range> {
    let by = prop_oneof![
        Just(OrderBy::Key),
        Just(OrderBy::Version),
        Just(OrderBy::Create),
        Just(OrderBy::Mod),
        Just(OrderBy::Value)
    ];
    let direction = option::of(prop_oneof![Just(Direction::Ascending), Just(Direction::Descending)]);
    let order = (by, direction).prop_map(|(by, direction)| Order { by, direction });
    let filter = any::<[i64; 4]>().prop_map(|[min_mod, max_mod, min_create, max_create]| RevisionFilter {
        min_mod,
        max_mod,
        min_create,
        max_create,
    });
    let filter = prop_oneof![Just(RevisionFilter::default()), filter];
    (keys(), 0..9_u64, 0..9_u64, order, any::<(bool, bool)>(), filter).prop_map(
        |(keys, revision, limit, order, (keys_only, count_only), revisions)| Range {
            keys,
            revision,
            limit,
            order,
            keys_only,
            count_only,
            revisions,
        },
    )
}

fn compare() -> impl Strategy<Value = Compare> {
    let relation =
        prop_oneof![Just(Relation::Equal), Just(Relation::NotEqual), Just(Relation::Greater), Just(Relation::Less)];
    let with = prop_oneof![
        any::<i64>().prop_map(Operand::Version),
        any::<i64>().prop_map(Operand::Create),
        any::<i64>().prop_map(Operand::Mod),
        any::<i64>().prop_map(Operand::Lease),
        bytes().prop_map(Operand::Value),
    ];
    (keys(), relation, with).prop_map(|(keys, relation, with)| Compare { keys, relation, with })
}

fn mvcc_txn() -> impl Strategy<Value = mvcc::Txn> {
    let lease = option::of(prop_oneof![Just(0), any::<u64>()]);
    let op = prop_oneof![
        range().prop_map(mvcc::Op::Range),
        (key(), option::of(bytes()), lease, any::<bool>())
            .prop_map(|(key, value, lease, previous)| mvcc::Op::Put(Put { key, value, lease, previous })),
        (keys(), any::<bool>()).prop_map(|(keys, previous)| mvcc::Op::Delete(Delete { keys, previous })),
    ];
    let txn = |op: BoxedStrategy<mvcc::Op>| {
        (vec(compare(), 0..3), vec(op.clone(), 0..3), vec(op, 0..3))
            .prop_map(|(compares, success, failure)| mvcc::Txn { compares, success, failure })
    };
    let op = op.boxed();
    let nested = prop_oneof![op.clone(), txn(op).prop_map(mvcc::Op::Txn)];
    txn(nested.boxed())
}

fn once() -> impl Strategy<Value = Command> {
    let command = prop_oneof![
        (mvcc_txn(), 0..=1_u8).prop_map(|(txn, limits)| Command::Mvcc { txn, limits }),
        any::<u64>().prop_map(|revision| Command::Compact { revision }),
        any::<(u64, u64)>().prop_map(|(id, ttl_seconds)| Command::LeaseGrant { id, ttl_seconds }),
    ];
    (request(), command).prop_map(|(request, command)| Command::Once { request, command: Box::new(command) })
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => (mvcc_txn(), 0..=1_u8).prop_map(|(txn, limits)| Command::Mvcc { txn, limits }),
        4 => once(),
        1 => any::<u64>().prop_map(|revision| Command::Compact { revision }),
        1 => any::<(u64, u64)>().prop_map(|(id, granted)| Command::LeaseExpire { id, granted }),
        4 => (txn(), option::of(any::<u128>().prop_map(OperationId)), option::of(request()))
            .prop_map(|(txn, operation, request)| Command::Txn { txn, operation, request }),
        1 => any::<u64>().prop_map(|nonce| Command::OpenSession { nonce }),
        1 => any::<(u64, u64)>().prop_map(|(id, ttl_seconds)| Command::LeaseGrant { id, ttl_seconds }),
        1 => any::<u64>().prop_map(|id| Command::LeaseRevoke { id }),
        1 => (bytes(), bytes()).prop_map(|(name, value)| Command::RowPut { name, value }),
        1 => bytes().prop_map(|name| Command::RowDelete { name }),
        1 => row_change().prop_map(Command::Rows),
        2 => prop::sample::select(auth_samples()).prop_map(|(_, change)| Command::Auth(change)),
        2 => ("[a-z]{0,4}", any::<u64>(), (mvcc_txn(), 0..=1_u8)).prop_map(|(user, revision, (txn, limits))| Command::By {
            who: Identity { user, revision },
            command: Box::new(Command::Mvcc { txn, limits }),
        }),
    ]
}

/// What is accepted has no other encoding.
fn decodes_to_itself_or_not_at_all(bytes: Vec<u8>) -> Result<(), TestCaseError> {
    let bytes = Bytes::from(bytes);
    if let Ok(command) = Command::decode(bytes.clone()) {
        prop_assert_eq!(command.encode(), bytes);
    }
    Ok(())
}

proptest! {
    #[test]
    fn commands_survive(command in command()) {
        prop_assert_eq!(Command::decode(command.encode()).unwrap(), command);
    }

    #[test]
    fn random_bytes_are_refused_or_canonical(mut bytes in vec(any::<u8>(), 0..200), tag in 0_u8..16) {
        decodes_to_itself_or_not_at_all(bytes.clone())?;
        bytes.splice(0..0, [1, tag]);
        decodes_to_itself_or_not_at_all(bytes)?;
    }

    #[test]
    fn mutated_commands_are_refused_or_canonical(
        command in command(),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = command.encode().to_vec();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        decodes_to_itself_or_not_at_all(bytes.clone())?;
        bytes.remove(place);
        decodes_to_itself_or_not_at_all(bytes.clone())?;
        bytes.truncate(place);
        prop_assert!(Command::decode(bytes.into()).is_err(), "a command cut short is no command");
    }
}

#[test]
fn unknown_versions_kinds_and_flags_are_refused() {
    let encoded = Command::encode_txn(&Txn::new().delete(Key::try_from("a").unwrap()), None, None);
    for (place, known) in [(0, 1..=1), (1, 1..=15), (2, 0..=3)] {
        for byte in (0..=u8::MAX).filter(|byte| !known.contains(byte)) {
            let mut bytes = encoded.to_vec();
            bytes[place] = byte;
            assert!(Command::decode(bytes.into()).is_err(), "{byte} at {place}");
        }
    }
}

#[test]
fn a_value_is_not_copied() {
    let encoded = Command::RowPut { name: "n".into(), value: vec![7; 1000].into() }.encode();
    let Command::RowPut { value, .. } = Command::decode(encoded.clone()).unwrap() else { panic!() };
    assert!(encoded.as_ptr_range().contains(&value.as_ptr()));
}

/// Something of everything.
fn mvcc_sample() -> mvcc::Txn {
    let one = || KeyRange::One("one".into());
    let between = || KeyRange::Between("a".into(), "z".into());
    let compare = |relation, with| Compare { keys: one(), relation, with };
    let put = |value: Option<&'static str>, lease| {
        let value = value.map(Bytes::from);
        mvcc::Op::Put(Put { key: Key::try_from("put").unwrap(), value, lease, previous: lease == Some(0) })
    };
    let range = Range {
        keys: between(),
        revision: 3,
        limit: 4,
        order: Order { by: OrderBy::Value, direction: Some(Direction::Descending) },
        keys_only: true,
        count_only: true,
        revisions: RevisionFilter { min_mod: 1, max_mod: -2, min_create: 3, max_create: 4 },
    };
    let nested = mvcc::Txn {
        compares: vec![Compare { keys: between(), relation: Relation::Less, with: Operand::Value("v".into()) }],
        success: vec![mvcc::Op::Delete(Delete { keys: KeyRange::From("f".into()), previous: true })],
        failure: vec![put(None, None)],
    };
    mvcc::Txn {
        compares: vec![
            compare(Relation::Equal, Operand::Version(1)),
            compare(Relation::NotEqual, Operand::Create(2)),
            compare(Relation::Greater, Operand::Mod(-3)),
            compare(Relation::Less, Operand::Lease(4)),
        ],
        success: vec![mvcc::Op::Range(range), put(Some("new"), Some(0)), put(Some(""), Some(9))],
        failure: vec![mvcc::Op::Range(Range::new(one())), mvcc::Op::Txn(nested)],
    }
}

#[test]
fn a_command_within_another_has_no_request_of_its_own() {
    let request = Request { session: 1, sequence: 2, acknowledged_below: 3 };
    let once = |command: &Command| Command::encode_once(&command.encode(), request);
    let compact = Command::Compact { revision: 7 };
    let whole = Command::Once { request, command: Box::new(compact.clone()) };
    assert!(Command::decode(once(&compact)).unwrap() == whole);
    for command in [whole, Command::OpenSession { nonce: 1 }, samples().swap_remove(0).1] {
        assert!(Command::decode(once(&command)).is_err(), "{command:?}");
    }
    let by = Command::By { who: alice(), command: Box::new(compact) };
    assert!(Command::decode(once(&by)).unwrap() == Command::Once { request, command: Box::new(by) });
}

#[test]
#[should_panic(expected = "an encoded command begins with its version")]
fn a_command_of_another_version_is_not_wrapped() {
    Command::encode_once(&[2, 7], Request { session: 1, sequence: 2, acknowledged_below: 3 });
}

#[test]
fn transactions_nest_as_deep_as_is_said() {
    let nest = |depth| (0..depth).fold(mvcc::Txn::default(), |txn, _| mvcc::Txn::of(mvcc::Op::Txn(txn)));
    let decodes = |depth| Command::decode(Command::mvcc(nest(depth)).encode()).is_ok();
    assert!(decodes(mvcc::Txn::MAX_DEPTH));
    assert!(!decodes(mvcc::Txn::MAX_DEPTH + 1));
}

/// One row is expected, one must not be there; one is set and one removed.
fn rows_sample() -> RowChange {
    RowChange {
        expected: [("absent".into(), None), ("row".into(), Some("content".into()))].into(),
        next: [("gone".into(), None), ("row".into(), Some("next".into()))].into(),
    }
}

#[test]
fn rows_are_written_in_their_order_and_once_each() {
    let encoded = Command::Rows(rows_sample()).encode();
    let at = |name: &str| encoded.windows(name.len()).position(|bytes| bytes == name.as_bytes()).unwrap();
    for (first, second) in [("absent", "absent"), ("row", "aaa")] {
        let mut bytes = encoded.to_vec();
        let place = at(first);
        bytes[place..place + second.len()].copy_from_slice(second.as_bytes());
        assert_eq!(Command::decode(bytes.into()).is_ok(), first == second, "{second}");
    }
}

#[test]
fn limits_of_an_unknown_version_are_of_no_command() {
    let within = |version| {
        let mut bytes = Command::mvcc(mvcc::Txn::default()).encode().to_vec();
        bytes[2] = version;
        Command::decode(bytes.into()).is_ok()
    };
    // Version 0 has a tag of its own: one command has one encoding.
    assert_eq!([0, 1, 2, 3, 255].map(within), [false, true, true, false, false]);
}

/// One command of each kind, by the name of its file.
fn samples() -> Vec<(&'static str, Command)> {
    let key = |text: &str| Key::try_from(text).unwrap();
    let numbered = Request { session: 3, sequence: 0x0102_0304_0506_0708, acknowledged_below: 5 };
    let request = Some(numbered);
    let txn = Txn::new()
        .guard(key("any"), Expected::Any)
        .guard(key("absent"), Expected::Absent)
        .guard(key("exists"), Expected::Exists)
        .guard(key("version"), Expected::Version(Version::from_u64(7)))
        .guard(key("value"), Expected::Value("v".into()))
        .put(key("put"), "new")
        .delete(key("delete"));
    let bare = Txn::new().put(key("a"), "");
    let mvcc = mvcc_sample();
    vec![
        ("txn", Command::Txn { txn, operation: Some(OperationId(0x0f0e_0d0c)), request }),
        ("txn-bare", Command::Txn { txn: bare, operation: None, request: None }),
        ("open-session", Command::OpenSession { nonce: 0x1122_3344_5566_7788 }),
        ("lease-grant", Command::LeaseGrant { id: 9, ttl_seconds: 30 }),
        ("lease-revoke", Command::LeaseRevoke { id: 9 }),
        ("row-put", Command::RowPut { name: "row".into(), value: "content".into() }),
        ("row-delete", Command::RowDelete { name: "row".into() }),
        ("mvcc", Command::Mvcc { txn: mvcc.clone(), limits: 0 }),
        ("mvcc-within", Command::Mvcc { txn: mvcc.clone(), limits: 1 }),
        ("once", Command::Once { request: numbered, command: Box::new(Command::Mvcc { txn: mvcc, limits: 0 }) }),
        ("compact", Command::Compact { revision: 7 }),
        ("rows", Command::Rows(rows_sample())),
        ("lease-expire", Command::LeaseExpire { id: 9, granted: 3 }),
        ("by", Command::By { who: alice(), command: Box::new(Command::Mvcc { txn: bare_mvcc(), limits: 1 }) }),
        (
            "by-nobody",
            Command::By { who: Identity::NOBODY, command: Box::new(Command::LeaseGrant { id: 9, ttl_seconds: 30 }) },
        ),
        ("alarm-raise", Command::Alarm { member: 0x0102, raise: true }),
        ("alarm-clear", Command::Alarm { member: 0x0102, raise: false }),
    ]
}

fn alice() -> Identity {
    Identity { user: "alice".into(), revision: 7 }
}

fn bare_mvcc() -> mvcc::Txn {
    mvcc::Txn::of(mvcc::Op::Range(Range::new(KeyRange::One("one".into()))))
}

/// A change of users and roles of each kind, by the name of its file.
fn auth_samples() -> Vec<(&'static str, AuthChange)> {
    let (name, role) = (|| "alice".to_owned(), || "reader".to_owned());
    let password = || Some(PasswordHash("hash".into()));
    let permission = Permission { key: "a".into(), range_end: "b".into(), access: Access::ReadWrite };
    vec![
        ("enable", AuthChange::Enable { secret: TokenSecret([7; 32]) }),
        ("disable", AuthChange::Disable),
        ("user-add", AuthChange::UserAdd { name: name(), password: password() }),
        ("user-delete", AuthChange::UserDelete { name: name() }),
        ("user-password", AuthChange::UserPassword { name: name(), password: None }),
        ("user-grant", AuthChange::UserGrant { name: name(), role: role() }),
        ("user-revoke", AuthChange::UserRevoke { name: name(), role: role() }),
        ("role-add", AuthChange::RoleAdd { name: role() }),
        ("role-delete", AuthChange::RoleDelete { name: role() }),
        ("role-grant", AuthChange::RoleGrant { role: role(), permission }),
        ("role-revoke", AuthChange::RoleRevoke { role: role(), key: "a".into(), range_end: "b".into() }),
    ]
}

#[test]
fn a_client_asks_for_what_clients_may_ask() {
    let by = |command: &Command| {
        let mut bytes =
            Command::By { who: alice(), command: Box::new(Command::Compact { revision: 7 }) }.encode().to_vec();
        bytes.truncate(bytes.len() - 9);
        bytes.extend_from_slice(&command.encode()[1..]);
        Command::decode(bytes.into())
    };
    for (name, command) in samples() {
        let may = ["lease-grant", "lease-revoke", "mvcc", "mvcc-within", "compact", "alarm-raise", "alarm-clear"]
            .contains(&name);
        assert_eq!(by(&command).is_ok(), may, "{name}");
    }
    assert!(auth_samples().into_iter().all(|(_, change)| by(&Command::Auth(change)).is_ok()));
}

/// To make the files anew after a deliberate change of the version, run this with `WRITE_GOLDEN=1` in the environment.
#[test]
fn version_1_is_written_and_read_as_ever() {
    let auth = auth_samples().into_iter().map(|(name, change)| (format!("auth-{name}"), Command::Auth(change)));
    for (name, command) in samples().into_iter().map(|(name, command)| (name.to_owned(), command)).chain(auth) {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/command-{name}-v1.hex"));
        let encoded: String = command.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        if std::env::var_os("WRITE_GOLDEN").is_some() {
            std::fs::write(&file, encoded.clone() + "\n").unwrap();
        }
        let golden = std::fs::read_to_string(&file).unwrap();
        assert_eq!(encoded, golden.trim_end(), "{name}");
    }
}
