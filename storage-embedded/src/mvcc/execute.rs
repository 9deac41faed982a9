//! Ranges, transactions with branches, and leases, as etcd has them, on the keys.

use std::collections::BTreeSet;

use bytes::Bytes;
use storage_core::{Key, Revision};

use super::{
    Compare, Delete, Direction, Event, KeyRange, KeyValue, Limits, Op, OpAnswer, Operand, OrderBy, Put, Range, Ranged,
    Refused, Relation, Txn, TxnAnswer,
    intervals::Intervals,
    limits::{Meter, weight},
};
use crate::keys::{Change, KeySpace, Leases, Record, Write, engine_revision, etcd_revision, own_key};

/// Reads a range.
///
/// # Errors
/// [`Refused::Compacted`], [`Refused::FutureRevision`], and what [`Limits::READING`] refuses.
pub(crate) fn range(keys: &KeySpace, range: &Range) -> Result<Ranged, Refused> {
    let mut meter = Limits::READING.meter();
    check_range(keys, range, &mut meter)?;
    range_in(keys, range, keys.revision, Some(&mut meter))
}

/// Looks at what is stored under each key at a revision (0: now), in order, and counts no cost: for those who run the cluster.
///
/// # Errors
/// [`Refused::Compacted`] and [`Refused::FutureRevision`].
pub(crate) fn each(keys: &KeySpace, revision: u64, mut look: impl FnMut(KeyValue)) -> Result<(), Refused> {
    let mut all = Range::new(KeyRange::From(Bytes::new()));
    all.revision = revision;
    check_revision(keys, &all)?;
    let look = |(key, record): (&Key, &Record)| look(entry(key.clone(), record));
    match past(keys, &all, keys.revision) {
        Some(before) => as_before(current(keys, &all.keys), before).for_each(look),
        None => current(keys, &all.keys).for_each(look),
    }
    Ok(())
}

/// Carries out a transaction that writes nothing.
///
/// # Errors
/// As [`range`].
///
/// # Panics
/// For a transaction that writes.
pub(crate) fn read(keys: &KeySpace, txn: &Txn) -> Result<TxnAnswer, Refused> {
    assert!(txn.is_read_only(), "a transaction that writes is read");
    Limits::READING.check(txn)?;
    let mut meter = Limits::READING.meter();
    let branches = branches(keys, txn, &mut meter)?;
    check_ranges(keys, txn, &mut branches.iter(), &mut meter)?;
    read_ops(keys, txn, &mut branches.iter(), &mut meter)
}

fn read_ops(keys: &KeySpace, txn: &Txn, branches: &mut Branches<'_>, meter: &mut Meter) -> Result<TxnAnswer, Refused> {
    let (succeeded, ops) = next_branch(txn, branches);
    let answers = ops.iter().map(|op| match op {
        Op::Range(range) => range_in(keys, range, keys.revision, Some(meter)).map(OpAnswer::Range),
        Op::Txn(txn) => read_ops(keys, txn, branches, meter).map(OpAnswer::Txn),
        Op::Put(_) | Op::Delete(_) => unreachable!("a transaction that writes nothing has neither"),
    });
    Ok(TxnAnswer { succeeded, answers: answers.collect::<Result<_, _>>()?, revision: etcd_revision(keys.revision) })
}

