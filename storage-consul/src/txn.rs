//! A transaction of the contract as one of Consul, and its answer as an outcome. Pure.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use storage_core::{
    Committed, Conflict, Entry, Error, Expected, Guard, Key, Observed, Op, Outcome, Result, Revision, Version,
    servers::Failure,
};

use crate::{
    client::{Answer, Pair},
    encoding::{Folder, Foreign, Nonce},
    error,
};

/// The most operations of a transaction in Consul.
pub(crate) const MAX_OPERATIONS: usize = 64;

/// An index that no key has: a guard that names it never holds, neither on a present key nor on an absent one.
/// (Zero would mean that the key has to be absent.)
const NO_INDEX: u64 = u64::MAX;

/// A transaction as it is sent.
#[derive(Debug)]
pub(crate) struct Request {
    operations: Vec<Operation>,
    /// For each operation, the place of the guard that it checks.
    guards: Vec<Option<usize>>,
}

impl Request {
    /// The operations for a transaction: its guards in their order, then its writes. A put whose guard Consul can check by itself
    /// is one operation with it. At most two for each guard and operation.
    ///
    /// `guards` are those of the transaction, without any [`Expected::Value`].
    pub(crate) fn of(guards: &[Guard], ops: &[Op], folder: &Folder, nonce: Nonce) -> Self {
        let mut request = Self { operations: Vec::new(), guards: Vec::new() };
        // Consul tells the index of a transaction for what it sets, and nothing for what it deletes. So in a transaction
        // of deletes alone each key is set first: that tells the index, and whether the key was there.
        let tells_index = ops.iter().any(|op| matches!(op, Op::Put { .. }));
        let mut done = Vec::new();
        for (place, guard) in guards.iter().enumerate() {
            let key = || folder.key(&guard.key);
            let op = ops.iter().find(|op| *op.key() == guard.key);
            let operation = match (&guard.expected, op) {
                (Expected::Any, _) => continue,
                (Expected::Absent, Some(Op::Put { value, .. })) => {
                    done.push(&guard.key);
                    Operation::cas(key(), 0, nonce.stamped(value))
                }
                (Expected::Version(version), Some(Op::Put { value, .. })) => {
                    done.push(&guard.key);
                    Operation::cas(key(), index(*version), nonce.stamped(value))
                }
                // Not `delete-cas`: that succeeds on an absent key.
                (Expected::Version(version), Some(Op::Delete { .. })) if !tells_index => {
                    done.push(&guard.key);
                    request.push(Some(place), Operation::cas(key(), index(*version), nonce.stamped(b"")));
                    request.push(None, Operation::new(Verb::Delete, key()));
                    continue;
                }
                (Expected::Absent, Some(Op::Delete { .. })) => {
                    done.push(&guard.key);
                    Operation::new(Verb::CheckNotExists, key())
                }
                (Expected::Absent, None) => Operation::new(Verb::CheckNotExists, key()),
                (Expected::Version(version), _) => Operation::check_index(key(), index(*version)),
                (Expected::Exists | Expected::Value(_), _) => Operation::new(Verb::Get, key()),
            };
            request.push(Some(place), operation);
        }
        for op in ops.iter().filter(|op| !done.contains(&op.key())) {
            let key = folder.key(op.key());
            match op {
                Op::Put { value, .. } => request.push(None, Operation::set(key, nonce.stamped(value))),
                Op::Delete { .. } => {
                    if !tells_index {
                        request.push(None, Operation::set(key.clone(), nonce.stamped(b"")));
                    }
                    request.push(None, Operation::new(Verb::Delete, key));
                }
            }
        }
        if request.operations.is_empty() {
            // Only guards that always hold: a read, so that the answer says that the store works.
            request.push(None, Operation::new(Verb::GetTree, folder.no_key()));
        }
        request
    }

    /// A read of keys, absent or not, at one point in time. `get` would fail on an absent key; the tree below a key is that key
    /// alone, or nothing.
    pub(crate) fn reading<'k>(keys: impl Iterator<Item = &'k Key>, folder: &Folder) -> Self {
        let operations: Vec<_> = keys.map(|key| Operation::new(Verb::GetTree, folder.key(key))).collect();
        Self { guards: vec![None; operations.len()], operations }
    }

    pub(crate) fn writes(&self) -> bool {
        self.operations.iter().any(|operation| matches!(operation.verb, Verb::Set | Verb::Cas | Verb::Delete))
    }

    /// What is sent.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if it cannot be written down.
    pub(crate) fn body(&self) -> Result<Bytes> {
        #[derive(Serialize)]
        #[serde(rename_all = "UPPERCASE")]
        struct Typed<'o> {
            kv: &'o Operation,
        }
        let operations: Vec<_> = self.operations.iter().map(|kv| Typed { kv }).collect();
        serde_json::to_vec(&operations).map(Bytes::from).map_err(|error| Error::invalid_argument(error.to_string()))
    }

    fn push(&mut self, guard: Option<usize>, operation: Operation) {
        self.guards.push(guard);
        self.operations.push(operation);
    }
}

