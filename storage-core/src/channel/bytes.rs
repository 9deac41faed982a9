//! Addresses, group ids and signatures: bytes of a fixed number with one way to write them.
//!
//! A signature is not shown by `Debug`, since whoever has it can claim.

use std::{fmt, str::FromStr};

use crate::{Error, Result};

/// Bytes of a fixed number, printed and parsed as `0x` and hexadecimal digits.
macro_rules! fixed_bytes {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Its length, in bytes.
            pub const BYTES: usize = $bytes;

            /// Made of these bytes.
            pub const fn new(bytes: [u8; Self::BYTES]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
                &self.0
            }
        }

        /// # Errors
        /// [`Error::InvalidArgument`] for anything but `0x` and the right number of hexadecimal digits, of either case.
        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                parse(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("0x")?;
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    };
}

fixed_bytes! {
    /// An address of Ethereum. Parsed without regard to the checksum that its letters' case may hold.
    Address, 20
}

fixed_bytes! {
    /// The group of replicas that a channel pays.
    GroupId, 32
}

fixed_bytes! {
    /// A recoverable signature: r, s and v. Whoever has it can claim, so it is not shown by `Debug`.
    Signature, 65
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupId({self})")
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(..)")
    }
}

fn parse<const N: usize>(text: &str) -> Result<[u8; N]> {
    let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 2 * N);
    digits
        .and_then(hexadecimal)
        .ok_or_else(|| Error::invalid_argument(format!("{N} bytes are written as 0x and {} hexadecimal digits", 2 * N)))
}

fn hexadecimal<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|nibble| u8::try_from(nibble).ok());
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().as_chunks::<2>().0) {
        let [high, low] = pair.map(nibble);
        *byte = high? << 4 | low?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_and_case_does_not_matter() {
        let text = "0x00a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2ff";
        let address: Address = text.parse().unwrap();
        assert_eq!((address.as_bytes()[1], address.as_bytes()[19]), (0xa1, 0xff));
        assert_eq!(address.to_string(), text);
        assert_eq!(format!("0x{}", text[2..].to_uppercase()).parse::<Address>().unwrap(), address);
    }

    #[test]
    fn text_of_another_form_is_refused() {
        let digits = "0".repeat(40);
        let wrong =
            [String::new(), "0x".to_owned(), digits.clone(), format!("0x{digits}0"), format!("0x{}g", &digits[1..])];
        for text in wrong.into_iter().chain([format!("0x{}é", &digits[2..])]) {
            assert!(text.parse::<Address>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_signature_is_not_shown_by_debug() {
        assert_eq!(format!("{:?}", Signature::new([7; 65])), "Signature(..)");
    }
}
