//! What replicas say to each other, proved by the token of the cluster, which is never sent.

use hmac::{Hmac, Mac};
use serde::{Serialize, de::DeserializeOwned};
use sha2::Sha256;

use crate::token::Token;

/// HMAC-SHA256 with the token over the parts, each with its length before it.
pub(crate) fn prove(token: &Token, parts: &[&[u8]]) -> Vec<u8> {
    mac(token, parts).finalize().into_bytes().to_vec()
}

/// Whether this is the proof, in a time that does not tell how much of it is right.
pub(crate) fn proves(token: &Token, parts: &[&[u8]], proof: &[u8]) -> bool {
    mac(token, parts).verify_slice(proof).is_ok()
}

#[expect(clippy::expect_used, reason = "RFC 2104: longer keys are hashed, shorter ones filled up")]
fn mac(token: &Token, parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(token.as_str().as_bytes()).expect("HMAC takes a key of any length");
    for part in [b"snet membership 1".as_slice()].iter().chain(parts) {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac
}

/// Bytes as they stand in a row of the table.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What [`hex`] has written.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect::<Option<_>>()?;
    digits.chunks(2).map(|pair| Some(pair.first()? << 4 | pair.get(1)?)).collect()
}

/// A JSON text.
#[expect(
    clippy::expect_used,
    reason = "what is written has derived implementations, and no map but with texts as keys"
)]
pub(crate) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("a row or a question can be written as JSON")
}

/// What a JSON text says; `None`: something else.
pub(crate) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_of_one_token_and_of_all_parts() {
        let (token, other): (Token, Token) = ("one".parse().unwrap(), "other".parse().unwrap());
        let proof = prove(&token, &[b"a", b"bc"]);
        assert!(proves(&token, &[b"a", b"bc"], &proof));
        assert!(!proves(&other, &[b"a", b"bc"], &proof));
        assert!(!proves(&token, &[b"ab", b"c"], &proof), "the parts are told apart");
        assert_eq!(unhex(&hex(&proof)), Some(proof));
        assert_eq!((unhex("0"), unhex("zz")), (None, None));
    }
}
