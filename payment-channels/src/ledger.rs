//! Whose records they are, and where they are.
//!
//! Invariant: each key and each record names the ledger that it is of. So two contracts, or two networks, that share a store by design or by
//! mistake never meet: a key of one is none of the other, and a record that was copied to another key is refused there.

use std::fmt;

use bytes::Bytes;
use storage_core::{
    Entry, Key,
    channel::{Address, ChannelId, KEY_PREFIX, Nonce},
    record::{DecodeError, Schema},
};

use crate::{Error, FreeCallUser, Result};

/// Whose channels they are: a MultiPartyEscrow contract on a chain. A channel's id is unique within its ledger, and in no wider space.
///
/// Keys begin with `ledger/`, the chain in 16 and the contract in 40 lower-case hexadecimal digits; then come a word for the kind of record, and
/// the channel in 64 digits. So the order of keys is that of the numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ledger {
    /// Which chain, as EIP-155 numbers them: 1 is the Ethereum mainnet, 11155111 Sepolia.
    pub chain_id: u64,
    /// The contract that holds the deposits.
    pub contract: Address,
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "contract {} on chain {}", self.contract, self.chain_id)
    }
}

impl Ledger {
    /// What the keys of all ledgers begin with.
    pub const PREFIX: &[u8] = b"ledger/";

    /// The envelope of every record of a ledger.
    ///
    /// Version 1, after the six bytes of every [record](storage_core::record): chain id 8, contract 20, and the record with its length in four
    /// bytes before it. Numbers are big-endian.
    pub const SCHEMA: Schema = Schema { tag: *b"LEDG", version: 1 };

    /// The key of a channel's state.
    pub fn channel_key(self, id: ChannelId) -> Key {
        Records::of(self).channel_key(id)
    }

    /// The key of the reservations of a channel.
    pub fn reservation_key(self, id: ChannelId) -> Key {
        Records::of(self).reservation_key(id)
    }

    /// The key of the claim of what was authorized at one nonce of a channel.
    pub fn claim_key(self, id: ChannelId, nonce: Nonce) -> Key {
        Records::of(self).claim_key(id, nonce)
    }

    /// The key of the prepaid usage of a channel.
    pub fn usage_key(self, id: ChannelId) -> Key {
        Records::of(self).usage_key(id)
    }

    /// The key of the free calls of a user.
    pub fn free_calls_key(self, user: &FreeCallUser) -> Key {
        Records::of(self).free_calls_key(user)
    }

    /// The record, in the envelope that names this ledger.
    pub fn enclose(self, record: &[u8]) -> Bytes {
        Self::SCHEMA.writer().u64(self.chain_id).bytes(self.contract.as_bytes()).var_bytes(record).finish()
    }

    /// The record in the envelope of an entry.
    ///
    /// # Errors
    /// [`Error::CorruptRecord`] and [`Error::NewerRecord`] for what is no envelope; [`Error::MisplacedRecord`] for that of another ledger.
    pub fn open(self, entry: &Entry) -> Result<&[u8]> {
        let failed = |error| Error::record(&entry.key, error);
        let (ledger, record) = envelope(&entry.value).map_err(failed)?;
        if ledger == self { Ok(record) } else { Err(Error::MisplacedRecord { key: entry.key.clone() }) }
    }

    /// The ledger that a key is of; `None`: it is of none.
    pub fn of_key(key: &Key) -> Option<Self> {
        let mut parts = key.as_bytes().strip_prefix(Self::PREFIX)?.split(|byte| *byte == b'/');
        let mut digits = |count: usize| {
            let text = std::str::from_utf8(parts.next()?).ok()?;
            let canonical = text.len() == count && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
            canonical.then(|| text.to_owned())
        };
        let chain_id = u64::from_str_radix(&digits(16)?, 16).ok()?;
        let contract = format!("0x{}", digits(40)?).parse().ok()?;
        Some(Self { chain_id, contract })
    }

    /// What the keys of this ledger begin with.
    pub(crate) fn prefix(self) -> Vec<u8> {
        let contract = self.contract.to_string();
        let digits = contract.trim_start_matches("0x");
        [Self::PREFIX, format!("{:016x}/{digits}/", self.chain_id).as_bytes()].concat()
    }
}

fn envelope(value: &[u8]) -> Result<(Ledger, &[u8]), DecodeError> {
    let mut reader = Ledger::SCHEMA.reader(value)?;
    let ledger = Ledger { chain_id: reader.u64()?, contract: Address::new(reader.array()?) };
    let record = reader.var_bytes()?;
    reader.finish()?;
    Ok((ledger, record))
}

/// Where the records of a ledger are, and in what envelope; or those of builds that named no ledger, which had neither prefix nor envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Records(Option<Ledger>);

/// The kinds of records.
pub(crate) const RESERVATIONS: &[u8] = b"reservation/";
pub(crate) const CLAIMS: &[u8] = b"claim/";
pub(crate) const USAGE: &[u8] = b"usage/";
pub(crate) const FREE_CALLS: &[u8] = b"free-calls/";
pub(crate) const CHANNELS: &[u8] = KEY_PREFIX;

