//! Cases of keys and values of any bytes: every backend encodes keys somehow, and no two may become one.
//!
//! The lists are what servers, URLs and encodings are known to treat alike. A key that is found to collide belongs into
//! them.

use bytes::Bytes;

use crate::{
    Capabilities, Key, Txn,
    conformance::{
        context::{Context, to_key},
        stop::{Checked, ensure_eq},
    },
};

pub(super) async fn binary_value(context: &Context<'_>) -> Checked {
    let store = context.open().await?;
    let all = Bytes::from_iter(0..=u8::MAX);
    let values = [all, Bytes::from_static(b"\0"), Bytes::from_static(b"\xff\xfe\0\0"), Bytes::from(vec![0; 5000])];
    for value in values {
        store.put("a", value.clone()).await?;
        ensure_eq!(store.present("a").await?.value, value, "the value read alone");
        let scanned = store.scan("a").await?.into_iter().map(|entry| entry.value);
        ensure_eq!(scanned.collect::<Vec<_>>(), [value], "the value scanned");
    }
    Ok(())
}

pub(super) async fn binary_key(context: &Context<'_>) -> Checked {
    let all: Vec<u8> = (0..=u8::MAX).collect();
    let keys: [&[u8]; 12] = [
        b"\0",
        b"\0\0",
        b"\0\x01",
        b"a",
        b"a\0",
        b"a\0b",
        b"a\x01",
        b"a\xff",
        b"a\xff\xff",
        b"\xfe\xff",
        b"\xff\xff",
        &all,
    ];
    are_distinct(context, keys).await
}

pub(super) async fn every_single_byte(context: &Context<'_>) -> Checked {
    are_distinct(context, (0..=u8::MAX).map(|byte| [byte])).await
}

pub(super) async fn slashes(context: &Context<'_>) -> Checked {
    let keys = [
        "/", "//", "///", "a", "/a", "a/", "/a/", "//a", "a//", "a/b", "a//b", "a///b", "/a/b", "a/b/", "/a//b//",
        "a\\b", "\\", "a/\0/b",
    ];
    are_distinct(context, keys).await
}

pub(super) async fn dots(context: &Context<'_>) -> Checked {
    let keys = [
        ".",
        "..",
        "...",
        "./a",
        "a",
        "a/.",
        "a/..",
        "a/../b",
        "b",
        "a/./b",
        "a/b",
        "../a",
        "/..",
        "/../a",
        "a/b/../../c",
        "c",
        ".hidden",
    ];
    are_distinct(context, keys).await
}

pub(super) async fn unicode(context: &Context<'_>) -> Checked {
    // Composed and decomposed, left to right and right to left, beyond the basic plane, private use, a byte order mark.
    let keys = [
        "\u{e9}",
        "e\u{301}",
        "\u{fc}ber/\u{df}",
        "\u{65e5}\u{672c}",
        "\u{5e9}\u{5dc}",
        "\u{1f600}",
        "\u{1f600}/\u{1f601}",
        "\u{e000}",
        "\u{f8ff}",
        "\u{feff}a",
        "a",
        "\u{200b}a",
        "\u{fffd}",
        "\u{fff0}",
        "\u{7f}",
        "\u{85}",
        "\u{a0}",
        "\u{2028}",
        "\u{10ffff}",
        "\n",
        "\r\n",
        "\t",
    ];
    are_distinct(context, keys).await
}

pub(super) async fn case(context: &Context<'_>) -> Checked {
    are_distinct(context, ["key", "KEY", "Key", "kEy", "\u{131}", "i", "I", "\u{130}", "\u{df}", "ss", "SS"]).await
}

pub(super) async fn spaces_percent_question_hash(context: &Context<'_>) -> Checked {
    let keys = [
        " ",
        "  ",
        "a b",
        " a b",
        "a b ",
        "a+b",
        "a%20b",
        "a%2520b",
        "%",
        "%%",
        "%2",
        "%zz",
        "%00",
        "%2F",
        "/",
        "a%2Fb",
        "a/b",
        "?",
        "a?recurse",
        "a?b=c&d",
        "#",
        "a#b",
        "&",
        "=",
        ";",
        ":",
        "@",
        "*",
        "a*",
        "\"",
        "'",
        "<a>",
        "{a}",
        "[a]",
        "$a",
        "`",
        "|",
        "^",
        "~",
        "!",
        ",",
    ];
    are_distinct(context, keys).await
}

