//! The records of snet-daemon, as it encodes them.

use storage_core::channel::{
    Address, Amount, BlockNumber, ChannelId, ChannelState, ChannelStatus, GroupId, Nonce, Signature,
};

use super::gob::{GobError, Value, decode};

/// A claim that the daemon has started, `escrow.Payment`. The contract is that of the key: the daemon leaves the record's own empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DaemonClaim {
    /// The channel.
    pub channel_id: ChannelId,
    /// The nonce that is claimed.
    pub nonce: Nonce,
    /// What is claimed.
    pub amount: Amount,
    /// The signature, of whatever form.
    pub signature: Vec<u8>,
}

/// The channel of an `escrow.PaymentChannelData`. Numbers that are nil are read as 0.
///
/// # Errors
/// [`GobError`] says what is wrong with the bytes.
pub fn decode_daemon_channel(record: &[u8]) -> Result<ChannelState, GobError> {
    let value = structure(record, "PaymentChannelData")?;
    let status = match value.field("State") {
        None | Some(Value::Int(0)) => ChannelStatus::Open,
        Some(Value::Int(1)) => ChannelStatus::Closed,
        Some(_) => return Err(GobError::Field { field: "State" }),
    };
    let authorized_amount = Amount::from_be_bytes(number(&value, "AuthorizedAmount")?);
    let signature = match value.field("Signature") {
        None => None,
        Some(Value::Bytes(bytes)) if bytes.is_empty() => None,
        Some(signature) => Some(Signature::new(array(signature, "Signature")?)),
    };
    if signature.is_none() && !authorized_amount.is_zero() {
        return Err(GobError::Field { field: "Signature" });
    }
    Ok(ChannelState {
        channel_id: ChannelId::from_be_bytes(needed(&value, "ChannelID")?),
        nonce: Nonce::from_be_bytes(number(&value, "Nonce")?),
        status,
        sender: Address::new(fixed(&value, "Sender")?),
        recipient: Address::new(fixed(&value, "Recipient")?),
        group_id: GroupId::new(fixed(&value, "GroupID")?),
        full_amount: Amount::from_be_bytes(number(&value, "FullAmount")?),
        expiration: BlockNumber::from_be_bytes(number(&value, "Expiration")?),
        signer: Address::new(fixed(&value, "Signer")?),
        authorized_amount,
        // A signature of nothing claims nothing.
        signature: signature.filter(|_| !authorized_amount.is_zero()),
    })
}

/// The claim of an `escrow.Payment`.
///
/// # Errors
/// [`GobError`] says what is wrong with the bytes.
pub fn decode_daemon_claim(record: &[u8]) -> Result<DaemonClaim, GobError> {
    let value = structure(record, "Payment")?;
    let Some(Value::Bytes(signature)) = value.field("Signature") else {
        return Err(GobError::Field { field: "Signature" });
    };
    Ok(DaemonClaim {
        channel_id: ChannelId::from_be_bytes(needed(&value, "ChannelID")?),
        nonce: Nonce::from_be_bytes(number(&value, "ChannelNonce")?),
        amount: Amount::from_be_bytes(needed(&value, "Amount")?),
        signature: signature.clone(),
    })
}

/// The amount of an `escrow.PrePaidData`.
///
/// # Errors
/// [`GobError`] says what is wrong with the bytes.
pub fn decode_daemon_prepaid(record: &[u8]) -> Result<Amount, GobError> {
    Ok(Amount::from_be_bytes(number(&structure(record, "PrePaidData")?, "Amount")?))
}

/// How many calls an `escrow.FreeCallUserData` counts.
///
/// # Errors
/// [`GobError`] says what is wrong with the bytes.
pub fn decode_daemon_free_calls(record: &[u8]) -> Result<u64, GobError> {
    const FIELD: &str = "FreeCallsMade";
    let wrong = GobError::Field { field: FIELD };
    match structure(record, "FreeCallUserData")?.field(FIELD) {
        None => Ok(0),
        Some(Value::Int(made)) => u64::try_from(*made).map_err(|_| wrong),
        Some(_) => Err(wrong),
    }
}

fn structure(record: &[u8], name: &'static str) -> Result<Value, GobError> {
    let value = decode(record)?;
    match &value {
        Value::Struct(found, _) if found == name => Ok(value),
        _ => Err(GobError::Field { field: name }),
    }
}

/// A big.Int that is not nil.
fn needed(value: &Value, field: &'static str) -> Result<[u8; 32], GobError> {
    value.field(field).ok_or(GobError::Field { field })?;
    number(value, field)
}

/// A big.Int: a byte of version 1 and the sign, then the digits of the number, the highest first.
fn number(value: &Value, field: &'static str) -> Result<[u8; 32], GobError> {
    const POSITIVE: u8 = 1 << 1;
    let wrong = GobError::Field { field };
    let digits = match value.field(field) {
        None => return Ok([0; 32]),
        Some(Value::Bytes(bytes)) => match bytes.split_first() {
            // Nil itself encodes to nothing.
            None => return Ok([0; 32]),
            Some((&POSITIVE, digits)) => digits,
            Some(_) => return Err(wrong),
        },
        Some(_) => return Err(wrong),
    };
    let mut number = [0; 32];
    let place = number.len().checked_sub(digits.len()).and_then(|start| number.get_mut(start..));
    place.ok_or(wrong)?.copy_from_slice(digits);
    Ok(number)
}

/// Bytes of a fixed number; all zero are not sent.
fn fixed<const N: usize>(value: &Value, field: &'static str) -> Result<[u8; N], GobError> {
    value.field(field).map_or(Ok([0; N]), |value| array(value, field))
}

fn array<const N: usize>(value: &Value, field: &'static str) -> Result<[u8; N], GobError> {
    let Value::Bytes(bytes) = value else { return Err(GobError::Field { field }) };
    bytes.as_slice().try_into().map_err(|_| GobError::Field { field })
}
