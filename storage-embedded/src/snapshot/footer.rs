use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};

/// What is saved of a snapshot is a multiple of this long, before its hash, as etcd's files are.
const UNIT_BYTES: u64 = 512;

/// What follows a snapshot in a file that is saved: zeros up to a multiple of 512 bytes, and the SHA-256 of both, as etcd's clients save it.
#[derive(Clone, Debug, Default)]
pub struct SnapshotFooter {
    hash: Sha256,
    length: u64,
}

impl SnapshotFooter {
    /// How long a snapshot of so many bytes is with its footer.
    pub fn length_with_footer(length: u64) -> u64 {
        length.next_multiple_of(UNIT_BYTES) + 32
    }

    /// Takes the next bytes of the snapshot.
    pub fn update(&mut self, piece: &[u8]) {
        self.hash.update(piece);
        self.length += piece.len() as u64;
    }

    /// What follows them.
    #[expect(clippy::expect_used, reason = "what is less than a unit fits")]
    pub fn finish(mut self) -> Bytes {
        let zeros = self.length.next_multiple_of(UNIT_BYTES) - self.length;
        let mut footer = BytesMut::new();
        footer.put_bytes(0, usize::try_from(zeros).expect("less than a unit"));
        self.hash.update(&footer);
        footer.put_slice(&self.hash.finalize());
        footer.freeze()
    }
}
