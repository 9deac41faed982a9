//! The headers of a paid call, as the SDKs send them with gRPC, and the codes that they expect. Pure: whoever has a request gives its headers.

use storage_core::channel::Address;

use crate::{Authorization, Error, Payment, Refusal, SignatureError};

/// A header of a paid call.
pub mod header {
    /// How the call is paid for: [`ESCROW`](super::ESCROW), which it is without this header, too.
    pub const PAYMENT_TYPE: &str = "snet-payment-type";
    /// The channel, in decimal digits.
    pub const CHANNEL_ID: &str = "snet-payment-channel-id";
    /// The nonce of the channel, in decimal digits.
    pub const CHANNEL_NONCE: &str = "snet-payment-channel-nonce";
    /// What is authorized in total, in decimal digits.
    pub const CHANNEL_AMOUNT: &str = "snet-payment-channel-amount";
    /// The signature, as bytes: gRPC carries them in base64.
    pub const CHANNEL_SIGNATURE: &str = "snet-payment-channel-signature-bin";
}

/// The payment type of a call that is paid for from a channel.
pub const ESCROW: &str = "escrow";

/// Why headers are no payment. Nobody was asked: neither the store nor the blockchain.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// A header is not there.
    #[error("missing \"{name}\"")]
    Missing {
        /// Which one.
        name: &'static str,
    },
    /// A header is there more than once.
    #[error("too many values for key \"{name}\"")]
    Repeated {
        /// Which one.
        name: &'static str,
    },
    /// A header is no number from 0 to 2^256 - 1.
    #[error("incorrect format \"{name}\"")]
    NotANumber {
        /// Which one.
        name: &'static str,
    },
    /// The call is to be paid for in another way.
    #[error("unexpected \"{}\"", header::PAYMENT_TYPE)]
    PaymentType,
    /// The signature is none.
    #[error("payment signature is not valid: {0}")]
    Signature(#[from] SignatureError),
}

/// A status of gRPC, as the clients of snet-daemon take it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum GrpcCode {
    /// 3: the headers are wrong.
    InvalidArgument,
    /// 9: another payment of the channel is in flight.
    FailedPrecondition,
    /// 13: the service cannot say what became of it, or its records are wrong.
    Internal,
    /// 14: the store or the blockchain cannot be asked; nothing was charged.
    Unavailable,
    /// 16: the payment does not pay for the call.
    Unauthenticated,
    /// 1000: the payment is for another nonce. The client asks for the state of the channel.
    IncorrectNonce,
}

impl GrpcCode {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        match self {
            Self::InvalidArgument => 3,
            Self::FailedPrecondition => 9,
            Self::Internal => 13,
            Self::Unavailable => 14,
            Self::Unauthenticated => 16,
            Self::IncorrectNonce => 1000,
        }
    }
}

impl Payment {
    /// The payment in the headers of a call for a service of this contract. `values` gives the values of a header, those of `-bin` as bytes.
    ///
    /// # Errors
    /// A [`HeaderError`].
    pub fn from_headers<'a, V: IntoIterator<Item = &'a [u8]>>(
        contract: Address,
        values: impl Fn(&'static str) -> V,
    ) -> Result<Self, HeaderError> {
        let one = |name: &'static str| {
            let mut values = values(name).into_iter();
            let value = values.next().ok_or(HeaderError::Missing { name })?;
            if values.next().is_some() { Err(HeaderError::Repeated { name }) } else { Ok(value) }
        };
        match one(header::PAYMENT_TYPE) {
            Err(HeaderError::Missing { .. }) => {}
            Err(error) => return Err(error),
            Ok(found) if found == ESCROW.as_bytes() => {}
            Ok(_) => return Err(HeaderError::PaymentType),
        }
        let text = |name| std::str::from_utf8(one(name)?).map_err(|_| HeaderError::NotANumber { name });
        let wrong = |name| HeaderError::NotANumber { name };
        let authorization = Authorization {
            contract,
            channel_id: text(header::CHANNEL_ID)?.parse().map_err(|_| wrong(header::CHANNEL_ID))?,
            nonce: text(header::CHANNEL_NONCE)?.parse().map_err(|_| wrong(header::CHANNEL_NONCE))?,
            amount: text(header::CHANNEL_AMOUNT)?.parse().map_err(|_| wrong(header::CHANNEL_AMOUNT))?,
        };
        Ok(Self::new(authorization, one(header::CHANNEL_SIGNATURE)?)?)
    }
}

