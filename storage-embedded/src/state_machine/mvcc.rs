//! Ranges, and transactions with branches, on the state.

use std::sync::Arc;

use bytes::Bytes;
use storage_core::Key;

use super::{Applied, Record, Refusal, State, Tables, state::Write, tables::own_key};
use crate::mvcc::{
    Compare, Delete, Direction, Event, KeyRange, KeyValue, MAX_ANSWER_BYTES, Op, OpAnswer, Operand, OrderBy, Put,
    Range, Ranged, Relation, Txn, TxnAnswer, engine, shown,
};

/// Reads a range.
///
/// # Errors
/// [`Refusal::Compacted`] and [`Refusal::FutureRevision`].
pub(crate) fn range(tables: &Tables, range: &Range) -> Result<Ranged, Refusal> {
    check_revision(tables, range)?;
    Ok(range_in(tables, range, tables.revision))
}

/// Carries out a transaction that writes nothing.
///
/// # Errors
/// As [`range`].
pub(crate) fn read(tables: &Tables, txn: &Txn) -> Result<TxnAnswer, Refusal> {
    let branches = branches(tables, txn);
    check_ranges(tables, txn, &mut branches.iter())?;
    Ok(read_ops(tables, txn, &mut branches.iter()))
}

fn read_ops(tables: &Tables, txn: &Txn, branches: &mut Branches<'_>) -> TxnAnswer {
    let (succeeded, ops) = next_branch(txn, branches);
    let answers = ops.iter().filter_map(|op| match op {
        Op::Range(range) => Some(OpAnswer::Range(range_in(tables, range, tables.revision))),
        Op::Txn(txn) => Some(OpAnswer::Txn(read_ops(tables, txn, branches))),
        // There is none in a transaction that writes nothing.
        Op::Put(_) | Op::Delete(_) => None,
    });
    TxnAnswer { succeeded, answers: answers.collect(), revision: shown(tables.revision) }
}

/// Carries out a transaction, or nothing of it.
pub(super) fn apply(state: &mut State, txn: &Txn) -> Applied {
    let branches = branches(&state.tables, txn);
    if let Err(refused) = check(&state.tables, txn, &mut branches.iter()) {
        return refused;
    }
    // One entry fits into any answer. Only where there may be more, what was there is kept to go back to.
    let (reads, writes) = reads_and_writes(txn, &mut branches.iter());
    let before = (reads > 1 && writes).then(|| state.tables.clone());
    let mut run = Run { write: state.write(), bytes: 0 };
    let answer = run.txn(txn, &mut branches.iter());
    if reads > 1 && run.bytes > MAX_ANSWER_BYTES {
        if let Some(before) = before {
            state.tables = before;
        }
        return Applied::Refused(Refusal::AnswerTooLarge);
    }
    run.write.end();
    Applied::Mvcc(Arc::new(answer))
}

/// Gives up the history before a revision.
pub(super) fn compact(tables: &mut Tables, revision: u64) -> Applied {
    if tables.history.compacted().is_some_and(|compacted| revision <= compacted) {
        return Applied::Refused(Refusal::Compacted);
    }
    if revision > shown(tables.revision) {
        return Applied::Refused(Refusal::FutureRevision);
    }
    tables.history.compact(revision);
    Applied::Nothing
}

/// Which branch each transaction takes, in the order in which they stand. All of them are decided before anything is written.
type Branches<'a> = std::slice::Iter<'a, bool>;

fn branches(tables: &Tables, txn: &Txn) -> Vec<bool> {
    let mut branches = Vec::new();
    decide(tables, txn, &mut branches);
    branches
}

fn decide(tables: &Tables, txn: &Txn, branches: &mut Vec<bool>) {
    let holds = txn.compares.iter().all(|compare| holds(tables, compare));
    branches.push(holds);
    for op in if holds { &txn.success } else { &txn.failure } {
        if let Op::Txn(txn) = op {
            decide(tables, txn, branches);
        }
    }
}