/// Carries out a transaction within limits, or nothing of it.
pub(crate) fn execute(keys: &mut KeySpace, txn: &Txn, limits: Limits) -> Result<TxnAnswer, Refused> {
    limits.check(txn)?;
    let mut meter = limits.meter();
    // As in etcd, every comparison, also of transactions within this one, sees what was there before all of it.
    let branches = branches(keys, txn, &mut meter)?;
    // Whatever could refuse an operation is looked at before the first is carried out: a refused transaction has changed nothing.
    check_writes(keys, txn, &mut branches.iter(), limits, &mut meter)?;
    check_ranges(keys, txn, &mut branches.iter(), &mut meter)?;
    // One entry fits into any answer. Only where there may be more keys than are named, what was there is kept to go back to.
    let Asked { reads, writes, ranges } = asked(txn, &mut branches.iter());
    let before = (writes && (reads > 1 || ranges)).then(|| keys.clone());
    let mut run = Run { write: keys.write(), meter, counts_answer: reads > 1 };
    let mut undone = branches.iter();
    match run.txn(txn, &mut undone) {
        Ok(answer) => {
            assert!(undone.next().is_none(), "each transaction that was decided is carried out");
            run.write.end();
            Ok(answer)
        }
        Err(refused) => {
            take_back(keys, before, writes);
            Err(refused)
        }
    }
}

/// Puts back what was there before a transaction that is given up.
///
/// # Panics
/// If it may have written and nothing was kept: half of it would stay.
fn take_back(keys: &mut KeySpace, before: Option<KeySpace>, writes: bool) {
    assert!(before.is_some() || !writes, "a transaction is given up that cannot be taken back");
    if let Some(before) = before {
        *keys = before;
    }
}

/// Gives up the history before a revision.
pub(crate) fn compact(keys: &mut KeySpace, revision: u64) -> Result<(), Refused> {
    if keys.history.compacted().is_some_and(|compacted| revision <= compacted) {
        return Err(Refused::Compacted);
    }
    if revision > etcd_revision(keys.revision) {
        return Err(Refused::FutureRevision);
    }
    keys.history.compact(revision);
    Ok(())
}

/// Grants a lease; gives its id, which is chosen if it is 0. `index`: of the entry that grants it.
pub(crate) fn grant_lease(keys: &mut KeySpace, index: u64, id: u64, ttl_seconds: u64) -> Result<u64, Refused> {
    if keys.lease(id).is_some() {
        return Err(Refused::LeaseExists);
    }
    if keys.leases.0.len() >= Leases::MAX {
        return Err(Refused::TooManyLeases);
    }
    let id = if id == 0 { keys.leases.free_id(index) } else { id };
    keys.add_lease(id, ttl_seconds, index);
    Ok(id)
}

/// Ends a lease and deletes its keys; gives the revision that this made, if there were any.
pub(crate) fn revoke_lease(keys: &mut KeySpace, id: u64) -> Result<Option<Revision>, Refused> {
    let lease = keys.remove_lease(id).ok_or(Refused::LeaseNotFound)?;
    let mut write = keys.write();
    lease.keys.iter().for_each(|key| write.delete(key));
    Ok(write.end())
}

/// As [`revoke_lease`], unless the id was given to another lease than the one that the entry at `granted` granted.
pub(crate) fn expire_lease(keys: &mut KeySpace, id: u64, granted: u64) -> Result<Option<Revision>, Refused> {
    match keys.lease(id) {
        // The leader has counted down that lease. One that was granted under its id since then has its whole time
        // before it.
        Some(lease) if lease.granted == granted => revoke_lease(keys, id),
        _ => Err(Refused::LeaseNotFound),
    }
}

/// Which branch each transaction takes, in the order in which they stand. All of them are decided before anything is written.
type Branches<'a> = std::slice::Iter<'a, bool>;

fn branches(keys: &KeySpace, txn: &Txn, meter: &mut Meter) -> Result<Vec<bool>, Refused> {
    let mut branches = Vec::new();
    decide(keys, txn, &mut branches, meter)?;
    Ok(branches)
}

fn decide(keys: &KeySpace, txn: &Txn, branches: &mut Vec<bool>, meter: &mut Meter) -> Result<(), Refused> {
    let mut all_hold = true;
    for compare in &txn.compares {
        // The first that fails decides, as in etcd: what stands behind it is not looked at and costs nothing, on each
        // replica alike.
        all_hold = holds(keys, compare, meter)?;
        if !all_hold {
            break;
        }
    }
    branches.push(all_hold);
    let ops = if all_hold { &txn.success } else { &txn.failure };
    meter.each(weight::OP, ops.len())?;
    ops.iter().try_for_each(|op| if let Op::Txn(txn) = op { decide(keys, txn, branches, meter) } else { Ok(()) })
}

