//! Where a key lives: a bucket, chosen by a hash, and a node in it, whose name is the key in characters that ZooKeeper allows.

use storage_core::Key;

/// How many nodes hold the entries of one store. A listing of a node with all its names is one answer of the server, and
/// some clients refuse answers over 1 MiB: with 64 buckets that is about a million keys of 50 bytes. A scan reads the
/// state of all buckets for each page, so more of them would make small stores slower.
pub(crate) const BUCKETS: usize = 64;

/// The bucket of a key: a number below [`BUCKETS`].
pub(crate) fn bucket_of(key: &[u8]) -> usize {
    // The last bytes of a key, in which keys usually differ, reach too few bits of an FNV hash; the finalizer of
    // MurmurHash3 (fmix64) spreads them over all.
    let mut hash = fnv1a(FNV_OFFSET, key);
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ hash >> 33).wrapping_mul(factor);
    }
    (hash >> 33) as usize % BUCKETS
}

/// The start of an FNV-1a hash. <https://datatracker.ietf.org/doc/draft-eastlake-fnv/>
pub(crate) const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, 64 bits, continued from `state`. It stands in stored data: it must not change.
pub(crate) fn fnv1a(state: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(state, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The name of the node that holds a key in a generation: the key with every byte except letters, digits, `-` and `_`
/// as `%XX`, a dot, and the generation. ZooKeeper forbids slashes, control characters, `.` and `..`, and the surrogate and
/// private ranges of Unicode; and people who look at a server can still read it. At most 3 bytes for one, so 1536 + 11.
pub(crate) fn node_name(key: &[u8], generation: u32) -> String {
    use std::fmt::Write as _;

    let mut name = String::with_capacity(key.len() * 3 / 2 + 4);
    for byte in key {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            name.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(name, "%{byte:02X}");
        }
    }
    let _ = write!(name, ".{generation}");
    name
}

/// The key and generation of a node's name; `None` if no node of ours has this name.
pub(crate) fn parse_node_name(name: &str) -> Option<(Key, u32)> {
    let (encoded, generation) = name.rsplit_once('.')?;
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hex(rest.next()?)? * 16 + hex(rest.next()?)?,
            byte => byte,
        });
    }
    Some((Key::new(bytes).ok()?, generation.parse().ok()?))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_survives_its_name_and_no_name_holds_what_zookeeper_forbids() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in [
            &b"channel/7"[..],
            b".",
            b"..",
            b"a//b",
            "\u{1f600}\u{e000}".as_bytes(),
            b"50%",
            b"a.7",
            &all,
            &[0xff; 512],
        ] {
            let name = node_name(bytes, 42);
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_%.".contains(&b)), "{name}");
            let (key, generation) = parse_node_name(&name).unwrap();
            assert_eq!((key.as_bytes(), generation), (bytes, 42));
        }
    }

    #[test]
    fn other_names_are_not_ours() {
        for name in ["", "zookeeper", ".1", "a.", "a.x", "%4.1", "%zz.1", "a.4294967296"] {
            assert!(parse_node_name(name).is_none(), "{name}");
        }
    }

    #[test]
    fn keys_spread_over_the_buckets_and_stay_in_theirs() {
        let mut counts = [0; BUCKETS];
        for n in 0..64_000 {
            counts[bucket_of(format!("channel/{n:06}").as_bytes())] += 1;
        }
        assert!(counts.iter().all(|count| (500..1500).contains(count)), "{counts:?}");
        assert_eq!(bucket_of(b"channel/7"), 46, "the bucket of a key stands in stored data");
    }
}
