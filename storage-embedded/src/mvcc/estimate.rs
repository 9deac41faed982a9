//! How much work a request may take, found out in far less time than that: it says where the request is carried out, not whether. In place
//! nothing is shared with a copy, so that writes take less than they count.

use storage_core::Key;

use super::{
    KeyRange, Op, Operand, OrderBy, Range, Txn,
    execute::{SORT_COMPARES, current},
    limits::{SHORT_WORK, weight},
};
use crate::keys::{KeySpace, Record};

/// How much work a transaction may take, whatever branches it takes; `None`: more than [`SHORT_WORK`].
pub(crate) fn short_work(keys: &KeySpace, txn: &Txn) -> Option<u64> {
    let mut left = Left(SHORT_WORK);
    left.txn(keys, txn)?;
    Some(SHORT_WORK - left.0)
}

/// How much work it takes to write or delete these keys; `None`: more than [`SHORT_WORK`].
pub(crate) fn short_writes<'a>(keys: &KeySpace, written: impl IntoIterator<Item = &'a Key>) -> Option<u64> {
    let mut left = Left(SHORT_WORK);
    written.into_iter().try_for_each(|key| left.write(keys, key))?;
    Some(SHORT_WORK - left.0)
}

/// Whether a range takes no more than [`SHORT_WORK`].
pub(crate) fn is_short(keys: &KeySpace, range: &Range) -> bool {
    Left(SHORT_WORK).range(keys, range).is_some()
}

/// What is left of short work.
struct Left(u64);

impl Left {
    fn spend(&mut self, units: u64) -> Option<()> {
        self.0 = self.0.checked_sub(units)?;
        Some(())
    }

    fn txn(&mut self, keys: &KeySpace, txn: &Txn) -> Option<()> {
        for compare in &txn.compares {
            let compares_values = matches!(compare.with, Operand::Value(_));
            self.keys(keys, &compare.keys, |record| {
                weight::COLLECTED + if compares_values { hashed(record) } else { 0 }
            })?;
        }
        txn.success.iter().chain(&txn.failure).try_for_each(|op| match op {
            Op::Range(range) => self.range(keys, range),
            Op::Put(put) => self.write(keys, &put.key),
            Op::Delete(delete) => self.keys(keys, &delete.keys, |record| weight::WRITTEN + hashed(record)),
            Op::Txn(txn) => self.spend(weight::OP).and_then(|()| self.txn(keys, txn)),
        })
    }

    /// What it held is hashed, to take it out of the hash of the state.
    fn write(&mut self, keys: &KeySpace, key: &Key) -> Option<()> {
        self.spend(weight::OP + weight::WRITTEN + keys.record(key).map_or(0, hashed))
    }

    fn range(&mut self, keys: &KeySpace, range: &Range) -> Option<()> {
        if range.revision != 0 {
            self.spend(weight::UNDONE.saturating_mul(keys.history.len() as u64))?;
        }
        self.keys(keys, &range.keys, |record| match range {
            Range { count_only: true, revision: 0, .. } => weight::WALKED,
            Range { count_only: true, .. } => weight::COLLECTED,
            Range { order, .. } if order.by == OrderBy::Value => {
                weight::ANSWERED + (SORT_COMPARES as u64).saturating_mul(hashed(record))
            }
            _ => weight::ANSWERED,
        })
    }

    /// What each key of a range takes: it is walked over as far as the work allows.
    fn keys(&mut self, keys: &KeySpace, wanted: &KeyRange, work: impl Fn(&Record) -> u64) -> Option<()> {
        self.spend(weight::OP)?;
        current(keys, wanted).try_for_each(|(_, record)| self.spend(work(record)))
    }
}

/// What it takes to look at each byte of a value.
fn hashed(record: &Record) -> u64 {
    record.value.len() as u64 / weight::BYTES
}
