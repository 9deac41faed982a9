//! Signatures made by another implementation: vectors/make.py says how.

use std::{fs, path::Path};

use payment_channels::{Authorization, ClientMessage, FreeCallToken, FreeCallUser, Payment, SignatureError, Signer};
use serde::Deserialize;
use storage_core::channel::{Address, Amount, BlockNumber, ChannelId, Nonce, Signature};

use crate::support::{address_of, sign};

#[derive(Deserialize)]
struct Vectors {
    contract: String,
    sender: String,
    signer: String,
    stranger: String,
    message: String,
    valid: Vec<Valid>,
    invalid: Vec<Invalid>,
}

#[derive(Deserialize)]
struct Valid {
    name: String,
    contract: String,
    channel_id: String,
    nonce: String,
    amount: String,
    signature: String,
    signer: String,
}

#[derive(Deserialize)]
struct Invalid {
    name: String,
    signature: String,
}

fn vectors() -> Vectors {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/payments.json");
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

fn bytes(text: &str) -> Vec<u8> {
    let digits = text.strip_prefix("0x").unwrap().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn authorization(vector: &Valid) -> Authorization {
    Authorization {
        contract: vector.contract.parse().unwrap(),
        channel_id: vector.channel_id.parse().unwrap(),
        nonce: vector.nonce.parse().unwrap(),
        amount: vector.amount.parse().unwrap(),
    }
}

#[test]
fn each_signature_of_another_implementation_gives_its_signer() {
    let vectors = vectors();
    let mut parities = [0, 0];
    for vector in &vectors.valid {
        let signature = bytes(&vector.signature);
        let payment = Payment::new(authorization(vector), &signature).unwrap();
        assert_eq!(payment.signer(), Some(vector.signer.parse().unwrap()), "{}", vector.name);
        assert_eq!(payment.signature().as_bytes()[..], signature, "{}", vector.name);
        parities[usize::from(signature[64] - 27)] += 1;
    }
    assert!(parities.iter().all(|count| *count > 5), "both recovery ids: {parities:?}");
}

/// Deterministic signatures (RFC 6979): what we sign is byte for byte what the other implementation signed.
#[test]
fn what_is_signed_here_is_what_another_implementation_signs() {
    let vectors = vectors();
    for vector in &vectors.valid {
        let by =
            ["sender", "signer", "stranger"].into_iter().find(|words| address_of(words).to_string() == vector.signer);
        let signed = sign(by.unwrap(), authorization(vector));
        assert_eq!(signed.signature().as_bytes()[..], bytes(&vector.signature), "{}", vector.name);
    }
    assert!(Signer::new(&[0; 32]).is_err() && Signer::new(&[0xff; 32]).is_err(), "no key is that");
}

#[test]
fn the_message_is_that_of_another_implementation() {
    let vectors = vectors();
    assert_eq!(authorization(&vectors.valid[0]).message(), bytes(&vectors.message));
    assert_eq!(vectors.valid[0].contract, vectors.contract);
}

#[test]
fn a_recovery_id_of_0_or_1_is_the_same_payment() {
    for vector in &vectors().valid {
        let mut signature = bytes(&vector.signature);
        let with_27 = Payment::new(authorization(vector), &signature).unwrap();
        signature[64] -= 27;
        assert_eq!(Payment::new(authorization(vector), &signature), Ok(with_27), "{}", vector.name);
    }
}

/// What is wrong with a signature: it is malformed, or it is not that of anybody who may sign.
#[test]
fn each_bad_signature_is_refused_for_its_own_reason() {
    let vectors = vectors();
    let known: Vec<Address> =
        [&vectors.sender, &vectors.signer, &vectors.stranger].iter().map(|text| text.parse().unwrap()).collect();
    let malformed = [
        ("high s", SignatureError::HighS),
        ("recovery id 2", SignatureError::RecoveryId { found: 2 }),
        ("recovery id 26", SignatureError::RecoveryId { found: 26 }),
        ("recovery id 29", SignatureError::RecoveryId { found: 29 }),
        ("recovery id of a transaction", SignatureError::RecoveryId { found: 37 }),
        ("recovery id 255", SignatureError::RecoveryId { found: 255 }),
        ("r of zero", SignatureError::OutOfRange),
        ("s of zero", SignatureError::OutOfRange),
        ("r of the order", SignatureError::OutOfRange),
        ("all bits set", SignatureError::OutOfRange),
        ("all zero", SignatureError::OutOfRange),
        ("empty", SignatureError::Length { actual: 0 }),
        ("one byte too short", SignatureError::Length { actual: 64 }),
        ("one byte too long", SignatureError::Length { actual: 66 }),
        ("the compact form of 64 bytes", SignatureError::Length { actual: 64 }),
    ];
    let authorization = authorization(&vectors.valid[0]);
    let mut seen = 0;
    for Invalid { name, signature } in &vectors.invalid {
        let result = Payment::new(authorization, &bytes(signature));
        match malformed.iter().find(|(malformed, _)| malformed == name) {
            Some((_, error)) => {
                assert_eq!(result, Err(*error), "{name}");
                seen += 1;
            }
            // Well-formed, but over other bytes: whoever comes out is nobody we know.
            None => assert!(result.unwrap().signer().is_none_or(|signer| !known.contains(&signer)), "{name}"),
        }
    }
    assert_eq!(seen, malformed.len(), "every case is in the vectors");
    assert!(vectors.invalid.len() > seen + 5);
}

#[test]
fn a_signature_on_no_point_of_the_curve_has_no_signer() {
    let vectors = vectors();
    let vector = vectors.invalid.iter().find(|vector| vector.name == "r on no point of the curve").unwrap();
    let payment = Payment::new(authorization(&vectors.valid[0]), &bytes(&vector.signature)).unwrap();
    assert_eq!(payment.signer(), None);
}

#[test]
fn a_signature_fits_no_other_payment() {
    let vectors = vectors();
    let signature = bytes(&vectors.valid[0].signature);
    let signer: Address = vectors.signer.parse().unwrap();
    let good = authorization(&vectors.valid[0]);
    let other = |vector: &Valid| Payment::new(authorization(vector), &signature).unwrap().signer();
    let fitting = vectors.valid.iter().filter(|vector| other(vector) == Some(signer)).map(authorization);
    assert!(fitting.clone().count() > 1 && fitting.into_iter().all(|fitting| fitting == good), "only its own");
    let near = Authorization { amount: good.amount.checked_add(Amount::from(1)).unwrap(), ..good };
    assert_ne!(Payment::new(near, &signature).unwrap().signer(), Some(signer));
}

#[derive(Deserialize)]
struct SignedMessage {
    name: String,
    message: String,
    signature: String,
    signer: String,
}

/// Messages as snet-daemon's clients sign them, and payments with its own tests' key.
#[test]
fn messages_of_the_daemons_clients_are_its_own_byte_for_byte() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/messages.json");
    let signed: Vec<SignedMessage> = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let find = |name: &str| signed.iter().find(|signed| signed.name.starts_with(name)).unwrap();
    let contract: Address = "0xf25186b5081ff5ce73482ad761db0eb0d25abfbf".parse().unwrap();
    let (channel_id, nonce, block) = (ChannelId::from(42), Nonce::from(3), BlockNumber::from(0x35));
    let user = FreeCallUser {
        address: find("free call").signer.parse().unwrap(),
        user_id: String::new(),
        organization: "YOUR_ORG_ID".to_owned(),
        service: "YOUR_SERVICE_ID".to_owned(),
        group_id: "99ybRIg2wAx55mqVsA6sB4S7WxPQHNKqa4BPu/bhj+U=".to_owned(),
    };
    let given = find("free call token");
    let signature = Signature::new(bytes(&given.signature).try_into().unwrap());
    let token = FreeCallToken { signature, expiration: BlockNumber::from(0x78) };
    assert_eq!(FreeCallToken::message(&user, "default_group", token.expiration), bytes(&given.message));
    assert_eq!(token.signer(&user, "default_group"), Ok(Some(given.signer.parse().unwrap())));
    assert_eq!(FreeCallToken::parse(&token.to_bytes()), Some(token.clone()));
    for wrong in [&b""[..], &token.to_bytes()[..65], &[&token.to_bytes()[..66], b"0x78"].concat()] {
        assert_eq!(FreeCallToken::parse(wrong), None);
    }
    let payment = bytes(&find("GetToken").message)[..65].to_vec().try_into().unwrap();
    let ids = [2, 1].map(ChannelId::from).to_vec();
    let messages = [
        ("GetChannelState", ClientMessage::ChannelState { channel_id, block }),
        ("GetListUnclaimed", ClientMessage::ListUnclaimed { block }),
        ("GetListInProgress", ClientMessage::ListInProgress { block }),
        ("StartClaimForMultiple", ClientMessage::StartClaims { channel_ids: ids, block }),
        ("GetToken", ClientMessage::PrepaidToken { payment: Signature::new(payment), block }),
    ];
    let start = ("StartClaim", ClientMessage::StartClaim { channel_id, nonce });
    let free = ClientMessage::FreeCall { user, block: BlockNumber::from(0x63), token: token.to_bytes() };
    let exact = |name: &str| signed.iter().find(|signed| signed.name == name).unwrap();
    let all = messages.iter().map(|(name, message)| (find(name), message));
    for (signed, message) in all.chain([(exact(start.0), &start.1), (exact("free call"), &free)]) {
        assert_eq!(message.bytes(contract), bytes(&signed.message), "{}", signed.name);
        let signer = message.signer(contract, &bytes(&signed.signature));
        assert_eq!(signer, Ok(Some(signed.signer.parse().unwrap())), "{}", signed.name);
        let elsewhere = message.signer(Address::new([1; 20]), &bytes(&signed.signature)).unwrap();
        let names_contract = !matches!(message, ClientMessage::PrepaidToken { .. } | ClientMessage::FreeCall { .. });
        assert_eq!(elsewhere != signer.unwrap(), names_contract, "{}: for another contract", signed.name);
    }
    assert_eq!(start.1.signer(contract, &[0; 64]), Err(SignatureError::Length { actual: 64 }));
}

#[test]
fn a_message_is_recent_within_five_blocks() {
    let message = ClientMessage::ListUnclaimed { block: BlockNumber::from(100) };
    for (current, is_recent) in [(94, false), (95, true), (100, true), (105, true), (106, false)] {
        assert_eq!(message.is_recent(BlockNumber::from(current)), is_recent, "{current}");
    }
    assert!(ClientMessage::ListUnclaimed { block: BlockNumber::MAX }.is_recent(BlockNumber::MAX));
    assert!(!ClientMessage::ListUnclaimed { block: BlockNumber::MAX }.is_recent(BlockNumber::ZERO));
}
