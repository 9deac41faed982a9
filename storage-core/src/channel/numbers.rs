//! Numbers of 256 bits as Ethereum has them: amounts, channel ids, nonces and block numbers, each a type of its own.
//!
//! Arithmetic is checked and never wraps: a wrapped amount would be money out of nothing. Types of different meaning do
//! not mix.

use std::{fmt, str::FromStr};

use ruint::aliases::U256;

use crate::{Error, Result};

/// A number of 256 bits without a sign, as Ethereum has them: parsed from decimal digits or from `0x` and hexadecimal
/// digits, printed in decimal (`{:#x}` in hexadecimal), encoded in 32 bytes, big-endian.
macro_rules! word {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(U256);

        impl $name {
            /// 0.
            pub const ZERO: Self = Self(U256::ZERO);
            /// 2^256 - 1.
            pub const MAX: Self = Self(U256::MAX);
            /// The length of its encoding, in bytes.
            pub const BYTES: usize = 32;

            /// The number that these bytes are, the highest first.
            pub const fn from_be_bytes(bytes: [u8; Self::BYTES]) -> Self {
                Self(U256::from_be_bytes(bytes))
            }

            /// Its bytes, the highest first.
            pub const fn to_be_bytes(self) -> [u8; Self::BYTES] {
                self.0.to_be_bytes()
            }

            /// The number, if it has at most 64 bits.
            pub fn to_u64(self) -> Option<u64> {
                u64::try_from(self.0).ok()
            }
        }

        impl From<u64> for $name {
            fn from(number: u64) -> Self {
                Self(U256::from(number))
            }
        }

        /// # Errors
        /// [`Error::InvalidArgument`] for anything but decimal digits, or `0x` and hexadecimal digits, of at most 256 bits.
        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                parse(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

word! {
    /// Tokens, in their smallest unit. Arithmetic is checked: no amount is ever wrapped or clamped.
    ///
    /// ```
    /// # use storage_core::channel::Amount;
    /// let deposit: Amount = "0x64".parse()?;
    /// assert_eq!(deposit.checked_sub(Amount::from(58)).unwrap().to_string(), "42");
    /// assert_eq!(deposit.checked_sub(Amount::from(101)), None);
    /// # Ok::<(), storage_core::Error>(())
    /// ```
    Amount
}

word! {
    /// The number of a channel.
    ChannelId
}

word! {
    /// How often a channel was claimed: an authorization is for one nonce only.
    Nonce
}

word! {
    /// The number of a block of the blockchain.
    BlockNumber
}

impl Amount {
    /// The sum; `None` if it is over [`Amount::MAX`].
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference; `None` if it is negative.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// The product; `None` if it is over [`Amount::MAX`].
    pub fn checked_mul(self, times: u64) -> Option<Self> {
        self.0.checked_mul(U256::from(times)).map(Self)
    }

    /// Whether it is 0.
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

impl Nonce {
    /// The nonce after a claim; `None` after the last.
    pub fn checked_next(self) -> Option<Self> {
        self.0.checked_add(U256::ONE).map(Self)
    }
}

impl BlockNumber {
    /// The block so many later; `None` if there is none.
    pub fn checked_add(self, blocks: u64) -> Option<Self> {
        self.0.checked_add(U256::from(blocks)).map(Self)
    }
}

fn parse(text: &str) -> Result<U256> {
    let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16));
    // The parser below would take underscores and an empty text too.
    let valid = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
    let number = valid.then(|| U256::from_str_radix(digits, u64::from(radix)).ok()).flatten();
    number.ok_or_else(|| {
        let shown: String = text.chars().take(80).collect();
        Error::invalid_argument(format!(
            "a number is decimal, or 0x and hexadecimal, of at most 256 bits, not {shown:?}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGEST: &str = "115792089237316195423570985008687907853269984665640564039457584007913129639935";

    #[test]
    fn text_of_both_kinds_is_read_and_decimal_is_printed() {
        for (text, printed) in [("0", "0"), ("007", "7"), ("0x0", "0"), ("0xfF", "255"), (LARGEST, LARGEST)] {
            assert_eq!(text.parse::<Amount>().unwrap().to_string(), printed);
        }
        let hexadecimal = format!("{:#x}", Amount::MAX);
        assert_eq!(hexadecimal, format!("0x{}", "f".repeat(64)));
        assert_eq!(hexadecimal.parse::<Amount>().unwrap(), Amount::MAX);
        assert_eq!(format!("{:?}", Nonce::from(3)), "Nonce(3)");
    }

    #[test]
    fn text_that_is_no_number_is_refused() {
        let over = format!("{}6", LARGEST.strip_suffix('5').unwrap());
        let long = format!("0x1{}", "0".repeat(64));
        for text in ["", "0x", "-1", "+1", "1_000", " 1", "1.0", "ff", "0b1", "0X1", "١", &over, &long] {
            assert!(matches!(text.parse::<Amount>(), Err(Error::InvalidArgument { .. })), "{text:?}");
        }
    }

    #[test]
    fn arithmetic_never_wraps() {
        let (one, two) = (Amount::from(1), Amount::from(2));
        assert_eq!(one.checked_add(one), Some(two));
        assert_eq!(Amount::MAX.checked_add(one), None);
        assert_eq!(two.checked_sub(one), Some(one));
        assert_eq!(one.checked_sub(two), None);
        assert_eq!(one.checked_mul(2), Some(two));
        assert_eq!(Amount::MAX.checked_mul(2), None);
        assert_eq!(Nonce::MAX.checked_next(), None);
        assert_eq!(BlockNumber::MAX.checked_add(1), None);
        assert!(Amount::from(u64::MAX) < Amount::MAX);
        assert_eq!((Amount::from(u64::MAX).to_u64(), Amount::MAX.to_u64()), (Some(u64::MAX), None));
    }

    #[test]
    fn the_highest_byte_comes_first() {
        let mut bytes = [0; 32];
        bytes[30] = 1;
        assert_eq!(Amount::from(256).to_be_bytes(), bytes);
        assert_eq!(Amount::from_be_bytes(bytes), Amount::from(256));
    }
}
