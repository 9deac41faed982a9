//! Frames that nobody should send to a port, as fast as it takes them.

#![expect(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "these are assertions of tests")]

use std::{
    fs,
    io::ErrorKind,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use fastrand::Rng;
use futures::future::join_all;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use crate::fuzz::changed;

/// How many connections send at a time.
const CONNECTIONS: u64 = 32;

/// How long the other side may leave something unread until the connection is given up: it may have ended without a word.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// How much more memory than before a process may have after hostile frames, in bytes.
pub const GROWTH_BYTES: u64 = 64 << 20;

/// What is sent to a port.
#[derive(Debug)]
pub struct Strike<'a> {
    /// The port.
    pub address: SocketAddr,
    /// What a connection has to begin with. It is changed now and then.
    pub opening: &'a [u8],
    /// How many frames one connection sends, at the most. What comes behind one that ends the connection is not looked at.
    pub frames_of_one: u64,
    /// What frames are made of.
    pub frames: &'a [Vec<u8>],
    /// Makes right what a frame has to have for the rest of it to be looked at: lengths and checksums.
    pub mend: fn(&mut Vec<u8>),
}

impl Strike<'_> {
    /// Sends so many frames, as `FRAMES` in the environment says, or else as said here. Tells how many there were.
    ///
    /// # Panics
    /// If nobody listens there any more.
    pub async fn run(&self, frames: u64) -> u64 {
        let frames = std::env::var("FRAMES").map_or(frames, |text| text.parse().expect("a number of frames"));
        let seed = fastrand::u64(..);
        println!("{frames} frames to {}, seed {seed}", self.address);
        let left = AtomicU64::new(frames);
        join_all((0..CONNECTIONS).map(|one| self.connections(&left, Rng::with_seed(seed ^ one)))).await;
        frames
    }

    async fn connections(&self, left: &AtomicU64, mut random: Rng) {
        let next = || left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        while left.load(Relaxed) > 0 {
            let mut stream = match TcpStream::connect(self.address).await {
                Ok(stream) => stream,
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    panic!("nobody listens any more: {error}")
                }
                // There is no place for it: others have to end first.
                Err(_) => {
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            // So many connections would take all ports for a minute otherwise.
            let _ = stream.set_zero_linger();
            let mut opening = self.opening.to_vec();
            if !opening.is_empty() && random.u8(..8) == 0 {
                opening = changed(&[opening], &mut random);
            }
            let mut sent = write(&mut stream, &opening).await;
            for _ in 0..random.u64(1..=self.frames_of_one) {
                if !sent || !next() {
                    break;
                }
                let mut frame = self.frames[random.usize(..self.frames.len())].clone();
                if random.u8(..8) > 0 {
                    frame = changed(self.frames, &mut random);
                }
                (self.mend)(&mut frame);
                sent = write(&mut stream, &frame).await;
            }
        }
    }
}

/// Whether all of it was taken. What comes back is read, so that the other side can go on.
async fn write(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    let mut answer = [0; 4096];
    while let Ok(read) = stream.try_read(&mut answer) {
        if read == 0 {
            return false;
        }
    }
    matches!(timeout(TAKEN_WITHIN, stream.write_all(bytes)).await, Ok(Ok(())))
}

/// How much memory this process has, in bytes.
pub fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a Linux with /proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    let kib: u64 = line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number of KiB");
    kib << 10
}