/// # Panics
/// For a transaction that was not decided: a replica that took a branch by default would part from the others.
#[expect(clippy::expect_used, reason = "`decide` goes through the same transactions in the same order")]
fn next_branch<'a>(txn: &'a Txn, branches: &mut Branches<'_>) -> (bool, &'a [Op]) {
    let succeeded = *branches.next().expect("each transaction that is carried out was decided");
    (succeeded, if succeeded { &txn.success } else { &txn.failure })
}

fn holds(keys: &KeySpace, compare: &Compare, meter: &mut Meter) -> Result<bool, Refused> {
    let Compare { keys: wanted, relation, with } = compare;
    meter.work(weight::OP)?;
    let mut found = current(keys, wanted).map(|(_, record)| record).peekable();
    // To etcd an absent key has version, revisions and lease 0, and no comparison of its value holds.
    if found.peek().is_none() {
        return Ok(match with {
            Operand::Value(_) => false,
            Operand::Version(number) | Operand::Create(number) | Operand::Mod(number) | Operand::Lease(number) => {
                stands(0_i64.cmp(number), *relation)
            }
        });
    }
    for record in found {
        meter.work(weight::COLLECTED)?;
        let order = match with {
            Operand::Version(number) => record.version.cast_signed().cmp(number),
            Operand::Create(number) => etcd_revision(record.create_revision).cast_signed().cmp(number),
            Operand::Mod(number) => etcd_revision(record.mod_revision).cast_signed().cmp(number),
            Operand::Lease(number) => record.lease.cast_signed().cmp(number),
            Operand::Value(value) => {
                meter.value(record.value.len().min(value.len()))?;
                record.value.cmp(value)
            }
        };
        if !stands(order, *relation) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn stands(order: std::cmp::Ordering, relation: Relation) -> bool {
    match relation {
        Relation::Equal => order.is_eq(),
        Relation::NotEqual => order.is_ne(),
        Relation::Greater => order.is_gt(),
        Relation::Less => order.is_lt(),
    }
}

fn check_ranges(keys: &KeySpace, txn: &Txn, branches: &mut Branches<'_>, meter: &mut Meter) -> Result<(), Refused> {
    let (_, ops) = next_branch(txn, branches);
    ops.iter().try_for_each(|op| match op {
        Op::Range(range) => check_range(keys, range, meter),
        Op::Txn(txn) => check_ranges(keys, txn, branches, meter),
        Op::Put(_) | Op::Delete(_) => Ok(()),
    })
}

fn check_writes(
    keys: &KeySpace,
    txn: &Txn,
    branches: &mut Branches<'_>,
    limits: Limits,
    meter: &mut Meter,
) -> Result<(), Refused> {
    Writes { keys, limits, meter, puts: 0, there: BTreeSet::new(), deleted: Intervals::default() }.check(txn, branches)
}

/// What the operations write that were looked at so far.
struct Writes<'a> {
    keys: &'a KeySpace,
    limits: Limits,
    meter: &'a mut Meter,
    /// How many puts there were.
    puts: usize,
    /// The keys that were put, and not deleted since.
    there: BTreeSet<&'a [u8]>,
    /// What was deleted, whether or not it was put since.
    deleted: Intervals,
}

impl<'a> Writes<'a> {
    fn check(&mut self, txn: &'a Txn, branches: &mut Branches<'_>) -> Result<(), Refused> {
        let (_, ops) = next_branch(txn, branches);
        ops.iter().try_for_each(|op| match op {
            Op::Range(_) => Ok(()),
            Op::Put(put) => self.put(put),
            Op::Delete(delete) => self.delete(&delete.keys),
            Op::Txn(txn) => self.check(txn, branches),
        })
    }

    fn put(&mut self, put: &'a Put) -> Result<(), Refused> {
        let current = self.keys.record(&put.key);
        if (put.value.is_none() || put.lease.is_none()) && !self.is_there(put.key.as_bytes(), current.is_some()) {
            return Err(Refused::KeyNotFound);
        }
        if let Some(id) = put.lease.filter(|id| *id != 0) {
            let lease = self.keys.lease(id).ok_or(Refused::LeaseNotFound)?;
            // No more than this is attached by the puts before this one.
            self.limits.attach(lease.keys.len() + self.puts)?;
        }
        self.meter.work(weight::WRITES + weight::WRITTEN)?;
        // What it held is hashed, to take it out of the hash of the state.
        self.meter.value(current.map_or(0, |record| record.value.len()))?;
        self.puts += 1;
        self.there.insert(put.key.as_bytes());
        Ok(())
    }

    fn delete(&mut self, keys: &'a KeyRange) -> Result<(), Refused> {
        self.meter.work(weight::WRITES)?;
        if let KeyRange::One(key) = keys {
            let current = self.keys.key_and_record(key);
            self.meter.work(weight::WRITTEN)?;
            self.meter.deleted_value(current.map_or(0, |(_, record)| record.value.len()))?;
        }
        // Each put is taken out once, so this takes no longer than the puts did.
        if let Some(bounds) = keys.bounds() {
            let gone: Vec<_> = self.there.range::<[u8], _>(bounds).copied().collect();
            for key in gone {
                self.there.remove(key);
            }
        }
        self.deleted.insert(keys.clone());
        Ok(())
    }

    /// Whether there is such a key after these operations. `before`: whether it was there before them.
    fn is_there(&self, key: &[u8], before: bool) -> bool {
        self.there.contains(key) || (before && !self.deleted.contains(key))
    }
}

/// Whether a range can be read, and what it takes to go back to its revision.
fn check_range(keys: &KeySpace, range: &Range, meter: &mut Meter) -> Result<(), Refused> {
    check_revision(keys, range)?;
    if range.revision != 0 {
        meter.each(weight::UNDONE, keys.history.changes_since(engine_revision(range.revision)))?;
    }
    Ok(())
}

fn check_revision(keys: &KeySpace, range: &Range) -> Result<(), Refused> {
    if range.revision > etcd_revision(keys.revision) {
        return Err(Refused::FutureRevision);
    }
    // What is there now can always be read.
    let is_past = range.revision != 0 && range.revision != etcd_revision(keys.revision);
    if is_past && keys.history.compacted().is_some_and(|compacted| range.revision < compacted) {
        return Err(Refused::Compacted);
    }
    Ok(())
}

/// What the branches that are taken ask for.
#[derive(Default)]
struct Asked {
    /// How many entries they read, where many may be 2.
    reads: usize,
    writes: bool,
    /// Whether they name keys by a range.
    ranges: bool,
}

fn asked(txn: &Txn, branches: &mut Branches<'_>) -> Asked {
    let (_, ops) = next_branch(txn, branches);
    ops.iter().fold(Asked::default(), |asked, op| {
        let is_range = |keys: &KeyRange| !matches!(keys, KeyRange::One(_));
        let reads_of = |keys: &KeyRange| if is_range(keys) { 2 } else { 1 };
        let of_op = match op {
            Op::Range(range) => Asked { reads: reads_of(&range.keys), writes: false, ranges: is_range(&range.keys) },
            Op::Put(put) => Asked { reads: put.previous.into(), writes: true, ranges: false },
            Op::Delete(delete) => Asked {
                reads: if delete.previous { reads_of(&delete.keys) } else { 0 },
                writes: true,
                ranges: is_range(&delete.keys),
            },
            Op::Txn(txn) => self::asked(txn, branches),
        };
        Asked {
            reads: asked.reads + of_op.reads,
            writes: asked.writes || of_op.writes,
            ranges: asked.ranges || of_op.ranges,
        }
    })
}

/// A transaction that is being carried out.
struct Run<'a> {
    write: Write<'a>,
    meter: Meter,
    /// Whether the answer may be too large: one entry fits into any.
    counts_answer: bool,
}