/// Keys that look like what some encoding makes of other keys.
pub(super) async fn escapes_do_not_collide(context: &Context<'_>) -> Checked {
    let keys: [&[u8]; 30] = [
        b"/", b"%2F", b"%2f", b"%252f", b"\\x2f", b"_2f", b"_2F", b"=2F", b"~2f", b"!2f", b"u002f", b"\\u002f", b"2f",
        b"2F", b"Lw==", b"Lw", b"_", b"__", b"_5f", b"_5F", b"~", b"~~", b"~7e", b"-", b"-2d", b"=", b"==", b"=3d",
        b"\xff", b"%ff",
    ];
    are_distinct(context, keys).await
}

/// A key and the key "below" it both have values of their own.
pub(super) async fn parent_and_child_keys(context: &Context<'_>) -> Checked {
    let deep: String = "d/".repeat(100);
    let keys = ["a", "a/b", "a/b/c", "a/b/c/d", "b/c/d", "b", &deep, deep.trim_end_matches('/'), "d", "d/d"];
    are_distinct(context, keys).await?;
    // The other way round too: the child is there before its parent, and stays when that goes.
    let store = context.open().await?;
    store.put("x/y/z", "child").await?;
    ensure_eq!(store.get("x/y").await?, None, "a parent that was never written");
    ensure_eq!(store.get("x").await?, None, "a parent that was never written");
    ensure_eq!(store.scan("x").await?.len(), 1, "entries: only what was written");
    store.put("x", "parent").await?;
    ensure_eq!(store.value("x/y/z").await?, Some("child".into()), "the child after its parent was written");
    store.delete("x").await?;
    ensure_eq!(store.value("x/y/z").await?, Some("child".into()), "the child after its parent was deleted");
    store.put("x", "parent").await?;
    store.delete("x/y/z").await?;
    ensure_eq!(store.value("x").await?, Some("parent".into()), "the parent after its child was deleted");
    ensure_eq!(store.scan("x").await?.len(), 1, "entries left");
    Ok(())
}

pub(super) async fn shared_prefixes(context: &Context<'_>) -> Checked {
    let long = "p".repeat(200);
    are_distinct(context, (0..24).map(|n| format!("{long}{}", "q".repeat(n)))).await
}

/// Each of these keys has a value of its own, wherever it is read; scans sort them bytewise and keep prefixes apart;
/// deleting some leaves the others.
async fn are_distinct(context: &Context<'_>, names: impl IntoIterator<Item: AsRef<[u8]>>) -> Checked {
    let store = context.open().await?;
    let keys = names.into_iter().map(to_key).collect::<Result<Vec<Key>, _>>()?;
    for some in keys.chunks(Capabilities::MIN_TXN_OPS) {
        let txn = some.iter().fold(Txn::new(), |txn, key| txn.put(key.clone(), value_of(key)));
        store.committed(txn).await?;
    }
    let mut sorted = keys.clone();
    sorted.sort();
    for key in keys.iter().step_by(keys.len().div_ceil(32)) {
        let entry = store.present(key).await?;
        ensure_eq!((entry.value, entry.key), (value_of(key), key.clone()), "the value of {key}");
        let prefixed: Vec<_> = store.scan(key).await?.into_iter().map(|entry| entry.key).collect();
        let expected: Vec<_> = sorted.iter().filter(|other| other.starts_with(key.as_bytes())).cloned().collect();
        ensure_eq!(prefixed, expected, "the keys with the prefix {key}");
    }
    for some in keys.chunks(Capabilities::MIN_TXN_OPS) {
        for (key, entry) in some.iter().zip(store.get_many(some).await?) {
            ensure_eq!(entry.map(|entry| entry.value), Some(value_of(key)), "the value of {key}, read with others");
        }
    }
    ensure_eq!(all(&store.scan("").await?), sorted, "all keys in bytewise order");
    let (deleted, kept): (Vec<_>, Vec<_>) = sorted.into_iter().enumerate().partition(|(place, _)| place % 2 == 1);
    for some in deleted.chunks(Capabilities::MIN_TXN_OPS) {
        store.committed(some.iter().fold(Txn::new(), |txn, (_, key)| txn.delete(key.clone()))).await?;
    }
    let kept: Vec<_> = kept.into_iter().map(|(_, key)| key).collect();
    ensure_eq!(all(&store.scan("").await?), kept, "the keys left after every second was deleted");
    Ok(())
}

fn all(entries: &[crate::Entry]) -> Vec<Key> {
    entries.iter().map(|entry| entry.key.clone()).collect()
}

fn value_of(key: &Key) -> Bytes {
    [b"value of ", key.as_bytes()].concat().into()
}
