//! The binary encoding that the log, snapshots, commands and the network share: little-endian integers,
//! byte strings with a 32-bit length before them. Canonical: one value has one encoding.

use bytes::{Buf, BufMut, Bytes};
use storage_core::{Key, Version};

/// Bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct DecodeError(pub(crate) &'static str);

pub(crate) type Decoded<T> = Result<T, DecodeError>;

const SHORT: DecodeError = DecodeError("the bytes end too early");

/// Reads values off the front of a buffer; what it returns shares the buffer's memory.
#[derive(Debug)]
pub(crate) struct Reader(Bytes);

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(crate) fn u8(&mut self) -> Decoded<u8> {
        self.0.try_get_u8().map_err(|_| SHORT)
    }

    /// The next byte, which stays.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    pub(crate) fn u32(&mut self) -> Decoded<u32> {
        self.0.try_get_u32_le().map_err(|_| SHORT)
    }

    pub(crate) fn u64(&mut self) -> Decoded<u64> {
        self.0.try_get_u64_le().map_err(|_| SHORT)
    }

    pub(crate) fn u128(&mut self) -> Decoded<u128> {
        self.0.try_get_u128_le().map_err(|_| SHORT)
    }

    /// A byte string.
    pub(crate) fn bytes(&mut self) -> Decoded<Bytes> {
        let length = self.length()?;
        Ok(self.0.split_to(length))
    }

    pub(crate) fn string(&mut self) -> Decoded<String> {
        String::from_utf8(self.bytes()?.into()).map_err(|_| DecodeError("a text is not UTF-8"))
    }

    /// The number of items that follow. Each takes at least a byte, so a number that cannot be true is refused
    /// before anything is allocated for it.
    pub(crate) fn length(&mut self) -> Decoded<usize> {
        let length = usize::try_from(self.u32()?).map_err(|_| SHORT)?;
        if length > self.0.len() { Err(SHORT) } else { Ok(length) }
    }

    /// All that is left.
    pub(crate) fn rest(self) -> Bytes {
        self.0
    }

    /// All that is left, in memory of its own: for what is kept for long. A part of what was read keeps all of it, and
    /// a buffer of which something is kept cannot be used for the next read.
    pub(crate) fn rest_detached(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// That nothing is left.
    pub(crate) fn end(self) -> Decoded<()> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError("more bytes than expected")) }
    }
}

/// Writes the index of an entry, if there is one. It takes as many bytes either way.
pub(crate) fn put_optional_index(out: &mut Vec<u8>, index: Option<u64>) {
    out.put_u8(index.is_some().into());
    out.put_u64_le(index.unwrap_or_default());
}

/// What [`put_optional_index`] writes.
pub(crate) fn optional_index(reader: &mut Reader) -> Decoded<Option<u64>> {
    match (boolean(reader)?, reader.u64()?) {
        (true, index) => Ok(Some(index)),
        (false, 0) => Ok(None),
        (false, _) => Err(DecodeError("an index where there is none")),
    }
}

/// Writes a number of items or bytes. The limits of the contract keep every one far below 4 GiB.
pub(crate) fn put_length(out: &mut Vec<u8>, length: usize) {
    #[expect(clippy::expect_used, reason = "every length is bounded by a limit of the contract, far below 4 GiB")]
    out.put_u32_le(u32::try_from(length).expect("a length below 4 GiB"));
}

/// Writes a byte string.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.put_slice(bytes);
}

/// Writes a byte string that `write` appends.
#[expect(clippy::expect_used, reason = "`write` only appends, and a limit of the contract bounds what it does")]
pub(crate) fn put_with_length(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    put_length(out, 0);
    write(out);
    let (_, written) = out.split_at_mut(start);
    let (length, bytes) = written.split_first_chunk_mut::<4>().expect("a byte string begins with its length");
    *length = u32::try_from(bytes.len()).expect("a length below 4 GiB").to_le_bytes();
}

/// A key of a user.
pub(crate) fn key(reader: &mut Reader) -> Decoded<Key> {
    Key::new(reader.bytes()?).map_err(|_| DecodeError("a key is empty or too long"))
}

/// A version: its bytes as they are.
pub(crate) fn version(reader: &mut Reader) -> Decoded<Version> {
    // Read as little-endian and written back so, the bytes keep their order.
    Ok(Version::from_bytes(reader.u128()?.to_le_bytes()))
}

pub(crate) fn boolean(reader: &mut Reader) -> Decoded<bool> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError("a flag is neither 0 nor 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_cannot_be_true_is_refused() {
        let mut reader = Reader::new(Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 1]));
        assert_eq!(reader.bytes(), Err(SHORT));
    }
}