impl Run<'_> {
    fn txn(&mut self, txn: &Txn, branches: &mut Branches<'_>) -> Result<TxnAnswer, Refused> {
        let (succeeded, ops) = next_branch(txn, branches);
        let answers = ops.iter().map(|op| self.op(op, branches)).collect::<Result<_, _>>()?;
        Ok(TxnAnswer { succeeded, answers, revision: self.revision() })
    }

    fn op(&mut self, op: &Op, branches: &mut Branches<'_>) -> Result<OpAnswer, Refused> {
        match op {
            Op::Range(range) => {
                let meter = self.counts_answer.then_some(&mut self.meter);
                range_in(self.write.keys(), range, self.write.revision_so_far(), meter).map(OpAnswer::Range)
            }
            Op::Put(put) => self.put(put),
            Op::Delete(delete) => self.delete(delete),
            Op::Txn(txn) => self.txn(txn, branches).map(OpAnswer::Txn),
        }
    }

    #[expect(clippy::expect_used, reason = "`check_writes` refuses the transaction otherwise")]
    fn put(&mut self, put: &Put) -> Result<OpAnswer, Refused> {
        let current = self.keys().record(&put.key).cloned();
        let kept = || current.as_ref().expect("a put that keeps a value or a lease was checked to find one");
        let value = put.value.clone().unwrap_or_else(|| kept().value.clone());
        let lease = put.lease.unwrap_or_else(|| kept().lease);
        self.write.put(&put.key, &value, lease);
        let previous = current.filter(|_| put.previous).map(|record| entry(own_key(&put.key), &record));
        if let Some(entry) = previous.as_ref().filter(|_| self.counts_answer) {
            self.meter.answer(entry)?;
        }
        Ok(OpAnswer::Put { previous, revision: self.revision() })
    }

    fn delete(&mut self, delete: &Delete) -> Result<OpAnswer, Refused> {
        let (mut found, mut previous) = (Vec::new(), Vec::new());
        let is_range = !matches!(delete.keys, KeyRange::One(_));
        for (key, record) in current(self.write.keys(), &delete.keys) {
            // One key was counted when it was checked.
            if is_range {
                self.meter.delete(record.value.len())?;
            }
            if delete.previous {
                let entry = entry(key.clone(), record);
                if self.counts_answer {
                    self.meter.answer(&entry)?;
                }
                previous.push(entry);
            }
            found.push(key.clone());
        }
        #[cfg(simulated)]
        if let KeyRange::Between(_, end) = &delete.keys
            && crate::simulated::is_planted(crate::simulated::Flaw::GreedyDelete)
        {
            found.extend(self.write.keys().key_and_record(end).map(|(key, _)| key.clone()));
        }
        found.iter().for_each(|key| self.write.delete(key));
        Ok(OpAnswer::Delete { deleted: found.len() as u64, previous, revision: self.revision() })
    }

    fn keys(&self) -> &KeySpace {
        self.write.keys()
    }

    /// The store's revision as this transaction sees it so far.
    fn revision(&self) -> u64 {
        etcd_revision(self.write.revision_so_far())
    }
}

