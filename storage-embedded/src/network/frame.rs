//! Frames: length (4 bytes), CRC-32C of the payload (4 bytes), payload. Integers are little-endian.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

const HEADER_BYTES: usize = 8;

/// How much is read from a socket at once, at least. Memory grows with the bytes that have come, never with a length that is only claimed.
const READ_BYTES: usize = 64 << 10;

/// Appends a frame whose payload `write` produces.
#[expect(clippy::expect_used, reason = "`write` only appends, and the limits of a transaction bound what it does")]
pub(crate) fn put_frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    write(out);
    let (_, frame) = out.split_at_mut(start);
    let (header, payload) = frame.split_first_chunk_mut::<HEADER_BYTES>().expect("a frame begins with its header");
    let length = u32::try_from(payload.len()).expect("a payload below 4 GiB");
    let (length_bytes, crc_bytes) = header.split_at_mut(4);
    length_bytes.copy_from_slice(&length.to_le_bytes());
    crc_bytes.copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
}

/// Reads frames off a byte stream.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    limit: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// `limit` is the longest frame that is taken, in bytes of its payload.
    pub(crate) fn new(stream: R, limit: usize) -> Self {
        Self { stream, buffer: BytesMut::new(), limit }
    }

    /// Takes frames up to this length from now on.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The next frame's payload; `None` when the stream has ended between two frames.
    ///
    /// # Errors
    /// `InvalidData` for a frame over the limit or with a wrong checksum, `UnexpectedEof` for one cut short.
    ///
    /// # Cancel safety
    /// Nothing that has been read is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(payload) = self.buffered()? {
                return Ok(Some(payload));
            }
            self.buffer.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// As [`FrameReader::next`], where the end of the stream is an error.
    pub(crate) async fn expect(&mut self) -> io::Result<Bytes> {
        self.next().await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// A whole frame that has already been read, if there is one.
    pub(crate) fn buffered(&mut self) -> io::Result<Option<Bytes>> {
        let Some((header, rest)) = self.buffer.split_at_checked(HEADER_BYTES) else { return Ok(None) };
        let (mut length, mut crc) = header.split_at(4);
        let (length, crc) = (usize::try_from(length.get_u32_le()).unwrap_or(usize::MAX), crc.get_u32_le());
        if length > self.limit {
            return Err(invalid(format!("a frame of {length} bytes, over the limit of {}", self.limit)));
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        if crc32c::crc32c(payload) != crc {
            return Err(invalid("a frame whose checksum is wrong".to_owned()));
        }
        self.buffer.advance(HEADER_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// An error for bytes that are not what they should be.
pub(crate) fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(bytes: &[u8]) -> io::Result<Vec<Bytes>> {
        let mut reader = FrameReader::new(bytes, 1000);
        let mut frames = Vec::new();
        while let Some(frame) = reader.next().await? {
            frames.push(frame);
        }
        Ok(frames)
    }

    fn sample() -> Vec<u8> {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, |out| out.extend_from_slice(b"first"));
        put_frame(&mut bytes, |_| {});
        put_frame(&mut bytes, |out| out.extend_from_slice(&[7; 1000]));
        bytes
    }

    #[tokio::test]
    async fn frames_survive() {
        assert_eq!(read_all(&sample()).await.unwrap(), [&b"first"[..], b"", &[7; 1000]]);
    }

    #[tokio::test]
    async fn every_cut_is_noticed_and_every_flipped_bit_is_refused_or_waits_for_more() {
        let whole = sample();
        for cut in 0..whole.len() {
            let at_a_boundary = [0, 13, 21].contains(&cut);
            assert_eq!(read_all(&whole[..cut]).await.is_ok(), at_a_boundary, "cut at {cut}");
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read_all(&flipped).await.is_err(), "bit {bit} flipped");
        }
    }

    #[tokio::test]
    async fn a_claimed_length_takes_no_memory() {
        let mut reader = FrameReader::new(&[0xff, 0xff, 0xff, 0x01, 0, 0, 0, 0, 1][..], 32 << 20);
        assert!(reader.next().await.is_err());
        assert!(reader.buffer.capacity() <= 2 * READ_BYTES);
    }
}
