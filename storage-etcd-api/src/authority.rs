//! Requests with an `:authority` that is none: `http://host:port`, as clients of Go 3.4 send it, or one with a percent sign, as those do that find
//! their servers by a resolver. Servers in Go do not look at it. The crate h2 ends the stream before the service sees the call: so the
//! authority is replaced in what the connection reads.
//!
//! As long as all authorities are right, every byte is passed on as it came. From the first wrong one on, the header blocks of the
//! connection are written anew, without the table that the client and h2 would have in common.

use std::io;

use axum::http::uri::Authority;
use bytes::{BufMut, BytesMut};

use crate::hpack::{self, Field, Table};

/// What a client sends first on a connection of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long the head of a frame is, and how long its rest may be as long as the server allows no more.
const HEAD_BYTES: usize = 9;
const MAX_FRAME_BYTES: usize = 16 << 10;

/// The longest header block, as it came and as it is written anew: more than the server takes.
const MAX_BLOCK_BYTES: usize = 64 << 10;

/// The most frames of a header block: what is longer than a frame comes in full ones, and all are looked at again with each that comes.
const MAX_FRAMES: usize = 2 * MAX_BLOCK_BYTES / MAX_FRAME_BYTES;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Which authority a request gets that has none. No service asks for it.
const IN_ITS_PLACE: &str = "localhost";

/// What a connection has sent so far, as far as it takes to find its header blocks.
#[derive(Debug, Default)]
pub(crate) struct Authorities {
    at: At,
    table: Table,
    /// A wrong authority has come: blocks are written anew.
    rewrites: bool,
}

#[derive(Debug)]
enum At {
    /// So many bytes of the preface have come.
    Preface(usize),
    /// The head of a frame and, of a header block, all its frames, held back until it is whole.
    Head(Vec<u8>),
    /// So many bytes of a frame are yet to come that is passed on.
    Passing(usize),
    /// Another protocol, or what h2 will refuse: all is passed on.
    Blind,
}

impl Default for At {
    fn default() -> Self {
        Self::Preface(0)
    }
}

impl Authorities {
    /// Whether so many bytes can be passed on without a look at them.
    pub(crate) fn passes(&mut self, bytes: usize) -> bool {
        match &mut self.at {
            At::Blind => true,
            At::Passing(left) if *left >= bytes => {
                *left -= bytes;
                true
            }
            _ => false,
        }
    }