/// The keys of a range as they are now.
pub(super) fn current<'a>(
    keys: &'a KeySpace,
    wanted: &'a KeyRange,
) -> impl Iterator<Item = (&'a Key, &'a Record)> + 'a {
    // One key is looked up, which is cheaper than to walk to it.
    let (one, many) = match wanted {
        KeyRange::One(key) => (keys.key_and_record(key), None),
        many => (None, many.bounds()),
    };
    let found = one.into_iter().chain(many.into_iter().flat_map(|bounds| keys.range(bounds)));
    #[cfg(test)]
    let found = found.inspect(|_| super::limits::counted::step());
    found
}

/// Reads a range whose revision was checked. `now` is the store's revision, which a transaction may just be making. Without a meter it is of
/// one key, whose cost was counted.
fn range_in(keys: &KeySpace, range: &Range, now: u64, meter: Option<&mut Meter>) -> Result<Ranged, Refused> {
    match past(keys, range, now) {
        Some(before) => collect(as_before(current(keys, &range.keys), before), weight::COLLECTED, range, now, meter),
        None => collect(current(keys, &range.keys), weight::WALKED, range, now, meter),
    }
}

/// What the keys of a range that have changed since its revision held then, in order.
type Before<'a> = Vec<(&'a Key, Option<&'a Record>)>;

