//! Where the records are. Each key is a word and the number or address in lower-case hexadecimal digits of fixed width, so
//! the order of keys is that of the numbers. Channels are at [`storage_core::channel::key_of`].

use storage_core::{
    Key,
    channel::{Address, ChannelId, Nonce},
};

/// What the keys of all slots begin with.
pub const SLOT_PREFIX: &[u8] = b"reservation/";
/// What the keys of all claims begin with.
pub const CLAIM_PREFIX: &[u8] = b"claim/";
/// What the keys of all prepaid usage begin with.
pub const USAGE_PREFIX: &[u8] = b"usage/";
/// What the keys of all free-call counters begin with.
pub const FREE_CALLS_PREFIX: &[u8] = b"free-calls/";

/// The key of the slot of a channel.
pub fn slot_key(id: ChannelId) -> Key {
    key(SLOT_PREFIX, format_args!("{id:064x}"))
}

/// The key of the claim of what was authorized at one nonce of a channel.
pub fn claim_key(id: ChannelId, nonce: Nonce) -> Key {
    key(CLAIM_PREFIX, format_args!("{id:064x}/{nonce:064x}"))
}

/// What the keys of all claims of one channel begin with.
pub(crate) fn claim_prefix(id: ChannelId) -> Vec<u8> {
    [CLAIM_PREFIX, format!("{id:064x}/").as_bytes()].concat()
}

/// The key of the prepaid usage of a channel.
pub fn usage_key(id: ChannelId) -> Key {
    key(USAGE_PREFIX, format_args!("{id:064x}"))
}

/// The key of the free calls of a user. An address is 20 bytes, however it was written, so a user has one counter.
pub fn free_calls_key(user: Address) -> Key {
    key(FREE_CALLS_PREFIX, format_args!("{user}"))
}

fn key(prefix: &[u8], rest: std::fmt::Arguments<'_>) -> Key {
    #[expect(clippy::expect_used, reason = "the longest, of a claim, has 135 bytes: within Key::MAX_BYTES")]
    Key::new([prefix, rest.to_string().as_bytes()].concat()).expect("a key of fixed width is valid")
}
