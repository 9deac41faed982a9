//! The common name in a certificate: the user that its holder is.

/// An object of a DER encoding (X.690): its tag and content, and what is behind it.
type Object<'a> = (u8, &'a [u8], &'a [u8]);

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// The first field of a certificate that has a version.
const VERSION: u8 = 0xa0;
/// 2.5.4.3.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
/// Of UTF-8, printable, T.61 and IA5 characters.
const TEXTS: [u8; 4] = [0x0c, 0x13, 0x14, 0x16];

/// The last common name of the subject, as etcd takes it. `None`: it has none that can be read.
///
/// The certificate is one that was verified.
pub(crate) fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, certificate, _) = object(certificate, SEQUENCE)?;
    let (_, mut fields, _) = object(certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        (_, _, fields) = any(fields)?;
    }
    // Serial number, algorithm, issuer, validity.
    for _ in 0..4 {
        (_, _, fields) = any(fields)?;
    }
    let (_, mut names, _) = object(fields, SEQUENCE)?;
    let mut found = None;
    while !names.is_empty() {
        let (_, mut parts, rest) = object(names, SET)?;
        while !parts.is_empty() {
            let (_, part, others) = object(parts, SEQUENCE)?;
            let (_, kind, value) = any(part)?;
            let (tag, text, _) = any(value)?;
            if *kind == COMMON_NAME && TEXTS.contains(&tag) {
                found = Some(std::str::from_utf8(text).ok()?.to_owned());
            }
            parts = others;
        }
        names = rest;
    }
    found
}

fn object(bytes: &[u8], expected: u8) -> Option<Object<'_>> {
    any(bytes).filter(|(tag, ..)| *tag == expected)
}

fn any(bytes: &[u8]) -> Option<Object<'_>> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    // A length below 128, or how many bytes of it follow.
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}