/// `None`: the range is not in the past.
fn past<'a>(keys: &'a KeySpace, range: &Range, now: u64) -> Option<Before<'a>> {
    let at = if range.revision == 0 { now } else { engine_revision(range.revision) };
    // Not the revision of the tables: what a transaction has written so far is not part of the revision before it.
    (at < now).then(|| keys.history.undo(at, |key| range.keys.contains(key.as_bytes())))
}

/// Today's keys, with those that have changed since as they were before; in order, as both are.
fn as_before<'a>(
    today: impl Iterator<Item = (&'a Key, &'a Record)>,
    before: Before<'a>,
) -> impl Iterator<Item = (&'a Key, &'a Record)> {
    let (mut today, mut before) = (today.peekable(), before.into_iter().peekable());
    let next = move || match (today.peek(), before.peek()) {
        (Some((key, _)), Some((changed, _))) if key < changed => today.next().map(|(key, record)| (key, Some(record))),
        (Some((key, _)), Some((changed, _))) => {
            if key == changed {
                today.next();
            }
            before.next()
        }
        (Some(_), None) => today.next().map(|(key, record)| (key, Some(record))),
        (None, _) => before.next(),
    };
    std::iter::from_fn(next).filter_map(|(key, record)| Some((key, record?)))
}

fn collect<'a>(
    mut found: impl Iterator<Item = (&'a Key, &'a Record)>,
    walked: u64,
    range: &Range,
    now: u64,
    meter: Option<&mut Meter>,
) -> Result<Ranged, Refused> {
    let mut uncounted = Meter::without_limit();
    let meter = meter.unwrap_or(&mut uncounted);
    let revision = etcd_revision(now);
    let limit = if range.limit == 0 { usize::MAX } else { usize::try_from(range.limit).unwrap_or(usize::MAX) };
    // What is sorted or filtered has to be seen whole.
    let whole = range.order.direction.is_some() || range.revisions != Default::default();
    let taken = match range {
        Range { count_only: true, .. } => 0,
        _ if whole => usize::MAX,
        _ => limit.saturating_add(1),
    };
    let mut entries = Vec::new();
    while entries.len() < taken
        && let Some(entry) = found.next()
    {
        meter.work(weight::COLLECTED)?;
        entries.push(entry);
    }
    let mut count = entries.len() as u64;
    for _ in found {
        meter.work(walked)?;
        count += 1;
    }
    entries.retain(|(_, record)| passes(record, range));
    let more = entries.len() > limit;
    sort(&mut entries, range, limit, meter)?;
    entries.truncate(limit);
    let mut answer = Vec::new();
    for (key, record) in entries {
        let entry = entry(key.clone(), record);
        let entry = if range.keys_only { KeyValue { value: Default::default(), ..entry } } else { entry };
        meter.answer(&entry)?;
        answer.push(entry);
    }
    Ok(Ranged { entries: answer, more, count, revision })
}

fn passes(record: &Record, range: &Range) -> bool {
    let filter = range.revisions;
    let (modified, created) =
        (etcd_revision(record.mod_revision).cast_signed(), etcd_revision(record.create_revision).cast_signed());
    (filter.min_mod == 0 || modified >= filter.min_mod)
        && (filter.max_mod == 0 || modified <= filter.max_mod)
        && (filter.min_create == 0 || created >= filter.min_create)
        && (filter.max_create == 0 || created <= filter.max_create)
}