fn next_branch<'a>(txn: &'a Txn, branches: &mut Branches<'_>) -> (bool, &'a [Op]) {
    let succeeded = branches.next().copied().unwrap_or_default();
    (succeeded, if succeeded { &txn.success } else { &txn.failure })
}

fn holds(tables: &Tables, Compare { keys, relation, with }: &Compare) -> bool {
    let mut found = current(tables, keys).map(|(_, record)| record).peekable();
    if found.peek().is_none() {
        return match with {
            Operand::Value(_) => false,
            Operand::Version(number) | Operand::Create(number) | Operand::Mod(number) | Operand::Lease(number) => {
                stands(0_i64.cmp(number), *relation)
            }
        };
    }
    found.all(|record| {
        let order = match with {
            Operand::Version(number) => record.version.cast_signed().cmp(number),
            Operand::Create(number) => shown(record.create_revision).cast_signed().cmp(number),
            Operand::Mod(number) => shown(record.mod_revision).cast_signed().cmp(number),
            Operand::Lease(number) => record.lease.cast_signed().cmp(number),
            Operand::Value(value) => record.value.cmp(value),
        };
        stands(order, *relation)
    })
}

fn stands(order: std::cmp::Ordering, relation: Relation) -> bool {
    match relation {
        Relation::Equal => order.is_eq(),
        Relation::NotEqual => order.is_ne(),
        Relation::Greater => order.is_gt(),
        Relation::Less => order.is_lt(),
    }
}

/// Whatever could refuse an operation of the branches that are taken is looked at before the first one is carried out.
fn check(tables: &Tables, txn: &Txn, branches: &mut Branches<'_>) -> Result<(), Applied> {
    check_puts(tables, txn, &mut branches.clone())?;
    check_ranges(tables, txn, branches).map_err(Applied::Refused)
}

fn check_ranges(tables: &Tables, txn: &Txn, branches: &mut Branches<'_>) -> Result<(), Refusal> {
    let (_, ops) = next_branch(txn, branches);
    ops.iter().try_for_each(|op| match op {
        Op::Range(range) => check_revision(tables, range),
        Op::Txn(txn) => check_ranges(tables, txn, branches),
        Op::Put(_) | Op::Delete(_) => Ok(()),
    })
}

fn check_puts(tables: &Tables, txn: &Txn, branches: &mut Branches<'_>) -> Result<(), Applied> {
    let (_, ops) = next_branch(txn, branches);
    for op in ops {
        match op {
            Op::Put(put) => {
                if (put.value.is_none() || put.lease.is_none()) && tables.record(&put.key).is_none() {
                    return Err(Applied::Refused(Refusal::KeyNotFound));
                }
                if put.lease.is_some_and(|lease| lease != 0 && tables.lease(lease).is_none()) {
                    return Err(Applied::LeaseNotFound);
                }
            }
            Op::Range(_) | Op::Delete(_) => {}
            Op::Txn(txn) => check_puts(tables, txn, branches)?,
        }
    }
    Ok(())
}

fn check_revision(tables: &Tables, range: &Range) -> Result<(), Refusal> {
    if range.revision > shown(tables.revision) {
        return Err(Refusal::FutureRevision);
    }
    // What is there now can always be read.
    let is_past = range.revision != 0 && range.revision != shown(tables.revision);
    if is_past && tables.history.compacted().is_some_and(|compacted| range.revision < compacted) {
        return Err(Refusal::Compacted);
    }
    Ok(())
}

/// How many entries the branches that are taken read, where many may be 2, and whether they write.
fn reads_and_writes(txn: &Txn, branches: &mut Branches<'_>) -> (usize, bool) {
    let (_, ops) = next_branch(txn, branches);
    ops.iter().fold((0, false), |(reads, writes), op| {
        let reads_of = |keys: &KeyRange| if matches!(keys, KeyRange::One(_)) { 1 } else { 2 };
        let (more_reads, more_writes) = match op {
            Op::Range(range) => (reads_of(&range.keys), false),
            Op::Put(put) => (put.previous.into(), true),
            Op::Delete(delete) => (if delete.previous { reads_of(&delete.keys) } else { 0 }, true),
            Op::Txn(txn) => reads_and_writes(txn, branches),
        };
        (reads + more_reads, writes || more_writes)
    })
}

