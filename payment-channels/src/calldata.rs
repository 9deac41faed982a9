//! What a wallet sends to the contract, in the contract ABI (<https://docs.soliditylang.org/en/latest/abi-spec.html>): a selector of four bytes, and
//! words of 32.

use alloy_primitives::keccak256;
use storage_core::channel::Amount;

use crate::{AfterClaim, Claim};

const CLAIM: &str = "channelClaim(uint256,uint256,uint256,uint8,bytes32,bytes32,bool)";
const CLAIMS: &str = "multiChannelClaim(uint256[],uint256[],uint256[],bool[],uint8[],bytes32[],bytes32[])";

type Word = [u8; 32];

impl Claim {
    /// The call of `channelClaim` that has the contract pay this claim. The recipient of the channel sends it.
    pub fn calldata(&self) -> Vec<u8> {
        let Words { id, amount, v, r, s, sendback } = Words::of(self);
        call(CLAIM, [id, amount, amount, v, r, s, sendback])
    }

    /// The call of `multiChannelClaim` that has the contract pay these claims, all or none. They are claims of different channels: of two claims of one
    /// channel the contract can pay the second only after the first.
    pub fn calldata_of_many(claims: &[Self]) -> Vec<u8> {
        let words: Vec<Words> = claims.iter().map(Words::of).collect();
        let column = |word: fn(&Words) -> Word| words.iter().map(word).collect::<Vec<_>>();
        let amounts = column(|words| words.amount);
        let columns = [
            column(|words| words.id),
            amounts.clone(),
            amounts,
            column(|words| words.sendback),
            column(|words| words.v),
            column(|words| words.r),
            column(|words| words.s),
        ];
        // Each array is where its offset says, counted from behind the selector: the offsets come first, and each array has its length before it.
        let heads = columns.len();
        let offsets = (0..heads).map(|place| number(32 * (heads + place * (claims.len() + 1))));
        let arrays = columns.iter().flat_map(|column| [number(column.len())].into_iter().chain(column.iter().copied()));
        call(CLAIMS, offsets.chain(arrays))
    }
}

struct Words {
    id: Word,
    amount: Word,
    v: Word,
    r: Word,
    s: Word,
    sendback: Word,
}

impl Words {
    fn of(claim: &Claim) -> Self {
        let signature = claim.payment.signature();
        let [rs @ .., v] = signature.as_bytes();
        let (mut r, mut s) = ([0; 32], [0; 32]);
        let (from_r, from_s) = rs.split_at(r.len());
        r.copy_from_slice(from_r);
        s.copy_from_slice(from_s);
        let id = claim.payment.channel_id().to_be_bytes();
        let amount = claim.payment.amount().to_be_bytes();
        Self { id, amount, v: number(*v), r, s, sendback: number(u8::from(claim.after == AfterClaim::Close)) }
    }
}

fn call(function: &str, words: impl IntoIterator<Item = Word>) -> Vec<u8> {
    let selector = keccak256(function);
    selector.iter().take(4).copied().chain(words.into_iter().flatten()).collect()
}

#[expect(clippy::expect_used, reason = "nobody has 2^64 claims in memory")]
fn number(number: impl TryInto<u64, Error: std::fmt::Debug>) -> Word {
    Amount::from(number.try_into().expect("a number in memory has 64 bits")).to_be_bytes()
}