impl HeaderError {
    /// What the client is told.
    pub fn grpc_code(&self) -> GrpcCode {
        match self {
            Self::Signature(_) => GrpcCode::Unauthenticated,
            _ => GrpcCode::InvalidArgument,
        }
    }
}

impl Error {
    /// What the client of a call is told that could not be paid for.
    pub fn grpc_code(&self) -> GrpcCode {
        match self {
            Self::Refused(Refusal::IncorrectNonce { .. }) => GrpcCode::IncorrectNonce,
            Self::Refused(_) | Self::UsageRefused(_) | Self::FreeCallsExhausted { .. } | Self::MessageRefused(_) => {
                GrpcCode::Unauthenticated
            }
            Self::Busy { .. } => GrpcCode::FailedPrecondition,
            Self::Chain(_) => GrpcCode::Unavailable,
            Self::Store(error) if error.is_retryable() && !error.may_be_applied() => GrpcCode::Unavailable,
            _ => GrpcCode::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use storage_core::channel::{Amount, ChannelId, Nonce};

    use super::*;

    const CONTRACT: Address = Address::new([5; 20]);

    /// What a client sends, with some of it replaced; `None`: that is left out.
    fn read(changes: &[(&str, Option<&[u8]>)]) -> Result<Payment, HeaderError> {
        let signature = [&[1; 64][..], &[27]].concat();
        let values = |name: &'static str| -> Vec<&[u8]> {
            let changed: Vec<_> = changes.iter().filter(|(changed, _)| *changed == name).collect();
            if !changed.is_empty() {
                return changed.into_iter().filter_map(|(_, value)| *value).collect();
            }
            match name {
                header::PAYMENT_TYPE => vec![b"escrow"],
                header::CHANNEL_ID => vec![b"7"],
                header::CHANNEL_NONCE => vec![b"0"],
                header::CHANNEL_AMOUNT => vec![b"10"],
                _ => vec![&signature],
            }
        };
        Payment::from_headers(CONTRACT, values)
    }

    #[test]
    fn headers_of_a_call_are_a_payment() {
        for changes in [&[][..], &[(header::PAYMENT_TYPE, None)]] {
            let Authorization { contract, channel_id, nonce, amount } = *read(changes).unwrap().authorization();
            let expected = (CONTRACT, ChannelId::from(7), Nonce::ZERO, Amount::from(10));
            assert_eq!((contract, channel_id, nonce, amount), expected);
        }
    }

    #[test]
    fn each_wrong_header_is_refused_for_its_own_reason() {
        use header::*;
        let over = format!("1{}", "0".repeat(78));
        let long = [1; 66];
        let (type_, id, nonce, amount, signature) =
            (PAYMENT_TYPE, CHANNEL_ID, CHANNEL_NONCE, CHANNEL_AMOUNT, CHANNEL_SIGNATURE);
        for name in [id, nonce, amount, signature] {
            assert_eq!(read(&[(name, None)]), Err(HeaderError::Missing { name }));
            assert_eq!(read(&[(name, Some(b"1")), (name, Some(b"1"))]), Err(HeaderError::Repeated { name }));
        }
        for name in [id, nonce, amount] {
            for value in [&b""[..], b"-1", b"ten", b"1.0", b" 1", b"\xff", over.as_bytes()] {
                assert_eq!(read(&[(name, Some(value))]), Err(HeaderError::NotANumber { name }), "{value:?}");
            }
        }
        assert_eq!(read(&[(type_, Some(b"job"))]), Err(HeaderError::PaymentType));
        for length in [0, 64, 66] {
            let refused = read(&[(signature, Some(&long[..length]))]).unwrap_err();
            assert_eq!(refused, HeaderError::Signature(SignatureError::Length { actual: length }));
            assert_eq!(refused.grpc_code().number(), 16);
        }
        assert_eq!(read(&[(id, None)]).unwrap_err().grpc_code().number(), 3);
    }
}
