//! Header blocks of HTTP/2 (RFC 7541), as far as it takes to write one anew without the table that its connection has: strings stay as they
//! were encoded, and of each only its length, and of the authority its value, is found out.

use std::{collections::VecDeque, sync::Arc};

/// The most bytes of a connection's table, as the server leaves it (RFC 9113, section 6.5.2).
const MAX_TABLE_BYTES: usize = 4096;

/// What an entry takes beside its name and its value (RFC 7541, section 4.1).
const ENTRY_BYTES: usize = 32;

/// The entry of the static table with the name `:authority`.
const AUTHORITY: usize = 1;

/// How long the names of the static table are, from entry 1 on (RFC 7541, appendix A).
const STATIC_NAMES: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13, 12, 6, 4,
    4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3, 16,
];

/// How many bits the codes of the 256 bytes have (RFC 7541, appendix B). Codes of one length follow each other in the order of their bytes,
/// so that the lengths say all.
const CODE_BITS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26,
];

const MAX_CODE_BITS: usize = 30;

/// The bytes in the order of their codes.
static BY_CODE: [u8; 256] = by_code();

/// How many codes there are of each length.
static CODES_OF: [u32; MAX_CODE_BITS + 1] = codes_of();

#[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "looked at by the compiler")]
const fn by_code() -> [u8; 256] {
    let (mut sorted, mut place, mut bits) = ([0; 256], 0, 1);
    while bits <= MAX_CODE_BITS {
        let mut byte = 0;
        while byte < 256 {
            if CODE_BITS[byte] as usize == bits {
                sorted[place] = byte as u8;
                place += 1;
            }
            byte += 1;
        }
        bits += 1;
    }
    sorted
}

#[expect(clippy::indexing_slicing, reason = "looked at by the compiler")]
const fn codes_of() -> [u32; MAX_CODE_BITS + 1] {
    let (mut codes, mut byte) = ([0; MAX_CODE_BITS + 1], 0);
    while byte < 256 {
        codes[CODE_BITS[byte] as usize] += 1;
        byte += 1;
    }
    codes
}

/// A block that nobody can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A field of a block.
#[derive(Clone, Debug)]
pub(crate) enum Field {
    /// An entry of the static table, with its value.
    Static(usize),
    Own(Arc<Own>),
}

/// A field whose value the client has written.
#[derive(Debug)]
pub(crate) struct Own {
    name: Name,
    /// Whether that is `:authority`.
    is_authority: bool,
    value: Text,
    /// What it takes in a table.
    bytes: usize,
}

#[derive(Clone, Debug)]
enum Name {
    Static(usize),
    Written(Text),
}

/// A string as it was encoded, with its length in front.
#[derive(Clone, Debug)]
struct Text(Box<[u8]>);

impl Field {
    /// The value of a field with the name `:authority`.
    pub(crate) fn authority(&self) -> Option<Vec<u8>> {
        let Self::Own(own) = self else { return None };
        own.is_authority.then(|| own.value.read().unwrap_or_default())
    }

    /// Writes it so that no table is needed to read it.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Static(place) => put_number(out, 0x80, 7, *place),
            Self::Own(own) => {
                match &own.name {
                    Name::Static(place) => put_number(out, 0, 4, *place),
                    Name::Written(name) => {
                        out.push(0);
                        out.extend_from_slice(&name.0);
                    }
                }
                out.extend_from_slice(&own.value.0);
            }
        }
    }
}

/// Writes `:authority`, which has fewer than 127 bytes.
pub(crate) fn put_authority(out: &mut Vec<u8>, value: &'static str) {
    put_number(out, 0, 4, AUTHORITY);
    put_number(out, 0, 7, value.len());
    out.extend_from_slice(value.as_bytes());
}

/// What a connection remembers of its fields.
#[derive(Debug)]
pub(crate) struct Table {
    /// The latest first.
    entries: VecDeque<Arc<Own>>,
    bytes: usize,
    most_bytes: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { entries: VecDeque::new(), bytes: 0, most_bytes: MAX_TABLE_BYTES }
    }
}

