//! Changes of the configuration table, as the log carries them. One change has one encoding.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes};

use crate::codec::{DecodeError, Decoded, Reader, boolean, put_bytes, put_length};

/// Rows of the configuration table that are set and removed together, all or none, if rows are what they are expected to be.
///
/// What is expected is the content and no version: whoever relies on a row not having been another one meanwhile puts a number into it that rises.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowChange {
    /// What rows have to be; `None`: they must not be there. One that differs lets nothing be changed.
    pub expected: BTreeMap<Bytes, Option<Bytes>>,
    /// What rows become; `None`: they are removed.
    pub next: BTreeMap<Bytes, Option<Bytes>>,
}

pub(super) fn put_row_change(out: &mut Vec<u8>, RowChange { expected, next }: &RowChange) {
    for rows in [expected, next] {
        put_length(out, rows.len());
        for (name, content) in rows {
            put_bytes(out, name);
            out.put_u8(content.is_some().into());
            if let Some(content) = content {
                put_bytes(out, content);
            }
        }
    }
}

pub(super) fn row_change(reader: &mut Reader) -> Decoded<RowChange> {
    Ok(RowChange { expected: rows(reader)?, next: rows(reader)? })
}

fn rows(reader: &mut Reader) -> Decoded<BTreeMap<Bytes, Option<Bytes>>> {
    let mut rows = BTreeMap::new();
    for _ in 0..reader.length()? {
        let name = reader.bytes()?;
        let content = if boolean(reader)? { Some(reader.bytes()?) } else { None };
        // In their order, so that one change has one encoding.
        if rows.last_key_value().is_some_and(|(last, _)| *last >= name) {
            return Err(DecodeError("rows that are not in their order"));
        }
        rows.insert(name, content);
    }
    Ok(rows)
}