/// A transaction that is being carried out.
struct Run<'a> {
    write: Write<'a>,
    /// How large the answer is so far, in bytes.
    bytes: usize,
}

impl Run<'_> {
    fn txn(&mut self, txn: &Txn, branches: &mut Branches<'_>) -> TxnAnswer {
        let (succeeded, ops) = next_branch(txn, branches);
        let answers = ops.iter().map(|op| self.op(op, branches)).collect();
        TxnAnswer { succeeded, answers, revision: self.revision() }
    }

    fn op(&mut self, op: &Op, branches: &mut Branches<'_>) -> OpAnswer {
        match op {
            Op::Range(range) => {
                let ranged = range_in(self.tables(), range, crate::mvcc::engine(self.revision()));
                self.count(&ranged.entries);
                OpAnswer::Range(ranged)
            }
            Op::Put(put) => self.put(put),
            Op::Delete(delete) => self.delete(delete),
            Op::Txn(txn) => OpAnswer::Txn(self.txn(txn, branches)),
        }
    }

    fn put(&mut self, put: &Put) -> OpAnswer {
        let current = self.tables().record(&put.key).cloned();
        // That there is one was checked; an earlier operation cannot have removed it, since no key is written twice.
        let value =
            put.value.clone().or_else(|| current.as_ref().map(|record| record.value.clone())).unwrap_or_default();
        let lease = put.lease.or_else(|| current.as_ref().map(|record| record.lease)).unwrap_or_default();
        self.write.put(&put.key, &value, lease);
        let previous = current.filter(|_| put.previous).map(|record| entry(own_key(&put.key), &record));
        self.count(previous.as_slice());
        OpAnswer::Put { previous, revision: self.revision() }
    }

    fn delete(&mut self, delete: &Delete) -> OpAnswer {
        let found: Vec<_> =
            current(self.tables(), &delete.keys).map(|(key, record)| (key.clone(), record.clone())).collect();
        found.iter().for_each(|(key, _)| self.write.delete(key));
        let previous = if delete.previous {
            found.iter().map(|(key, record)| entry(key.clone(), record)).collect()
        } else {
            vec![]
        };
        self.count(&previous);
        OpAnswer::Delete { deleted: found.len() as u64, previous, revision: self.revision() }
    }

    fn tables(&self) -> &Tables {
        &self.write.state.tables
    }

    /// The store's revision as this transaction sees it so far.
    fn revision(&self) -> u64 {
        shown(if self.write.changed { self.write.revision } else { self.tables().revision })
    }

    fn count(&mut self, entries: &[KeyValue]) {
        self.bytes += entries.iter().map(KeyValue::bytes).sum::<usize>();
    }
}

/// The keys of a range as they are now.
fn current<'a>(tables: &'a Tables, keys: &'a KeyRange) -> impl Iterator<Item = (&'a Key, &'a Record)> + 'a {
    let one = match keys {
        KeyRange::One(key) => Some(tables.records.get_key_value(key.as_ref())),
        _ => None,
    };
    // One key is looked up, which is cheaper than to walk to it.
    let many = if one.is_some() { None } else { keys.bounds() };
    let many = many.into_iter().flat_map(|bounds| tables.records.range::<_, [u8]>(bounds));
    one.flatten().into_iter().chain(many)
}

/// Reads a range whose revision was checked. `now` is the store's revision, which a transaction may just be making.
fn range_in(tables: &Tables, range: &Range, now: u64) -> Ranged {
    let at = if range.revision == 0 { now } else { engine(range.revision) };
    // Not the revision of the tables: what a transaction has written so far is not part of the revision before it.
    if at < now {
        let before = tables.history.undo(at, &range.keys);
        let unchanged = current(tables, &range.keys).filter(|(key, _)| !before.contains_key(key));
        let changed = before.iter().filter_map(|(key, record)| Some((*key, (*record)?)));
        let mut found: Vec<_> = unchanged.chain(changed).collect();
        found.sort_unstable_by_key(|(key, _)| *key);
        return collect(found.into_iter(), range, now);
    }
    collect(current(tables, &range.keys), range, now)
}