impl Records {
    /// Those of builds that named no ledger.
    pub(crate) const UNNAMED: Self = Self(None);

    pub(crate) const fn of(ledger: Ledger) -> Self {
        Self(Some(ledger))
    }

    pub(crate) const fn ledger(self) -> Option<Ledger> {
        self.0
    }

    pub(crate) fn channel_key(self, id: ChannelId) -> Key {
        self.key(CHANNELS, format_args!("{id:064x}"))
    }

    pub(crate) fn reservation_key(self, id: ChannelId) -> Key {
        self.key(RESERVATIONS, format_args!("{id:064x}"))
    }

    pub(crate) fn claim_key(self, id: ChannelId, nonce: Nonce) -> Key {
        self.key(CLAIMS, format_args!("{id:064x}/{nonce:064x}"))
    }

    pub(crate) fn usage_key(self, id: ChannelId) -> Key {
        self.key(USAGE, format_args!("{id:064x}"))
    }

    pub(crate) fn free_calls_key(self, user: &FreeCallUser) -> Key {
        self.key(FREE_CALLS, format_args!("{}", user.key()))
    }

    /// What the keys of all records of a kind begin with.
    pub(crate) fn prefix(self, kind: &[u8]) -> Vec<u8> {
        [&self.0.map(Ledger::prefix).unwrap_or_default(), kind].concat()
    }

    /// What the keys of all claims of one channel begin with.
    pub(crate) fn claims_prefix(self, id: ChannelId) -> Vec<u8> {
        [&self.prefix(CLAIMS), format!("{id:064x}/").as_bytes()].concat()
    }

    pub(crate) fn enclose(self, record: Bytes) -> Bytes {
        self.0.map_or(record.clone(), |ledger| ledger.enclose(&record))
    }

    pub(crate) fn open(self, entry: &Entry) -> Result<&[u8]> {
        self.0.map_or(Ok(&entry.value[..]), |ledger| ledger.open(entry))
    }

    /// The channel whose state is at this key; `None`: the key is none that this program writes.
    pub(crate) fn channel_of(self, key: &Key) -> Option<ChannelId> {
        let digits = key.as_bytes().strip_prefix(&self.prefix(CHANNELS)[..])?;
        let id = format!("0x{}", std::str::from_utf8(digits).ok()?).parse().ok()?;
        // One channel has one key: digits of the other case, or fewer of them, are those of nobody.
        (self.channel_key(id) == *key).then_some(id)
    }

    fn key(self, kind: &[u8], rest: fmt::Arguments<'_>) -> Key {
        #[expect(clippy::expect_used, reason = "the longest, of a claim, has 200 bytes: within Key::MAX_BYTES")]
        Key::new([self.prefix(kind), rest.to_string().into_bytes()].concat()).expect("a key of fixed width is valid")
    }
}

#[cfg(test)]
mod tests {
    use storage_core::Version;

    use super::*;

    const LEDGER: Ledger = Ledger { chain_id: 11_155_111, contract: Address::new([0xab; 20]) };

    fn entry(key: Key, value: Bytes) -> Entry {
        Entry { key, value, version: Version::from_u64(1) }
    }

    #[test]
    fn a_key_names_its_ledger_and_its_channel() {
        let id = ChannelId::from(7);
        let key = LEDGER.channel_key(id);
        let expected = format!("ledger/0000000000aa36a7/{}/channel/{:064x}", "ab".repeat(20), 7);
        assert_eq!(key.as_bytes(), expected.as_bytes());
        assert_eq!((Ledger::of_key(&key), Records::of(LEDGER).channel_of(&key)), (Some(LEDGER), Some(id)));
        let longest = LEDGER.claim_key(ChannelId::MAX, Nonce::MAX);
        assert_eq!((longest.as_bytes().len(), Ledger::of_key(&longest)), (200, Some(LEDGER)));
        for text in ["channel/7", "ledger/", "ledger/1/0xab", &expected.to_uppercase()] {
            assert_eq!(Ledger::of_key(&Key::new(text.to_owned()).unwrap()), None, "{text}");
        }
        let upper = Key::new(expected.replace("07", "0x7")).unwrap();
        assert_eq!(Records::of(LEDGER).channel_of(&upper), None);
    }

    #[test]
    fn a_record_of_another_ledger_is_refused() {
        let key = LEDGER.usage_key(ChannelId::from(7));
        let enclosed = LEDGER.enclose(b"record");
        let own = entry(key.clone(), enclosed.clone());
        assert_eq!(LEDGER.open(&own).unwrap(), b"record");
        for other in [Ledger { chain_id: 1, ..LEDGER }, Ledger { contract: Address::new([1; 20]), ..LEDGER }] {
            let refused = other.open(&entry(key.clone(), enclosed.clone())).map(<[u8]>::to_vec);
            assert!(matches!(refused, Err(Error::MisplacedRecord { .. })), "{refused:?}");
        }
        for length in 0..enclosed.len() {
            let refused = LEDGER.open(&entry(key.clone(), enclosed.slice(..length))).map(<[u8]>::to_vec);
            assert!(matches!(refused, Err(Error::CorruptRecord { .. })), "{length}: {refused:?}");
        }
    }
}
