//! How records are written: a schema tag, a version, then fields of fixed width or with their length before them,
//! big-endian. One value has one encoding, so equal records are equal bytes and can be compared with
//! [`Expected::Value`](crate::Expected::Value).

use bytes::Bytes;

/// What a record is, as its first six bytes say: four of tag, two of version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schema {
    /// Names the kind of record.
    pub tag: [u8; 4],
    /// The newest version that this program writes and reads, from 1. Older ones stay readable for ever.
    pub version: u16,
}

/// Why bytes are not the record that was expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The tag is that of another kind of record, or of none.
    #[error("the record begins with \"{}\", not \"{}\"", found.escape_ascii(), expected.escape_ascii())]
    WrongSchema {
        /// The tag that is there.
        found: [u8; 4],
        /// The tag that should be there.
        expected: [u8; 4],
    },
    /// A newer program wrote it.
    #[error("the record has version {found}, this program reads up to {supported}")]
    NewerVersion {
        /// The version that is there.
        found: u16,
        /// The newest version that can be read.
        supported: u16,
    },
    /// It ends too early.
    #[error("the record is truncated")]
    Truncated,
    /// It goes on behind its end.
    #[error("{bytes} bytes follow the record")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// A field holds what is never written there.
    #[error("the field {field} is not canonical")]
    NonCanonical {
        /// Which field.
        field: &'static str,
    },
}

impl Schema {
    /// A record of this schema, to which fields are added in order.
    pub fn writer(self) -> Writer {
        Writer { bytes: Vec::new() }.bytes(&self.tag).u16(self.version)
    }

    /// The fields of a record of this schema, to be taken in order.
    ///
    /// # Errors
    /// [`DecodeError::WrongSchema`], [`DecodeError::NewerVersion`], and [`DecodeError::Truncated`] for a record without a head.
    pub fn reader(self, record: &[u8]) -> Result<Reader<'_>, DecodeError> {
        let mut reader = Reader { rest: record, version: 0 };
        let found = reader.array()?;
        if found != self.tag {
            return Err(DecodeError::WrongSchema { found, expected: self.tag });
        }
        reader.version = reader.u16()?;
        match reader.version {
            // Nobody writes version 0, so zeroed storage is told from a record.
            0 => Err(DecodeError::NonCanonical { field: "version" }),
            found if found > self.version => Err(DecodeError::NewerVersion { found, supported: self.version }),
            _ => Ok(reader),
        }
    }
}

/// Writes the fields of a record.
#[derive(Debug)]
#[must_use = "a record that is not finished goes nowhere"]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Adds bytes as they are: for a field of fixed width.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Adds one byte.
    pub fn u8(self, number: u8) -> Self {
        self.bytes(&[number])
    }

    /// Adds a number of two bytes.
    pub fn u16(self, number: u16) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    /// Adds a number of eight bytes.
    pub fn u64(self, number: u64) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    /// Adds a yes or no, as 1 or 0.
    pub fn bool(self, yes: bool) -> Self {
        self.u8(u8::from(yes))
    }

    /// Adds bytes with their length, four bytes, before them.
    ///
    /// # Panics
    /// For 4 GiB or more, which no store takes.
    pub fn var_bytes(self, bytes: &[u8]) -> Self {
        #[expect(clippy::expect_used, reason = "a value of a store is far smaller: Capabilities::max_value_bytes")]
        let length = u32::try_from(bytes.len()).expect("a field is under 4 GiB");
        self.bytes(&length.to_be_bytes()).bytes(bytes)
    }

    /// The record.
    pub fn finish(self) -> Bytes {
        self.bytes.into()
    }
}

/// Takes the fields of a record.
#[derive(Debug)]
#[must_use = "a record is read when `finish` has said that nothing is left"]
pub struct Reader<'a> {
    rest: &'a [u8],
    version: u16,
}

/// Each takes one field.
///
/// # Errors
/// [`DecodeError::Truncated`] if the record ends first.
impl<'a> Reader<'a> {
    /// The version of the record, at most that of the schema.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Takes a field of fixed width.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (field, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*field)
    }

    /// Takes one byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_be_bytes)
    }

    /// Takes a number of two bytes.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Takes a number of eight bytes.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Takes a yes or no; `field` is its name.
    ///
    /// # Errors
    /// [`DecodeError::NonCanonical`] for anything but 1 and 0.
    pub fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        // Any other byte is refused: it would be a second encoding of the same record, and two encodings break comparison by value.
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::NonCanonical { field }),
        }
    }

    /// Takes bytes that have their length before them.
    pub fn var_bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_| DecodeError::Truncated)?;
        let (field, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(field)
    }

    /// Takes text that has its length before it; `field` is its name.
    ///
    /// # Errors
    /// [`DecodeError::NonCanonical`] for bytes that are not UTF-8.
    pub fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.var_bytes()?).map_err(|_| DecodeError::NonCanonical { field })
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`DecodeError::TrailingBytes`] if something is left.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(DecodeError::TrailingBytes { bytes }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: Schema = Schema { tag: *b"TEST", version: 3 };

    fn read(record: &[u8]) -> Result<(u64, bool, String), DecodeError> {
        let mut reader = SCHEMA.reader(record)?;
        let fields = (reader.u64()?, reader.bool("yes")?, reader.text("text")?.to_owned());
        reader.finish()?;
        Ok(fields)
    }

    #[test]
    fn fields_come_back_in_order() {
        let record = SCHEMA.writer().u64(7).bool(true).var_bytes(b"owner").finish();
        assert_eq!(read(&record).unwrap(), (7, true, "owner".to_owned()));
        for length in 0..record.len() {
            assert_eq!(read(&record[..length]), Err(DecodeError::Truncated), "{length} bytes");
        }
        assert_eq!(read(&[&record[..], b"!!"].concat()), Err(DecodeError::TrailingBytes { bytes: 2 }));
    }

    #[test]
    fn each_defect_has_its_own_error() {
        let with = |tag: &[u8], version: u16, yes: u8, text: &[u8]| {
            let head = Writer { bytes: vec![] }.bytes(tag).u16(version);
            read(&head.u64(7).u8(yes).var_bytes(text).finish()).unwrap_err()
        };
        assert_eq!(with(b"TASK", 3, 1, b""), DecodeError::WrongSchema { found: *b"TASK", expected: *b"TEST" });
        assert_eq!(with(b"TEST", 4, 1, b""), DecodeError::NewerVersion { found: 4, supported: 3 });
        assert_eq!(with(b"TEST", 0, 1, b""), DecodeError::NonCanonical { field: "version" });
        assert_eq!(with(b"TEST", 1, 2, b""), DecodeError::NonCanonical { field: "yes" });
        assert_eq!(with(b"TEST", 3, 1, b"\xff"), DecodeError::NonCanonical { field: "text" });
    }
}
