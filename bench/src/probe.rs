//! What the machine itself can do.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{Error, Percentiles, Result, Workload, measure::Latencies};

/// How long each of the two measurements takes: some thousand samples on any machine worth measuring.
const DURATION: Duration = Duration::from_millis(400);

/// The size of the file that is overwritten: too large for a disk's smallest cache line, small enough to be written at once.
const FILE_BYTES: u64 = 8 * 1024 * 1024;

/// The size of one overwrite: a record of the log with a value of 128 bytes and a key.
const RECORD_BYTES: usize = 256;

/// The size of a message: a request with a value of 128 bytes.
const MESSAGE_BYTES: usize = 160;

/// What one durable write and one message cost on this machine, and so what no store can beat.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Physics {
    /// `fdatasync` after an overwrite of 256 bytes in blocks that are allocated already.
    pub fdatasync: Percentiles,
    /// A message of 160 bytes over TCP on the loopback interface, and back.
    pub round_trip: Percentiles,
}

/// Measurements at several times, since machines drift.
#[derive(Clone, Debug, Default)]
pub(crate) struct Probes {
    fdatasync: Latencies,
    round_trip: Latencies,
}

impl Probes {
    /// Measures once more.
    pub(crate) fn measure(&mut self, directory: &Path) -> Result<()> {
        self.fdatasync.add(&fdatasync(directory)?);
        self.round_trip.add(&round_trip()?);
        Ok(())
    }

    /// What all of them gave together.
    pub(crate) fn physics(&self) -> Physics {
        Physics { fdatasync: self.fdatasync.percentiles(), round_trip: self.round_trip.percentiles() }
    }
}

impl Physics {
    /// Measures both; the file is made in this directory and removed.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be written or the loopback interface cannot be used.
    pub fn measure(directory: &Path) -> Result<Self> {
        let mut probes = Probes::default();
        probes.measure(directory)?;
        Ok(probes.physics())
    }

    /// The requests per second that `clients` in a closed loop can reach at the very most: `clients * requests / time`, where
    /// an iteration of the workload takes the time of its durable writes (one `fdatasync` each) and of its messages: one round
    /// trip each to the store, and one more from the leader to a follower if there are both. A call within the process counts as a round trip
    /// if there is no other: it is handed to the storage's thread and back. Writes of several clients may share a sync, so this is
    /// no limit of the disk but of waiting. `None` if nothing has to be waited for: a read in the process of the only node.
    pub fn limit(&self, workload: Workload, clients: usize, nodes: usize, in_process: bool) -> Option<f64> {
        let trips = u32::from(!in_process) + u32::from(nodes > 1);
        let shape = workload.shape();
        let trips = if shape.writes > 0 { trips.max(1) } else { trips };
        let micros = self.fdatasync.p50_us * f64::from(shape.writes)
            + self.round_trip.p50_us * f64::from(trips) * f64::from(shape.requests);
        let clients = u32::try_from(clients).unwrap_or(u32::MAX);
        (micros > 0.0).then(|| f64::from(clients) * f64::from(shape.requests) * 1e6 / micros)
    }
}

fn fdatasync(directory: &Path) -> Result<Latencies> {
    let failed = || Error::at(directory);
    let mut file: File = tempfile::tempfile_in(directory).map_err(failed())?;
    let zeros = vec![0; 64 * 1024];
    let mut written = 0;
    while written < FILE_BYTES {
        file.write_all(&zeros).map_err(failed())?;
        written += 64 * 1024;
    }
    file.sync_all().map_err(failed())?;
    file.seek(SeekFrom::Start(0)).map_err(failed())?;
    let mut place = 0;
    sample(|turn| {
        if place + RECORD_BYTES as u64 > FILE_BYTES {
            place = file.seek(SeekFrom::Start(0))?;
        }
        // Different bytes each time, so that no layer below may leave the write out.
        file.write_all(&[turn; RECORD_BYTES])?;
        place += RECORD_BYTES as u64;
        file.sync_data()
    })
    .map_err(failed())
}

fn round_trip() -> Result<Latencies> {
    let failed = || Error::io("a connection over the loopback interface");
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed())?;
    let address = listener.local_addr().map_err(failed())?;
    // Ends when the other side does: at the end of this function.
    let echo = thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut message = [0; MESSAGE_BYTES];
        while stream.read_exact(&mut message).is_ok() {
            stream.write_all(&message)?;
        }
        Ok(())
    });
    let mut stream = TcpStream::connect(address).map_err(failed())?;
    stream.set_nodelay(true).map_err(failed())?;
    let mut message = [0; MESSAGE_BYTES];
    let latencies = sample(|turn| {
        stream.write_all(&[turn; MESSAGE_BYTES])?;
        stream.read_exact(&mut message)
    })
    .map_err(failed())?;
    drop(stream);
    let _ = echo.join();
    Ok(latencies)
}

fn sample(mut step: impl FnMut(u8) -> std::io::Result<()>) -> std::io::Result<Latencies> {
    let mut latencies = Latencies::default();
    let started = Instant::now();
    for turn in (0..=u8::MAX).cycle() {
        let before = Instant::now();
        step(turn)?;
        latencies.record(before.elapsed());
        if started.elapsed() >= DURATION {
            break;
        }
    }
    Ok(latencies)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHYSICS: Physics = Physics {
        fdatasync: Percentiles { p50_us: 100.0, p90_us: 100.0, p99_us: 100.0, p999_us: 100.0, max_us: 100.0 },
        round_trip: Percentiles { p50_us: 50.0, p90_us: 50.0, p99_us: 50.0, p999_us: 50.0, max_us: 50.0 },
    };

    #[test]
    fn the_limit_is_the_time_that_nobody_can_save() {
        let cases = [
            (Workload::Put, 1, true, Some(66_666.0)),
            (Workload::Put, 3, true, Some(66_666.0)),
            (Workload::Put, 3, false, Some(50_000.0)),
            (Workload::Get, 1, true, None),
            (Workload::Get, 3, true, Some(200_000.0)),
            (Workload::Cas, 3, true, Some(100_000.0)),
        ];
        for (workload, nodes, in_process, expected) in cases {
            let limit = PHYSICS.limit(workload, 10, nodes, in_process);
            assert_eq!(limit.map(f64::floor), expected, "{workload} on {nodes}, in process: {in_process}");
        }
    }

    #[test]
    fn the_machine_is_measured() {
        let directory = tempfile::tempdir().unwrap();
        let physics = Physics::measure(directory.path()).unwrap();
        assert!(physics.fdatasync.p50_us > 0.0 && physics.round_trip.p50_us > 0.0, "{physics:?}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left");
    }
}