/// Sorts so that the first of them, up to the limit, are those of the order. Keys that are equal in it come in the order of the keys.
fn sort(entries: &mut [(&Key, &Record)], range: &Range, limit: usize, meter: &mut Meter) -> Result<(), Refused> {
    let direction = range.order.direction.unwrap_or(Direction::Ascending);
    // They are in the order of the keys already.
    match (direction, range.order.by) {
        (Direction::Ascending, OrderBy::Key) => return Ok(()),
        (Direction::Descending, OrderBy::Key) => {
            entries.reverse();
            return Ok(());
        }
        _ => {}
    }
    let by = |(_, record): &(&Key, &Record), (_, other): &(&Key, &Record)| match range.order.by {
        OrderBy::Key => unreachable!("keys are in their order already"),
        OrderBy::Version => record.version.cmp(&other.version),
        OrderBy::Create => record.create_revision.cmp(&other.create_revision),
        OrderBy::Mod => record.mod_revision.cmp(&other.mod_revision),
        OrderBy::Value => record.value.cmp(&other.value),
    };
    let compare = |one: &(&Key, &Record), other: &(&Key, &Record)| {
        let order = if direction == Direction::Ascending { by(one, other) } else { by(other, one) };
        order.then_with(|| one.0.cmp(other.0))
    };
    meter.each(weight::SORTED, entries.len())?;
    if range.order.by == OrderBy::Value {
        for (_, record) in entries.iter() {
            meter.value(SORT_COMPARES.saturating_mul(record.value.len()))?;
        }
    }
    // Whoever wants the newest key of many does not have the others sorted.
    let sorted = if limit < entries.len() {
        let (before, _, _) = entries.select_nth_unstable_by(limit, compare);
        before
    } else {
        entries
    };
    sorted.sort_unstable_by(compare);
    Ok(())
}

/// How often a value is compared when up to a million are sorted.
pub(super) const SORT_COMPARES: usize = 20;

/// A change, as those who ask see it. What was there before is shown only if the revision before can still be read.
pub(crate) fn event(change: Change, compacted: Option<u64>) -> Event {
    let before = etcd_revision(change.revision) - 1;
    let readable = compacted.is_none_or(|compacted| before >= compacted);
    let previous = change.previous.filter(|_| readable).map(|record| entry(change.key.clone(), &record));
    let Some(record) = change.record else {
        let key = change.key.into_bytes();
        let mod_revision = etcd_revision(change.revision);
        let entry = KeyValue { key, value: Bytes::new(), create_revision: 0, mod_revision, version: 0, lease: 0 };
        return Event { entry, deleted: true, previous };
    };
    Event { entry: entry(change.key, &record), deleted: false, previous }
}

/// What is stored under a key, as those who ask see it.
fn entry(key: Key, record: &Record) -> KeyValue {
    KeyValue {
        key: key.into_bytes(),
        value: record.value.clone(),
        create_revision: etcd_revision(record.create_revision),
        mod_revision: etcd_revision(record.mod_revision),
        version: record.version,
        lease: record.lease,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "each transaction that is carried out was decided")]
    fn no_branch_is_taken_by_default() {
        next_branch(&Txn::default(), &mut [].iter());
    }

    #[test]
    #[should_panic(expected = "a transaction is given up that cannot be taken back")]
    fn no_half_of_a_transaction_stays() {
        take_back(&mut KeySpace::default(), None, true);
    }

    #[test]
    #[should_panic(expected = "a transaction that writes is read")]
    fn a_read_writes_nothing() {
        let delete = Delete { keys: KeyRange::One("a".into()), previous: false };
        let _ = read(&KeySpace::default(), &Txn::of(Op::Delete(delete)));
    }
}
