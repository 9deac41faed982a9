//! Versions: opaque, for equality only, and never repeated for a key.

use std::{fmt, str::FromStr};

use crate::Error;

/// The version of one key's value: opaque, for equality only.
///
/// It changes at every write of the key, also at a write of the same value, and never repeats for that key, not
/// even after delete and re-create. So a compare-and-swap on a version cannot fall for the ABA problem.
/// Printed and parsed as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version([u8; 16]);

impl Version {
    /// The length of a version, in bytes.
    pub const BYTES: usize = 16;

    /// For backends: a version of the store's own bytes.
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// For backends: a version made of a number that the store never repeats, such as a revision.
    pub const fn from_u64(number: u64) -> Self {
        Self((number as u128).to_be_bytes())
    }

    /// For backends: what [`Version::from_bytes`] was given.
    pub const fn to_bytes(self) -> [u8; Self::BYTES] {
        self.0
    }

    /// For backends: what [`Version::from_u64`] was given; `None` if it was made otherwise (a version of another store).
    pub fn to_u64(self) -> Option<u64> {
        u64::try_from(u128::from_be_bytes(self.0)).ok()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({:x})", u128::from_be_bytes(self.0))
    }
}

impl FromStr for Version {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // `from_str_radix` takes a sign, which no version has.
        let digits = !text.is_empty() && text.len() <= 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        match u128::from_str_radix(text, 16) {
            Ok(number) if digits => Ok(Self(number.to_be_bytes())),
            _ => Err(Error::invalid_argument(format!("a version is 1 to 32 hexadecimal digits, not {text:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_survive_text() {
        for number in [0, 1, u64::MAX] {
            let version = Version::from_u64(number);
            assert_eq!(version.to_string().parse::<Version>().unwrap(), version);
            assert_eq!(version.to_u64(), Some(number));
        }
        assert_eq!(Version::from_bytes([0xff; 16]).to_u64(), None);
    }

    #[test]
    fn text_that_is_no_version_is_refused() {
        for text in ["", "+1", "xyz", "0x1", "000000000000000000000000000000001"] {
            assert!(text.parse::<Version>().is_err(), "{text:?}");
        }
    }
}