impl Table {
    /// The fields of a block, which change the table.
    pub(crate) fn read(&mut self, mut block: &[u8]) -> Result<Vec<Field>, Malformed> {
        let mut fields = Vec::new();
        while let Some(first) = block.first() {
            match first.leading_zeros() {
                0 => fields.push(self.field(number(&mut block, 7)?)?),
                1 => {
                    let field = Arc::new(self.own(&mut block, 6)?);
                    self.insert(Arc::clone(&field));
                    fields.push(Field::Own(field));
                }
                2 => {
                    self.most_bytes = number(&mut block, 5)?;
                    if self.most_bytes > MAX_TABLE_BYTES {
                        return Err(Malformed);
                    }
                    self.evict();
                }
                _ => fields.push(Field::Own(Arc::new(self.own(&mut block, 4)?))),
            }
        }
        Ok(fields)
    }

    fn own(&self, block: &mut &[u8], bits: u32) -> Result<Own, Malformed> {
        let (name, name_bytes, is_authority) = match number(block, bits)? {
            0 => {
                let (name, read) = text(block)?;
                (Name::Written(name), read.len(), read == b":authority")
            }
            place => match self.field(place)? {
                Field::Static(place) => (Name::Static(place), static_name(place)?, place == AUTHORITY),
                Field::Own(own) => (own.name.clone(), own.name.bytes()?, own.is_authority),
            },
        };
        let (value, read) = text(block)?;
        Ok(Own { name, is_authority, value, bytes: name_bytes + read.len() + ENTRY_BYTES })
    }

    fn field(&self, place: usize) -> Result<Field, Malformed> {
        match place.checked_sub(STATIC_NAMES.len() + 1) {
            None if place == 0 => Err(Malformed),
            None => Ok(Field::Static(place)),
            Some(place) => self.entries.get(place).cloned().map(Field::Own).ok_or(Malformed),
        }
    }

    fn insert(&mut self, own: Arc<Own>) {
        self.bytes += own.bytes;
        self.entries.push_front(own);
        // One that is larger than the table empties it, and is not kept.
        self.evict();
    }

    fn evict(&mut self) {
        while self.bytes > self.most_bytes {
            let Some(oldest) = self.entries.pop_back() else { break };
            self.bytes -= oldest.bytes;
        }
        debug_assert!(self.bytes <= self.most_bytes, "a table is as large as its entries");
    }
}

impl Name {
    fn bytes(&self) -> Result<usize, Malformed> {
        match self {
            Self::Static(place) => static_name(*place),
            Self::Written(name) => Ok(name.read()?.len()),
        }
    }
}

fn static_name(place: usize) -> Result<usize, Malformed> {
    STATIC_NAMES.get(place - 1).map(|bytes| usize::from(*bytes)).ok_or(Malformed)
}

impl Text {
    fn read(&self) -> Result<Vec<u8>, Malformed> {
        let mut rest = &*self.0;
        let is_coded = rest.first().is_some_and(|first| first & 0x80 != 0);
        number(&mut rest, 7)?;
        if is_coded { decode(rest) } else { Ok(rest.to_vec()) }
    }
}

/// A string, and what is read of it.
fn text(block: &mut &[u8]) -> Result<(Text, Vec<u8>), Malformed> {
    let whole = *block;
    let length = number(block, 7)?;
    let (_, rest) = block.split_at_checked(length).ok_or(Malformed)?;
    *block = rest;
    let (whole, _) = whole.split_at_checked(whole.len() - rest.len()).ok_or(Malformed)?;
    let text = Text(whole.into());
    let read = text.read()?;
    Ok((text, read))
}