fn collect<'a>(mut found: impl Iterator<Item = (&'a Key, &'a Record)>, range: &Range, now: u64) -> Ranged {
    let revision = shown(now);
    if range.count_only {
        return Ranged { count: found.count() as u64, revision, ..Ranged::default() };
    }
    let limit = if range.limit == 0 { usize::MAX } else { usize::try_from(range.limit).unwrap_or(usize::MAX) };
    // What is sorted or filtered has to be seen whole.
    let whole = range.order.direction.is_some() || range.revisions != Default::default();
    let taken = if whole { usize::MAX } else { limit.saturating_add(1) };
    let mut entries: Vec<_> = found.by_ref().take(taken).collect();
    let count = (entries.len() + found.count()) as u64;
    entries.retain(|(_, record)| passes(record, range));
    sort(&mut entries, range);
    let more = entries.len() > limit;
    entries.truncate(limit);
    let entries = entries.into_iter().map(|(key, record)| {
        let entry = entry(key.clone(), record);
        if range.keys_only { KeyValue { value: Default::default(), ..entry } } else { entry }
    });
    Ranged { entries: entries.collect(), more, count, revision }
}

fn passes(record: &Record, range: &Range) -> bool {
    let filter = range.revisions;
    let (modified, created) = (shown(record.mod_revision).cast_signed(), shown(record.create_revision).cast_signed());
    (filter.min_mod == 0 || modified >= filter.min_mod)
        && (filter.max_mod == 0 || modified <= filter.max_mod)
        && (filter.min_create == 0 || created >= filter.min_create)
        && (filter.max_create == 0 || created <= filter.max_create)
}

fn sort(entries: &mut [(&Key, &Record)], range: &Range) {
    let direction = range.order.direction.unwrap_or(Direction::Ascending);
    let compare = |(key, record): &(&Key, &Record), (other_key, other): &(&Key, &Record)| match range.order.by {
        OrderBy::Key => key.cmp(other_key),
        OrderBy::Version => record.version.cmp(&other.version),
        OrderBy::Create => record.create_revision.cmp(&other.create_revision),
        OrderBy::Mod => record.mod_revision.cmp(&other.mod_revision),
        OrderBy::Value => record.value.cmp(&other.value),
    };
    match direction {
        // They are in the order of the keys already.
        Direction::Ascending if range.order.by == OrderBy::Key => {}
        Direction::Ascending => entries.sort_by(compare),
        Direction::Descending => entries.sort_by(|one, other| compare(other, one)),
    }
}

/// A change, as those who ask see it. What was there before is shown only if the revision before can still be read.
pub(crate) fn event(change: super::Change, compacted: Option<u64>) -> Event {
    let before = shown(change.revision) - 1;
    let readable = compacted.is_none_or(|compacted| before >= compacted);
    let previous = change.previous.filter(|_| readable).map(|record| entry(change.key.clone(), &record));
    let Some(record) = change.record else {
        let key = change.key.into_bytes();
        let mod_revision = shown(change.revision);
        let entry = KeyValue { key, value: Bytes::new(), create_revision: 0, mod_revision, version: 0, lease: 0 };
        return Event { entry, deleted: true, previous };
    };
    Event { entry: entry(change.key, &record), deleted: false, previous }
}

/// What is stored under a key, as those who ask see it.
pub(super) fn entry(key: Key, record: &Record) -> KeyValue {
    KeyValue {
        key: key.into_bytes(),
        value: record.value.clone(),
        create_revision: shown(record.create_revision),
        mod_revision: shown(record.mod_revision),
        version: record.version,
        lease: record.lease,
    }
}
