//! The state against a model and against itself.

mod adapter;
mod auth;
mod broken;
mod determinism;
mod leases;
mod limits;
mod log_and_snapshots;
mod model;
mod quota;
mod ranges;
mod scale;
mod sessions;
mod snapshots;
mod watches;
mod worst;

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};
use storage_core::{Committed, Expected, Key, OperationId, Outcome, Revision, Txn, Version};

use super::*;
use crate::{
    command::{Applied, Command, Rejection, Request, RowChange},
    keys::etcd_revision,
    mvcc::{self, KeyRange},
};

pub(super) fn key(text: &str) -> Key {
    Key::try_from(text).unwrap()
}

/// Applies commands at indexes that count up.
#[derive(Debug, Default)]
pub(super) struct Applier {
    pub(super) state: State,
    pub(super) index: u64,
}

impl Applier {
    pub(super) fn apply(&mut self, command: Command) -> Applied {
        self.index += 1;
        self.state.apply(self.index, command)
    }

    pub(super) fn txn(&mut self, txn: Txn) -> Outcome {
        outcome(self.apply(Command::Txn { txn, operation: None, request: None }))
    }

    pub(super) fn put(&mut self, name: &str, value: &str) -> Committed {
        self.txn(Txn::new().put(key(name), value.to_owned())).committed().unwrap()
    }

    pub(super) fn value(&self, name: &str) -> Option<Bytes> {
        self.state.tables().keys.record(&key(name)).map(|record| record.value.clone())
    }
}

pub(super) fn outcome(applied: Applied) -> Outcome {
    match applied {
        Applied::Outcome(outcome) => outcome,
        other => panic!("{other}"),
    }
}

/// Writes a key and attaches it to a lease.
pub(super) fn leased_put(name: &str, value: &'static str, lease: u64) -> Command {
    let put = mvcc::Put { key: key(name), value: Some(value.into()), lease: Some(lease), previous: false };
    Command::mvcc(mvcc::Txn::of(mvcc::Op::Put(put)))
}

/// Transactions that meet often: few keys, few values, versions that exist or existed.
pub(super) fn txn() -> impl Strategy<Value = Txn> {
    let name = || prop_oneof![Just("a"), Just("b"), Just("b/1"), Just("b/2"), Just("c")].prop_map(key);
    let value = || prop_oneof![Just(""), Just("x"), Just("y")];
    let expected = prop_oneof![
        Just(Expected::Any),
        Just(Expected::Absent),
        Just(Expected::Exists),
        (0_u64..30).prop_map(|revision| Expected::Version(Version::from_u64(revision))),
        value().prop_map(|value| Expected::Value(value.into())),
    ];
    let guards = prop::collection::btree_map(name(), expected, 0..3);
    let ops = prop::collection::btree_map(name(), option::weighted(0.7, value()), 0..4);
    (guards, ops).prop_filter_map("empty", |(guards, ops)| {
        let txn = guards.into_iter().fold(Txn::new(), |txn, (key, expected)| txn.guard(key, expected));
        let txn = ops.into_iter().fold(txn, |txn, (key, value)| match value {
            Some(value) => txn.put(key, value),
            None => txn.delete(key),
        });
        (!txn.guards.is_empty() || !txn.ops.is_empty()).then_some(txn)
    })
}

/// Commands of every kind that meet often.
pub(super) fn command() -> impl Strategy<Value = Command> {
    // Sessions have the indexes that opened them.
    let request = (1_u64..20, 0_u64..6, 0_u64..4).prop_map(|(session, sequence, acknowledged_below)| Request {
        session,
        sequence,
        acknowledged_below,
    });
    let request = move || option::of(request.clone());
    let row = || prop_oneof![Just(Bytes::from("r")), Just(Bytes::from("s"))];
    prop_oneof![
        6 => (txn(), option::of((0_u128..4).prop_map(OperationId)), request())
            .prop_map(|(txn, operation, request)| Command::Txn { txn, operation, request }),
        2 => (0_u64..8).prop_map(|nonce| Command::OpenSession { nonce }),
        2 => (0_u64..4, 1_u64..9).prop_map(|(id, ttl_seconds)| Command::LeaseGrant { id, ttl_seconds }),
        2 => (0_u64..4).prop_map(|id| Command::LeaseRevoke { id }),
        3 => (prop_oneof![Just("a"), Just("b")], 0_u64..4).prop_map(|(name, lease)| leased_put(name, "leased", lease)),
        1 => (row(), row()).prop_map(|(name, value)| Command::RowPut { name, value }),
        1 => row().prop_map(|name| Command::RowDelete { name }),
        2 => (row(), option::of(row()), row(), option::of(row())).prop_map(|(name, expected, other, next)| {
            Command::Rows(RowChange { expected: [(name, expected)].into(), next: [(other, next)].into() })
        }),
        2 => (0_u64..9).prop_map(|revision| Command::Compact { revision }),
        3 => (request(), mvcc_txn()).prop_map(|(request, txn)| match request {
            Some(request) => Command::Once { request, command: Box::new(Command::mvcc(txn)) },
            None => Command::mvcc(txn),
        }),
    ]
}

/// A transaction with a branch, a range in the past, and a delete of a range.
fn mvcc_txn() -> impl Strategy<Value = mvcc::Txn> {
    let range = || KeyRange::Between("a".into(), "c".into());
    (0_i64..3, 0_u64..9, 0_u64..4, any::<bool>()).prop_map(move |(version, revision, lease, previous)| {
        let mut past = mvcc::Range::new(range());
        past.revision = revision;
        let put = mvcc::Put { key: key("a"), value: Some("m".into()), lease: Some(lease), previous };
        let delete = mvcc::Delete { keys: range(), previous };
        mvcc::Txn {
            compares: vec![mvcc::Compare {
                keys: KeyRange::One("a".into()),
                relation: mvcc::Relation::Equal,
                with: mvcc::Operand::Version(version),
            }],
            success: vec![mvcc::Op::Range(past), mvcc::Op::Put(put)],
            failure: vec![mvcc::Op::Txn(mvcc::Txn::of(mvcc::Op::Delete(delete)))],
        }
    })
}

pub(super) fn commands() -> impl Strategy<Value = Vec<Command>> {
    vec(command(), 0..60)
}