/// Reads what was written with Huffman's codes.
fn decode(coded: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut decoded = Vec::with_capacity(coded.len() * 8 / 5);
    // The code so far, the first of its length, how many are shorter, and how long it is.
    let (mut code, mut first, mut shorter, mut bits) = (0u32, 0u32, 0u32, 0);
    for byte in coded {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            first <<= 1;
            bits += 1;
            let codes = *CODES_OF.get(bits).ok_or(Malformed)?;
            if code - first < codes {
                let place = usize::try_from(shorter + code - first).map_err(|_| Malformed)?;
                decoded.push(*BY_CODE.get(place).ok_or(Malformed)?);
                (code, first, shorter, bits) = (0, 0, 0, 0);
            } else {
                first += codes;
                shorter += codes;
            }
        }
    }
    // What is left is the beginning of a code that is all ones, and less than a byte.
    let is_padding = bits < 8 && code + 1 == 1 << bits;
    if is_padding { Ok(decoded) } else { Err(Malformed) }
}

/// A number in the last bits of a byte, and in those behind it (RFC 7541, section 5.1).
fn number(block: &mut &[u8], bits: u32) -> Result<usize, Malformed> {
    let (first, rest) = block.split_first().ok_or(Malformed)?;
    *block = rest;
    let most = (1usize << bits) - 1;
    let mut value = usize::from(*first) & most;
    if value < most {
        return Ok(value);
    }
    // Four bytes are more than any length or place that is taken.
    for shift in [0, 7, 14, 21] {
        let (next, rest) = block.split_first().ok_or(Malformed)?;
        *block = rest;
        value += usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

#[expect(clippy::cast_possible_truncation, reason = "what is left fits")]
fn put_number(out: &mut Vec<u8>, kind: u8, bits: u32, mut value: usize) {
    let most = (1usize << bits) - 1;
    if value < most {
        return out.push(kind | value as u8);
    }
    out.push(kind | most as u8);
    value -= most;
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<_> = hex.chars().filter(|digit| !digit.is_whitespace()).collect();
        digits.chunks(2).map(|two| u8::from_str_radix(&two.iter().collect::<String>(), 16).unwrap()).collect()
    }

    fn authorities(table: &mut Table, hex: &str) -> (usize, Vec<String>) {
        let fields = table.read(&bytes(hex)).unwrap();
        let shown = fields.iter().filter_map(Field::authority).map(|value| String::from_utf8(value).unwrap());
        (fields.len(), shown.collect())
    }

    /// RFC 7541, appendices C.3 and C.4: the same three requests, as they are and in Huffman's codes.
    #[test]
    fn the_examples_of_the_standard_are_read() {
        let plain = [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ];
        let coded = [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ];
        for requests in [plain, coded] {
            let mut table = Table::default();
            for (request, (fields, bytes)) in requests.into_iter().zip([(4, 57), (5, 110), (5, 164)]) {
                assert_eq!(authorities(&mut table, request), (fields, vec!["www.example.com".to_owned()]));
                assert_eq!(table.bytes, bytes);
            }
        }
    }

    #[test]
    fn what_is_written_anew_needs_no_table() {
        let (mut table, mut out) = (Table::default(), Vec::new());
        table.read(&bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff")).unwrap();
        for field in table.read(&bytes("8286 84be 4003 612d 6201 63")).unwrap() {
            field.put(&mut out);
        }
        let mut empty = Table::default();
        let fields = empty.read(&out).unwrap();
        assert_eq!((fields.len(), empty.entries.len()), (5, 0));
        assert_eq!(fields[3].authority().unwrap(), b"www.example.com");
    }

    #[test]
    fn a_table_keeps_no_more_than_it_may() {
        let mut table = Table::default();
        for _ in 0..100 {
            table.read(&[&[0x40, 1, b'a', 100][..], &[b'v'; 100]].concat()).unwrap();
        }
        assert_eq!(table.entries.len(), MAX_TABLE_BYTES / (101 + ENTRY_BYTES));
        table.read(&[0x20]).unwrap();
        assert_eq!((table.entries.len(), table.bytes), (0, 0));
    }

    #[test]
    fn what_nobody_can_read_is_refused() {
        // No such entry; a table that is too large; a string, a number and a code that are cut short; a number without end.
        for hex in ["80", "be", "3fe2 1f", "40 05 61", "7f", "00 82 ffff 00", "ff ffff ffff ff00"] {
            assert_eq!(Table::default().read(&bytes(hex)).map(|fields| fields.len()), Err(Malformed), "{hex}");
        }
    }
}