    /// Takes in what has come, and writes what is to be read in its place.
    ///
    /// # Errors
    /// For a block that nobody can read, on a connection whose blocks are written anew.
    pub(crate) fn take(&mut self, mut input: &[u8], out: &mut BytesMut) -> io::Result<()> {
        while !input.is_empty() {
            match &mut self.at {
                At::Blind => {
                    out.extend_from_slice(input);
                    return Ok(());
                }
                At::Preface(come) => {
                    let (byte, rest) = (input.first(), input.get(1..).unwrap_or_default());
                    out.extend(byte.copied());
                    let is_right = PREFACE.get(*come) == byte;
                    *come += 1;
                    if !is_right {
                        self.at = At::Blind;
                    } else if *come == PREFACE.len() {
                        self.at = At::Head(Vec::new());
                    }
                    input = rest;
                }
                At::Passing(left) => {
                    let (passed, rest) = input.split_at((*left).min(input.len()));
                    out.extend_from_slice(passed);
                    *left -= passed.len();
                    input = rest;
                    if *left == 0 {
                        self.at = At::Head(Vec::new());
                    }
                }
                At::Head(held) => {
                    let wanted = wanted(held) - held.len();
                    let (taken, rest) = input.split_at(wanted.min(input.len()));
                    held.extend_from_slice(taken);
                    input = rest;
                    if held.len() >= HEAD_BYTES {
                        let held = std::mem::take(held);
                        self.go_on(held, out)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// With the head of a frame at least.
    fn go_on(&mut self, held: Vec<u8>, out: &mut BytesMut) -> io::Result<()> {
        let Some(frames) = frames(&held) else {
            return self.give_up(&held, out);
        };
        let Some(last) = frames.last() else { return Ok(()) };
        if frames.first().is_some_and(|first| first.kind != HEADERS) {
            out.extend_from_slice(&held);
            self.at = match last.missing {
                0 => At::Head(Vec::new()),
                missing => At::Passing(missing),
            };
            return Ok(());
        }
        let is_block = frames.iter().skip(1).all(|frame| frame.kind == CONTINUATION);
        if !is_block || held.len() > MAX_BLOCK_BYTES || frames.len() > MAX_FRAMES {
            return self.give_up(&held, out);
        }
        if last.missing > 0 || last.flags & END_HEADERS == 0 {
            self.at = At::Head(held);
            return Ok(());
        }
        let Some(fields) = block(&frames).and_then(|block| self.table.read(&block).ok()) else {
            return self.give_up(&held, out);
        };
        self.at = At::Head(Vec::new());
        let is_wrong = |field: &Field| field.authority().is_some_and(|value| Authority::try_from(&*value).is_err());
        self.rewrites |= fields.iter().any(is_wrong);
        if !self.rewrites {
            out.extend_from_slice(&held);
            return Ok(());
        }
        let mut block = Vec::new();
        for field in &fields {
            if is_wrong(field) {
                hpack::put_authority(&mut block, IN_ITS_PLACE)
            } else {
                field.put(&mut block)
            }
            // One byte of a block can stand for 4 KiB.
            if block.len() > MAX_BLOCK_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a header block is too long"));
            }
        }
        put_block(out, &frames, &block);
        Ok(())
    }

    /// H2 will say what is wrong with it, unless its table is not that of the client any more.
    fn give_up(&mut self, held: &[u8], out: &mut BytesMut) -> io::Result<()> {
        if self.rewrites {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a header block that nobody can read"));
        }
        out.extend_from_slice(held);
        self.at = At::Blind;
        Ok(())
    }
}

struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: &'a [u8],
    payload: &'a [u8],
    /// How many bytes of it are yet to come.
    missing: usize,
}

/// The frames that are held; `None` for one that is longer than a frame may be. The last need not be whole, and of what is passed on only
/// the head is there.
fn frames(held: &[u8]) -> Option<Vec<Frame<'_>>> {
    let (mut frames, mut rest) = (Vec::new(), held);
    while let Some((&[high, middle, low, kind, flags, ref stream @ ..], behind)) =
        rest.split_first_chunk::<HEAD_BYTES>()
    {
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        if length > MAX_FRAME_BYTES {
            return None;
        }
        let (payload, behind) = behind.split_at(length.min(behind.len()));
        frames.push(Frame { kind, flags, stream, payload, missing: length - payload.len() });
        rest = behind;
    }
    Some(frames)
}

/// How many bytes are to be held at the next look: to the end of a head, or of a frame of a header block.
fn wanted(held: &[u8]) -> usize {
    let mut whole = 0;
    while let Some(head) = held.get(whole..).and_then(|rest| rest.first_chunk::<HEAD_BYTES>()) {
        let [high, middle, low, ..] = head;
        whole += HEAD_BYTES + u32::from_be_bytes([0, *high, *middle, *low]) as usize;
    }
    if whole > held.len() { whole } else { whole + HEAD_BYTES }
}

/// The header block in these frames.
fn block(frames: &[Frame<'_>]) -> Option<Vec<u8>> {
    let mut block = Vec::new();
    for frame in frames {
        let mut part = frame.payload;
        if frame.kind == HEADERS {
            if frame.flags & PADDED != 0 {
                let (padding, rest) = part.split_first()?;
                part = rest.get(..rest.len().checked_sub(usize::from(*padding))?)?;
            }
            if frame.flags & PRIORITY != 0 {
                part = part.get(5..)?;
            }
        }
        block.extend_from_slice(part);
    }
    Some(block)
}

/// Writes another block in the place of that in these frames.
#[expect(clippy::expect_used, reason = "a part is no longer than a frame may be")]
fn put_block(out: &mut BytesMut, frames: &[Frame<'_>], block: &[u8]) {
    let Some(first) = frames.first() else { return };
    let (mut kind, mut flags, mut rest) = (HEADERS, first.flags & END_STREAM, block);
    loop {
        let (part, behind) = rest.split_at(rest.len().min(MAX_FRAME_BYTES));
        let is_last = behind.is_empty();
        let [_, high, middle, low] = u32::try_from(part.len()).expect("a frame is short").to_be_bytes();
        out.put_slice(&[high, middle, low, kind, if is_last { flags | END_HEADERS } else { flags }]);
        out.extend_from_slice(first.stream);
        out.extend_from_slice(part);
        if is_last {
            return;
        }
        (kind, flags, rest) = (CONTINUATION, 0, behind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn headers(authority: &str) -> Vec<u8> {
        let length = u8::try_from(authority.len()).unwrap();
        // POST, then the authority, which the table takes in.
        [&[0x83, 0x41, length], authority.as_bytes()].concat()
    }

    /// What comes out of it, whatever pieces it comes in.
    fn passed(frames: &[Vec<u8>]) -> Vec<u8> {
        let input = [PREFACE, &frames.concat()].concat();
        let mut outs = Vec::new();
        for size in [1, 7, input.len()] {
            let (mut authorities, mut out) = (Authorities::default(), BytesMut::new());
            for piece in input.chunks(size) {
                if authorities.passes(piece.len()) {
                    out.extend_from_slice(piece);
                } else {
                    authorities.take(piece, &mut out).unwrap();
                }
            }
            outs.push(out.to_vec());
        }
        assert!(outs.iter().all(|out| *out == outs[0]), "the pieces make no difference");
        outs.swap_remove(0)
    }

    #[test]
    fn what_is_right_is_passed_on_as_it_came() {
        let frames = [
            frame(4, 0, &[]),
            frame(HEADERS, END_HEADERS, &headers("127.0.0.1:2379")),
            frame(0, END_STREAM, &[7; 100]),
            frame(HEADERS, 0, &headers("a:1")[..3]),
            frame(CONTINUATION, END_HEADERS, &headers("a:1")[3..]),
            frame(HEADERS, END_HEADERS | PADDED | PRIORITY, &[&[1, 0, 0, 0, 0, 9][..], &headers("b:1"), &[0]].concat()),
        ];
        assert_eq!(passed(&frames), [PREFACE, &frames.concat()].concat());
    }

    #[test]
    fn a_wrong_authority_is_replaced_and_later_requests_need_no_table() {
        for wrong in ["http://127.0.0.1:2379", "%2Fdir%2Fname", "etcd:///dir"] {
            let frames = [
                frame(HEADERS, END_HEADERS, &headers("host:1")),
                frame(HEADERS, END_HEADERS | END_STREAM, &headers(wrong)),
                // The latest entry of the table, and the one before.
                frame(HEADERS, END_HEADERS, &[0x83, 0xbe]),
                frame(HEADERS, END_HEADERS, &[0x83, 0xbf]),
                frame(0, END_STREAM, b"data"),
            ];
            let replaced = [&[0x83, 0x01, 9][..], b"localhost"].concat();
            let expected = [
                frames[0].clone(),
                frame(HEADERS, END_HEADERS | END_STREAM, &replaced),
                frame(HEADERS, END_HEADERS, &replaced),
                frame(HEADERS, END_HEADERS, &[&[0x83, 0x01, 6][..], b"host:1"].concat()),
                frames[4].clone(),
            ];
            assert_eq!(passed(&frames), [PREFACE, &expected.concat()].concat(), "{wrong}");
        }
    }

    #[test]
    fn other_protocols_are_passed_on() {
        let (mut authorities, mut out) = (Authorities::default(), BytesMut::new());
        let request = b"POST /v3/kv/range HTTP/1.1\r\n\r\n";
        authorities.take(request, &mut out).unwrap();
        assert_eq!(out, request[..]);
        assert!(authorities.passes(1 << 20));
    }

    #[test]
    fn a_block_of_very_many_frames_is_not_looked_at() {
        let (mut authorities, mut out) = (Authorities::default(), BytesMut::new());
        let frames = |count| {
            let empty = frame(CONTINUATION, 0, &[]).repeat(count);
            [PREFACE, &frame(HEADERS, 0, &headers("http://a:1")), &empty].concat()
        };
        authorities.take(&frames(MAX_FRAMES - 1), &mut out).unwrap();
        assert_eq!(out[..], *PREFACE, "the block is held until it is whole");
        authorities.take(&frame(CONTINUATION, 0, &[]), &mut out).unwrap();
        assert_eq!(out, frames(MAX_FRAMES)[..], "h2 says what is wrong with it");
        assert!(authorities.passes(1 << 20));
    }

    #[test]
    fn what_is_written_anew_is_bounded() {
        let mut authorities = Authorities::default();
        let long = [&[0x40, 1, b'a', 0x7f, 0x91, 0x1e][..], &[b'v'; 4000 - 16]].concat();
        let frames = [frame(HEADERS, END_HEADERS, &[headers("%"), long].concat())];
        authorities.take(&[PREFACE, &frames.concat()].concat(), &mut BytesMut::new()).unwrap();
        let many = frame(HEADERS, END_HEADERS, &[0xbe; 1000]);
        assert!(authorities.take(&many, &mut BytesMut::new()).is_err());
    }
}