/// One operation, as Consul names it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Operation {
    verb: Verb,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verb {
    Get,
    GetTree,
    CheckIndex,
    CheckNotExists,
    Set,
    Cas,
    Delete,
}

impl Operation {
    fn new(verb: Verb, key: String) -> Self {
        Self { verb, key, value: None, index: None }
    }

    fn set(key: String, value: String) -> Self {
        Self { value: Some(value), ..Self::new(Verb::Set, key) }
    }

    fn cas(key: String, index: u64, value: String) -> Self {
        Self { value: Some(value), index: Some(index), ..Self::new(Verb::Cas, key) }
    }

    fn check_index(key: String, index: u64) -> Self {
        Self { index: Some(index), ..Self::new(Verb::CheckIndex, key) }
    }
}

fn index(version: Version) -> u64 {
    version.to_u64().filter(|index| *index > 0).unwrap_or(NO_INDEX)
}

/// What Consul answers.
#[derive(Debug)]
pub(crate) enum Answered {
    /// What was read, and what was written, the latter without values.
    Applied(Vec<Pair>),
    /// The first guard that does not hold.
    Refused { guard: usize },
}

impl Answered {
    /// # Errors
    /// What the answer means, if it is neither.
    pub(crate) fn of(request: &Request, answer: &Answer) -> Result<Self, Failure> {
        match answer.status {
            200 => {
                let applied: Applied = answer.parsed()?;
                let results = applied.results.unwrap_or_default();
                Ok(Self::Applied(results.into_iter().map(|result| result.kv).collect()))
            }
            409 => {
                let refused: Refused = answer.parsed()?;
                refused.first(request)
            }
            _ => Err(answer.failure()),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Applied {
    results: Option<Vec<Typed>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct Typed {
    kv: Pair,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Refused {
    errors: Vec<OperationError>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OperationError {
    op_index: usize,
    what: String,
}

impl Refused {
    fn first(self, request: &Request) -> Result<Answered, Failure> {
        if let Some(error) = self.errors.iter().find_map(|error| error::operation(&error.what)) {
            return Err(Failure::Refused(error));
        }
        let Some(first) = self.errors.into_iter().min_by_key(|error| error.op_index) else {
            return Err(Failure::Unknown("Consul refused a transaction and does not say why".into()));
        };
        match request.guards.get(first.op_index) {
            Some(Some(guard)) => Ok(Answered::Refused { guard: *guard }),
            // A write without a guard has no reason to fail that is not one of the request.
            _ => Err(Failure::Refused(Error::invalid_argument(format!("Consul refuses an operation: {}", first.what)))),
        }
    }
}

/// The outcome of a transaction.
///
/// # Errors
/// [`Error::UnknownOutcome`] for an answer that does not tell the index, which no Consul gives.
pub(crate) fn outcome(ops: &[Op], request: &Request, answered: Answered) -> Result<Outcome> {
    let written = match answered {
        Answered::Refused { guard } => return Ok(Outcome::Conflict(Conflict { guard, current: Observed::Unknown })),
        Answered::Applied(results) => results.into_iter().filter(|pair| pair.value.is_none()),
    };
    let versions =
        |index| ops.iter().map(|op| matches!(op, Op::Put { .. }).then_some(Version::from_u64(index))).collect();
    if !request.writes() {
        return Ok(Outcome::Committed(Committed { versions: versions(0), revision: None }));
    }
    let written: Vec<_> = written.collect();
    let index = written.iter().map(|pair| pair.modify_index).max();
    let index = index.ok_or_else(|| Error::unknown_outcome("applied, but Consul does not say as which index"))?;
    // Deleting what is absent changes nothing. What the transaction itself created to find that out was absent.
    let changed = ops.iter().any(|op| matches!(op, Op::Put { .. }))
        || written.iter().any(|pair| pair.create_index < pair.modify_index);
    Ok(Outcome::Committed(Committed { versions: versions(index), revision: changed.then_some(Revision(index)) }))
}

/// The entries of a [`Request::reading`].
///
/// # Errors
/// [`Error::Corrupt`] for an answer that reads cannot have.
pub(crate) fn entries(answered: Answered, folder: &Folder) -> Result<Vec<Result<Entry, Foreign>>> {
    match answered {
        Answered::Applied(pairs) => Ok(pairs.into_iter().filter_map(|pair| folder.entry(pair).transpose()).collect()),
        Answered::Refused { .. } => Err(Error::corrupt("Consul refuses a transaction of reads alone")),
    }
}

#[cfg(test)]
mod tests {
    use storage_core::{Capabilities, Txn};

    use super::*;

    fn key(name: &str) -> Key {
        Key::try_from(name).unwrap()
    }

    fn request(txn: &Txn) -> Request {
        Request::of(&txn.guards, &txn.ops, &Folder::new("s"), Nonce { handle: 1, write: 2 })
    }

    /// The operations in short: verb, key and index.
    fn short(txn: &Txn) -> Vec<String> {
        let short = |operation: &Operation| {
            let index = operation.index.map(|index| if index == NO_INDEX { "!".to_owned() } else { index.to_string() });
            format!("{:?} {} {}", operation.verb, operation.key, index.unwrap_or_default()).trim_end().to_owned()
        };
        request(txn).operations.iter().map(short).collect()
    }

    #[test]
    fn a_swap_is_one_operation() {
        let version = Expected::Version(Version::from_u64(7));
        assert_eq!(short(&Txn::new().guard(key("a"), version).put(key("a"), "1")), ["Cas s/61- 7"]);
        assert_eq!(short(&Txn::new().guard(key("a"), Expected::Absent).put(key("a"), "1")), ["Cas s/61- 0"]);
        assert_eq!(short(&Txn::new().guard(key("a"), Expected::Any).put(key("a"), "1")), ["Set s/61-"]);
        let exists = Txn::new().guard(key("a"), Expected::Exists).put(key("a"), "1");
        assert_eq!(short(&exists), ["Get s/61-", "Set s/61-"]);
    }

    #[test]
    fn a_version_that_is_no_index_never_holds() {
        for version in [Version::from_u64(0), Version::from_bytes([0xff; 16])] {
            let guard = Txn::new().guard(key("a"), Expected::Version(version));
            assert_eq!(short(&guard), ["CheckIndex s/61- !"]);
            assert_eq!(short(&guard.put(key("a"), "1")), ["Cas s/61- !"]);
        }
    }

    #[test]
    fn deletes_alone_tell_whether_they_changed_anything() {
        assert_eq!(short(&Txn::new().delete(key("a"))), ["Set s/61-", "Delete s/61-"]);
        let version = Expected::Version(Version::from_u64(7));
        let guarded = Txn::new().guard(key("a"), version.clone()).delete(key("a"));
        assert_eq!(short(&guarded), ["Cas s/61- 7", "Delete s/61-"]);
        let beside = guarded.put(key("b"), "1");
        assert_eq!(short(&beside), ["CheckIndex s/61- 7", "Delete s/61-", "Set s/62-"]);
        let absent = Txn::new().guard(key("a"), Expected::Absent).delete(key("a"));
        assert_eq!(short(&absent), ["CheckNotExists s/61-"]);
        assert!(!request(&absent).writes());
    }

    #[test]
    fn guards_that_always_hold_are_a_read() {
        let any = Txn::new().guard(key("a"), Expected::Any);
        assert_eq!(short(&any), ["GetTree s/-"]);
        assert!(!request(&any).writes());
    }

    #[test]
    fn the_largest_transactions_fit() {
        let keys: Vec<_> = (0..Capabilities::MIN_TXN_OPS).map(|n| key(&n.to_string())).collect();
        let deletes = keys.iter().fold(Txn::new(), |txn, key| txn.delete(key.clone()));
        assert_eq!(request(&deletes).operations.len(), MAX_OPERATIONS);
        let guarded = keys
            .iter()
            .take(keys.len() / 2)
            .fold(Txn::new(), |txn, key| txn.guard(key.clone(), Expected::Exists).delete(key.clone()));
        assert!(request(&guarded).operations.len() <= MAX_OPERATIONS);
    }

    #[test]
    fn a_refusal_names_the_guard_and_not_the_operation() {
        let txn = Txn::new().guard(key("x"), Expected::Any).guard(key("a"), Expected::Absent).put(key("b"), "1");
        let refused = |errors: &str| {
            let refused: Refused = serde_json::from_str(&format!(r#"{{"Errors":{errors}}}"#)).unwrap();
            refused.first(&request(&txn))
        };
        let first = refused(r#"[{"OpIndex":0,"What":"key exists"}]"#).unwrap();
        assert!(matches!(first, Answered::Refused { guard: 1 }), "{first:?}");
        let denied = refused(r#"[{"OpIndex":0,"What":"Permission denied"}]"#).unwrap_err();
        assert!(matches!(denied, Failure::Refused(Error::PermissionDenied { .. })), "{denied:?}");
        let other = refused(r#"[{"OpIndex":1,"What":"invalid"}]"#).unwrap_err();
        assert!(matches!(other, Failure::Refused(Error::InvalidArgument { .. })), "{other:?}");
    }
}
